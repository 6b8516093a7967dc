package elfref

// Bounds of units.
const (
	maxAbbreviations = 1 << 18 // bytes of one table
	maxUnits         = 1 << 16 // that references count from
	leastRead        = 256     // bytes that a table counts at least
)

// step is what to do about a part of an entry: code, and a number.
type step uint16

// The codes of steps. Each goes on by at least one byte, so that going through
// entries takes as long as they are.
const (
	skipBytes    = iota << 8 // as many as the number says
	skipLEB                  // a LEB128 number
	skipText                 //
	skipBlock                // bytes, of which a number of as many bytes says how many; 0: a LEB128 number
	toAddress                // DW_FORM_addr
	toLow                    // the same, of DW_AT_low_pc
	toHigh                   // DW_AT_high_pc as a length, of as many bytes
	toUnit                   // DW_FORM_ref4
	toSection                // an offset in the section of that number
	toLocations              // an offset in a list of locations
	toViews                  // what comes before one
	toRanges                 // of ranges
	toExpression             // DW_FORM_exprloc
)

// The sections that others refer to, or that come but once.
const (
	inStr = iota
	inLineStr
	inInfo
	inLine
	inStrOffsets
	inAddr
	inRanges
	inLocations
	inMacro
	inAbbrev
	inFrame
	inOldRanges
	inOldLocations
	inTable
	targets
)

var targetNames = [targets]string{
	".debug_str", ".debug_line_str", ".debug_info", ".debug_line", ".debug_str_offsets", ".debug_addr",
	".debug_rnglists", ".debug_loclists", ".debug_macro", ".debug_abbrev", ".debug_frame", ".debug_ranges",
	".debug_loc", ".debug_aranges",
}

// abbreviations is a table of .debug_abbrev.
type abbreviations struct {
	off    int64   // in the section
	steps  []step  // of all entries
	starts []int32 // where those of each begin, and where the last ends
}

// of are the steps of an entry with a code; no table has code 0.
func (t *abbreviations) of(code uint64) ([]step, bool) {
	if code >= uint64(len(t.starts)) {
		return nil, false
	}
	return t.steps[t.starts[code-1]:t.starts[code]], true
}

// abbreviations reads the table at an offset of the section. Its entries are
// numbered from 1 on.
func (w *dwarf) abbreviations(off int64) bool {
	if off == w.abbrev.off {
		return true
	}
	s, t := w.sections[inAbbrev], &w.abbrev
	if s == nil || off >= s.size {
		return false
	}
	t.off, t.steps, t.starts = -1, t.steps[:0], append(t.starts[:0], 0)
	n := min(s.size-off, maxAbbreviations, w.budget)
	r := w.stream(s.off+off, n)
	r.window = leastRead
	for code := uint64(1); ; code++ {
		if got := r.leb(); r.over || got != code {
			break
		}
		r.leb() // tag
		r.u8()
		low := false // the attribute before is an address of code
		for {
			name, form := r.leb(), r.leb()
			if form == 0x21 { // DW_FORM_implicit_const
				r.leb()
			}
			if r.over || name|form == 0 {
				break
			}
			s, ok := stepOf(name, form, low)
			if !ok {
				r.fail()
			}
			low = s == toLow
			t.add(s)
		}
		if r.over {
			break
		}
		t.starts = append(t.starts, int32(len(t.steps)))
	}
	if !r.over {
		n = min(n, max(r.pos()-s.off-off, leastRead))
	}
	w.budget -= n
	t.off = off
	return true
}

// add appends a step to the entry that is being read.
func (t *abbreviations) add(s step) {
	if s == skipBytes {
		return
	}
	if k := len(t.steps) - 1; s < skipLEB && k >= int(t.starts[len(t.starts)-1]) && t.steps[k]+s < skipLEB {
		t.steps[k] += s
		return
	}
	t.steps = append(t.steps, s)
}

