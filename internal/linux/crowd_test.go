package linux

import "testing"

func TestCrowd(t *testing.T) {
	c := Crowd{Each: 2, All: 3}
	enter := func(uid int, want bool) func() {
		t.Helper()
		leave, ok := c.Enter(uid)
		if ok != want {
			t.Errorf("user %d: %v", uid, ok)
		}
		return leave
	}
	first := enter(7, true)
	second := enter(7, true)
	enter(7, false) // its share
	third := enter(8, true)
	enter(9, false) // all places are taken
	root := enter(0, true)
	first()
	first()
	fourth := enter(9, true)
	enter(7, false) // leaving twice gives one place
	for _, leave := range []func(){second, third, fourth} {
		leave()
	}
	if c.Empty() {
		t.Error("empty though root is there")
	}
	root()
	if !c.Empty() || len(c.here) != 0 || c.all != 0 {
		t.Errorf("%v %d", c.here, c.all)
	}
}
