package elfref

// list takes an offset in a section of lists of locations, and goes through the
// list there, unless it begins before the end of the one that was gone through
// last: lists come in the order of the entries that use them, and between them,
// at times, stands what only those know.
func (w *dwarf) list(r *stream, version uint16) {
	to := byVersion(version, inOldLocations, inLocations)
	v, s := int64(w.offset(r, DebugOffset, to)), w.sections[to]
	if s == nil || r.over || v >= s.size {
		return
	}
	last := &w.lists[byVersion(version, 0, 1)]
	if *last == nil {
		l := w.stream(s.off, s.size)
		*last = &l
	}
	l := *last
	if at := s.off + v; l.more() && at >= l.pos() {
		l.seek(at)
		if version == 5 {
			w.newList(l, true)
		} else {
			w.oldList(l)
		}
	}
}

// oldList goes through a list of locations of DWARF 4: pairs of addresses, or of
// distances from the unit's.
func (w *dwarf) oldList(r *stream) {
	base := w.base
	for r.more() {
		b := r.next(16)
		if b == nil {
			return
		}
		from, to := le.Uint64(b), le.Uint64(b[8:])
		switch {
		case from|to == 0:
			r.skip(16)
			return
		case from == 1<<64-1:
			r.skip(8)
			base, _ = w.address(r)
			continue
		case base == 0:
			w.address(r)
			w.address(r)
		default:
			r.skip(16)
		}
		w.expression(r, uint64(r.u16()))
	}
}

// rangePairs goes through .debug_ranges of DWARF 4: pairs, of which those count
// that are addresses of code.
func (w *dwarf) rangePairs(s *section) {
	r := w.stream(s.off, s.size)
	for b := r.next(16); b != nil; b = r.next(16) {
		from, to := int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
		if from >= w.lo && from <= to && to <= w.hi {
			w.address(&r)
			w.address(&r)
			continue
		}
		if from == -1 {
			r.skip(8)
			w.address(&r)
			continue
		}
		r.skip(16)
	}
}

// newList goes through a list of DWARF 5. Kinds of entries are the same for
// locations and ranges but for the fifth, and those behind it.
func (w *dwarf) newList(r *stream, locations bool) {
	for r.more() {
		kind := r.u8()
		if !locations && kind >= 5 {
			kind++
		}
		switch kind {
		case 0: // end
			return
		case 1: // base_addressx
			r.leb()
			continue
		case 2, 3, 4: // startx_endx, startx_length, offset_pair
			r.leb()
			r.leb()
		case 5: // default_location
		case 6: // base_address
			w.address(r)
			continue
		case 7: // start_end
			w.address(r)
			w.address(r)
		case 8: // start_length
			w.address(r)
			r.leb()
		default:
			r.fail()
		}
		if locations {
			w.expression(r, r.leb())
		}
	}
}

// rangeLists goes through .debug_rnglists.
func (w *dwarf) rangeLists(s *section) {
	w.each(s, func(r *stream) {
		if r.u16() != 5 || r.u8() != 8 || r.u8() != 0 {
			return
		}
		r.skip(4 * uint64(r.u32()))
		for r.more() {
			w.newList(r, false)
		}
	})
}

// lines goes through .debug_line: names of files, and addresses of code.
func (w *dwarf) lines(s *section) {
	w.each(s, func(r *stream) {
		version := r.u16()
		if version < 2 || version > 5 {
			return
		}
		if version == 5 && (r.u8() != 8 || r.u8() != 0) {
			return
		}
		length := int64(r.u32())
		program := r.pos() + length
		if r.over || program > r.end {
			return
		}
		r.skip(4)
		if version >= 4 {
			r.skip(1)
		}
		var operands [256]byte
		base := int(r.u8())
		for op := 1; op < base; op++ {
			operands[op] = r.u8()
		}
		if r.over || base == 0 {
			return
		}
		if version == 5 {
			end := r.end
			r.until(program)
			w.names(r)
			w.names(r)
			r.until(end)
		}
		r.seek(program)
		w.program(r, base, &operands)
	})
}

// names goes through folders or files of a unit of lines.
func (w *dwarf) names(r *stream) {
	var steps []step
	for range r.u8() {
		r.leb()
		s, ok := stepOf(0, r.leb(), false)
		if !ok || s == skipBytes || s >= toAddress && s != toSection+inStr && s != toSection+inLineStr {
			r.fail()
			return
		}
		steps = append(steps, s)
	}
	n := r.leb()
	for ; n > 0 && len(steps) > 0 && !r.over; n-- {
		w.entry(r, steps, 0, -1, false)
	}
}

// program goes through the instructions of a unit of lines.
func (w *dwarf) program(r *stream, base int, operands *[256]byte) {
	for r.more() {
		op := int(r.u8())
		switch {
		case op >= base:
		case op == 0:
			n := r.leb()
			if n == 0 {
				continue
			}
			if sub := r.u8(); sub == 2 && n == 9 { // set_address
				w.address(r)
			} else {
				r.skip(n - 1)
			}
		case op == 9: // fixed_advance_pc
			r.skip(2)
		default:
			for range operands[op] {
				r.leb()
			}
		}
		if len(w.recs) >= packLength {
			w.spill(false)
		}
	}
}
