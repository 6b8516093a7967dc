package elfref

import "slices"

// x86Code finds the references of x86-64 code: branches, operands relative to
// the instruction pointer and, in files with a fixed address, absolute ones. It
// reads one instruction after the other from the start of the section, and
// goes on by one byte where there is none.
func (c *collector) x86Code(s *section) {
	if s.size == 0 || s.off+s.size > c.Size {
		return
	}
	for at := int64(0); at < s.size; {
		n := min(s.size-at, pieceSize+maxInstruction+1)
		end := n
		if at+n < s.size {
			end = pieceSize
		}
		at += c.x86Window(s, at, c.at(s.off+at, n), int(end))
		c.spill(false)
	}
	if relocs := c.named(".rela.plt"); s.name == ".plt" && relocs != nil {
		c.pieces(s, stubSize, func(c *collector, _ *section, off int64, d []byte) {
			for i := int64(0); i+stubSize <= int64(len(d)); i += stubSize {
				if at := pushed(d[i:]); at > 0 {
					c.add(off+i+at, StubIndex, int64(relocs.index))
				}
			}
		})
	}
}

// x86Window looks at the instructions that begin before end in d, which stands
// at an offset of the section, and returns where the next one begins.
func (c *collector) x86Window(s *section, at int64, d []byte, end int) int64 {
	start, addr := s.off+at, s.addr+at
	i := 0
	for i < end {
		in := decode(d[i:])
		if in.size == 0 {
			i++
			continue
		}
		if in.field > 0 {
			f := i + int(in.field)
			off, adjust := start+int64(f), 4+int64(in.after)
			target := addr + int64(f) + adjust + int64(int32(le.Uint32(d[f:])))
			switch {
			case in.branch:
				if target >= c.lo && target < c.hi && c.in(target) {
					c.add(off, Call, adjust)
				}
			case c.in(target):
				c.add(off, Operand, adjust)
				if d[f-2] == 0x8d && (target < c.lo || target >= c.hi) && target&3 == 0 { // lea
					c.tables = append(c.tables, target)
				}
			}
		}
		if !c.position && in.absolute > 0 {
			f := i + int(in.absolute)
			if v := int64(int32(le.Uint32(d[f:]))); v >= 0x400000 && c.in(v) {
				c.add(start+int64(f), Immediate, 0)
			}
		}
		i += int(in.size)
	}
	return int64(i)
}

// stubSize is the size of an entry of .plt in bytes.
const stubSize = 16

// pushed is where in an entry of .plt the number of its relocation is pushed,
// 0 if it is not: after endbr64, or after a jump.
func pushed(stub []byte) int64 {
	switch {
	case stub[0] == 0xf3 && stub[4] == 0x68:
		return 5
	case stub[0] == 0xff && stub[1] == 0x25 && stub[6] == 0x68:
		return 7
	}
	return 0
}

// Bounds of jump tables.
const (
	minTable  = 3
	maxTable  = 4096
	maxSpread = 1 << 17 // bytes between a table's first target and any other
)

// jumpTables looks at the addresses that code loads for tables of 4-byte
// distances to code. A table ends where the next address begins, or where a
// distance leads too far.
func (c *collector) jumpTables() {
	slices.Sort(c.tables)
	c.tables = slices.Compact(c.tables)
	for k, table := range c.tables {
		p, ok := c.Place(table)
		if !ok || p >= Unbacked {
			continue
		}
		at := c.Offset(p)
		limit := int64(maxAddress)
		if k+1 < len(c.tables) {
			limit = c.tables[k+1]
		}
		n, first := int64(0), int64(0)
		for n < maxTable && table+n*4 < limit && at >= 0 && at+n*4+4 <= c.Size {
			to := table + int64(int32(le.Uint32(c.near(at+n*4, 4))))
			if to < c.lo || to >= c.hi {
				break
			}
			if n == 0 {
				first = to
			} else if to-first > maxSpread || first-to > maxSpread {
				break
			}
			n++
		}
		if n < minTable {
			continue
		}
		for i := range n {
			c.add(at+i*4, Jump, i)
		}
	}
}
