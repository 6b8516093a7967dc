package elfref_test

import "slices"

// goTables are where Go's tables are: offsets in the section.
type goTables struct {
	*section
	version                                         int64
	count, text, names, units, files, values, funcs int64

	types, endTypes, funcData int64 // addresses, 0 if they are not known
	first                     int64 // number of the first base
	trees, data               []int64
}

// readGo finds what Go's tables refer to.
func (f *file) readGo() {
	s := f.named(".gopclntab")
	if s == nil {
		s = f.named(".data.rel.ro.gopclntab")
	}
	text, rodata := f.named(".text"), f.named(".rodata")
	b := f.content(s)
	if text == nil || rodata == nil || len(b) < 72 || len(b) > 1<<31 {
		return
	}
	g := &goTables{section: s, version: f.u32(s.off), first: int64(len(f.bases))}
	if g.version != 0xfffffff1 && g.version != 0xfffffff0 || b[7] != 8 {
		return
	}
	for _, x := range []struct {
		to *int64
		at int64
	}{{&g.count, 8}, {&g.text, 24}, {&g.names, 32}, {&g.units, 40}, {&g.files, 48}, {&g.values, 56}, {&g.funcs, 64}} {
		*x.to = f.u64(s.off + x.at)
		if x.to != &g.text && uint64(*x.to) > uint64(s.size) {
			return
		}
	}
	if g.funcs+8*g.count+4 > s.size {
		return
	}
	f.readModule(g)
	code, data, types := f.at(text.off), f.at(rodata.off), f.at(rodata.off)
	if g.text != 0 && f.inMemory(g.text) {
		code = f.place(g.text)
	}
	if g.funcData != 0 {
		data = f.place(g.funcData)
	}
	if g.types != 0 {
		types = f.place(g.types)
	}
	at := func(o int64) int64 { return f.at(s.off) + o }
	f.bases = append(f.bases, code, at(g.funcs), at(g.names), at(g.values), at(g.units), data, at(g.files), types)
	f.readFunctions(g)
	for o := g.units; o+4 <= g.files; o += 4 {
		if o+4 <= s.size && f.u32(s.off+o) != 0xffffffff {
			f.add(s.off+o, 31, g.first+6)
		}
	}
	if g.funcData != 0 {
		f.readTrees(g)
	}
	if g.types != 0 {
		f.readTypes(g)
	}
}

// readModule looks for the module data, which say where other tables are.
func (f *file) readModule(g *goTables) {
	a := int64(320)
	if g.version == 0xfffffff0 {
		a = 304
	}
	for i := range f.sections {
		s := &f.sections[i]
		if s.kind != 1 || s.flags&1 == 0 || f.content(s) == nil {
			continue
		}
		for o := s.off; o+a+8 <= s.off+s.size; o += 8 {
			if f.u64(o) != g.addr || f.u64(o+8) != g.addr+g.names {
				continue
			}
			types, end, data := f.u64(o+a-24), f.u64(o+a-16), f.u64(o+a)
			if types <= end && end-types <= 1<<31 && f.inMemory(types) && f.inMemory(data) {
				g.types, g.endTypes, g.funcData = types, end, data
			}
			return
		}
	}
}

func (f *file) readFunctions(g *goTables) {
	end := g.off + g.size
	for i := range g.count {
		entry := g.off + g.funcs + 8*i
		f.add(entry, 23, g.first)
		f.add(entry+4, 24, g.first+1)
		fn := g.off + g.funcs + f.u32(entry+4)
		if fn+44 > end {
			continue
		}
		f.add(fn, 25, g.first)
		f.add(fn+4, 26, g.first+2)
		for _, o := range []int64{16, 20, 24} {
			if f.u32(fn+o) != 0 {
				f.add(fn+o, 27, g.first+3)
			}
		}
		f.add(fn+32, 28, g.first+4)
		at := fn + 44
		for n := f.u32(fn + 28); n > 0 && at+4 <= end; at, n = at+4, n-1 {
			if f.u32(at) != 0 {
				f.add(at, 29, g.first+3)
			}
		}
		for k := range int64(f.b[fn+43]) {
			if at+4 > end {
				break
			}
			if v := f.u32(at); v != 0xffffffff {
				f.add(at, 30, g.first+5)
				g.data = append(g.data, v)
				if k == 3 {
					g.trees = append(g.trees, v)
				}
			}
			at += 4
		}
	}
	f.add(g.off+g.funcs+8*g.count, 23, g.first)
}

