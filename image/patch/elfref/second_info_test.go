package elfref_test

// sizes are those of forms that are skipped and have one.
var sizes = map[uint64]uint64{
	0x0b: 1, 0x0c: 1, 0x11: 1, 0x25: 1, 0x29: 1,
	0x05: 2, 0x12: 2, 0x26: 2, 0x2a: 2,
	0x27: 3, 0x2b: 3,
	0x06: 4, 0x1c: 4, 0x1d: 4, 0x28: 4, 0x2c: 4, 0x1f20: 4, 0x1f21: 4,
	0x07: 8, 0x14: 8, 0x20: 8, 0x24: 8,
	0x1e: 16,
	0x19: 0, 0x21: 0,
}

// skipForm passes over a value, if its form is one that is skipped.
func (u *unit) skipForm(form uint64) bool {
	n, ok := sizes[form]
	switch form {
	case 0x0d, 0x0f, 0x15, 0x1a, 0x1b, 0x22, 0x23, 0x1f01, 0x1f02:
		u.leb()
		return true
	case 0x08:
		for u.u8() != 0 {
		}
		return true
	case 0x0a:
		n, ok = u.fixed(1), true
	case 0x03:
		n, ok = u.fixed(2), true
	case 0x04:
		n, ok = u.fixed(4), true
	case 0x09:
		n, ok = u.leb(), true
	}
	u.skip(n)
	return ok
}

func knownForm(form uint64) bool {
	switch form {
	case 0x01, 0x0e, 0x1f, 0x10, 0x13, 0x18, 0x17:
		return true
	}
	return (&unit{}).skipForm(form)
}

// readTable reads the table of abbreviations at an offset.
func (f *file) readTable(offset int64) [][]attribute {
	d := &f.debug
	if d.tableAt == offset {
		return d.table
	}
	s := d.sections[".debug_abbrev"]
	d.table, d.tableAt = nil, offset
	most := min(1<<18, s.size-offset, d.budget)
	c := &cursor{b: f.b, at: s.off + offset, end: s.off + offset + most}
	cost := most
	for {
		if number := c.leb(); c.bad {
			break
		} else if number != uint64(len(d.table)+1) {
			cost = c.at - s.off - offset
			break
		}
		c.leb()
		c.u8()
		var a []attribute
		known := true
		for known {
			name, form := c.leb(), c.leb()
			if c.bad || name == 0 && form == 0 {
				break
			}
			known = knownForm(form)
			if form == 0x21 {
				c.leb()
			}
			a = append(a, attribute{name, form})
		}
		if c.bad || !known {
			break
		}
		d.table = append(d.table, a)
	}
	d.budget -= min(max(cost, 256), most)
	return d.table
}

func (u *unit) info() {
	if u.version = u.u16(); u.version != 4 && u.version != 5 {
		return
	}
	kind := byte(0)
	if u.version == 5 {
		kind = u.u8()
		if !u.expect(8) {
			return
		}
	}
	offset, ok := u.offsetIn(".debug_abbrev")
	if !ok || u.version == 4 && !u.expect(8) {
		return
	}
	switch kind {
	case 2, 6:
		u.skip(12)
	case 4, 5:
		u.skip(8)
	}
	if u.bad {
		return
	}
	table := u.f.readTable(int64(offset))
	u.number = -1
	if d := &u.f.debug; d.units < 65536 {
		d.units++
		u.number = int64(len(u.f.bases))
		u.f.bases = append(u.f.bases, u.f.at(u.start))
	}
	first := true
	for u.more() {
		code := u.leb()
		if u.bad || code > uint64(len(table)) {
			return
		}
		if code != 0 {
			u.entry(table[code-1], first)
			first = false
		}
	}
}

// entry reads the attributes of one entry.
func (u *unit) entry(attributes []attribute, first bool) {
	low := false // the attribute before is low_pc, an address
	for _, a := range attributes {
		wasLow := low
		low = false
		at := u.at
		switch a.form {
		case 0x01:
			v := u.address()
			if low = a.name == 0x11; low && first {
				u.base = v
			}
		case 0x06, 0x07:
			bytes := sizes[a.form]
			if wasLow && a.name == 0x12 {
				u.length(bytes)
			} else {
				u.skip(bytes)
			}
		case 0x0e:
			u.offsetIn(".debug_str")
		case 0x1f:
			u.offsetIn(".debug_line_str")
		case 0x10:
			u.offsetIn(".debug_info")
		case 0x13:
			if v := u.u32(); !u.bad && v != 0 && u.number >= 0 {
				u.f.add(at, 42, u.number)
			}
		case 0x18:
			u.expression(u.leb())
		case 0x17:
			u.sectionOffset(a.name)
		default:
			u.skipForm(a.form)
		}
		if u.bad {
			return
		}
	}
}

func (u *unit) sectionOffset(name uint64) {
	switch name {
	case 0x10:
		u.offsetIn(".debug_line")
	case 0x72:
		u.offsetIn(".debug_str_offsets")
	case 0x73:
		u.offsetIn(".debug_addr")
	case 0x74:
		u.offsetIn(".debug_rnglists")
	case 0x8c:
		u.offsetIn(".debug_loclists")
	case 0x79, 0x2119:
		u.offsetIn(".debug_macro")
	case 0x55:
		if u.version == 4 {
			u.offsetIn(".debug_ranges")
		} else {
			u.offsetIn(".debug_rnglists")
		}
	default:
		in, read := ".debug_loc", (*unit).oldLocations
		if u.version == 5 {
			in, read = ".debug_loclists", (*unit).locations
		}
		offset, ok := u.offsetIn(in)
		last := u.f.debug.lists[in]
		if !ok || name == 0x2137 || last < 0 || int64(offset) < last {
			return
		}
		s := u.f.debug.sections[in]
		list := &unit{f: u.f, base: u.base, cursor: cursor{b: u.b, at: s.off + int64(offset), end: s.off + s.size}}
		read(list)
		u.f.debug.lists[in] = list.at - s.off
		if list.bad {
			u.f.debug.lists[in] = -1
		}
	}
}

// oldLocations reads a list of DWARF 4.
func (u *unit) oldLocations() {
	for !u.bad {
		if u.end-u.at < 16 {
			u.bad = true
			return
		}
		from, to := u.f.u64(u.at), u.f.u64(u.at+8)
		switch {
		case from == 0 && to == 0:
			u.skip(16)
			return
		case from == -1:
			u.skip(8)
			u.base = u.address()
			continue
		case u.base == 0:
			u.address()
			u.address()
		default:
			u.skip(16)
		}
		u.expression(u.u16())
	}
}

// locations reads a list of DWARF 5.
func (u *unit) locations() {
	for !u.bad {
		kind := u.u8()
		if kind == 0 {
			return
		}
		switch kind {
		case 1:
			u.leb()
			continue
		case 2, 3, 4:
			u.leb()
			u.leb()
		case 5:
		case 6:
			u.address()
			continue
		case 7:
			u.address()
			u.address()
		case 8:
			u.address()
			u.leb()
		default:
			u.bad = true
		}
		u.expression(u.leb())
	}
}
