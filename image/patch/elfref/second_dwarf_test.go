package elfref_test

// debug is what is known of the debugging information of a file while it is read.
type debug struct {
	sections map[string]*section
	budget   int64            // of bytes of tables of abbreviations
	table    [][]attribute    // of each entry
	tableAt  int64            // -1 if there is none yet
	lists    map[string]int64 // end of the last list of a section
	units    int
}

type attribute struct{ name, form uint64 }

// debugNames are the sections that are looked into, the last two by others.
var debugNames = []string{
	".debug_addr", ".debug_aranges", ".debug_frame", ".debug_info", ".debug_line", ".debug_ranges", ".debug_rnglists",
	".debug_str_offsets", ".debug_loc", ".debug_loclists",
}

// debugKind says whether a section can have debugging information.
func debugKind(s *section) bool { return s.counts && s.kind == 1 && s.flags&(2|0x800) == 0 }

// findDebug notes the first section of each name.
func (f *file) findDebug() {
	d := &f.debug
	d.sections, d.lists, d.tableAt, d.budget = map[string]*section{}, map[string]int64{}, -1, 1<<20
	for _, name := range append([]string{".debug_abbrev", ".debug_line_str", ".debug_macro", ".debug_str"}, debugNames...) {
		for i := range f.sections {
			s := &f.sections[i]
			if s.name == name && debugKind(s) && s.off+s.size <= int64(len(f.b)) {
				d.sections[name] = s
				break
			}
		}
	}
	if s := d.sections[".debug_abbrev"]; s != nil {
		d.budget += 2 * s.size
	}
}

// lookDebug finds references in a section of debugging information.
func (f *file) lookDebug(s *section) {
	if f.debug.sections[s.name] != s {
		return
	}
	read := map[string]func(u *unit){
		".debug_aranges": (*unit).aranges, ".debug_addr": (*unit).addresses, ".debug_str_offsets": (*unit).stringOffsets,
		".debug_frame": (*unit).frame, ".debug_rnglists": (*unit).rangeLists, ".debug_line": (*unit).line, ".debug_info": (*unit).info,
	}[s.name]
	if s.name == ".debug_ranges" {
		f.oldRanges(s)
	}
	if read == nil {
		return
	}
	for at, end := s.off, s.off+s.size; at+4 <= end; {
		n := f.u32(at)
		if n >= 0xfffffff0 || at+4+n > end {
			return
		}
		read(&unit{f: f, start: at, cursor: cursor{b: f.b, at: at + 4, end: at + 4 + n}})
		at += 4 + n
	}
}

func (f *file) oldRanges(s *section) {
	u := &unit{f: f, cursor: cursor{b: f.b, at: s.off, end: s.off + s.size}}
	for u.at+16 <= u.end {
		from, to := f.u64(u.at), f.u64(u.at+8)
		switch {
		case from == -1:
			u.skip(8)
			u.address()
		case f.lo <= from && from <= to && to <= f.hi:
			u.address()
			u.address()
		default:
			u.skip(16)
		}
	}
}

// unit is a part of a section that is read.
type unit struct {
	cursor
	f      *file
	start  int64
	refers bool // the address that was read last

	version uint64
	number  int64 // of its base, −1 if it has none
	base    uint64
}

// expect reads bytes, and whether they are these.
func (u *unit) expect(want ...byte) bool {
	for _, w := range want {
		if u.u8() != w {
			u.bad = true
		}
	}
	return !u.bad
}

// address reads an address, which may refer.
func (u *unit) address() uint64 {
	at := u.at
	v := u.u64()
	u.refers = !u.bad && v != 0 && u.f.inMemory(int64(v))
	if u.refers {
		u.f.add(at, 38, 0)
	}
	return v
}

// length reads the length of what begins at the address right before.
func (u *unit) length(bytes uint64) {
	at := u.at
	v := u.fixed(bytes)
	if !u.bad && u.refers && v > 0 && v < most44 {
		u.f.add(at, map[uint64]int64{8: 39, 4: 40}[bytes], 0)
	}
}

