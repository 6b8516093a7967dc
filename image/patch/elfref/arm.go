package elfref

// signed extends the low n bits of v.
func signed(v uint32, n uint) int64 { return int64(int32(v<<(32-n))) >> (32 - n) }

// reach is how far after an adrp its users are looked for, in bytes. No word is
// looked at for more than 32 of them, as the next adrp of a register ends it.
const reach = 1000

// far is how far branches on a condition and loads of literals may lead, in
// bytes: those in code stay within a function, and constants among the code look
// like any.
const far = 1 << 15

// armCode finds the references of AArch64 code. An adrp and the instructions
// that add the low bits to its register are looked at together: their common
// target is the page plus the bits of the first user.
func (c *collector) armCode(s *section, d []byte) {
	n := int64(len(d)) &^ 3
	for i := int64(0); i < n; i += 4 {
		if i%pieceSize == 0 {
			c.spill(false)
		}
		w := le.Uint32(d[i:])
		off := s.off + i
		switch branch := branchKind(w); {
		case branch == Branch26:
			if c.in(s.addr + i + signed(w, 26)*4) {
				c.add(off, Call, 0)
			}
		case branch == Branch19:
			if d := signed(w>>5&0x7ffff, 19) * 4; d >= -far && d < far && c.in(s.addr+i+d) {
				c.add(off, Immediate, 0)
			}
		case branch == Branch14 && c.in(s.addr+i+signed(w>>5&0x3fff, 14)*4):
			c.add(off, Immediate, 0)
		case w&0x9f000000 == 0x90000000:
			c.page(s, d, i, w)
		}
	}
}

// branchKind tells the branches and literal loads apart; 0 for other words.
func branchKind(w uint32) Kind {
	switch {
	case w&0x7c000000 == 0x14000000:
		return Branch26
	case w&0xff000010 == 0x54000000, w&0x7e000000 == 0x34000000, w&0xbf000000 == 0x18000000:
		return Branch19
	case w&0x7e000000 == 0x36000000:
		return Branch14
	}
	return 0
}

// page follows the adrp w at offset i to the users of its register.
func (c *collector) page(s *section, d []byte, i int64, w uint32) {
	page := pageOf(w, s.addr+i)
	rd := w & 31
	first := int64(0)
	end := min(int64(len(d))&^3, i+reach)
	at := len(c.recs)
	c.recs = append(c.recs, 0)
	for j := i + 4; j < end; j += 4 {
		x := le.Uint32(d[j:])
		if low, _, ok := lowBits(x); ok && x>>5&31 == rd {
			if first == 0 {
				first = (j - i) / 4
			}
			if c.in(page + low) {
				c.add(s.off+j, LowBits, (j-i)/4)
			}
		}
		if overwrites(x, rd) {
			break
		}
	}
	if !c.in(page) && first == 0 {
		c.recs = c.recs[:at]
		return
	}
	c.recs[at] = uint64(s.off+i)<<32 | uint64(Operand)<<24 | uint64(first)
}

// overwrites says whether an instruction puts something else into a register,
// or calls a function that may.
func overwrites(x, rd uint32) bool {
	switch {
	case x&0xfc000000 == 0x94000000, x&0xfffffc1f == 0xd63f0000: // bl, blr
		return rd < 18
	case x&31 != rd:
		return false
	case x&0x0a000000 == 0x08000000: // loads and stores
		return x&0x04400000 == 0x00400000
	}
	return x&0x1c000000 == 0x10000000 || x&0x0e000000 == 0x0a000000 // data processing
}

// pageOf is the page that the adrp w at an address computes.
func pageOf(w uint32, addr int64) int64 {
	return addr&^4095 + signed((w>>5&0x7ffff)<<2|w>>29&3, 21)<<12
}

// lowBits are the bits that an add or an unsigned-offset load or store adds to
// its base register, and log2 of their scale.
func lowBits(x uint32) (bits int64, scale uint, ok bool) {
	imm := int64(x >> 10 & 0xfff)
	if x&0xffc00000 == 0x91000000 {
		return imm, 0, true
	}
	if x&0x3b000000 == 0x39000000 {
		scale = uint(x >> 30)
		if x&0x04000000 != 0 && x&0x00800000 != 0 {
			scale = 4
		}
		return imm << scale, scale, true
	}
	return 0, 0, false
}

// arm completes reference r, the instruction at rel, from its word.
func (c *Cursor) arm(r *Ref, rel, extra int64) {
	w := le.Uint32(c.bytes(rel, 4))
	here, ok := c.t.e.Addr(r.Off)
	var addr int64
	switch {
	case r.Class == LowBits:
		r.Kind = PageOffset
		if rel < 4*extra {
			return
		}
		low, scale, _ := lowBits(w)
		r.Adjust = int64(scale)
		addr = pageOf(le.Uint32(c.bytes(rel-4*extra, 4)), here-4*extra) + low
	case r.Class == Operand:
		r.Kind = Page
		addr = pageOf(w, here)
		if extra > 0 {
			low, _, _ := lowBits(le.Uint32(c.bytes(rel+4*extra, 4)))
			addr += low
		}
	default:
		r.Kind = branchKind(w)
		addr, _ = ArmTarget(r.Kind, w, here)
	}
	if ok {
		r.Target, _ = c.t.e.Place(addr)
	}
}

// ArmTarget is the address that a branch at an address leads to.
func ArmTarget(k Kind, w uint32, here int64) (int64, bool) {
	switch k {
	case Branch26:
		return here + signed(w, 26)*4, true
	case Branch19:
		return here + signed(w>>5&0x7ffff, 19)*4, true
	case Branch14:
		return here + signed(w>>5&0x3fff, 14)*4, true
	}
	return 0, false
}

// ArmMask is the bits of an instruction that depend on where its target lies.
func ArmMask(k Kind) uint32 {
	switch k {
	case Branch26:
		return 0x3ffffff
	case Branch19:
		return 0x7ffff << 5
	case Branch14:
		return 0x3fff << 5
	case Page:
		return 0x7ffff<<5 | 3<<29
	case PageOffset:
		return 0xfff << 10
	}
	return 0
}

// ArmField puts a target's address into the instruction w at address here.
func ArmField(k Kind, w uint32, addr, here, scale int64) uint32 {
	d := uint32(addr-here) >> 2
	mask := ArmMask(k)
	var v uint32
	switch k {
	case Branch26:
		v = d
	case Branch19, Branch14:
		v = d << 5
	case Page:
		p := uint32((addr&^4095 - here&^4095) >> 12)
		v = p>>2&0x7ffff<<5 | p&3<<29
	case PageOffset:
		v = uint32((addr&4095)>>uint(scale&15)) << 10
	}
	return w&^mask | v&mask
}
