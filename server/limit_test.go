package server

import (
	"crypto/sha256"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestSeenRemembersForTheWholeWindow(t *testing.T) {
	s := newSeen(10 * time.Minute)
	for minute := range 100 {
		at := noon.Add(time.Duration(minute) * time.Minute)
		if s.again(sha256.Sum256([]byte{byte(minute)}), at) {
			t.Fatalf("%d was never here", minute)
		}
		for back := 0; back <= 9 && back <= minute; back++ {
			if !s.again(sha256.Sum256([]byte{byte(minute - back)}), at) {
				t.Fatalf("at minute %d the one of %d minutes ago is forgotten", minute, back)
			}
		}
		if n := len(s.kept.now) + len(s.kept.old); n > 60 {
			t.Fatalf("%d are kept", n)
		}
	}
}

func TestLimitsForgetTheQuiet(t *testing.T) {
	l := newLimits[int](time.Second, 3)
	for i := range 3 {
		if d := l.wait(1, noon); d != 0 {
			t.Fatalf("request %d must wait %s", i, d)
		}
	}
	for range 10 { // being refused does not push the moment further away
		if d := l.wait(1, noon); d <= 0 || d > time.Second {
			t.Fatalf("wait %s", d)
		}
	}
	if d := l.wait(2, noon); d != 0 {
		t.Errorf("another one must wait %s", d)
	}
	at := noon
	for i := range 1000 {
		at = at.Add(time.Second)
		l.wait(i+10, at)
	}
	if n := len(l.kept.now) + len(l.kept.old); n > 10 {
		t.Errorf("%d askers are kept", n)
	}
	if d := l.wait(1, at); d != 0 {
		t.Errorf("after a long silence it must wait %s", d)
	}
}
