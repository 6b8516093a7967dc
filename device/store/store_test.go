package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/nonce"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(); err != nil {
		t.Fatal(err)
	}
	return s
}

func sampleSet(release, ticket string) Set {
	return Set{
		ID: SetID(release, []byte(ticket)), Product: "exampleos-x86-64", OSVersion: "42.3", Baseline: Digest{1},
		Release: release, Label: "(a)", Level: 1, Ticket: []byte(ticket),
		Cryptexes: []Cryptex{
			{Name: "os", Subtype: 1, Image: Digest{2}, Size: 4096, Seal: Seal{Sum{3}, Sum{4}, 1}, TrustCache: Digest{5}},
			{Name: "web", Subtype: 2, Image: Digest{6}, Size: 8192, Seal: Seal{Sum{7}, Sum{8}, 2}, TrustCache: Digest{9}},
		},
	}
}

func addSet(t *testing.T, s *Store, release, ticket string) Set {
	t.Helper()
	set := sampleSet(release, ticket)
	if err := s.AddSet(set); err != nil {
		t.Fatal(err)
	}
	return set
}

func TestSetRoundTrip(t *testing.T) {
	s := newStore(t)
	want := addSet(t, s, "SI-2026-0001", "t1")
	got, err := s.SetByID(want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err := s.AddSet(want); err != nil {
		t.Errorf("writing it again: %v", err)
	}
}

func TestSetsThatAreRefused(t *testing.T) {
	s := newStore(t)
	for name, change := range map[string]func(*Set){
		"id leaves the folder": func(x *Set) { x.ID = "../x" },
		"hidden id":            func(x *Set) { x.ID = ".x" },
		"no cryptex":           func(x *Set) { x.Cryptexes = nil },
		"unsorted":             func(x *Set) { x.Cryptexes[0], x.Cryptexes[1] = x.Cryptexes[1], x.Cryptexes[0] },
		"twice":                func(x *Set) { x.Cryptexes[1] = x.Cryptexes[0] },
		"bad name":             func(x *Set) { x.Cryptexes[0].Name = "a/b" },
		"no size":              func(x *Set) { x.Cryptexes[0].Size = 0 },
		"no subtype":           func(x *Set) { x.Cryptexes[0].Subtype = 0 },
		"no ticket":            func(x *Set) { x.Ticket = nil },
		"huge ticket":          func(x *Set) { x.Ticket = make([]byte, maxTicket+1) },
	} {
		set := sampleSet("SI-2026-0001", "t1")
		change(&set)
		if err := s.AddSet(set); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if ids, _ := s.Sets(); len(ids) != 0 {
		t.Errorf("sets appeared: %v", ids)
	}
}

func TestSlots(t *testing.T) {
	s := newStore(t)
	for _, slot := range Slots {
		if _, err := s.Slot(slot); !errors.Is(err, ErrEmpty) {
			t.Errorf("%s of a new store: %v", slot, err)
		}
	}
	base, a := addSet(t, s, "", "t0"), addSet(t, s, "SI-2026-0001", "t1")
	for _, slot := range []Slot{Base, Current} {
		if err := s.Point(slot, base.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stage(a.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveSet(a.ID); err == nil {
		t.Error("a set in a slot was removed")
	}
	if err := s.Point(Next, "no-such"); err == nil {
		t.Error("slot points to a set that isn't there")
	}
	for want := FirstTries - 1; want >= 0; want-- {
		left, ok, err := s.TakeTry()
		if err != nil || !ok || left != want {
			t.Fatalf("try: %d %v %v, want %d", left, ok, err, want)
		}
	}
	if _, ok, err := s.TakeTry(); ok || err != nil {
		t.Errorf("a fourth try was given (%v)", err)
	}
	for range 2 { // idempotent
		if err := s.Promote(a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if s.SlotID(Current) != a.ID || s.SlotID(Previous) != base.ID || s.SlotID(Next) != "" {
		t.Errorf("after confirming: current %s previous %s next %s", s.SlotID(Current), s.SlotID(Previous), s.SlotID(Next))
	}
	if err := s.Promote(base.ID); err == nil {
		t.Error("a set that was not next was confirmed")
	}
}

func TestTriesOfAnotherSetDoNotCount(t *testing.T) {
	s := newStore(t)
	a, b := addSet(t, s, "SI-2026-0001", "t1"), addSet(t, s, "SI-2026-0002", "t2")
	if err := s.Stage(a.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Point(Next, b.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.TakeTry(); ok || err == nil {
		t.Error("tries of another set were used")
	}
	if err := os.WriteFile(s.path("tries.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.TakeTry(); ok || err == nil {
		t.Error("a broken count gave a try")
	}
}

func TestHostileSlot(t *testing.T) {
	s := newStore(t)
	for _, target := range []string{"/etc", "../../x", "sets/../..", "sets/", "sets/a/b"} {
		os.Remove(s.path("current"))
		if err := os.Symlink(target, s.path("current")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Slot(Current); err == nil || errors.Is(err, ErrEmpty) {
			t.Errorf("slot -> %q: %v", target, err)
		}
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	s := newStore(t)
	if err := os.WriteFile(s.path("version"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Root()); err == nil || fault.HintOf(err) == "" {
		t.Errorf("opened: %v", err)
	}
}

func TestDocumentsAreStrict(t *testing.T) {
	s := newStore(t)
	set := addSet(t, s, "SI-2026-0001", "t1")
	path := s.path("sets", set.ID, "set.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"newer":    bytes.Replace(whole, []byte("sealant.set/1"), []byte("sealant.set/2"), 1),
		"unknown":  bytes.Replace(whole, []byte(`"level"`), []byte(`"lever"`), 1),
		"trailing": append(bytes.Clone(whole), '1'),
		"cut":      whole[:len(whole)/2],
		"other id": bytes.Replace(whole, []byte(`"id": "SI`), []byte(`"id": "SJ`), 1),
		"upper":    bytes.Replace(whole, []byte(`"020000`), []byte(`"0A0000`), 1),
		"large":    append(bytes.Clone(whole), bytes.Repeat([]byte(" "), maxDocument)...),
	} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SetByID(set.ID); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := s.AddSet(set); err != nil { // a broken set is replaced
		t.Fatal(err)
	}
	if _, err := s.SetByID(set.ID); err != nil {
		t.Error(err)
	}
}

func TestLockExcludes(t *testing.T) {
	s := newStore(t)
	l, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(); fault.KindOf(err) != fault.Busy {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}

func TestHistory(t *testing.T) {
	s := newStore(t)
	if all, err := s.History(); err != nil || len(all) != 0 {
		t.Fatalf("new: %v %v", all, err)
	}
	for i := range 5 {
		err := s.Append(Record{Event: "staged", Reason: "install", Actor: "auto", Time: time.Unix(int64(i), 5)})
		if err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.History()
	if err != nil || len(all) != 5 || all[4].Seq != 5 || all[4].Prev == "" {
		t.Fatalf("%v %v", all, err)
	}
	whole, err := os.ReadFile(s.path("history"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, data := range map[string]string{
		"line dropped": strings.Join(append(lines[:1:1], lines[2:]...), ""),
		"line changed": strings.Replace(string(whole), "install", "removed", 1),
		"last changed": lines[0] + lines[1] + lines[2] + lines[3] + strings.Replace(lines[4], "auto", "user", 1),
		"end cut off":  lines[0] + lines[1] + lines[2],
		"emptied":      "",
	} {
		if err := os.WriteFile(s.path("history"), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.History(); fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A power cut in the middle of a line: the next record goes after the last whole one.
	if err := os.WriteFile(s.path("history"), append(whole, `{"seq":6,"ti`...), 0o644); err != nil {
		t.Fatal(err)
	}
	if all, err := s.History(); err != nil || len(all) != 5 {
		t.Errorf("half a line: %d %v", len(all), err)
	}
	if err := s.Append(Record{Event: "removed", Reason: "user", Actor: "user:0"}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.History(); err != nil || len(all) != 6 {
		t.Errorf("after a half line: %d %v", len(all), err)
	}
}

func TestBaseLinkStaysBelowRoot(t *testing.T) {
	s := newStore(t)
	base := s.BaseImagePath("web")
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := Digest{7}
	if s.HasImage(d) {
		t.Error("image before it is linked")
	}
	if err := s.LinkBase(d, "web"); err != nil {
		t.Fatal(err)
	}
	if got := s.ImagePath(d); got != base || !s.HasImage(d) {
		t.Errorf("ImagePath = %s, want %s", got, base)
	}
	f, err := s.OpenImage(d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if all, err := s.Images(); err != nil || len(all) != 1 || all[0] != d {
		t.Errorf("images: %v %v", all, err)
	}
	if err := s.RemoveImage(d); err != nil || s.HasImage(d) {
		t.Errorf("after removal: %v", err)
	}
	if _, err := os.Stat(base); err != nil {
		t.Errorf("the OS update's file went with the link: %v", err)
	}
}

func TestPendingLeavesNothing(t *testing.T) {
	s := newStore(t)
	p, err := s.NewImage(Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("half"))
	p.Close()
	p, err = s.NewImage(Digest{2})
	if err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("power cut")) // neither committed nor closed
	if ds, _ := s.Images(); len(ds) != 0 {
		t.Errorf("unfinished images are visible: %v", ds)
	}
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.path("images")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestIdentityIsPrivate(t *testing.T) {
	s := newStore(t)
	if err := s.WriteIdentityKey([]byte("pem")); err != nil {
		t.Fatal(err)
	}
	want, err := nonce.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteNonces(want); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{s.path("identity", "device.pem"), s.path("identity", "nonces.json")} {
		fi, err := os.Stat(p)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", p, fi, err)
		}
	}
	n, err := s.Nonces()
	if err != nil || n != want {
		t.Errorf("%v %v", n, err)
	}
}

func TestReserve(t *testing.T) {
	s := newStore(t)
	if err := s.Reserve(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(s.path("reserve")); err != nil || fi.Size() != reserveSize {
		t.Errorf("%v %v", fi, err)
	}
	if all, err := os.ReadDir(s.path("spare")); err != nil || len(all) != reserveInodes {
		t.Errorf("%d %v", len(all), err)
	}
	if err := os.Truncate(s.path("reserve"), 5000); err != nil { // there was no room for more
		t.Fatal(err)
	}
	if err := s.Reserve(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(s.path("reserve")); err != nil || fi.Size() != reserveSize {
		t.Errorf("%v %v", fi, err)
	}
	if err := s.ReleaseReserve(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"reserve", "spare"} {
		if _, err := os.Stat(s.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHistoryTellsAChangeOnce(t *testing.T) {
	s := newStore(t)
	for range 3 { // a crash between telling and marking the task
		if err := s.Append(Record{Event: "staged", Reason: "asked", Actor: "auto", Change: "c1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(Record{Event: "confirmed", Reason: "booted", Actor: "auto", Change: "c1"}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.History(); err != nil || len(all) != 2 {
		t.Errorf("%d %v", len(all), err)
	}
}

func TestScratchHasNoName(t *testing.T) {
	s := newStore(t)
	p, err := s.Scratch(4096)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.path("images")); len(left) != 0 {
		t.Errorf("%v", left)
	}
	if err := p.Commit(); err == nil {
		t.Error("committed")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Scratch(1 << 60); !errors.Is(err, ErrNoRoom) {
		t.Errorf("%v", err)
	}
}
