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
		{0xb4000000, 0x7ffc, 1},
		{0xb4000000, 0x8000, 0},
		{0x54000000, -0x8000, 1},
		{0x54000000, -0x8004, 0},
		{0x58000000, 0x10000, 0},
		{0x36000000, -0x8000, 1},
		{0x94000000, 0x10000, 1},
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

// TestUsers: instructions use what an adrp has computed until the register holds
// something else.
func TestUsers(t *testing.T) {
	const adrp, use, away = 0x90000003, 0xb9400461, 0xb9400481 // x3; ldr w1, [x3, #4]; ldr w1, [x4, #4]
	for _, c := range []struct {
		name string
		word uint32
		want int // users
	}{
		{"nop", 0xd503201f, 2},
		{"mov x3, x1", 0xaa0103e3, 1},
		{"mov x1, x3", 0xaa0303e1, 2},
		{"mov w3, #1", 0x52800023, 1},
		{"str x3, [x1]", 0xf9000023, 2},
		{"ldr x3, [x1]", 0xf9400023, 1},
		{"ldr d3, [x1]", 0xfd400023, 2},
		{"add x3, x3, #8", 0x91002063, 2},
		{"bl", 0x94000001, 1},
		{"blr x9", 0xd63f0120, 1},
		{"br x9", 0xd61f0120, 2},
		{"b", 0x14000003, 2},
		{"adrp x3", adrp, 1},
		{"csel x3, x1, x2, eq", 0x9a820023, 1},
	} {
		var code []byte
		for _, w := range []uint32{adrp, use, c.word, use, away} {
			code = le.AppendUint32(code, w)
		}
		e := &Element{Loads: Loads{List: []Load{{0, 0, 1 << 21, 1 << 21}}}, Size: 1 << 21, arm: true}
		found := &collector{Element: e}
		found.page(&section{addr: 4096, off: 4096}, code, 0, adrp)
		users := 0
		for _, rec := range found.recs {
			if Class(rec>>24&255) == LowBits {
				users++
			}
		}
		if users != c.want {
			t.Errorf("%s: %d users, want %d", c.name, users, c.want)
		}
	}
}
