// Package analytics keeps what a person agreed to share, and what waits to be
// sent because of it. internal/report is the form of what is sent, byte for byte;
// spec/analytics.md is the specification.
//
// Parties: the person decides, with two switches that are off until switched on:
// for this device, and for other devices that report through it. Policy can only
// forbid. The vendor's server gets reports that name no device and come from none:
// no id, no signature, no connection that is used for anything else.
//
// The rules: nothing is kept for sending while a switch is off; what was agreed is
// looked at again at the moment of sending; switching off throws away what waits;
// switching on counts from the next UTC day, never for anything before; a report
// leaves at a random moment within a day after it was made, so that its moment says
// nothing. Sending is no part of anything's success.
package analytics

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/internal/report"
)

// Limits of the state.
const (
	maxState   = 512 << 10          // bytes on disk
	maxWaiting = 128                // reports; beyond it the oldest go
	MaxDelay   = 24 * time.Hour     // a report leaves within so long after it was made
	Stale      = 4 * 24 * time.Hour // a report that could not be sent for so long is thrown away
)

const schema = "sealant.analytics/1"

// Origin says whose report it is.
type Origin string

// The origins, each with its switch.
const (
	Own    Origin = "device" // this device's
	Paired Origin = "paired" // of another one that reports through this one
)

// Desk is the state on disk: one small file, replaced as a whole under a lock, so
// that several processes see the same switches at any moment.
type Desk struct {
	dir  string
	Rand io.Reader // for delays and names
}

type state struct {
	Schema  string            `json:"schema"`
	Since   map[Origin]string `json:"since"`   // the first UTC day that may be told; no entry while off
	Built   string            `json:"built"`   // the last UTC day that was looked at, "" for none
	Offered map[string]bool   `json:"offered"` // what was offered at the end of that day
	Waiting []waiting         `json:"waiting"`
	Tokens  []string          `json:"tokens,omitempty"` // unspent, oldest first
	Asked   string            `json:"asked,omitempty"`  // the UTC day for which tokens were asked last
	Tried   time.Time         `json:"tried,omitzero"`   // when that was tried last, and failed
}

// waiting is a report that was not sent yet.
type waiting struct {
	Origin Origin    `json:"origin"`
	Made   time.Time `json:"made"`
	Due    time.Time `json:"due"`
	Body   string    `json:"body"`            // the exact bytes
	Token  string    `json:"token,omitempty"` // that it spends, once there was a try
}

// Open is the desk in dir, which need not exist yet.
func Open(dir string) *Desk { return &Desk{dir: dir, Rand: rand.Reader} }

// read reads the state. One that does not read is an error and "nothing agreed".
func (d *Desk) read() (state, error) {
	data, err := store.ReadFile(filepath.Join(d.dir, "state.json"), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return empty(), nil
	}
	var s state
	if err == nil {
		s, err = parse(data)
	}
	if err != nil {
		return empty(), fmt.Errorf("cannot read what was agreed to share, so nothing is: %w", err)
	}
	return s, nil
}

func empty() state {
	return state{Schema: schema, Since: map[Origin]string{}, Offered: map[string]bool{}, Waiting: []waiting{}}
}

func parse(data []byte) (state, error) {
	var s state
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return s, errors.New("more bytes after the document")
	}
	if s.Schema != schema || s.Since == nil || s.Offered == nil || len(s.Waiting) > maxWaiting {
		return s, fmt.Errorf("not a document of %s", schema)
	}
	for o, day := range s.Since {
		if o != Own && o != Paired || !isDay(day) {
			return s, fmt.Errorf("since %q of %q", day, o)
		}
	}
	if s.Built != "" && !isDay(s.Built) {
		return s, fmt.Errorf("day %q", s.Built)
	}
	if err := s.checkTokens(); err != nil {
		return s, err
	}
	for _, w := range s.Waiting {
		if _, on := s.Since[w.Origin]; !on {
			return s, fmt.Errorf("a report of %q waits although nobody agreed", w.Origin)
		}
		if _, _, err := report.Parse([]byte(w.Body)); err != nil {
			return s, err
		}
	}
	return s, nil
}

func isDay(s string) bool {
	t, err := time.Parse(time.DateOnly, s)
	return err == nil && t.Format(time.DateOnly) == s
}

// On reports whether a switch is on, and from which UTC day on it counts.
func (d *Desk) On(o Origin) (since string, on bool, err error) {
	s, err := d.read()
	since, on = s.Since[o]
	return since, on, err
}

// Switch turns a switch. On counts from the next UTC day; off throws away what
// waits, at once and durably. Turning one to where it is does nothing.
func (d *Desk) Switch(o Origin, on bool, now time.Time) error {
	if o != Own && o != Paired {
		return fmt.Errorf("cannot switch %q: there is no such switch", o)
	}
	return d.change(func(s *state) bool {
		if _, was := s.Since[o]; was == on {
			return false
		}
		if on {
			s.Since[o] = now.UTC().AddDate(0, 0, 1).Format(time.DateOnly)
			return true
		}
		delete(s.Since, o)
		s.purge(o)
		if len(s.Since) == 0 {
			s.Tokens, s.Asked, s.Tried = nil, "", time.Time{}
		}
		return true
	})
}

