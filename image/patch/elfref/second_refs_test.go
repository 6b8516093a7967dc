package elfref_test

import (
	"cmp"
	"slices"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// kind says how wide a class's field is, and how it leads to its target.
type kind struct {
	kind         elfref.Kind
	width, scale int64
}

// kinds are those of all classes. Classes 1, 2 and 3 are told from instructions in
// AArch64 files.
var kinds = func() map[int64]kind {
	all := map[int64]kind{}
	for _, row := range []struct {
		kind
		classes []int64
	}{
		{kind{elfref.Relative, 4, 0}, []int64{1, 2, 4, 5}},
		{kind{elfref.Absolute, 4, 0}, []int64{3}},
		{kind{elfref.FromBase, 4, 0}, []int64{6, 7}},
		{kind{elfref.Absolute, 8, 0}, []int64{8, 9, 10, 11, 12, 32, 38}},
		{kind{elfref.FromTable, 4, 0}, []int64{13}},
		{kind{elfref.Backward, 4, 0}, []int64{14}},
		{kind{elfref.Length, 4, 0}, []int64{15, 40}},
		{kind{elfref.Length, 8, 0}, []int64{17, 34, 39}},
		{kind{elfref.Scaled, 4, 24}, []int64{18, 19, 20, 35}},
		{kind{elfref.HexID, 38, 0}, []int64{21}},
		{kind{elfref.PageOffset, 4, 0}, []int64{22}},
		{kind{elfref.Scaled, 4, 1}, []int64{16, 23, 24, 25, 26, 27, 29, 30, 31, 36, 37, 41, 42, 43, 44}},
		{kind{elfref.Scaled, 4, 4}, []int64{28}},
		{kind{elfref.File, 8, 0}, []int64{33}},
	} {
		for _, class := range row.classes {
			all[class] = row.kind
		}
	}
	return all
}()

// add notes a reference.
func (f *file) add(off, class, extra int64) {
	if extra >= 0 && extra < 1<<24 && off >= 0 && off+kinds[class].width <= int64(len(f.b)) {
		f.found = append(f.found, field{off, class, extra})
	}
}

// references finds all, and leaves out what overlaps.
func (f *file) references() []elfref.Ref {
	f.look()
	slices.SortFunc(f.found, func(a, b field) int {
		return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.class, b.class), cmp.Compare(a.extra, b.extra))
	})
	var kept []elfref.Ref
	dropped := false // the one before
	for _, x := range f.found {
		end := x.off + kinds[x.class].width
		var last *elfref.Ref
		if len(kept) > 0 {
			last = &kept[len(kept)-1]
		}
		length := kinds[x.class].kind == elfref.Length
		dropped = last != nil && x.off < last.Offset+last.Width ||
			f.tail != 0 && x.off < f.cut && end > f.cut ||
			length && dropped
		if dropped || length && (last == nil || last.Kind == elfref.Length) {
			continue
		}
		kept = append(kept, f.resolve(x, last))
	}
	return kept
}

// resolve says where a reference leads; last is the one before it.
func (f *file) resolve(x field, last *elfref.Ref) elfref.Ref {
	k := kinds[x.class]
	r := elfref.Ref{Off: f.at(x.off), Offset: x.off, Class: elfref.Class(x.class), Kind: k.kind, Width: k.width, Adjust: k.scale}
	here, mapped := f.address(r.Off)
	if f.arm && (x.class <= 3 || x.class == 22) {
		if f.resolveInstruction(&r, x.extra, here); !mapped {
			r.Target = 0
		}
		return r
	}
	var u uint64
	v := int64(0)
	switch k.width {
	case 4:
		u = uint64(le.Uint32(f.b[x.off:]))
		v = int64(int32(u))
	case 8:
		u = le.Uint64(f.b[x.off:])
		v = int64(u)
	}
	switch k.kind {
	case elfref.Relative:
		r.Adjust = x.extra
		if mapped {
			r.Target = f.place(here + x.extra + v)
		}
	case elfref.Absolute:
		r.Target = f.place(v)
	case elfref.Backward:
		if mapped {
			r.Target = f.place(here - int64(u))
		}
	case elfref.FromBase:
		r.Base = f.bases[x.extra]
		if a, ok := f.address(r.Base); ok {
			r.Target = f.place(a + v)
		}
	case elfref.FromTable:
		r.Base = r.Off - 4*x.extra
		if a, ok := f.address(r.Base); ok {
			r.Target = f.place(a + v)
		}
	case elfref.Scaled:
		r.Base = f.bases[x.extra]
		r.Target = r.Base + k.scale*int64(u)
	case elfref.Length:
		r.Base = last.Target
		r.Target = r.Base + int64(u) - 1
	case elfref.File:
		r.Target = f.at(int64(u & (1<<56 - 1)))
	case elfref.HexID:
		r.Target = f.bases[x.extra] + 17
	}
	return r
}

