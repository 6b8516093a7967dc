package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Slot is a role that a set plays. Each is one symbolic link to sets/ID.
type Slot string

// The slots.
const (
	Base     Slot = "base"     // what the OS update installed; its ticket has no nonce
	Current  Slot = "current"  // what the last confirmed boot used
	Next     Slot = "next"     // staged: what the next boot tries
	Previous Slot = "previous" // what was current before; for eyes, its ticket is dead
)

// Slots lists all of them.
var Slots = []Slot{Base, Current, Next, Previous}

// Slot reads the set in a slot; ErrEmpty if there is none.
func (s *Store) Slot(slot Slot) (Set, error) {
	id, err := s.slotID(slot)
	if err != nil {
		return Set{}, err
	}
	return s.SetByID(id)
}

func (s *Store) slotID(slot Slot) (string, error) {
	if err := slot.check(); err != nil {
		return "", err
	}
	target, err := os.Readlink(s.path(string(slot)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", slot, ErrEmpty)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read slot %s: %w", slot, err)
	}
	id, ok := strings.CutPrefix(target, "sets/")
	if !ok || checkWord(id) != nil {
		return "", fmt.Errorf("cannot read slot %s: it points to %q", slot, target)
	}
	return id, nil
}

func (slot Slot) check() error {
	switch slot {
	case Base, Current, Next, Previous:
		return nil
	}
	return fmt.Errorf("%q is not a slot", string(slot))
}

// SlotID is the id in a slot, "" if it is empty or unreadable.
func (s *Store) SlotID(slot Slot) string {
	id, err := s.slotID(slot)
	if err != nil {
		return ""
	}
	return id
}

// Point puts a written set into a slot, in one step, or empties the slot when
// id is "". It is idempotent. Use Stage for Next.
func (s *Store) Point(slot Slot, id string) error {
	if err := slot.check(); err != nil {
		return err
	}
	if id == "" {
		if err := remove(s.path(string(slot))); err != nil {
			return fmt.Errorf("cannot empty slot %s: %w", slot, err)
		}
		return nil
	}
	if _, err := s.SetByID(id); err != nil {
		return fmt.Errorf("cannot switch slot %s: %w", slot, err)
	}
	if err := link(s.path(string(slot)), filepath.Join("sets", id)); err != nil {
		return fmt.Errorf("cannot switch slot %s: %w", slot, err)
	}
	return nil
}

// FirstTries is how many boots a staged set is given to come up.
const FirstTries = 3

const triesSchema = "sealant.tries/1"

// tries is bound to a set, so that counts of an older staging never apply.
type tries struct {
	Schema string `json:"schema"`
	Set    string `json:"set"`
	Left   int    `json:"left"`
}

// Stage puts a set into Next with fresh tries. The tries are written first: a
// crash in between leaves Next as it was.
func (s *Store) Stage(id string) error {
	if s.SlotID(Next) == id {
		if n, err := s.Tries(); err == nil && n == FirstTries {
			return nil
		}
	}
	if err := writeDocument(s.path("tries.json"), tries{triesSchema, id, FirstTries}, 0o644); err != nil {
		return err
	}
	return s.Point(Next, id)
}

// Tries is how many boots the set in Next has left: 0 when the count is
// missing, unreadable or another set's, because then it can't be trusted.
func (s *Store) Tries() (int, error) {
	id, err := s.slotID(Next)
	if err != nil {
		return 0, err
	}
	var t tries
	if err := readDocument(s.path("tries.json"), triesSchema, &t); err != nil {
		return 0, err
	}
	if t.Set != id {
		return 0, fmt.Errorf("tries are of set %s, not of %s", t.Set, id)
	}
	if t.Left < 0 || t.Left > FirstTries {
		return 0, fmt.Errorf("%d tries left, want 0 to %d", t.Left, FirstTries)
	}
	return t.Left, nil
}

// TakeTry uses up one boot of the set in Next, durably and read back, before
// anything of that set is looked at. It reports the tries that are left after
// this one, and false if there was none to take (then Next must not be used).
func (s *Store) TakeTry() (left int, ok bool, err error) {
	n, err := s.Tries()
	if err != nil || n == 0 {
		return 0, false, err
	}
	id, err := s.slotID(Next)
	if err != nil {
		return 0, false, err
	}
	if err := s.countDown(tries{triesSchema, id, n - 1}); err != nil {
		return 0, false, err
	}
	back, err := s.Tries()
	if err != nil || back != n-1 {
		return 0, false, fmt.Errorf("cannot count a try: %d was read back (%w)", back, err)
	}
	return n - 1, true, nil
}

// countDown writes tries that differ from those on the disk in one digit. A device
// whose disk is full must come up all the same: where there is no room for another
// file, that one is written over, which takes none. It is one sector of the disk, so
// a power cut leaves the old count or the new one.
func (s *Store) countDown(t tries) error {
	path := s.path("tries.json")
	err := writeDocument(path, t, 0o644)
	if !NoSpace(err) {
		return err
	}
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(data, '\n'), 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// Promote makes Next the Current set, once it has booted and was confirmed:
// one rename, so Next is empty and Current new, or neither. The nonce must
// have been rolled before (see spec/state.md). It is idempotent: with the set
// id already in Current it does nothing.
func (s *Store) Promote(id string) error {
	fail := func(err error) error { return fmt.Errorf("cannot confirm set %s: %w", id, err) }
	if s.SlotID(Next) != id {
		if s.SlotID(Current) == id {
			return nil
		}
		return fail(fmt.Errorf("next is %q", s.SlotID(Next)))
	}
	if cur := s.SlotID(Current); cur != "" && cur != id {
		if err := link(s.path(string(Previous)), filepath.Join("sets", cur)); err != nil {
			return fail(err)
		}
	}
	if err := os.Rename(s.path(string(Next)), s.path(string(Current))); err != nil {
		return fail(err)
	}
	if err := syncDir(s.dir); err != nil {
		return fail(err)
	}
	return nil
}
