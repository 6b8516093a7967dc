package eprocess

import (
	"testing"
	"time"
)

func TestQuiet(t *testing.T) {
	const h = time.Hour
	var q Quiet
	if got := q.Exposure(0, 3*h); got != 3*h {
		t.Fatalf("exposure before any crash is %v", got)
	}
	if !q.Crash(3 * h) {
		t.Fatal("the first crash must count")
	}
	for i := range 20 {
		if q.Crash(3*h + time.Duration(i)*time.Minute) {
			t.Fatalf("crash %d of a loop counts again", i)
		}
	}
	for _, c := range []struct{ from, to, want time.Duration }{
		{3 * h, 5 * h, 0},
		{6 * h, 7 * h, 0},
		{6 * h, 8 * h, 1 * h},
		{7 * h, 8 * h, 1 * h},
		{9 * h, 9 * h, 0},
		{9 * h, 8 * h, 0}, // a clock that went back
	} {
		if got := q.Exposure(c.from, c.to); got != c.want {
			t.Errorf("exposure of %v to %v is %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if q.Crash(7*h - 1) {
		t.Error("a crash just before the end of the refractory time counts")
	}
	if !q.Crash(7 * h) {
		t.Error("a crash at the end of the refractory time must count")
	}
}

func TestTopUp(t *testing.T) {
	for used, want := range map[time.Duration]time.Duration{
		0: time.Minute, 20 * time.Second: 40 * time.Second, time.Minute: 0, time.Hour: 0,
	} {
		if got := TopUp(used); got != want {
			t.Errorf("TopUp(%v) = %v, want %v", used, got, want)
		}
	}
}