// stepOf is the step for an attribute of a form; low says that the attribute
// before is an address.
func stepOf(name, form uint64, low bool) (s step, ok bool) {
	const lowPC, highPC = 0x11, 0x12
	switch form {
	case 0x01: // addr
		if name == lowPC {
			return toLow, true
		}
		return toAddress, true
	case 0x06, 0x07: // data4, data8
		n := step(4 * (form - 5))
		if name == highPC && low {
			return toHigh + n, true
		}
		return skipBytes + n, true
	case 0x0b, 0x0c, 0x11, 0x25, 0x29: // data1, flag, ref1, strx1, addrx1
		return skipBytes + 1, true
	case 0x05, 0x12, 0x26, 0x2a: // data2, ref2, strx2, addrx2
		return skipBytes + 2, true
	case 0x27, 0x2b: // strx3, addrx3
		return skipBytes + 3, true
	case 0x1c, 0x1d, 0x28, 0x2c, 0x1f20, 0x1f21: // ref_sup4, strp_sup, strx4, addrx4, and those of dwz
		return skipBytes + 4, true
	case 0x14, 0x20, 0x24: // ref8, ref_sig8, ref_sup8
		return skipBytes + 8, true
	case 0x1e: // data16
		return skipBytes + 16, true
	case 0x19, 0x21: // flag_present, implicit_const
		return skipBytes, true
	case 0x0d, 0x0f, 0x15, 0x1a, 0x1b, 0x22, 0x23, 0x1f01, 0x1f02: // sdata, udata, ref_udata, strx, addrx, loclistx, rnglistx
		return skipLEB, true
	case 0x08: // string
		return skipText, true
	case 0x09: // block
		return skipBlock, true
	case 0x0a: // block1
		return skipBlock + 1, true
	case 0x03: // block2
		return skipBlock + 2, true
	case 0x04: // block4
		return skipBlock + 4, true
	case 0x18: // exprloc
		return toExpression, true
	case 0x0e: // strp
		return toSection + inStr, true
	case 0x1f: // line_strp
		return toSection + inLineStr, true
	case 0x10: // ref_addr
		return toSection + inInfo, true
	case 0x13: // ref4
		return toUnit, true
	case 0x17: // sec_offset
		return offsetOf(name), true
	}
	return 0, false
}

// offsetOf is the step for an attribute that is an offset in another section.
func offsetOf(name uint64) step {
	switch name {
	case 0x10: // stmt_list
		return toSection + inLine
	case 0x55: // ranges
		return toRanges
	case 0x72: // str_offsets_base
		return toSection + inStrOffsets
	case 0x73: // addr_base
		return toSection + inAddr
	case 0x74: // rnglists_base
		return toSection + inRanges
	case 0x8c: // loclists_base
		return toSection + inLocations
	case 0x79, 0x2119: // macros
		return toSection + inMacro
	case 0x2137: // GNU_locviews: what comes before the list
		return toViews
	}
	return toLocations
}

// info goes through .debug_info.
func (w *dwarf) info(s *section) {
	w.each(s, func(r *stream) {
		start := r.pos() - 4
		version := r.u16()
		kind := byte(1)
		switch version {
		case 4:
		case 5:
			kind = r.u8()
			if r.u8() != 8 {
				return
			}
		default:
			return
		}
		table := w.offset(r, DebugOffset, inAbbrev)
		if version == 4 && r.u8() != 8 {
			return
		}
		switch kind {
		case 2, 6: // of a type
			r.skip(12)
		case 4, 5: // split
			r.skip(8)
		}
		if r.over || !w.abbreviations(int64(table)) {
			return
		}
		unit := int64(-1)
		if w.units < maxUnits {
			w.units++
			unit = int64(len(w.Bases))
			w.Bases = append(w.Bases, w.Loads.At(start))
		}
		w.base = 0
		for first := true; r.more(); {
			code := r.leb()
			if code == 0 {
				continue
			}
			steps, ok := w.abbrev.of(code)
			if !ok {
				return
			}
			w.entry(r, steps, version, unit, first)
			first = false
			if len(w.recs) >= packLength {
				w.spill(false)
			}
		}
	})
}

// entry takes an entry; the unit's number among the bases is −1 if it has none.
func (w *dwarf) entry(r *stream, steps []step, version uint16, unit int64, first bool) {
	refers := false // the address before
	for _, s := range steps {
		n := uint64(s & 255)
		switch s &^ 255 {
		case skipBytes:
			r.skip(n)
		case skipLEB:
			r.leb()
		case skipText:
			r.text()
		case skipBlock:
			switch n {
			case 0:
				n = r.leb()
			case 1:
				n = uint64(r.u8())
			case 2:
				n = uint64(r.u16())
			default:
				n = uint64(r.u32())
			}
			r.skip(n)
		case toAddress:
			w.address(r)
		case toLow:
			var v int64
			if v, refers = w.address(r); first {
				w.base = v
			}
		case toHigh:
			class := DebugLength
			if n == 4 {
				class = DebugLength4
			}
			w.length(r, class, refers)
		case toUnit:
			if at, v := r.pos(), r.u32(); v != 0 && unit >= 0 && !r.over {
				w.add(at, DebugUnit, unit)
			}
		case toSection:
			class := DebugOffset
			switch n {
			case inStr, inLineStr:
				class = DebugString
			case inInfo:
				class = DebugEntry
			}
			w.offset(r, class, int(n))
		case toLocations:
			w.list(r, version)
		case toViews:
			w.offset(r, DebugOffset, byVersion(version, inOldLocations, inLocations))
		case toRanges:
			w.offset(r, DebugOffset, byVersion(version, inOldRanges, inRanges))
		case toExpression:
			w.expression(r, r.leb())
		}
		if r.over {
			return
		}
	}
}

// byVersion is what is meant in DWARF 4 or 5.
func byVersion(version uint16, four, five int) int {
	if version == 5 {
		return five
	}
	return four
}
