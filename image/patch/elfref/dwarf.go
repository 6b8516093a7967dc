package elfref

import "slices"

// Debugging information: DWARF 4 and 5 as compilers and linkers write it, in
// units of 32-bit lengths for addresses of 8 bytes. The names of forms and
// attributes below are those of the standard (dwarfstd.org, section 7).

// debugging are the sections that refer to something.
var debugging = map[string]func(c *dwarf, s *section){
	".debug_info":        (*dwarf).info,
	".debug_line":        (*dwarf).lines,
	".debug_aranges":     (*dwarf).ranges,
	".debug_addr":        (*dwarf).addresses,
	".debug_ranges":      (*dwarf).rangePairs,
	".debug_rnglists":    (*dwarf).rangeLists,
	".debug_str_offsets": (*dwarf).stringOffsets,
	".debug_frame":       (*dwarf).frames,
}

// flagCompressed marks a section that is compressed.
const flagCompressed = 0x800

// plain says whether a section can hold debugging information as it is.
func (s *section) plain() bool {
	return s.kind == typeProgbits && s.flags&(flagAlloc|flagCompressed) == 0
}

// debug says whether a section holds debugging information that is looked into:
// by itself, or from where it is referred to.
func (s *section) debug() bool {
	switch s.name {
	case ".debug_loc", ".debug_loclists":
		return s.plain()
	}
	return s.plain() && debugging[s.name] != nil
}

// debugScratch is what going through debugging information takes, in bytes:
// windows, a table of abbreviations, and where units start.
const debugScratch = 4*streamWindow + 4*maxAbbreviations + 8*maxUnits

// dwarf is a collector of references of debugging information.
type dwarf struct {
	*collector
	sections [targets]*section // nil: there is none
	abbrev   abbreviations
	budget   int64      // bytes of abbreviations that may still be read
	units    int        // that references count from
	lists    [2]*stream // of DWARF 4 and 5, behind the list that was gone through last
	base     int64      // of the unit: what address lists without addresses count from
}

// debugging goes through a section, if it is the first of its name.
func (c *collector) debugging(s *section) {
	if c.dwarf == nil {
		c.dwarf = c.debugSections()
	}
	if through := debugging[s.name]; through != nil && slices.Contains(c.dwarf.sections[:], s) {
		through(c.dwarf, s)
	}
}

// debugSections finds the sections that others refer to.
func (c *collector) debugSections() *dwarf {
	w := &dwarf{collector: c}
	for i := range c.sections {
		s := &c.sections[i]
		if n := slices.Index(targetNames[:], s.name); n >= 0 && w.sections[n] == nil && s.plain() && s.off+s.size <= c.Size {
			w.sections[n] = s
		}
	}
	if s := w.sections[inAbbrev]; s != nil {
		w.budget = 2*s.size + 1<<20
	}
	w.abbrev.off = -1
	return w
}

// unit begins a unit: its end is the stream's, until it is left. It says no if
// there is none any more.
func (w *dwarf) unit(r *stream, s *section) (end int64, ok bool) {
	w.spill(false)
	r.until(s.off + s.size)
	n := int64(r.u32())
	end = r.pos() + n
	if r.over || n >= 0xfffffff0 || end > r.end {
		return 0, false
	}
	r.until(end)
	return end, true
}

// each calls yield for the units of a section, each with the stream behind its
// length.
func (w *dwarf) each(s *section, yield func(r *stream)) {
	r := w.stream(s.off, s.size)
	for {
		end, ok := w.unit(&r, s)
		if !ok {
			return
		}
		yield(&r)
		r.seek(end)
	}
}

// address takes the address that comes next, and says whether it refers.
func (w *dwarf) address(r *stream) (v int64, refers bool) {
	at := r.pos()
	v = int64(r.u64())
	if r.over || v == 0 || !w.in(v) {
		return v, false
	}
	w.add(at, DebugAddr, 0)
	return v, true
}

// length takes the number of bytes that comes next, of 4 or 8, behind an address
// that refers or does not.
func (w *dwarf) length(r *stream, class Class, refers bool) {
	at, v := r.pos(), uint64(0)
	if class == DebugLength {
		v = r.u64()
	} else {
		v = uint64(r.u32())
	}
	if refers && !r.over && v > 0 && v < maxAddress {
		w.add(at, class, 0)
	}
}

// offset takes an offset in another section.
func (w *dwarf) offset(r *stream, class Class, to int) uint32 {
	at, s := r.pos(), w.sections[to]
	v := r.u32()
	if s != nil && !r.over && int64(v) < s.size {
		w.add(at, class, int64(s.index))
	}
	return v
}

// expression takes n bytes that say where something is: an address or the entry
// of another variable come first, if at all.
func (w *dwarf) expression(r *stream, n uint64) {
	end := r.pos() + int64(min(n, 1<<40))
	if end > r.end {
		r.fail()
		return
	}
	if n >= 5 {
		switch op := r.u8(); {
		case op == 0x03 && n >= 9: // DW_OP_addr
			w.address(r)
		case op == 0xa0, op == 0xf2: // DW_OP_implicit_pointer
			w.offset(r, DebugEntry, inInfo)
		}
	}
	if !r.over {
		r.seek(end)
	}
}

// ranges goes through .debug_aranges.
func (w *dwarf) ranges(s *section) {
	w.each(s, func(r *stream) {
		start := r.pos() - 4
		if r.u16() != 2 {
			return
		}
		w.offset(r, DebugEntry, inInfo)
		if r.u8() != 8 || r.u8() != 0 {
			return
		}
		r.skip(uint64(-(r.pos() - start) & 15))
		for r.more() {
			_, refers := w.address(r)
			w.length(r, DebugLength, refers)
		}
	})
}

// addresses goes through .debug_addr.
func (w *dwarf) addresses(s *section) {
	w.each(s, func(r *stream) {
		if r.u16() != 5 || r.u8() != 8 || r.u8() != 0 {
			return
		}
		for r.more() {
			w.address(r)
		}
	})
}

// stringOffsets goes through .debug_str_offsets.
func (w *dwarf) stringOffsets(s *section) {
	w.each(s, func(r *stream) {
		if r.u16() != 5 {
			return
		}
		r.skip(2)
		for r.more() {
			w.offset(r, DebugString, inStr)
		}
	})
}

// frames goes through .debug_frame.
func (w *dwarf) frames(s *section) {
	w.each(s, func(r *stream) {
		if b := r.next(4); b == nil || le.Uint32(b) == 0xffffffff {
			return // a CIE
		}
		w.offset(r, DebugOffset, inFrame)
		_, refers := w.address(r)
		w.length(r, DebugLength, refers)
	})
}