// look finds references everywhere in the file.
func (f *file) look() {
	f.add(0x28, 33, 0)
	for _, s := range f.sections {
		if !s.counts || s.off == 0 {
			continue
		}
		if s.addr != 0 && f.inMemory(s.addr) {
			f.add(s.headerOff+16, 32, 0)
		}
		f.add(s.headerOff+24, 33, 0)
		if s.kind != 8 && s.size > 0 {
			f.add(s.headerOff+32, 34, 0)
		}
	}
	if id, link := f.named(".note.gnu.build-id"), f.named(".gnu_debuglink"); id != nil && link != nil &&
		id.size == 36 && link.size >= 44 {
		f.add(link.off, 21, id.number)
	}
	f.readGo()
	for i := range f.sections {
		if s := &f.sections[i]; f.content(s) != nil {
			f.lookInto(s)
		}
	}
	f.jumpTables()
}

// lookInto finds references in one section.
func (f *file) lookInto(s *section) {
	switch {
	case s.flags&4 != 0 && f.arm:
		f.armCode(s)
	case s.flags&4 != 0:
		f.x86Code(s)
	case s.name == ".eh_frame":
		f.frames(s)
	case s.name == ".eh_frame_hdr":
		f.frameIndex(s)
	case s.kind == 4 && s.entry == 24:
		f.relocations(s)
	case s.kind == 19:
		f.relr(s)
	case s.kind == 2 || s.kind == 11:
		f.symbols(s)
	case s.kind == 0x6ffffff6:
		if b := f.content(s); len(b) > 16 && f.names(s.link) {
			f.words(s, 16+8*int64(le.Uint32(b[8:])), int64(le.Uint32(b)), 19)
		}
	case s.kind == 5:
		if f.names(s.link) {
			f.words(s, 8, s.size, 20)
		}
	case s.kind == 6:
		for o := int64(0); o+16 <= s.size; o += 16 {
			if v := f.u64(s.off + o + 8); v >= 0x200 && f.inMemory(v) {
				f.add(s.off+o+8, 11, 0)
			}
		}
	case s.kind == 1 && s.flags&2 != 0 || s.kind == 14 || s.kind == 15:
		if !f.fixed && s.flags&1 == 0 {
			return
		}
		for o := -s.addr & 7; o+8 <= s.size; o += 8 {
			if v := f.u64(s.off + o); v >= 0x10000 && f.inMemory(v) {
				f.add(s.off+o, 12, 0)
			}
		}
	default:
		f.lookDebug(s)
	}
}

func (f *file) u16(off int64) int64 { return int64(le.Uint16(f.b[off:])) }
func (f *file) u32(off int64) int64 { return int64(le.Uint32(f.b[off:])) }
func (f *file) i32(off int64) int64 { return int64(int32(le.Uint32(f.b[off:]))) }
func (f *file) u64(off int64) int64 { return int64(le.Uint64(f.b[off:])) }

// names says whether a section's link names another.
func (f *file) names(link int64) bool { return link < int64(len(f.sections)) }

// words finds n words that are numbers of symbols, from an offset in a section on.
func (f *file) words(s *section, from, n, class int64) {
	for o := from; o+4 <= s.size && n > 0; o, n = o+4, n-1 {
		if f.u32(s.off+o) != 0 {
			f.add(s.off+o, class, s.link)
		}
	}
}

func (f *file) relocations(s *section) {
	for o := s.off; o+24 <= s.off+s.size; o += 24 {
		if f.inMemory(f.u64(o)) {
			f.add(o, 8, 0)
		}
		if f.u32(o+12) != 0 && f.names(s.link) {
			f.add(o+12, 18, s.link)
		}
		if slices.Contains([]int64{8, 37, 1027, 1032}, f.u32(o+8)) && f.inMemory(f.u64(o+16)) {
			f.add(o+16, 9, 0)
		}
	}
}

func (f *file) relr(s *section) {
	next, left, done := int64(0), int64(len(f.b))/8, false
	name := func(addr int64) {
		if left == 0 {
			done = true
		}
		off, ok := f.offset(addr, 8)
		if done || !ok {
			done = true
			return
		}
		left--
		if v := f.u64(off); v > 0 && v < 0x10000 && f.inMemory(v) {
			f.add(off, 12, 0)
		}
	}
	for o := s.off; o+8 <= s.off+s.size; o += 8 {
		v := f.u64(o)
		if v&1 != 0 {
			for k := range int64(63) {
				if v>>(k+1)&1 != 0 {
					name(next + 8*k)
				}
			}
			next += 504
			continue
		}
		if f.inMemory(v) {
			f.add(o, 8, 0)
		}
		if v < next {
			done = true
		}
		name(v)
		next = v + 8
	}
}

func (f *file) symbols(s *section) {
	for o := s.off; o+24 <= s.off+s.size; o += 24 {
		if f.u32(o) != 0 && f.names(s.link) {
			f.add(o, 16, s.link)
		}
		if in := f.u16(o + 6); in == 0 || in >= 0xff00 || !f.inMemory(f.u64(o+8)) {
			continue
		}
		f.add(o+8, 10, 0)
		if n := f.u64(o + 16); n > 0 && n < most44 {
			f.add(o+16, 17, 0)
		}
	}
}