func (s *state) purge(o Origin) {
	kept := []waiting{}
	for _, w := range s.Waiting {
		if w.Origin != o {
			kept = append(kept, w)
		}
	}
	s.Waiting = kept
}

// change does something to the state and writes it, alone among all processes;
// what could not be written did not happen. A state that does not read is replaced.
func (d *Desk) change(do func(*state) bool) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep what is shared: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(d.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep what is shared: %w", err)
	}
	defer lock.Close() // and so unlock
	if err := linux.Lock(context.Background(), lock); err != nil {
		return fmt.Errorf("cannot keep what is shared: %w", err)
	}
	s, _ := d.read()
	if !do(&s) {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(data) >= maxState {
		return fmt.Errorf("cannot keep reports: %d bytes, the limit is %d", len(data), maxState)
	}
	return store.WriteFile(filepath.Join(d.dir, "state.json"), append(data, '\n'), 0o600)
}

// Name makes the random name of a report.
func (d *Desk) Name() (string, error) {
	var b [report.NameSize]byte
	if _, err := io.ReadFull(d.Rand, b[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", b), nil
}

// Add puts a report among those that wait, if its switch is on and it is about a
// day from which that counts; kept says whether it was.
func (d *Desk) Add(o Origin, body []byte, now time.Time) (kept bool, err error) {
	daily, _, err := report.Parse(body)
	if err != nil {
		return false, err
	}
	day := now.UTC().Format(time.DateOnly)
	if daily != nil {
		day = daily.Day
	}
	delay, err := rand.Int(d.Rand, big.NewInt(int64(MaxDelay)))
	if err != nil {
		return false, err
	}
	err = d.change(func(s *state) bool {
		since, on := s.Since[o]
		if kept = on && day >= since; !kept {
			return false
		}
		s.Waiting = append(s.Waiting, waiting{Origin: o, Made: now.UTC(), Due: now.UTC().Add(time.Duration(delay.Int64())), Body: string(body)})
		s.Waiting = s.Waiting[max(0, len(s.Waiting)-maxWaiting):]
		return true
	})
	return kept && err == nil, err
}

// Waiting lists the exact bytes of what waits to be sent.
func (d *Desk) Waiting(o Origin) ([][]byte, error) {
	s, err := d.read()
	var list [][]byte
	for _, w := range s.Waiting {
		if w.Origin == o {
			list = append(list, []byte(w.Body))
		}
	}
	return list, err
}

// Send sends what is due, one report after the other. What the switches say is
// looked at before each, on disk: another process may have turned one. send
// returns whether the report is done with, sent or refused for good; what is not
// is tried again until it is Stale. forbidden (by policy) counts as switched off.
// With tokens each report spends one, and waits until there is one.
func (d *Desk) Send(now time.Time, forbidden, tokens bool, send func(body []byte, token string) (done bool)) error {
	for {
		next, ok, err := d.due(now, forbidden, tokens)
		if err != nil || !ok {
			return err
		}
		done := send([]byte(next.Body), next.Token)
		if err := d.change(func(s *state) bool { return s.settle(next, done, now) }); err != nil {
			return err
		}
		if !done {
			return nil // later
		}
	}
}

// due finds the next report that may be sent now, and gives it a token.
func (d *Desk) due(now time.Time, forbidden, tokens bool) (next waiting, ok bool, err error) {
	err = d.change(func(s *state) bool {
		before := len(s.Waiting)
		for _, o := range []Origin{Own, Paired} {
			if _, on := s.Since[o]; !on || forbidden {
				s.purge(o)
			}
		}
		changed := len(s.Waiting) != before
		for i := range s.Waiting {
			w := &s.Waiting[i]
			// A clock that was set back must not hold a report for years.
			if w.Due.After(now) && !w.Made.After(now.Add(MaxDelay)) {
				continue
			}
			if !tokens {
				next, ok = *w, true
				break
			}
			gave, can := s.give(w, now)
			changed = changed || gave
			if can {
				next, ok = *w, true
			}
			break // where the oldest finds no token, none does
		}
		return changed
	})
	return next, ok && err == nil, err
}

// settle takes a report out that is done with, or puts one off that is not.
func (s *state) settle(w waiting, done bool, now time.Time) bool {
	for i := range s.Waiting {
		x := &s.Waiting[i]
		if x.Body != w.Body || x.Origin != w.Origin {
			continue
		}
		if done || now.Sub(x.Made) > Stale || x.Made.Sub(now) > Stale {
			s.Waiting = append(s.Waiting[:i], s.Waiting[i+1:]...)
		} else {
			x.Due = now.UTC().Add(time.Hour)
		}
		return true
	}
	return false
}
