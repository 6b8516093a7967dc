package elfref

// Role is what a symbol's name says about a place.
type Role uint8

// The roles.
const (
	Defined Role = 1 + iota // the symbol lies there
	Entry                   // its entry in the dynamic symbol table
	Slot                    // the loader writes its address there
	Stub                    // code that jumps to it through a slot
	Bound                   // the relocation that fills a slot
)

// Symbol is a name for a place.
type Symbol struct {
	Name  string
	Place Place
	Role  Role
	Size  int64 // bytes, where Role is Defined and the file says it
	Code  bool  // a function
}

// Symbols lists what the symbol tables and relocations of an element name. Only
// encoders and explanations use it: what it finds is no part of the format.
func (e *Element) Symbols(t *Table) []Symbol {
	c := &collector{Element: e, data: t.data}
	var out []Symbol
	var dynamic *section
	for i := range c.sections {
		if c.sections[i].kind == typeDynsym {
			dynamic = &c.sections[i]
		}
	}
	name := func(s *section, i int64) string {
		d := c.bytes(s)
		if !c.links(s) || i < 0 || i > int64(len(d))/24-1 {
			return ""
		}
		return text(c.bytes(&c.sections[s.link]), int64(le.Uint32(d[i*24:])))
	}
	slots := map[Place]string{}
	for i := range c.sections {
		s := &c.sections[i]
		d := c.bytes(s)
		switch s.kind {
		case typeDynsym, typeSymtab:
			for i := int64(1); i < int64(len(d))/24; i++ {
				n := name(s, i)
				if n == "" {
					continue
				}
				b := d[i*24:]
				if s.kind == typeDynsym {
					out = append(out, Symbol{Name: n, Place: e.Loads.At(s.off + i*24), Role: Entry})
				}
				if shn := le.Uint16(b[6:]); shn == 0 || shn >= 0xff00 || b[4]&15 > 2 {
					continue
				}
				if p, ok := e.Place(int64(le.Uint64(b[8:]))); ok {
					out = append(out, Symbol{Name: n, Place: p, Role: Defined, Size: int64(le.Uint64(b[16:]) & (maxAddress - 1)), Code: b[4]&15 == 2})
				}
			}
		case typeRela:
			if dynamic == nil || s.entry != 24 {
				continue
			}
			for i := int64(0); i+24 <= int64(len(d)); i += 24 {
				switch le.Uint32(d[i+8:]) {
				case 6, 7, 1025, 1026: // slots of data and of functions
					n := name(dynamic, int64(le.Uint32(d[i+12:])))
					if p, ok := e.Place(int64(le.Uint64(d[i:]))); ok && n != "" {
						out = append(out, Symbol{Name: n, Place: p, Role: Slot}, Symbol{Name: n, Place: e.Base + s.off + i, Role: Bound})
						slots[p] = n
					}
				}
			}
		}
	}
	for i := range c.sections {
		if s := &c.sections[i]; s.code() && len(s.name) >= 4 && s.name[:4] == ".plt" {
			out = append(out, c.stubs(s, slots)...)
		}
	}
	return out
}

// stubs finds the code in a procedure linkage table that jumps through slots.
func (c *collector) stubs(s *section, slots map[Place]string) []Symbol {
	var out []Symbol
	d := c.bytes(s)
	add := func(addr, off, size int64) {
		if p, ok := c.Place(addr); ok && slots[p] != "" {
			out = append(out, Symbol{Name: slots[p], Place: c.Loads.At(s.off + off/size*size), Role: Stub})
		}
	}
	for i := int64(0); i+8 <= int64(len(d)); i++ {
		switch {
		case !c.arm && d[i] == 0xff && d[i+1] == 0x25:
			size := int64(16)
			if s.name == ".plt.got" {
				size = 8
			}
			add(s.addr+i+6+int64(int32(le.Uint32(d[i+2:]))), i, size)
		case c.arm && i&3 == 0 && le.Uint32(d[i:])&0x9f000000 == 0x90000000:
			if low, _, ok := lowBits(le.Uint32(d[i+4:])); ok {
				add(pageOf(le.Uint32(d[i:]), s.addr+i)+low, i, 16)
			}
		}
	}
	return out
}

// Section names the section that an offset of the file is in, "" if none is.
func (e *Element) Section(off int64) string {
	for i := range e.sections {
		s := &e.sections[i]
		if s.kind != 0 && s.kind != typeNobits && off >= s.off && off < s.off+s.size {
			return s.name
		}
	}
	return ""
}

// Sections calls yield for every section with bytes in the file: its name, where
// it lies in the data, and how long it is.
func (e *Element) Sections(yield func(name string, off, size int64)) {
	for i := range e.sections {
		if s := &e.sections[i]; s.kind != 0 && s.kind != typeNobits && s.size > 0 && s.name != "" {
			yield(s.name, e.Loads.At(s.off), s.size)
		}
	}
}

// Named is where a section lies in the data, and how long it is; 0, 0 if there
// is none of that name with bytes in the file.
func (e *Element) Named(name string) (off, size int64) {
	for i := range e.sections {
		if s := &e.sections[i]; s.name == name && s.kind != 0 && s.kind != typeNobits {
			return e.Loads.At(s.off), s.size
		}
	}
	return 0, 0
}
