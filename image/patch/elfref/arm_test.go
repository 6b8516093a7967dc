package elfref

import "testing"

// TestConstants: branches on a condition that lead far are taken for constants
// among the code.
func TestConstants(t *testing.T) {
	for _, c := range []struct {
		word     uint32
		distance int64
		want     int
	}{
		{0xb4000000, 0x7ffc, 1}, {0xb4000000, 0x8000, 0}, {0x54000000, -0x8000, 1}, {0x54000000, -0x8004, 0},
		{0x58000000, 0x10000, 0}, {0x36000000, -0x8000, 1}, {0x94000000, 0x10000, 1},
	} {
		const addr = 0x100000
		w := ArmField(branchKind(c.word), c.word, addr+c.distance, addr, 0)
		e := &Element{Loads: Loads{List: []Load{{0, 0, 1 << 21, 1 << 21}}}, Size: 1 << 21, arm: true}
		found := &collector{Element: e}
		found.armCode(&section{addr: addr, off: addr}, le.AppendUint32(nil, w))
		if len(found.recs) != c.want {
			t.Errorf("%08x leads %d bytes on: %d references", w, c.distance, len(found.recs))
		}
	}
}
