package store

import (
	"os"
	"testing"
)

// TestOldState opens the state folders that earlier versions wrote.
func TestOldState(t *testing.T) {
	root := t.TempDir()
	s := Below(root)
	if err := os.MkdirAll(s.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.Dir(), os.DirFS("testdata/state-1")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	for slot, release := range map[Slot]string{Base: "", Current: "SI-2026-0001", Next: "SI-2026-0002", Previous: ""} {
		set, err := s.Slot(slot)
		if err != nil || set.Release != release || len(set.Cryptexes) != 2 || len(set.Ticket) == 0 {
			t.Errorf("%s: %+v %v", slot, set, err)
		}
	}
	if n, err := s.Tries(); err != nil || n != FirstTries {
		t.Errorf("tries: %d %v", n, err)
	}
	if records, err := s.History(); err != nil || len(records) != 4 {
		t.Errorf("history: %d records, %v", len(records), err)
	}
	if n, err := s.Nonces(); err != nil {
		t.Error(err)
	} else if _, ok := n.Prerolled(); !ok {
		t.Error("no nonce is prepared for what is staged")
	}
	if e, err := s.Enrolment(); err != nil || e.Product != "ExampleOS" {
		t.Errorf("enrolment: %+v %v", e, err)
	}
	if key, err := s.IdentityKey(); err != nil || len(key) == 0 {
		t.Error(err)
	}
	if m, err := s.Manifest("SI-2026-0002"); err != nil || len(m) == 0 {
		t.Error(err)
	}
	if images, err := s.Images(); err != nil || len(images) != 2 {
		t.Errorf("images: %v %v", images, err)
	}
	// It can be gone on with.
	if err := s.Append(Record{Event: "confirmed", Reason: "booted", Actor: "auto"}); err != nil {
		t.Error(err)
	}
	next := s.SlotID(Next)
	if _, ok, err := s.TakeTry(); !ok || err != nil {
		t.Error(err)
	}
	if err := s.Promote(next); err != nil || s.SlotID(Current) != next {
		t.Error(err)
	}
}
