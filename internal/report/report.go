// Package report is what a device tells the vendor's server about itself when its
// person has agreed, and nothing more: two small documents, shown to the person
// byte for byte before. spec/analytics.md is the specification.
//
// Parties: the device encodes, the server parses; neither trusts the other. A
// report carries no device id, no time of day, no address, path or stack, and
// belongs to no other report. Its only random part is Name, made anew for each
// report, so that one that was sent twice is counted once. A server must
// not keep what it learns beside the document (the sender's address), must refuse
// what is not exactly a document's canonical form, and must not show a count of
// fewer than Suppress devices.
//
// The package is internal because both halves that must not know each other need
// one codec: the device (device/analytics) and the server (server/report).
package report

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealant-os/sealant/internal/pattern"
)

// Schemas of the two documents.
const (
	DailySchema          = "sealant.daily/1"
	RecommendationSchema = "sealant.recommendation/1"
)

// Limits.
const (
	MaxBytes = 16 << 10 // of a document
	MaxApps  = 64       // in one daily report
	NameSize = 16       // bytes of a report's random name
	Suppress = 10       // counts below this are not shown to anybody
)

// The arms of a rollout, by what was offered, not by what was installed.
const (
	Offered = "offered"
	Control = "control"
)

// What became of a recommendation.
const (
	Shown     = "shown"
	Accepted  = "accepted"
	Dismissed = "dismissed"
)

// Daily is one UTC day of one device under one improvement's rollout. It is
// encoded with its members in this order, without white space.
type Daily struct {
	Schema      string `json:"schema"`
	Name        string `json:"name"`        // random, hexadecimal
	Improvement string `json:"improvement"` // SI-2026-0007
	OSBuild     string `json:"os_build"`    // 42.3.0
	Arch        string `json:"arch"`        // amd64
	Arm         string `json:"arm"`         // offered or control
	Day         string `json:"day"`         // 2026-11-23
	Apps        []App  `json:"apps"`        // sorted by id, at least one
}

// App is two bits about one app that the vendor watches.
type App struct {
	App        string `json:"app"`
	AtRisk     bool   `json:"at_risk"`     // it was used that day and had not crashed since the rollout began
	FirstCrash bool   `json:"first_crash"` // its first crash since then was on that day
}

// Recommendation is one moment of one question to a person.
type Recommendation struct {
	Schema      string `json:"schema"`
	Name        string `json:"name"`
	Improvement string `json:"improvement"`
	App         string `json:"app"`
	Outcome     string `json:"outcome"` // shown, accepted or dismissed
}

// Encode checks the document and returns the bytes to send.
func (d Daily) Encode() ([]byte, error) { return encode(&d) }

// Encode checks the document and returns the bytes to send.
func (r Recommendation) Encode() ([]byte, error) { return encode(&r) }

// Parse reads one document: exactly one of the results is not nil.
func Parse(data []byte) (*Daily, *Recommendation, error) {
	if len(data) > MaxBytes {
		return nil, nil, fmt.Errorf("cannot read the report: more than %d bytes", MaxBytes)
	}
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, nil, fmt.Errorf("cannot read the report: %w", err)
	}
	switch head.Schema {
	case DailySchema:
		d := new(Daily)
		return d, nil, parse(data, d)
	case RecommendationSchema:
		r := new(Recommendation)
		return nil, r, parse(data, r)
	}
	return nil, nil, fmt.Errorf("cannot read the report: schema %q is unknown", head.Schema)
}

type document interface{ check() error }

func encode(d document) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("cannot write the report: %w", err)
	}
	data, err := json.Marshal(d)
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("%d bytes, at most %d", len(data), MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the report: %w", err)
	}
	return data, nil
}

func parse(data []byte, d document) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(d)
	if err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = errors.New("more bytes after the document")
		}
	}
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return fmt.Errorf("cannot read the report: %w", err)
	}
	if again, err := json.Marshal(d); err != nil || !bytes.Equal(again, data) {
		return errors.New("cannot read the report: not in canonical form")
	}
	return nil
}

var (
	improvements = pattern.Lazy(`^SI-[0-9]{4}-[0-9]{4,6}$`)
	builds       = pattern.Lazy(`^[0-9A-Za-z][0-9A-Za-z._+~-]{0,63}$`)
	archs        = pattern.Lazy(`^[a-z0-9_]{1,16}$`)
	apps         = pattern.Lazy(`^[0-9A-Za-z._/@:+-]{1,128}$`)
)

func (d *Daily) check() error {
	if d.Schema != DailySchema {
		return fmt.Errorf("schema %q", d.Schema)
	}
	if err := checkCommon(d.Name, d.Improvement); err != nil {
		return err
	}
	day, err := time.Parse(time.DateOnly, d.Day)
	switch {
	case err != nil || day.Format(time.DateOnly) != d.Day:
		return fmt.Errorf("day %q", d.Day)
	case !builds.MatchString(d.OSBuild):
		return fmt.Errorf("os_build %q", d.OSBuild)
	case !archs.MatchString(d.Arch):
		return fmt.Errorf("arch %q", d.Arch)
	case d.Arm != Offered && d.Arm != Control:
		return fmt.Errorf("arm %q", d.Arm)
	case len(d.Apps) == 0 || len(d.Apps) > MaxApps:
		return fmt.Errorf("%d apps, want 1 to %d", len(d.Apps), MaxApps)
	}
	for i, a := range d.Apps {
		if !apps.MatchString(a.App) {
			return fmt.Errorf("app %q", a.App)
		}
		if i > 0 && d.Apps[i-1].App >= a.App {
			return errors.New("apps are not sorted")
		}
		if a.FirstCrash && !a.AtRisk {
			return fmt.Errorf("app %q crashed first without being at risk", a.App)
		}
	}
	return nil
}

func (r *Recommendation) check() error {
	if r.Schema != RecommendationSchema {
		return fmt.Errorf("schema %q", r.Schema)
	}
	if err := checkCommon(r.Name, r.Improvement); err != nil {
		return err
	}
	if !apps.MatchString(r.App) {
		return fmt.Errorf("app %q", r.App)
	}
	if r.Outcome != Shown && r.Outcome != Accepted && r.Outcome != Dismissed {
		return fmt.Errorf("outcome %q", r.Outcome)
	}
	return nil
}

func checkCommon(name, improvement string) error {
	if raw, err := hex.DecodeString(name); err != nil || len(raw) != NameSize || hex.EncodeToString(raw) != name {
		return fmt.Errorf("name %q is not %d bytes in lower-case hex", name, NameSize)
	}
	if !improvements.MatchString(improvement) {
		return fmt.Errorf("improvement %q", improvement)
	}
	return nil
}
