package delta

import "testing"

// TestFixes: a place goes where the last fix of it says, any other where the
// projection does.
func TestFixes(t *testing.T) {
	q := NewPredictor(&Layout{Fixes: []Fix{{10, 100}, {20, 200}, {20, 201}, {30, -5}}})
	for p, want := range map[int64]int64{9: 9, 10: 100, 11: 11, 20: 201, 30: -5, 31: 31} {
		if got := q.Base(p); got != want {
			t.Errorf("%d goes to %d, not %d", p, got, want)
		}
	}
}
