// Package evidence judges, over the whole fleet, whether an improvement makes
// apps crash. It compares devices that were offered it with devices that were
// not yet, day by day (internal/eprocess has the test, spec/evidence.md the text).
//
// It decides little: the mean over all watched apps can pause a rollout, and one
// app's evidence can propose it for the advice list, which a person then signs or
// not. Reports can be forged, so no count ever removes a fix; Proposal says from
// how many distinct reports it comes, since that is what a forger needs.
//
// The package is pure: counts in, judgement out. It is a room beside
// server/report, which takes reports and keeps their sums, because an operator
// can also judge counts that never were in a database (sealsrv evidence eval).
package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/eprocess"
)

// Limits of a document of strata.
const (
	MaxBytes = 64 << 20
	MaxApps  = 10_000
	MaxDays  = 1_000_000 // over all apps
)

// Strata are the counts of every watched app: the days of its strata.
type Strata map[string][]eprocess.Day

// day is eprocess.Day in a document; a missing member is not a zero.
type day struct {
	Day     string `json:"day"` // for people; not used
	Stratum *label `json:"stratum"`
	F1      *int64 `json:"f1"`
	F0      *int64 `json:"f0"`
	R1      *int64 `json:"r1"`
	R0      *int64 `json:"r0"`
}

// label is a text, or a number as its text.
type label string

func (l *label) UnmarshalJSON(data []byte) error {
	var number json.Number
	if err := json.Unmarshal(data, &number); err == nil {
		*l = label(number)
		return nil
	}
	return json.Unmarshal(data, (*string)(l))
}

// ParseStrata reads a JSON object of apps, each with the list of its days:
//
//	{"mail": [{"stratum": "42.3.0 amd64", "f1": 3, "f0": 10, "r1": 100, "r0": 9900}, …], …}
//
// The stratum is a label, a text or a number. The object may stand in a member "apps" of a document that has a schema of its
// own, "sealant.strata/1". Unknown members are refused, and so are an app that is
// named twice and a count that is missing.
func ParseStrata(data []byte) (Strata, error) {
	fail := func(err error) (Strata, error) { return nil, fmt.Errorf("cannot read the strata: %w", err) }
	if len(data) > MaxBytes {
		return fail(fmt.Errorf("more than %d bytes", MaxBytes))
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return fail(err)
	}
	if inner, ok := members["apps"]; ok && bytes.HasPrefix(bytes.TrimSpace(inner), []byte("{")) {
		for name, value := range members {
			if name != "apps" && (name != "schema" || string(value) != `"sealant.strata/1"`) {
				return fail(fmt.Errorf("member %q", name))
			}
		}
		data = inner
	}
	apps, err := uniqueMembers(data)
	if err != nil {
		return fail(err)
	}
	strata, total := make(Strata, len(apps)), 0
	for app, raw := range apps {
		var list []day
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&list); err != nil {
			return fail(fmt.Errorf("app %q: %w", app, err))
		}
		if total += len(list); total > MaxDays {
			return fail(fmt.Errorf("more than %d days", MaxDays))
		}
		days := make([]eprocess.Day, len(list))
		for i, d := range list {
			if d.Stratum == nil || d.F1 == nil || d.F0 == nil || d.R1 == nil || d.R0 == nil {
				return fail(fmt.Errorf("app %q, day %d: stratum, f1, f0, r1 and r0 must all be there", app, i+1))
			}
			days[i] = eprocess.Day{Stratum: string(*d.Stratum), F1: *d.F1, F0: *d.F0, R1: *d.R1, R0: *d.R0}
		}
		strata[app] = days
	}
	return strata, nil
}

// uniqueMembers reads an object whose members each appear once.
func uniqueMembers(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object of apps")
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name := key.(string) // in an object every other token is a name
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		if name == "" || len(members) == MaxApps {
			return nil, fmt.Errorf("an app without a name, or more than %d apps", MaxApps)
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more bytes after the document")
	}
	return members, nil
}

// App is the judgement about one app.
type App struct {
	App     string
	E       eprocess.E
	Rise    float64 // estimated ratio of the rates of first crashes, +Inf where only offered devices crashed
	Devices int64   // distinct offered devices that crashed
	Needed  float64 // E at which it is proposed
	Propose bool    // a person should look, and perhaps put it on the list
}

// Judgement is what the fleet's counts say of one improvement.
type Judgement struct {
	Apps  []App // sorted: the strongest evidence first, then by name
	Mean  eprocess.E
	Pause bool // the rollout should pause by itself
}

// Judge computes the test for every app; each of them counts as watched.
func (s Strata) Judge() (Judgement, error) {
	var j Judgement
	var es []eprocess.E
	needed := float64(max(len(s), 1)) / eprocess.ListLevel
	for app, days := range s {
		e, err := eprocess.Logrank(days)
		if err != nil {
			return Judgement{}, fmt.Errorf("cannot judge %s: %w", app, err)
		}
		a := App{App: app, E: e, Rise: eprocess.Rise(days), Needed: needed, Propose: eprocess.Proposes(e, days, len(s))}
		for _, d := range days {
			a.Devices += d.F1
		}
		j.Apps, es = append(j.Apps, a), append(es, e)
	}
	slices.SortFunc(j.Apps, func(a, b App) int {
		switch {
		case a.E.Log() > b.E.Log():
			return -1
		case a.E.Log() < b.E.Log():
			return 1
		}
		return strings.Compare(a.App, b.App)
	})
	j.Mean, j.Pause = eprocess.Mean(es), len(es) > 0 && eprocess.Pauses(es)
	return j, nil
}
