// Package elfref finds the references in ELF files: fields whose value follows
// from where something else lies.
//
// When a program is built again after a small change, most bytes that change
// are not new content but addresses: a function has grown, and every reference
// across it has moved. Whoever knows the old field, its target, and where the
// target has gone, can predict the new field. So the decoder of a patch finds
// the references of the old file by itself, and the patch says only where the
// prediction fails.
//
// That makes what is found, to the last reference, a part of the patch format:
// a change here is a new version of the transform (spec/patch.md). Found are,
// in 64-bit little-endian files for x86-64 and AArch64: operands of code, jump
// tables, call frame information, relocations, symbols, symbol hash tables, the
// dynamic section, pointers in data, Go's pclntab, build-ids, section headers,
// and debugging information.
//
// Parsing believes nothing: an offset or a count that does not fit is left out,
// and no input makes it fail. It is deterministic, and integers only.
package elfref

import (
	"encoding/binary"
	"io"
)

var le = binary.LittleEndian

// Place is where a reference leads: an offset in the data that holds the ELF
// file, or, for memory that no file backs, Unbacked plus the file's index and
// the address.
type Place = int64

// Unbacked marks a Place that has no bytes.
const Unbacked Place = 1 << 62

// Addresses of at least maxAddress are no targets.
const (
	addressBits = 44
	maxAddress  = 1 << addressBits
	maxIndex    = 1 << 16
)

// Load is a stretch of the file that is loaded at an address.
type Load struct {
	Off      int64 // in the data that holds the file
	Addr     int64
	FileSize int64
	MemSize  int64
}

// Loads are the loaded stretches of one file, which has an index among the
// files of its data.
//
// A file lies in one piece, or, in an EROFS image that keeps the last part of a
// block with the inode, in two: the bytes from Cut on are at Tail.
type Loads struct {
	Index     int
	Base      int64 // where the file starts in the data
	Cut, Tail int64 // Tail is 0 for a file in one piece
	List      []Load
}

// At is where an offset of the file is in the data.
func (l *Loads) At(off int64) Place {
	if l.Tail != 0 && off >= l.Cut {
		return l.Tail + off - l.Cut
	}
	return l.Base + off
}

// Offset is the offset in the file of a place in it.
func (l *Loads) Offset(p Place) int64 {
	if l.Tail != 0 && p >= l.Tail && p-l.Tail < blockSize {
		return p - l.Tail + l.Cut
	}
	return p - l.Base
}

// blockSize is the size of a block of EROFS.
const blockSize = 4096

// Place is where an address lies.
func (l *Loads) Place(addr int64) (Place, bool) {
	for i := range l.List {
		s := &l.List[i]
		if addr >= s.Addr && addr-s.Addr < s.MemSize {
			if addr-s.Addr < s.FileSize {
				return s.Off + addr - s.Addr, true
			}
			return Unbacked | int64(l.Index)<<addressBits | addr, true
		}
	}
	return 0, false
}

// Addr is the address of a place.
func (l *Loads) Addr(p Place) (int64, bool) {
	if p >= Unbacked {
		return p & (maxAddress - 1), true
	}
	for i := range l.List {
		s := &l.List[i]
		if p >= s.Off && p-s.Off < s.FileSize {
			return s.Addr + p - s.Off, true
		}
	}
	return 0, false
}

// in says whether an address is in memory.
func (l *Loads) in(addr int64) bool {
	for i := range l.List {
		if s := &l.List[i]; addr >= s.Addr && addr-s.Addr < s.MemSize {
			return true
		}
	}
	return false
}

// HeaderSize is how many bytes of an ELF file ParseLoads may need: the header
// and the program headers, if they are where linkers put them.
const HeaderSize = 64 + maxProgs*progSize

const (
	headSize = 64
	progSize = 56
	sectSize = 64
	maxProgs = 64
	maxSects = 4096
)

