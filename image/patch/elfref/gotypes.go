package elfref

import "slices"

// goModule is what a Go program's runtime.firstmoduledata says about where
// things are: addresses, 0 where it was not found.
type goModule struct{ types, typesEnd, funcs int64 }

// goModule finds the module data: two words, the addresses of pclntab and of the
// names in it, and what follows them. Since Go 1.26 it has a section of its own,
// before it is somewhere in the data.
func (c *collector) goModule(pclntab *section) (m goModule) {
	head := c.near(pclntab.off, 72)
	at := int64(320) // of the address of funcdata
	if le.Uint32(head) == 0xfffffff0 {
		at = 304
	}
	first, second := uint64(pclntab.addr), uint64(pclntab.addr)+le.Uint64(head[32:])
	for i := range c.sections {
		s := &c.sections[i]
		if s.kind != typeProgbits || s.flags&flagWrite == 0 {
			continue
		}
		if s.off+s.size > c.Size {
			continue
		}
		r := c.stream(s.off, s.size)
		for {
			o := r.pos()
			if o+at+8 > s.off+s.size {
				break
			}
			if r.u64() != first || le.Uint64(c.near(o+8, 8)) != second {
				continue
			}
			d := c.near(o, at+8)
			m.types, m.typesEnd, m.funcs = int64(le.Uint64(d[at-24:])), int64(le.Uint64(d[at-16:])), int64(le.Uint64(d[at:]))
			if m.types < 0 || m.typesEnd < m.types || m.typesEnd-m.types > 1<<31 || !c.in(m.types) || !c.in(m.funcs) {
				return goModule{}
			}
			return m
		}
	}
	return m
}

// backed is where in the file n bytes at an address are.
func (c *collector) backed(addr, n int64) (off int64, ok bool) {
	p, ok := c.Place(addr)
	if !ok || p >= Unbacked {
		return 0, false
	}
	off = c.Offset(p)
	return off, off >= 0 && off+n <= c.Size
}

// goTrees finds the names in trees of inlined calls: of 16 bytes, the second
// four. A tree ends where other funcdata begins, or where there is no call.
func (c *collector) goTrees(funcs int64, starts, trees []int64, limit, names int64) {
	slices.Sort(starts)
	slices.Sort(trees)
	for _, tree := range slices.Compact(trees) {
		next, _ := slices.BinarySearch(starts, tree+1)
		end := tree + 1<<16
		if next < len(starts) {
			end = min(end, starts[next])
		}
		for o := tree; o+16 <= end; o += 16 {
			off, ok := c.backed(funcs+o, 16)
			if !ok {
				break
			}
			b := c.near(off, 16)
			if b[1]|b[2]|b[3] != 0 || int64(le.Uint32(b[4:])) >= limit {
				break
			}
			c.add(off+4, GoName, names)
		}
	}
}

// goTypes finds the offsets in type descriptors (internal/abi/type.go in Go's
// sources), and in the list of types: from the start of the types, and of
// methods from the start of the code.
func (c *collector) goTypes(m goModule, types, code int64) {
	size := m.typesEnd - m.types
	offset := func(off int64) { c.add(off, GoType, types) }
	for i := range c.sections {
		if s := &c.sections[i]; s.name == ".typelink" && s.kind == typeProgbits {
			for o := int64(0); o+4 <= s.size && s.off+o+4 <= c.Size; o += 4 {
				offset(s.off + o)
			}
		}
	}
	start, ok := c.backed(m.types, size)
	if !ok {
		return
	}
	in := func(v uint32) bool { return v != 0 && int64(v) < size }
	for o := int64(0); o+48 <= size; o += 8 {
		b := c.near(start+o, 48)
		kind, flags := b[23]&31, b[20]
		equal, gc := int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
		if kind == 0 || kind > 26 || flags >= 64 || b[21] == 0 || b[21] > 16 || b[22] == 0 || b[22] > 16 ||
			le.Uint64(b) > 1<<40 || le.Uint64(b[8:]) > le.Uint64(b) ||
			equal != 0 && !c.in(equal) || gc != 0 && !c.in(gc) || !in(le.Uint32(b[40:])) {
			continue
		}
		pointer := le.Uint32(b[44:])
		if pointer != 0 && !in(pointer) {
			continue
		}
		offset(start + o + 40)
		if pointer != 0 {
			offset(start + o + 44)
		}
		c.goMethods(start+o, o, size, kind, flags&1 != 0, offset, func(off int64) { c.add(off, GoMethod, code) })
	}
}

// goMethods finds the offsets in what belongs to a type at an offset of the
// file, at of size bytes of types: methods of interfaces and of named types.
func (c *collector) goMethods(off, at, size int64, kind byte, named bool, offset, method func(int64)) {
	rest := int64(48) // of a descriptor, before what named types have
	switch kind {
	case 17: // array
		rest = 72
	case 18: // chan
		rest = 64
	case 19, 22, 23: // func, pointer, slice
		rest = 56
	case 20, 25: // interface, struct
		rest = 80
	case 21: // map: its size depends on the version
		return
	}
	if at+rest+16 > size {
		return
	}
	if kind == 20 {
		b := c.near(off+56, 16)
		list, n := int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
		if methods, ok := c.backed(list, n*8); ok && n >= 0 && n < 1<<12 {
			for i := range n {
				offset(methods + i*8)
				offset(methods + i*8 + 4)
			}
		}
	}
	if !named {
		return
	}
	b := c.near(off+rest, 16)
	if le.Uint32(b) != 0 {
		offset(off + rest)
	}
	n, first := int64(le.Uint16(b[4:])), int64(le.Uint32(b[8:]))
	if first < 16 || at+rest+first+n*16 > size {
		return
	}
	for i := range n {
		o := off + rest + first + i*16
		b := c.near(o, 16)
		offset(o)
		for k := int64(4); k < 16; k += 4 {
			switch v := le.Uint32(b[k:]); {
			case v == 0 || v == 0xffffffff:
			case k == 4:
				offset(o + k)
			default:
				method(o + k)
			}
		}
	}
}
