package elfref

import "github.com/sealant-os/sealant/internal/linux"

// bytes are a section's contents, nil if it has none within the file. Where the
// file is not in memory they are valid until the next call.
func (c *collector) bytes(s *section) []byte {
	if s.kind == 0 || s.kind == typeNobits || s.off+s.size > c.Size {
		return nil
	}
	return c.at(s.off, s.size)
}

// pieceSize is how much of code, and of a section that is looked at in pieces, is
// looked at together, in bytes, or a bit less.
const pieceSize = 64 << 10

// pieces calls look for each piece of a section, of whole entries, with the piece's
// offset in the file.
func (c *collector) pieces(s *section, entry int64, look lookAtPiece) {
	if s.off+s.size > c.Size {
		return
	}
	at := int64(0)
	if entry == 8 {
		at = -s.addr & 7 // words are aligned, in memory
	}
	for at < s.size {
		n := min(s.size-at, pieceSize/entry*entry)
		look(c, s, s.off+at, c.at(s.off+at, n))
		c.spill(false)
		at += n
	}
}

// at are n bytes at an offset of the file, which has them; valid as those of
// bytes.
func (c *collector) at(off, n int64) []byte {
	if c.read == nil {
		return c.data[off : off+n]
	}
	if int64(cap(c.buf)) < n {
		c.buf = nil
		c.buf = linux.Huge[byte](int(n))
	}
	c.fill(c.buf[:n], off)
	return c.buf[:n]
}

// nearby is how much is read around bytes that are looked at here and there.
const nearby = 8 << 10

// near are a few bytes at an offset of the file, which has them; valid until
// the next call.
func (c *collector) near(off, n int64) []byte {
	if c.read == nil {
		return c.data[off : off+n]
	}
	if off < c.nearAt || off+n > c.nearAt+int64(len(c.nearBuf)) {
		size := min(nearby, c.Size-off)
		if int64(cap(c.nearBuf)) < size {
			c.nearBuf = make([]byte, nearby)
		}
		c.nearAt, c.nearBuf = off, c.nearBuf[:size]
		c.fill(c.nearBuf, off)
	}
	return c.nearBuf[off-c.nearAt:][:n]
}

// fill reads from an offset of the file, across its pieces.
func (c *collector) fill(b []byte, off int64) {
	for rest := b; len(rest) > 0 && c.err == nil; {
		k := int64(len(rest))
		if c.Tail != 0 && off < c.Cut {
			k = min(k, c.Cut-off)
		}
		c.err = c.read(rest[:k], c.Loads.At(off))
		rest, off = rest[k:], off+k
	}
	if c.err != nil {
		clear(b)
	}
}

// named finds a section by its name.
func (c *collector) named(name string) *section {
	for i := range c.sections {
		if s := &c.sections[i]; s.name == name && s.kind != 0 {
			return s
		}
	}
	return nil
}

// collect goes through all sections in the order of their headers.
func (c *collector) collect() {
	c.lo, c.hi = maxAddress, 0
	for i := range c.sections {
		if s := &c.sections[i]; s.kind != 0 && s.code() {
			c.lo, c.hi = min(c.lo, s.addr), max(c.hi, s.addr+s.size)
		}
	}
	c.headers()
	c.buildID()
	c.golang()
	for i := range c.sections {
		s := &c.sections[i]
		whole := func(look func(s *section, d []byte)) {
			if d := c.bytes(s); len(d) > 0 {
				look(s, d)
			}
		}
		c.spill(false)
		switch entry, look := c.pieced(s); {
		case !c.looked(s):
		case s.code() && c.arm:
			whole(c.armCode)
		case s.code():
			c.x86Code(s)
		case s.debug():
			c.debugging(s)
		case s.name == ".eh_frame":
			whole(c.frames)
		case s.name == ".eh_frame_hdr":
			c.frameIndex(s)
		case entry != 0:
			c.pieces(s, entry, look)
		case s.kind == typeRelr:
			whole(c.packedRelocations)
		case s.kind == typeGNUHash && c.links(s):
			whole(c.buckets)
		case s.kind == typeHash && c.links(s):
			whole(c.chains)
		}
	}
	c.jumpTables()
}

// code says whether a section is executed.
func (s *section) code() bool { return s.flags&flagExec != 0 }

// looked says whether collect looks into a section.
func (e *Element) looked(s *section) bool {
	switch s.kind {
	case 0, typeNobits:
		return false
	case typeRela, typeRelr, typeSymtab, typeDynsym, typeGNUHash, typeHash, typeDynamic, typeInitArray, typeFiniArray:
		return true
	}
	switch s.name {
	case ".eh_frame", ".eh_frame_hdr":
		return true
	}
	return s.pclntab() || s.code() || s.flags&flagAlloc != 0 && (!e.position || s.flags&flagWrite != 0) || s.debug()
}

// lookAtPiece finds the references in a piece of a section, which stands at an
// offset of the file.
type lookAtPiece func(c *collector, s *section, off int64, d []byte)

// pieced is how collect looks at a section whose entries say nothing about one
// another: in pieces of so many bytes times a number; 0 for other sections.
func (e *Element) pieced(s *section) (entry int64, look lookAtPiece) {
	switch {
	case s.code() || s.debug() || s.name == ".eh_frame" || s.name == ".eh_frame_hdr":
		return 0, nil
	case s.kind == typeRela && s.entry == 24:
		return 24, (*collector).relocations
	case s.kind == typeSymtab || s.kind == typeDynsym:
		return 24, (*collector).symbols
	case s.kind == typeDynamic:
		return 16, (*collector).dynamic
	case s.flags&flagAlloc != 0 && s.kind == typeProgbits || s.kind == typeInitArray || s.kind == typeFiniArray:
		return 8, (*collector).pointers
	}
	return 0, nil
}