// LoadsLength is how many of the first bytes of an ELF file its loads follow
// from, 0 if head, its first 64 bytes, is no header we know.
func LoadsLength(head []byte) int64 {
	if len(head) < headSize || !known(head) {
		return 0
	}
	n := int64(le.Uint16(head[0x38:]))
	if le.Uint64(head[0x20:]) != headSize || le.Uint16(head[0x36:]) != progSize || n == 0 || n > maxProgs {
		return 0
	}
	return headSize + n*progSize
}

// known says whether head begins a 64-bit little-endian ELF file for x86-64 or
// AArch64.
func known(head []byte) bool {
	if string(head[:4]) != "\x7fELF" || head[4] != 2 || head[5] != 1 {
		return false
	}
	m := le.Uint16(head[0x12:])
	return m == machineX86 || m == machineARM
}

const (
	machineX86 = 62
	machineARM = 183
)

// ParseLoads reads the loads from the first LoadsLength bytes of a file that
// stands at base in data of limit bytes, and from cut on at tail if that is not
// 0.
func ParseLoads(head []byte, base, cut, tail, limit int64, index int) Loads {
	l := Loads{Index: index, Base: base}
	if tail != 0 {
		l.Cut, l.Tail = cut, tail
	}
	for p := headSize; p+progSize <= len(head); p += progSize {
		h := head[p:]
		if le.Uint32(h) != 1 { // PT_LOAD
			continue
		}
		off, addr := le.Uint64(h[8:]), le.Uint64(h[16:])
		file, mem := le.Uint64(h[32:]), le.Uint64(h[40:])
		if addr >= maxAddress || mem >= maxAddress || addr+mem >= maxAddress || file > mem ||
			off > uint64(limit-base) || file > uint64(limit-base)-off {
			continue
		}
		load := Load{l.At(int64(off)), int64(addr), int64(file), int64(mem)}
		if cut := l.Cut - int64(off); l.Tail != 0 && cut > 0 && cut < load.FileSize {
			l.List = append(l.List, Load{load.Off, load.Addr, cut, cut})
			load = Load{l.Tail, load.Addr + cut, load.FileSize - cut, load.MemSize - cut}
		}
		l.List = append(l.List, load)
	}
	return l
}

// section is a section header.
type section struct {
	name          string
	kind          uint32
	flags         uint64
	addr          int64
	off, size     int64 // in the file
	link          uint32
	entry         int64
	index, header int // the header's number, and its offset in the file
}

// Section types and flags, from the ELF specification.
const (
	typeProgbits  = 1
	typeSymtab    = 2
	typeStrtab    = 3
	typeRela      = 4
	typeHash      = 5
	typeDynamic   = 6
	typeNobits    = 8
	typeDynsym    = 11
	typeInitArray = 14
	typeFiniArray = 15
	typeRelr      = 19
	typeGNUHash   = 0x6ffffff6
	flagWrite     = 1
	flagAlloc     = 2
	flagExec      = 4
)

// Element is an ELF file within some data.
type Element struct {
	Loads
	Size int64 // of the file in bytes
	// Bases are places that fields count from. Sections come first, in the order
	// of their headers, named in Names; then Go's tables.
	Bases []Place
	Names []string

	arm      bool
	position bool // its addresses are chosen at load time
	sections []section
}

// maxElement is the largest ELF file that is looked into: offsets have 32 bits.
const maxElement = 1<<32 - 1