// offsetIn reads an offset in a section, and whether it is in it.
func (u *unit) offsetIn(name string) (uint64, bool) {
	at := u.at
	v := u.u32()
	s := u.f.debug.sections[name]
	if u.bad || s == nil || int64(v) >= s.size {
		return v, false
	}
	class := int64(44)
	switch name {
	case ".debug_str", ".debug_line_str":
		class = 41
	case ".debug_info":
		class = 43
	}
	u.f.add(at, class, s.number)
	return v, true
}

// expression reads one of n bytes.
func (u *unit) expression(n uint64) {
	at := u.at
	if !u.skip(n) || n == 0 {
		return
	}
	in := &unit{f: u.f, cursor: cursor{b: u.b, at: at, end: u.at}}
	switch op := in.u8(); {
	case op == 3 && n >= 9:
		in.address()
	case (op == 0xa0 || op == 0xf2) && n >= 5:
		in.offsetIn(".debug_info")
	}
}

func (u *unit) aranges() {
	if u.u16() != 2 {
		return
	}
	u.offsetIn(".debug_info")
	if !u.expect(8, 0) {
		return
	}
	for (u.at-u.start)%16 != 0 {
		u.skip(1)
		if u.bad {
			return
		}
	}
	for u.more() {
		u.address()
		u.length(8)
	}
}

func (u *unit) addresses() {
	if u.u16() == 5 && u.expect(8, 0) {
		for u.more() {
			u.address()
		}
	}
}

func (u *unit) stringOffsets() {
	if u.u16() == 5 && u.skip(2) {
		for u.more() {
			u.offsetIn(".debug_str")
		}
	}
}

func (u *unit) frame() {
	if id := u.u32(); u.bad || id == 0xffffffff {
		return
	}
	u.at -= 4
	u.offsetIn(".debug_frame")
	u.address()
	u.length(8)
}

func (u *unit) rangeLists() {
	if u.u16() != 5 || !u.expect(8, 0) {
		return
	}
	u.skip(4 * u.u32())
	for u.more() {
		switch u.u8() {
		case 0, 255:
		case 1:
			u.leb()
		case 2, 3, 4:
			u.leb()
			u.leb()
		case 5:
			u.address()
		case 6:
			u.address()
			u.address()
		case 7:
			u.address()
			u.leb()
		default:
			return
		}
	}
}

func (u *unit) line() {
	if u.version = u.u16(); u.version < 2 || u.version > 5 || u.version == 5 && !u.expect(8, 0) {
		return
	}
	n := u.u32()
	head := &unit{f: u.f, cursor: u.cursor}
	if !u.skip(n) {
		return
	}
	head.skip(4)
	if u.version >= 4 {
		head.skip(1)
	}
	b := head.u8()
	if b == 0 {
		return
	}
	operands := make([]byte, b)
	for i := 1; i < int(b); i++ {
		operands[i] = head.u8()
	}
	if head.bad {
		return
	}
	if u.version == 5 {
		head.end = u.at
		head.lineTable()
		head.lineTable()
	}
	for u.more() {
		op := u.u8()
		switch {
		case op >= b:
		case op == 0:
			n := u.leb()
			if n == 0 {
				break
			}
			if u.u8() == 2 && n == 9 {
				u.address()
			} else {
				u.skip(n - 1)
			}
		case op == 9:
			u.skip(2)
		default:
			for range operands[op] {
				u.leb()
			}
		}
	}
}

// lineTable reads a table of folders or of files.
func (u *unit) lineTable() {
	forms := make([]uint64, u.u8())
	for i := range forms {
		u.leb()
		forms[i] = u.leb()
		if form := forms[i]; form == 0x19 || form == 0x21 || form != 0x0e && form != 0x1f && !(&unit{}).skipForm(form) {
			u.bad = true
			return
		}
	}
	n := u.leb()
	for ; n > 0 && len(forms) > 0 && u.more(); n-- {
		for _, form := range forms {
			switch form {
			case 0x0e:
				u.offsetIn(".debug_str")
			case 0x1f:
				u.offsetIn(".debug_line_str")
			default:
				u.skipForm(form)
			}
			if u.bad {
				return
			}
		}
	}
}
