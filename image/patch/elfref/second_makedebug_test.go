package elfref_test

// debugTable is a table of abbreviations that was made.
type debugTable struct {
	offset  uint32
	entries [][]attribute
}

// debugMakers are in the order in which they know of one another.
var debugMakers = []struct {
	name string
	fill func(m *maker)
}{
	{".debug_str", func(m *maker) { m.noise(0x300) }},
	{".debug_line_str", func(m *maker) { m.noise(0x100) }},
	{".debug_macro", func(m *maker) { m.noise(0x40) }},
	{".debug_abbrev", (*maker).abbreviations},
	{".debug_loc", (*maker).oldLists},
	{".debug_loclists", (*maker).lists},
	{".debug_ranges", func(m *maker) {
		for range 20 {
			m.u64(m.address())
			m.u64(m.start(".text") + m.Uint64N(700))
		}
	}},
	{".debug_rnglists", (*maker).ranges},
	{".debug_line", (*maker).lines},
	{".debug_info", (*maker).info},
	{".debug_aranges", func(m *maker) {
		m.units(4, func() {
			m.u16(uint16(m.odd(2)))
			m.u32(uint32(m.some(".debug_info")))
			m.u8(byte(m.odd(8)), 0, 0, 0, 0, 0)
			m.pairs(6)
		})
	}},
	{".debug_addr", func(m *maker) {
		m.units(3, func() {
			m.u16(uint16(m.odd(5)))
			m.u8(byte(m.odd(8)), 0)
			m.words(5)
		})
	}},
	{".debug_str_offsets", func(m *maker) {
		m.units(3, func() {
			m.u16(uint16(m.odd(5)))
			for range 6 {
				m.u16(uint16(m.Uint32N(0x400)))
				m.u16(0)
			}
		})
	}},
	{".debug_frame", func(m *maker) {
		m.units(8, func() {
			m.u32(uint32(m.pick(0xffffffff, int(m.small()))))
			m.pairs(1)
		})
	}},
}

// odd is mostly v.
func (m *maker) odd(v int) int {
	if m.rarely() {
		return m.IntN(10)
	}
	return v
}

// length puts the length of what fill makes before it, mostly.
func (m *maker) length(fill func()) {
	at := len(m.b)
	m.u32(0)
	fill()
	n := len(m.b) - at - 4
	if m.rarely() {
		n += m.IntN(9) - 4
	}
	le.PutUint32(m.b[at:], uint32(max(n, 0)))
}

func (m *maker) units(n int, fill func()) {
	for range n {
		m.length(func() {
			fill()
			m.noise(m.IntN(20) / 16)
		})
	}
}

// pairs are addresses and lengths.
func (m *maker) pairs(n int) {
	for range n {
		m.u64(m.address())
		m.u64(uint64(m.pick(0, 16, 1<<44, 1<<44-1, -1)))
	}
}

var (
	oddNames = []int{0x10, 0x55, 0x72, 0x73, 0x74, 0x8c, 0x79, 0x2119, 0x2137, 0x02, 0x40, 0x49, 0x11, 0x12, 0x03}
	allForms = []int{
		0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15,
		0x17, 0x17, 0x17, 0x18, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
		0x2a, 0x2b, 0x2c, 0x1f01, 0x1f02, 0x1f20, 0x1f21,
	}
)

func (m *maker) abbreviations() {
	m.tables = nil
	for range 3 {
		t := debugTable{offset: uint32(len(m.b))}
		for code := range m.IntN(8) {
			m.leb(uint64(code + 1))
			m.leb(uint64(m.IntN(0x60)))
			m.u8(byte(m.IntN(2)))
			var entry []attribute
			add := func(name, form int) {
				m.leb(uint64(name))
				m.leb(uint64(form))
				if form == 0x21 {
					m.leb(m.small())
				}
				entry = append(entry, attribute{uint64(name), uint64(form)})
			}
			for range m.IntN(6) {
				if add(m.pick(oddNames...), m.pick(allForms...)); m.IntN(3) == 0 {
					add(0x11, 0x01)
					add(0x12, m.pick(6, 7))
				}
			}
			if m.IntN(60) == 0 {
				add(1, m.pick(0x16, 0x02, 0x2d, 0x1f03))
			}
			m.u8(0, 0)
			t.entries = append(t.entries, entry)
		}
		m.u8(byte(m.odd(0)))
		m.tables = append(m.tables, t)
	}
}

func (m *maker) info() {
	m.units(5, func() {
		m.starts[".debug_info"] = append(m.starts[".debug_info"], uint64(len(m.b)-4))
		version := m.odd(m.pick(4, 5))
		m.u16(uint16(version))
		table := m.tables[m.IntN(len(m.tables))]
		kind := 0
		if version == 5 {
			kind = m.IntN(7)
			m.u8(byte(kind), byte(m.odd(8)))
		}
		m.u32(table.offset)
		if version == 4 {
			m.u8(byte(m.odd(8)))
		}
		switch kind {
		case 2, 6:
			m.noise(12)
		case 4, 5:
			m.noise(8)
		}
		for range m.IntN(20) {
			code := m.IntN(len(table.entries) + 1)
			m.leb(uint64(code))
			if code > 0 {
				for _, a := range table.entries[code-1] {
					m.value(a, version)
				}
			}
		}
	})
}

