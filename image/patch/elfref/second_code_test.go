package elfref_test

import (
	"slices"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// bytesIn makes a set of bytes from pairs: the first and the last of a range.
func bytesIn(ranges ...byte) (set [256]bool) {
	for i := 0; i < len(ranges); i += 2 {
		for b := int(ranges[i]); b <= int(ranges[i+1]); b++ {
			set[b] = true
		}
	}
	return set
}

var (
	prefixes = bytesIn(0x26, 0x26, 0x2e, 0x2e, 0x36, 0x36, 0x3e, 0x3e, 0x64, 0x67, 0xf0, 0xf0, 0xf2, 0xf3)

	noOne    = bytesIn(0x60, 0x61, 0x82, 0x82, 0x9a, 0x9a, 0xce, 0xce, 0xd4, 0xd6, 0xea, 0xea)
	modOne   = bytesIn(0x63, 0x63, 0x69, 0x69, 0x6b, 0x6b, 0x80, 0x81, 0x83, 0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0, 0xd3, 0xd8, 0xdf, 0xf6, 0xf7, 0xfe, 0xff)
	byteOne  = bytesIn(0x6a, 0x6b, 0x70, 0x80, 0x83, 0x83, 0xa8, 0xa8, 0xb0, 0xb7, 0xc0, 0xc1, 0xc6, 0xc6, 0xcd, 0xcd, 0xe0, 0xe7, 0xeb, 0xeb)
	wordsOne = bytesIn(0x68, 0x69, 0x81, 0x81, 0xa9, 0xa9, 0xb8, 0xbf, 0xc7, 0xc7)

	noTwo      = bytesIn(0x04, 0x04, 0x0a, 0x0a, 0x0c, 0x0c, 0x24, 0x27, 0x36, 0x36, 0x39, 0x39, 0x3b, 0x3f)
	byteTwo    = bytesIn(0x0f, 0x0f, 0x70, 0x73, 0xa4, 0xa4, 0xac, 0xac, 0xba, 0xba, 0xc2, 0xc2, 0xc4, 0xc6)
	nothingTwo = bytesIn(0x05, 0x09, 0x0b, 0x0b, 0x0e, 0x0e, 0x30, 0x35, 0x37, 0x37, 0x77, 0x77, 0xa0, 0xa2, 0xa8, 0xaa, 0xc8, 0xcf)
)

// instruction is what we need to know of one: offsets in it, 0 for none.
type instruction struct {
	size               int
	branch             int // rel32
	relative, absolute int // fields of 4 bytes
}

// decode reads the instruction that b begins with; its size is 0 if it is none.
func decode(b []byte) instruction {
	b = b[:min(len(b), 15)]
	at := 0
	var i instruction
	next := func() byte {
		if at++; at > len(b) {
			return 0
		}
		return b[at-1]
	}
	small, wide := false, false
	op := next()
	for prefixes[op] && at <= len(b) {
		small = small || op == 0x66
		op = next()
	}
	if op>>4 == 4 {
		wide = op&8 != 0
		if op = next(); prefixes[op] {
			return instruction{}
		}
	}
	hasMod, rel, imm, z := false, false, 0, false
	switch {
	case op == 0xc4 || op == 0xc5 || op == 0x62:
		first := next()
		table := first & 7
		if op == 0xc5 {
			table = 1
		} else if next(); op == 0xc4 {
			table = first & 31
		} else {
			next()
		}
		vex := op != 0x62
		op = next()
		switch table {
		case 1:
			if noTwo[op] {
				return instruction{}
			}
			hasMod = !vex || op != 0x77
			if byteTwo[op] {
				imm = 1
			}
		case 2, 5, 6:
			hasMod = true
		case 3:
			hasMod, imm = true, 1
		default:
			return instruction{}
		}
	case op == 0x0f:
		op = next()
		switch {
		case op == 0x38:
			next()
			hasMod = true
		case op == 0x3a:
			next()
			hasMod, imm = true, 1
		case noTwo[op]:
			return instruction{}
		case op >= 0x80 && op <= 0x8f:
			rel = true
		case byteTwo[op]:
			hasMod, imm = true, 1
		default:
			hasMod = !nothingTwo[op]
		}
	case op < 0x40:
		switch op & 7 {
		case 4:
			imm = 1
		case 5:
			z = true
		case 6, 7:
			return instruction{}
		default:
			hasMod = true
		}
	case noOne[op]:
		return instruction{}
	case op == 0xe8 || op == 0xe9:
		rel = true
	case op == 0xc8:
		imm = 3
	case op == 0xc2 || op == 0xca:
		imm = 2
	case op >= 0xa0 && op <= 0xa3:
		imm = 8
	case op >= 0xb8 && op <= 0xbf && wide:
		imm = 8
	default:
		hasMod, z = modOne[op], wordsOne[op]
		if byteOne[op] {
			imm = 1
		}
		if at < len(b) && b[at]>>3&7 < 2 { // test
			switch {
			case op == 0xf6:
				imm = 1
			case op == 0xf7 && small && !wide:
				imm = 2
			case op == 0xf7:
				imm = 4
			}
		}
	}
	if hasMod {
		m := next()
		mod, rm := m>>6, m&7
		sib := byte(0)
		if mod != 3 && rm == 4 {
			sib = next()
		}
		switch {
		case mod == 0 && rm == 5:
			i.relative = at
			at += 4
		case mod == 2 || mod == 0 && rm == 4 && sib&7 == 5:
			i.absolute = at
			at += 4
		case mod == 1:
			at++
		}
	}
	if rel {
		i.branch = at
		at += 4
	}
	if z {
		imm = 4
		if small && !wide {
			imm = 2
		} else {
			i.absolute = at
		}
	}
	at += imm
	if at > len(b) {
		return instruction{}
	}
	i.size = at
	return i
}

func (f *file) isCode(addr int64) bool { return f.lo <= addr && addr < f.hi }

func (f *file) x86Code(s *section) {
	b := f.content(s)
	for o := int64(0); o < s.size; {
		i := decode(b[o:])
		if i.size == 0 {
			o++
			continue
		}
		end := s.addr + o + int64(i.size)
		if i.branch != 0 {
			at := s.off + o + int64(i.branch)
			if to := end + f.i32(at); f.isCode(to) && f.inMemory(to) {
				f.add(at, 1, 4)
			}
		}
		if i.relative != 0 {
			at := s.off + o + int64(i.relative)
			if to := end + f.i32(at); f.inMemory(to) {
				f.add(at, 2, int64(i.size-i.relative))
				if f.b[at-2] == 0x8d && !f.isCode(to) && to%4 == 0 {
					f.tables = append(f.tables, to)
				}
			}
		}
		if i.absolute != 0 && f.fixed {
			at := s.off + o + int64(i.absolute)
			if to := f.i32(at); to >= 0x400000 && f.inMemory(to) {
				f.add(at, 3, 0)
			}
		}
		o += int64(i.size)
	}
	if rela := f.named(".rela.plt"); rela != nil && s.name == ".plt" {
		for o := s.off; o+16 <= s.off+s.size; o += 16 {
			switch e := f.b[o:]; {
			case e[0] == 0xf3 && e[4] == 0x68:
				f.add(o+5, 35, rela.number)
			case e[0] == 0xff && e[1] == 0x25 && e[6] == 0x68:
				f.add(o+7, 35, rela.number)
			}
		}
	}
}

func (f *file) jumpTables() {
	tables := slices.Clone(f.tables)
	slices.Sort(tables)
	tables = slices.Compact(tables)
	for i, table := range tables {
		off, ok := f.offset(table, 0)
		if !ok {
			continue
		}
		n, first := int64(0), int64(0)
		for n < 4096 && (i+1 == len(tables) || table+4*n < tables[i+1]) && off+4*n+4 <= int64(len(f.b)) {
			to := table + f.i32(off+4*n)
			if n == 0 {
				first = to
			}
			if !f.isCode(to) || max(to-first, first-to) > 1<<17 {
				break
			}
			n++
		}
		for k := int64(0); k < n && n >= 3; k++ {
			f.add(off+4*k, 13, k)
		}
	}
}

// sx extends the low n bits of v.
func sx(n int, v uint32) int64 { return int64(int32(v<<(32-n)) >> (32 - n)) }

// branch is where a branch of an AArch64 file leads, and what kind it is.
func branch(w uint32, here int64) (to int64, kind elfref.Kind, ok bool) {
	switch {
	case w&0x7c000000 == 0x14000000:
		return here + 4*sx(26, w), elfref.Branch26, true
	case w&0xff000010 == 0x54000000, w&0x7e000000 == 0x34000000, w&0xbf000000 == 0x18000000:
		return here + 4*sx(19, w>>5), elfref.Branch19, true
	case w&0x7e000000 == 0x36000000:
		return here + 4*sx(14, w>>5), elfref.Branch14, true
	}
	return 0, 0, false
}

func page(w uint32, here int64) int64 {
	return here&^4095 + sx(21, w>>5&0x7ffff<<2|w>>29&3)*4096
}

// lowBits is what an instruction adds to register r.
func lowBits(x, r uint32) (low int64, scale uint32, ok bool) {
	if x>>5&31 != r {
		return 0, 0, false
	}
	switch {
	case x&0xffc00000 == 0x91000000:
	case x&0x3b000000 == 0x39000000:
		if scale = x >> 30; x&0x04000000 != 0 && x&0x00800000 != 0 {
			scale = 4
		}
	default:
		return 0, 0, false
	}
	return int64(x>>10&0xfff) << scale, scale, true
}

// overwrites says whether register r has another value after x.
func overwrites(x, r uint32) bool {
	if x&0xfc000000 == 0x94000000 || x&0xfffffc1f == 0xd63f0000 {
		return r < 18
	}
	if x&31 != r {
		return false
	}
	if x&0x0a000000 == 0x08000000 {
		return x&0x04400000 == 0x00400000
	}
	return x&0x1c000000 == 0x10000000 || x&0x0e000000 == 0x0a000000
}

func (f *file) armCode(s *section) {
	word := func(o int64) uint32 { return le.Uint32(f.b[s.off+o:]) }
	for o := int64(0); o+4 <= s.size; o += 4 {
		w, here := word(o), s.addr+o
		if to, kind, ok := branch(w, here); ok {
			switch {
			case !f.inMemory(to):
			case kind == elfref.Branch26:
				f.add(s.off+o, 1, 0)
			case kind == elfref.Branch14 || to-here >= -1<<15 && to-here < 1<<15:
				f.add(s.off+o, 3, 0)
			}
			continue
		}
		if w&0x9f000000 != 0x90000000 {
			continue
		}
		extra := int64(0)
		for d := int64(4); d < 1000 && o+d+4 <= s.size; d += 4 {
			x := word(o + d)
			if low, _, ok := lowBits(x, w&31); ok {
				if extra == 0 {
					extra = d / 4
				}
				if f.inMemory(page(w, here) + low) {
					f.add(s.off+o+d, 22, d/4)
				}
			}
			if overwrites(x, w&31) {
				break
			}
		}
		if extra != 0 || f.inMemory(page(w, here)) {
			f.add(s.off+o, 2, extra)
		}
	}
}

// resolveInstruction says where an AArch64 instruction leads.
func (f *file) resolveInstruction(r *elfref.Ref, extra, here int64) {
	w := le.Uint32(f.b[r.Offset:])
	switch r.Class {
	case elfref.Operand:
		r.Kind = elfref.Page
		to := page(w, here)
		if extra != 0 {
			low, _, _ := lowBits(le.Uint32(f.b[r.Offset+4*extra:]), w&31)
			to += low
		}
		r.Target = f.place(to)
	case elfref.LowBits:
		before := le.Uint32(f.b[r.Offset-4*extra:])
		low, scale, _ := lowBits(w, before&31)
		r.Adjust = int64(scale)
		r.Target = f.place(page(before, here-4*extra) + low)
	default:
		to, kind, _ := branch(w, here)
		r.Kind, r.Target = kind, f.place(to)
	}
}