// parse reads the headers of the file at base, which may have a tail; nil if it
// is none that can be looked into.
func parse(r io.ReaderAt, base int64, t tail, limit int64, index int) (*Element, error) {
	head := make([]byte, min(HeaderSize, limit-base))
	if _, err := r.ReadAt(head, base); err != nil && err != io.EOF {
		return nil, err
	}
	n := LoadsLength(head)
	if n == 0 || n > int64(len(head)) {
		return nil, nil
	}
	shoff, count := le.Uint64(head[0x28:]), int64(le.Uint16(head[0x3c:]))
	if shoff == 0 || count == 0 || count > maxSects || le.Uint16(head[0x3a:]) != sectSize || shoff > maxElement-maxSects*sectSize {
		return nil, nil
	}
	e := &Element{arm: le.Uint16(head[0x12:]) == machineARM, position: le.Uint16(head[0x10:]) == 3}
	e.Size = int64(shoff) + count*sectSize
	e.Size = max(e.Size, t.size)
	e.Loads = ParseLoads(head[:n], base, t.size/blockSize*blockSize, t.at, limit, index)
	if base+e.main() > limit {
		return nil, nil
	}
	table := make([]byte, count*sectSize)
	if err := e.readAt(r, table, int64(shoff)); err != nil {
		return nil, err
	}
	whole := limit - base // how long the file can be
	if t.at != 0 {
		whole = t.size
	}
	for i := range int(count) {
		h := table[i*sectSize:]
		s := section{
			kind: le.Uint32(h[4:]), flags: le.Uint64(h[8:]), link: le.Uint32(h[40:]),
			index: i, header: int(shoff) + i*sectSize,
		}
		addr, off, size, entry := le.Uint64(h[16:]), le.Uint64(h[24:]), le.Uint64(h[32:]), le.Uint64(h[56:])
		if addr >= maxAddress || off > uint64(whole) || s.kind == 0 {
			s.kind = 0
		} else if s.kind != typeNobits && size > uint64(whole)-off {
			s.kind = 0
		} else {
			s.addr, s.off, s.size, s.entry = int64(addr), int64(off), int64(min(size, maxAddress)), int64(min(entry, maxAddress))
			if s.kind != typeNobits {
				e.Size = max(e.Size, s.off+s.size)
			}
		}
		e.sections = append(e.sections, s)
	}
	if e.Size > maxElement {
		return nil, nil
	}
	if err := e.readNames(r, table, le.Uint16(head[0x3e:])); err != nil {
		return nil, err
	}
	if e.overlaps() {
		return nil, nil
	}
	for i := range e.sections {
		s := &e.sections[i]
		e.Bases = append(e.Bases, e.At(s.off))
		e.Names = append(e.Names, s.name)
	}
	return e, nil
}

// overlaps says whether the sections that would be looked into are larger
// together than the file: then some share bytes, as no linker's do, and going
// through them could take very long.
func (e *Element) overlaps() bool {
	sum := int64(0)
	for i := range e.sections {
		if s := &e.sections[i]; e.looked(s) {
			sum += s.size
		}
	}
	return sum > e.Size
}

// readAt reads from an offset of the file, across its pieces.
func (e *Element) readAt(r io.ReaderAt, b []byte, off int64) error {
	for len(b) > 0 {
		n := int64(len(b))
		if e.Tail != 0 && off < e.Cut {
			n = min(n, e.Cut-off)
		}
		if _, err := r.ReadAt(b[:n], e.Loads.At(off)); err != nil && err != io.EOF {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

// maxNames bounds the section that holds the sections' names, in bytes.
const maxNames = 64 << 10

// readNames gives the sections their names.
func (e *Element) readNames(r io.ReaderAt, table []byte, at uint16) error {
	if int(at) >= len(e.sections) {
		return nil
	}
	s := e.sections[at]
	if s.kind != typeStrtab || s.size > maxNames {
		return nil
	}
	names := make([]byte, s.size)
	if err := e.readAt(r, names, s.off); err != nil {
		return err
	}
	for i := range e.sections {
		off := int64(le.Uint32(table[i*sectSize:]))
		e.sections[i].name = text(names, off)
	}
	return nil
}

// text is the string that starts at off and ends before a zero byte.
func text(b []byte, off int64) string {
	if off < 0 || off >= int64(len(b)) {
		return ""
	}
	b = b[off:]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return ""
}

// Index is the index of the element that an unbacked place is in.
func Index(p Place) int { return int(p >> addressBits & (maxIndex - 1)) }

// WithIndex is an unbacked place at the same address in another element.
func WithIndex(p Place, index int) Place {
	return p&^((maxIndex-1)<<addressBits) | int64(index&(maxIndex-1))<<addressBits
}