// value makes one that fits its form, and mostly its name.
func (m *maker) value(a attribute, version int) {
	switch a.form {
	case 0x01:
		m.u64(m.address())
	case 0x0d, 0x0f, 0x15, 0x1a, 0x1b, 0x22, 0x23, 0x1f01, 0x1f02:
		m.leb(m.small())
	case 0x08:
		m.b = append(m.b, "text\x00"...)
	case 0x0a:
		n := m.IntN(12)
		m.u8(byte(n))
		m.noise(n)
	case 0x03:
		n := m.IntN(12)
		m.u16(uint16(n))
		m.noise(n)
	case 0x04:
		n := m.IntN(12)
		m.u32(uint32(n))
		m.noise(n)
	case 0x09:
		n := m.IntN(12)
		m.leb(uint64(n))
		m.noise(n)
	case 0x18:
		m.expression(func(n int) { m.leb(uint64(n)) })
	case 0x0e, 0x1f, 0x10, 0x13:
		m.u32(uint32(m.pick(0, int(m.Uint32N(0x400)), int(m.small()))))
	case 0x17:
		lists := ".debug_loc"
		if version == 5 {
			lists = ".debug_loclists"
		}
		m.u32(uint32(m.some(lists)))
	case 0x06, 0x07:
		m.b = append(m.b, le.AppendUint64(nil, uint64(m.pick(0, 16, 99)))[:sizes[a.form]]...)
	default:
		m.noise(int(sizes[a.form]))
	}
}

// expression makes one, with its length put before it.
func (m *maker) expression(length func(n int)) {
	rest := m.IntN(3)
	switch m.IntN(4) {
	case 0:
		length(9 + rest)
		m.u8(3)
		m.u64(m.address())
	case 1:
		length(5 + rest)
		m.u8(byte(m.pick(0xa0, 0xf2)))
		m.u32(m.Uint32N(0x400))
	case 2:
		n := m.IntN(11)
		length(n + rest)
		if n > 0 {
			m.u8(byte(m.pick(3, 0xa0, 0x50)))
			m.b = append(m.b, le.AppendUint64(nil, m.address())[:8]...)
			m.b = m.b[:len(m.b)-9+min(n, 9)]
			m.noise(max(n-9, 0))
		}
	case 3:
		length(rest)
	}
	m.noise(rest)
}

func (m *maker) oldLists() {
	for range 12 {
		m.mark(".debug_loc")
		for range m.IntN(4) {
			m.u64(m.address() | 1)
			m.u64(m.address())
			if le.Uint64(m.b[len(m.b)-16:]) != 1<<64-1 {
				m.expression(func(n int) { m.u16(uint16(n)) })
			}
		}
		m.u64(0)
		m.u64(0)
		m.noise(m.IntN(3))
	}
	if m.IntN(2) == 0 {
		m.words(3)
	}
}

// entry makes one of a list of DWARF 5, in locations numbers.
func (m *maker) entry(kind int) {
	switch kind {
	case 1:
		m.leb(m.small())
	case 2, 3, 4:
		m.leb(m.small())
		m.leb(m.small())
	case 6:
		m.u64(m.address())
	case 7:
		m.u64(m.address())
		m.u64(m.address())
	case 8:
		m.u64(m.address())
		m.leb(m.small())
	}
}

func (m *maker) lists() {
	m.units(1, func() {
		m.u16(5)
		m.u8(8, 0)
		m.u32(0)
		for range 12 {
			m.mark(".debug_loclists")
			for range m.IntN(4) {
				kind := 1 + m.IntN(8)
				if m.IntN(100) == 0 {
					kind = 9
				}
				m.u8(byte(kind))
				if m.entry(kind); kind != 1 && kind != 6 {
					m.expression(func(n int) { m.leb(uint64(n)) })
				}
			}
			m.u8(0)
			m.noise(m.IntN(3))
		}
	})
}

func (m *maker) ranges() {
	m.units(4, func() {
		m.u16(uint16(m.odd(5)))
		m.u8(byte(m.odd(8)), 0)
		m.u32(uint32(m.odd(1)))
		m.u32(4)
		for range 8 {
			kind := m.IntN(8)
			if m.rarely() {
				kind = m.pick(8, 255)
			}
			if m.u8(byte(kind)); kind >= 5 {
				kind++
			}
			m.entry(kind)
		}
	})
}

func (m *maker) lines() {
	m.units(5, func() {
		version := m.odd(m.pick(2, 3, 4, 5, 5))
		m.u16(uint16(version))
		if version == 5 {
			m.u8(byte(m.odd(8)), 0)
		}
		base := m.pick(9, 10, 13, 14, m.IntN(3))
		m.length(func() {
			m.u8(1)
			if version >= 4 {
				m.u8(1)
			}
			m.u8(1, 0xfb, 14, byte(base))
			for range max(base-1, 0) {
				m.u8(byte(m.IntN(3)))
			}
			for range 2 {
				forms := make([]int, m.IntN(4))
				m.u8(byte(len(forms)))
				for i := range forms {
					if forms[i] = m.pick(0x0e, 0x1f, 0x0b, 0x08, 0x0f, 0x1e, 0x09, 0x05); m.IntN(40) == 0 {
						forms[i] = m.pick(allForms...)
					}
					m.leb(1)
					m.leb(uint64(forms[i]))
				}
				n := m.IntN(4)
				m.leb(uint64(n))
				for range n {
					for _, f := range forms {
						m.value(attribute{1, uint64(f)}, 5)
					}
				}
			}
		})
		for range m.IntN(30) {
			switch m.IntN(5) {
			case 0:
				m.u8(0, 9, 2)
				m.u64(m.address())
			case 1:
				n := m.IntN(12)
				m.u8(0, byte(n), byte(m.pick(2, 1, 4)))
				m.noise(max(n-1, 0))
			default:
				m.u8(byte(m.IntN(20)))
			}
		}
	})
}