// links says whether a section's link names a section.
func (c *collector) links(s *section) bool { return int(s.link) < len(c.sections) }

// headers finds what section headers say about where sections are.
func (c *collector) headers() {
	for i := range c.sections {
		s := &c.sections[i]
		if s.kind == 0 || s.off == 0 {
			continue
		}
		at := int64(s.header)
		if s.addr != 0 && c.in(s.addr) {
			c.add(at+16, SectionAddr, 0)
		}
		c.add(at+24, SectionOff, 0)
		if s.kind != typeNobits && s.size > 0 {
			c.add(at+32, SectionSize, 0)
		}
	}
	c.add(0x28, SectionOff, 0)
}

// buildID finds the build-id's copy in the name of the debug file: 19 of its 20
// bytes in hex, without the first.
func (c *collector) buildID() {
	id, link := c.named(".note.gnu.build-id"), c.named(".gnu_debuglink")
	if id != nil && link != nil && id.size == 36 && link.size >= 44 {
		c.add(link.off, DebugLink, int64(id.index))
	}
}

// relocations finds place, symbol and, where it is an address, addend.
func (c *collector) relocations(s *section, off int64, d []byte) {
	for i := int64(0); i+24 <= int64(len(d)); i += 24 {
		if c.in(int64(le.Uint64(d[i:]))) {
			c.add(off+i, RelocPlace, 0)
		}
		if le.Uint32(d[i+12:]) != 0 && c.links(s) {
			c.add(off+i+12, RelocSymbol, int64(s.link))
		}
		switch le.Uint32(d[i+8:]) { // the relative and irelative types of both machines
		case 8, 37, 1027, 1032:
			if c.in(int64(le.Uint64(d[i+16:]))) {
				c.add(off+i+16, RelocTarget, 0)
			}
		}
	}
}

// smallest is the least address that is taken for one wherever it stands in data.
const smallest = 0x10000

// buckets finds the numbers of symbols in a hash table of GNU's form.
func (c *collector) buckets(s *section, d []byte) {
	if len(d) <= 16 {
		return
	}
	buckets, bloom := int64(le.Uint32(d)), int64(le.Uint32(d[8:]))
	start := 16 + bloom*8
	for i := start; i+4 <= int64(len(d)) && i < start+buckets*4; i += 4 {
		if le.Uint32(d[i:]) != 0 {
			c.add(s.off+i, HashBucket, int64(s.link))
		}
	}
}

// chains finds the numbers of symbols in a hash table of the older form.
func (c *collector) chains(s *section, d []byte) {
	for i := int64(8); i+4 <= int64(len(d)); i += 4 {
		if le.Uint32(d[i:]) != 0 {
			c.add(s.off+i, HashEntry, int64(s.link))
		}
	}
}

// packedRelocations finds the addresses in a table of words with an address, and
// bits for the 63 words that follow; and the addresses in the words that it
// names which are too small to be taken for some anyway. It names none any more
// after one that is not behind the one before or not in the file, and after as
// many as there is room for.
func (c *collector) packedRelocations(s *section, d []byte) {
	next, left := int64(0), c.Size/8
	names := func(addr int64) {
		if left--; left < 0 {
			return
		}
		off, ok := c.backed(addr, 8)
		if !ok {
			left = 0
		} else if v := int64(le.Uint64(c.near(off, 8))); v > 0 && v < smallest && c.in(v) {
			c.add(off, Pointer, 0)
		}
	}
	for i := int64(0); i+8 <= int64(len(d)); i += 8 {
		v := le.Uint64(d[i:])
		if addr := int64(v); v&1 == 0 {
			if c.in(addr) {
				c.add(s.off+i, RelocPlace, 0)
			}
			if addr < next {
				left = 0
			}
			names(addr)
			next = addr + 8
			continue
		}
		for k := range int64(63) {
			if v>>(k+1)&1 != 0 {
				names(next + 8*k)
			}
		}
		next += 8 * 63
	}
}

// dynamic finds the addresses in the dynamic section.
func (c *collector) dynamic(_ *section, off int64, d []byte) {
	for i := int64(0); i+16 <= int64(len(d)); i += 16 {
		if v := int64(le.Uint64(d[i+8:])); v >= 0x200 && c.in(v) {
			c.add(off+i+8, Dynamic, 0)
		}
	}
}

// symbols finds names, values and lengths.
func (c *collector) symbols(s *section, off int64, d []byte) {
	for i := int64(0); i+24 <= int64(len(d)); i += 24 {
		if le.Uint32(d[i:]) != 0 && c.links(s) {
			c.add(off+i, SymbolName, int64(s.link))
		}
		if n := le.Uint16(d[i+6:]); n == 0 || n >= 0xff00 {
			continue
		}
		if c.in(int64(le.Uint64(d[i+8:]))) {
			c.add(off+i+8, SymbolValue, 0)
			if n := le.Uint64(d[i+16:]); n > 0 && n < maxAddress {
				c.add(off+i+16, SymbolLength, 0)
			}
		}
	}
}

// pointers finds addresses in data: in all of it where the file has a fixed
// address, else only where the loader writes.
func (c *collector) pointers(s *section, off int64, d []byte) {
	if c.position && s.flags&flagWrite == 0 {
		return
	}
	for i := int64(0); i+8 <= int64(len(d)); i += 8 {
		if v := int64(le.Uint64(d[i:])); v >= smallest && c.in(v) {
			c.add(off+i, Pointer, 0)
		}
	}
}
