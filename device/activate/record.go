package activate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// RecordSchema is the form of a boot record; spec/run.md describes it.
const RecordSchema = "sealant.boot/1"

// maxRecord bounds a boot record, in bytes.
const maxRecord = 1 << 20

// Record is what a boot chose, and why: /run/sealant/boot.json.
type Record struct {
	Schema      string            `json:"schema"`
	Boot        string            `json:"boot"` // the kernel's id of this boot
	Time        time.Time         `json:"time"` // by a clock that may be wrong
	Slot        store.Slot        `json:"slot"` // next, current, base, delivered; "" if nothing could be attached
	Set         string            `json:"set"`
	Release     string            `json:"release"` // "" is the baseline
	Label       string            `json:"label"`
	OSVersion   string            `json:"os_version"`
	Baseline    store.Digest      `json:"baseline"`
	TriesLeft   *int              `json:"tries_left,omitempty"` // of the set in next, if one was taken
	Enforcement Enforcement       `json:"enforcement"`
	Enforcing   []string          `json:"enforcing,omitempty"` // why it is not the kernel, and what else is to be known of it
	Cryptexes   []present.Content `json:"cryptexes"`           // what was attached
	Refused     []Refusal         `json:"refused"`             // what was passed over, in order
	Error       string            `json:"error,omitempty"`
}

// Refusal is why a slot, or one image, was not used.
type Refusal struct {
	Slot    store.Slot `json:"slot"` // "" for the whole state
	Set     string     `json:"set"`
	Release string     `json:"release"`
	Cryptex string     `json:"cryptex,omitempty"` // the one at fault
	File    string     `json:"file,omitempty"`    // its file
	Reason  string     `json:"reason"`            // a stable code, see the constants
	Text    string     `json:"text"`
}

// The reasons of a refusal that are no kind of failure.
const (
	ReasonBaseline = "other-baseline" // made for another baseline: inert
	ReasonTries    = "no-tries"       // never came up
	ReasonMissing  = "missing"        // a file is not there
	ReasonGuard    = "enforcement"    // policy wants the kernel to guard it, and it can't
	ReasonCounter  = "counter"        // the TPM's counter doesn't say that the nonces are the present ones
)

func newRecord(g guard) Record {
	id, _ := linux.BootID()
	return Record{
		Schema: RecordSchema, Boot: id, Time: time.Now().UTC().Truncate(time.Second), Enforcement: g.enforcement, Enforcing: g.notes(),
		Cryptexes: []present.Content{}, Refused: []Refusal{},
	}
}

func (r *Record) use(slot store.Slot, set store.Set, list []attached) {
	r.Slot, r.Set, r.Release, r.Label = slot, set.ID, set.Release, set.Label
	for _, a := range list {
		r.Cryptexes = append(r.Cryptexes, present.Content{Name: a.want.Name, Image: a.want.Image})
	}
}

func refusal(slot store.Slot, set store.Set, err error) Refusal {
	r := Refusal{Slot: slot, Set: set.ID, Release: set.Release, Reason: fault.KindOf(err).String(), Text: err.Error()}
	var image *imageError
	if errors.As(err, &image) {
		r.Cryptex, r.File = image.name, image.file
	}
	var tries *exhausted
	var counter *uncounted
	var weak *unguarded
	switch {
	case errors.As(err, &weak):
		r.Reason = ReasonGuard
	case errors.As(err, &counter):
		r.Reason = ReasonCounter
	case errors.As(err, &tries):
		r.Reason = ReasonTries
	case fault.KindOf(err) == fault.NotEligible:
		r.Reason = ReasonBaseline
	case errors.Is(err, os.ErrNotExist):
		r.Reason = ReasonMissing
	}
	return r
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// write puts the record where everybody finds it.
func (r *Record) write(st *store.Store) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the boot record: %w", err)
	}
	path := st.BootRecordPath()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot write the boot record: %w", err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot write the boot record: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("cannot write the boot record: %w", err)
	}
	return nil
}

// ReadRecord reads what the last boot chose. The error is os.ErrNotExist when
// sealant-boot has not run.
func ReadRecord(st *store.Store) (Record, error) {
	data, err := store.ReadFile(st.BootRecordPath(), maxRecord)
	if err != nil {
		return Record{}, fmt.Errorf("cannot read the boot record: %w", err)
	}
	return parseRecord(data)
}

func parseRecord(data []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("cannot read the boot record: %w", err)
	}
	if _, err := d.Token(); err != io.EOF || r.Schema != RecordSchema {
		return Record{}, fmt.Errorf("cannot read the boot record: it is not one %s document", RecordSchema)
	}
	switch r.Slot {
	case "", store.Next, store.Current, store.Base, Delivered:
		return r, nil
	}
	return Record{}, fmt.Errorf("cannot read the boot record: %q is no slot", r.Slot)
}