// readTrees finds names in the trees of calls that were put in line.
func (f *file) readTrees(g *goTables) {
	slices.Sort(g.trees)
	slices.Sort(g.data)
	for _, v := range slices.Compact(g.trees) {
		end := v + 65536
		for _, other := range g.data {
			if other > v {
				end = min(end, other)
				break
			}
		}
		for ; v+16 <= end; v += 16 {
			off, ok := f.offset(g.funcData+v, 16)
			if !ok || f.b[off+1] != 0 || f.b[off+2] != 0 || f.b[off+3] != 0 || f.u32(off+4) >= g.units-g.names {
				break
			}
			f.add(off+4, 26, g.first+2)
		}
	}
}

func (f *file) readTypes(g *goTables) {
	for i := range f.sections {
		if s := &f.sections[i]; s.name == ".typelink" && s.kind == 1 && f.content(s) != nil {
			for o := s.off; o+4 <= s.off+s.size; o += 4 {
				f.add(o, 36, g.first+7)
			}
		}
	}
	size := g.endTypes - g.types
	start, ok := f.offset(g.types, size)
	if !ok {
		return
	}
	for o := int64(0); o+48 <= size; o += 8 {
		f.readType(g, start, o, size)
	}
}

// readType finds what a type refers to, if there is one o bytes from start.
func (f *file) readType(g *goTables, start, o, size int64) {
	t := start + o
	word := func(o int64) uint64 { return le.Uint64(f.b[t+o:]) }
	kind, flags := f.b[t+23]&31, f.b[t+20]
	align := func(b byte) bool { return b >= 1 && b <= 16 }
	pointer := func(v int64) bool { return v == 0 || f.inMemory(v) }
	name, pointerTo := f.u32(t+40), f.u32(t+44)
	if kind < 1 || kind > 26 || flags >= 64 || !align(f.b[t+21]) || !align(f.b[t+22]) ||
		word(0) > 1<<40 || word(8) > word(0) || !pointer(f.u64(t+24)) || !pointer(f.u64(t+32)) ||
		name == 0 || name >= size || pointerTo >= size {
		return
	}
	typed := func(off int64) { f.add(off, 36, g.first+7) }
	typed(t + 40)
	if pointerTo != 0 {
		typed(t + 44)
	}
	length := int64(48)
	switch kind {
	case 17:
		length = 72
	case 18:
		length = 64
	case 19, 22, 23:
		length = 56
	case 20, 25:
		length = 80
	}
	if kind == 21 || o+length+16 > size {
		return
	}
	if kind == 20 {
		if n := f.u64(t + 64); n >= 0 && n < 4096 {
			if at, ok := f.offset(f.u64(t+56), 8*n); ok {
				for ; n > 0; at, n = at+8, n-1 {
					typed(at)
					typed(at + 4)
				}
			}
		}
	}
	if flags&1 == 0 {
		return
	}
	u := t + length
	if f.u32(u) != 0 {
		typed(u)
	}
	n, far := f.u16(u+4), f.u32(u+8)
	if far < 16 || o+length+far+16*n > size {
		return
	}
	for m := u + far; n > 0; m, n = m+16, n-1 {
		typed(m)
		for _, at := range []int64{4, 8, 12} {
			if v := f.u32(m + at); v == 0 || v == 0xffffffff {
				continue
			}
			if at == 4 {
				typed(m + at)
			} else {
				f.add(m+at, 37, g.first)
			}
		}
	}
}
