package elfref_test

// cie is what a CIE says of its FDEs.
type cie struct {
	code, data byte // encodings
	z          bool // its augmentation begins with z
}

func (f *file) frames(s *section) {
	cies := map[int64]cie{}
	end := s.off + s.size
	for at := s.off; at+4 <= end; {
		n := f.u32(at)
		next := at + 4 + n
		if n < 4 || next > end {
			return
		}
		if f.u32(at+4) == 0 {
			cies[at] = f.readCIE(at+8, next)
		} else {
			f.readFDE(s, at, next, cies)
		}
		at = next
	}
}

func (f *file) readCIE(at, end int64) (c cie) {
	r := &cursor{b: f.b, at: at, end: end}
	r.skip(1)
	start := r.at
	for r.u8() != 0 {
	}
	if r.bad {
		return c
	}
	letters := string(f.b[start : r.at-1])
	c.z = letters != "" && letters[0] == 'z'
	for range 3 {
		r.small()
	}
	if !c.z {
		return c
	}
	r.small()
	for _, l := range letters[1:] {
		if r.bad || r.at == end {
			break
		}
		switch l {
		case 'R':
			c.code = r.u8()
		case 'L':
			c.data = r.u8()
		case 'P':
			if r.u8()&15 != 11 {
				r.skip(uint64(min(8, end-r.at)))
			} else if at := r.at; r.skip(4) {
				f.add(at, 4, 0)
			}
		}
	}
	return c
}

func (f *file) readFDE(s *section, at, end int64, cies map[int64]cie) {
	c, ok := cies[at+4-f.u32(at+4)]
	if !ok || c.code != 0x1b || end-at < 16 {
		return
	}
	f.add(at+4, 14, 0)
	if f.inMemory(s.addr + at + 8 - s.off + f.i32(at+8)) {
		f.add(at+8, 4, 0)
		if f.u32(at+12) != 0 {
			f.add(at+12, 15, 0)
		}
	}
	if c.z && c.data == 0x1b {
		r := &cursor{b: f.b, at: at + 16, end: end}
		r.small()
		if at := r.at; r.skip(4) && f.u32(at) != 0 {
			f.add(at, 5, 0)
		}
	}
}

func (f *file) frameIndex(s *section) {
	b := f.content(s)
	if len(b) < 12 || b[1] != 0x1b || b[2] != 3 || b[3] != 0x3b {
		return
	}
	f.add(s.off+4, 4, 0)
	for o := s.off + 12; o+8 <= s.off+s.size; o += 8 {
		f.add(o, 6, s.number)
		f.add(o+4, 7, s.number)
	}
}

// cursor reads numbers one after the other. What would go beyond its end is not
// read, and nothing is from then on.
type cursor struct {
	b       []byte
	at, end int64
	bad     bool
}

func (c *cursor) skip(n uint64) bool {
	if c.bad || c.at > c.end || n > uint64(c.end-c.at) {
		c.bad = true
		return false
	}
	c.at += int64(n)
	return true
}

func (c *cursor) fixed(n uint64) (v uint64) {
	at := c.at
	if !c.skip(n) {
		return 0
	}
	for i := range int64(n) {
		v |= uint64(c.b[at+i]) << (8 * i)
	}
	return v
}

func (c *cursor) u8() byte    { return byte(c.fixed(1)) }
func (c *cursor) u16() uint64 { return c.fixed(2) }
func (c *cursor) u32() uint64 { return c.fixed(4) }
func (c *cursor) u64() uint64 { return c.fixed(8) }

// more says whether there is anything left to read.
func (c *cursor) more() bool { return !c.bad && c.at < c.end }

// leb is a LEB128 number of at most ten bytes, modulo 2^64.
func (c *cursor) leb() (v uint64) {
	for i := range 10 {
		b := c.u8()
		v |= uint64(b&127) << (7 * i)
		if b < 128 {
			return v
		}
	}
	c.bad = true
	return 0
}

// small is a LEB128 number below 2^64.
func (c *cursor) small() uint64 {
	at := c.at
	v := c.leb()
	if !c.bad && c.at-at == 10 && c.b[c.at-1] > 1 {
		c.bad = true
	}
	return v
}
