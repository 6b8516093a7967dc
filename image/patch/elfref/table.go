package elfref

import (
	"cmp"
	"slices"

	"github.com/sealant-os/sealant/internal/linux"
)

// Kind is how a field's value follows from its target.
type Kind uint8

// The kinds. "Address" is the target's, "here" is the field's own address.
const (
	Relative   Kind = iota // 4 bytes: address − here − Adjust
	Backward               // 4 bytes: here − address
	FromBase               // 4 bytes: address − address of Base
	FromTable              // 4 bytes: address − address of Base, which lies as far before the field in new data as in old
	Absolute               // 4 or 8 bytes: address
	Length                 // 4 or 8 bytes: place − place of the reference before, plus 1
	Scaled                 // 4 bytes: (place − Base) ÷ Adjust
	File                   // 8 bytes: place − start of the file
	HexID                  // 38 bytes: 19 bytes at the target, in hex
	Branch26               // from here on AArch64 instructions: b, bl
	Branch19               // b.cond, cbz, ldr literal
	Branch14               // tbz
	Page                   // adrp
	PageOffset             // add, ldr, str after adrp; Adjust is log2 of the scale
)

// Class tells references apart more finely than kinds do: coding keeps
// statistics for each.
type Class uint8

// The classes.
const (
	Call         Class = 1 + iota // rel32 of branches, b and bl
	Operand                       // RIP-relative, adrp
	Immediate                     // addresses in code; short AArch64 branches
	FrameCode                     // .eh_frame: start of a function, personality
	FrameData                     // .eh_frame: language-specific data
	FrameIndex                    // .eh_frame_hdr: function
	FrameEntry                    // .eh_frame_hdr: entry
	RelocPlace                    // relocation: where
	RelocTarget                   // relocation: what
	SymbolValue                   //
	Dynamic                       // addresses in the dynamic section
	Pointer                       // addresses in data
	Jump                          // jump tables
	FrameCIE                      // .eh_frame: back to the CIE
	FrameLength                   // .eh_frame: length of a function
	SymbolName                    //
	SymbolLength                  //
	RelocSymbol                   // relocation: symbol number
	HashBucket                    // GNU hash table
	HashEntry                     // old hash table
	DebugLink                     // build-id in the name of the debug file
	LowBits                       // AArch64: page offset
	GoEntry                       // Go's tables, from here on
	GoFunc
	GoFuncEntry
	GoName
	GoTable
	GoUnit
	GoValue
	GoFuncData
	GoFile
	SectionAddr // section headers
	SectionOff
	SectionSize
	StubIndex // procedure linkage table: number of the relocation
	GoType    // offsets of Go's types, and of names
	GoMethod  // offsets of methods
	DebugAddr // debugging information, from here on: addresses
	DebugLength
	DebugLength4
	DebugString // offsets of strings
	DebugUnit   // of entries, in the unit
	DebugEntry  // and in the section
	DebugOffset // of tables and lists
	classes
)

var classNames = [classes]string{
	Call: "call", Operand: "operand", Immediate: "immediate", FrameCode: "frame code", FrameData: "frame data",
	FrameIndex: "frame index", FrameEntry: "frame entry", RelocPlace: "relocation place", RelocTarget: "relocation target",
	SymbolValue: "symbol value", Dynamic: "dynamic", Pointer: "pointer", Jump: "jump table", FrameCIE: "frame CIE",
	FrameLength: "frame length", SymbolName: "symbol name", SymbolLength: "symbol length", RelocSymbol: "relocation symbol",
	HashBucket: "hash bucket", HashEntry: "hash entry", DebugLink: "debug link", LowBits: "low bits", GoEntry: "go entry",
	GoFunc: "go func", GoFuncEntry: "go func entry", GoName: "go name", GoTable: "go table", GoUnit: "go unit", GoValue: "go value",
	GoFuncData: "go funcdata", GoFile: "go file", SectionAddr: "section address", SectionOff: "section offset",
	SectionSize: "section size", StubIndex: "stub index", GoType: "go type", GoMethod: "go method",
	DebugAddr: "debug address", DebugLength: "debug length", DebugLength4: "debug short length", DebugString: "debug string",
	DebugUnit: "debug unit", DebugEntry: "debug entry", DebugOffset: "debug offset",
}

// String names the class.
func (c Class) String() string { return classNames[c] }

// Classes is the number of classes, counting the zero.
const Classes = int(classes)

// shapes gives each class its kind and width.
var shapes = [classes]struct {
	kind  Kind
	width uint8
}{
	Call: {Relative, 4}, Operand: {Relative, 4}, Immediate: {Absolute, 4},
	FrameCode: {Relative, 4}, FrameData: {Relative, 4}, FrameIndex: {FromBase, 4}, FrameEntry: {FromBase, 4},
	RelocPlace: {Absolute, 8}, RelocTarget: {Absolute, 8}, SymbolValue: {Absolute, 8},
	Dynamic: {Absolute, 8}, Pointer: {Absolute, 8}, Jump: {FromTable, 4},
	FrameCIE: {Backward, 4}, FrameLength: {Length, 4}, SymbolName: {Scaled, 4}, SymbolLength: {Length, 8},
	RelocSymbol: {Scaled, 4}, HashBucket: {Scaled, 4}, HashEntry: {Scaled, 4}, DebugLink: {HexID, 38}, LowBits: {PageOffset, 4},
	GoEntry: {Scaled, 4}, GoFunc: {Scaled, 4}, GoFuncEntry: {Scaled, 4}, GoName: {Scaled, 4}, GoTable: {Scaled, 4},
	GoUnit: {Scaled, 4}, GoValue: {Scaled, 4}, GoFuncData: {Scaled, 4}, GoFile: {Scaled, 4},
	SectionAddr: {Absolute, 8}, SectionOff: {File, 8}, SectionSize: {Length, 8}, StubIndex: {Scaled, 4}, GoType: {Scaled, 4}, GoMethod: {Scaled, 4},
	DebugAddr: {Absolute, 8}, DebugLength: {Length, 8}, DebugLength4: {Length, 4}, DebugString: {Scaled, 4},
	DebugUnit: {Scaled, 4}, DebugEntry: {Scaled, 4}, DebugOffset: {Scaled, 4},
}

// scales are the divisors of Scaled classes where they are not 1.
var scales = [classes]int64{RelocSymbol: 24, HashBucket: 24, HashEntry: 24, GoUnit: 4, StubIndex: 24}

// Ref is one reference.
type Ref struct {
	Off    int64 // of the field, in the data
	Offset int64 // and in the file
	Target Place
	Base   Place // see Kind; for Length: the target of the reference before
	Adjust int64 // see Kind
	Kind   Kind
	Class  Class
	Width  int64
}

// Table holds the references of one element, in the order of their offsets,
// without overlaps. It is in one of two forms: with the file and all records in
// memory, for encoders, or packed, for decoders. Cursors read both.
type Table struct {
	e      *Element
	data   []byte   // of the file; nil if packed
	recs   []uint64 // offset in the file (32 bits), class (8), extra (24)
	packed *packed
}

// Source gives bytes of the data that holds the element's file; they are valid
// until the next call.
type Source interface{ Bytes(off, n int64) []byte }

// Cursor reads the references of a table. Several may read one table at once.
type Cursor struct {
	t    *Table
	src  Source
	buf  [2][blockLength]uint64 // unpacked blocks
	have [2]int                 // which they are, -1 for none
	used int                    // which of them was used last
}

// Cursor reads the table; src is not needed where the file is in memory.
func (t *Table) Cursor(src Source) *Cursor { return &Cursor{t: t, src: src, have: [2]int{-1, -1}} }

// Table is the table that the cursor reads.
func (c *Cursor) Table() *Table { return c.t }

// Memory is what keeping a packed table takes, in bytes: the same for a table
// that is packed, and for one that is not yet.
func (t *Table) Memory() int64 {
	if t.packed == nil {
		return pack(t.recs).memory()
	}
	return t.packed.memory()
}

// Scratch is what making a packed table takes besides, in bytes: the largest
// part of the file that is looked at in one piece.
func (e *Element) Scratch() int64 {
	most := int64(0)
	for i := range e.sections {
		s := &e.sections[i]
		n := s.size
		switch entry, _ := e.pieced(s); {
		case !e.looked(s) || s.off+s.size > e.Size:
			n = 0
		case s.debug():
			n = debugScratch
		case s.code() && !e.arm, entry != 0 && !s.pclntab():
			n = min(n, pieceSize)
		case !s.code() && s.name == ".eh_frame_hdr":
			n = 0
		}
		most = max(most, n)
	}
	return most
}

// Len is the number of references.
func (t *Table) Len() int {
	if t.packed != nil {
		return t.packed.n
	}
	return len(t.recs)
}

// Len is the number of references.
func (c *Cursor) Len() int { return c.t.Len() }

// rec is record i.
func (c *Cursor) rec(i int) uint64 {
	if c.t.packed == nil {
		return c.t.recs[i]
	}
	k := i / blockLength
	if c.have[c.used] != k {
		c.used ^= 1
		if c.have[c.used] != k {
			c.t.packed.unpack(k, &c.buf[c.used])
			c.have[c.used] = k
		}
	}
	return c.buf[c.used][i%blockLength]
}

// From is the first reference at or after an offset of the file.
func (c *Cursor) From(off int64) int {
	want := uint64(max(off, 0)) << 32
	p := c.t.packed
	if p == nil {
		i, _ := slices.BinarySearch(c.t.recs, want)
		return i
	}
	k, _ := slices.BinarySearchFunc(p.blocks, want, func(b block, want uint64) int { return cmp.Compare(b.first, want) })
	i := max(k-1, 0) * blockLength
	for i < p.n && c.rec(i) < want {
		i++
	}
	return i
}

// bytes are n bytes at an offset of the file, valid until the next call.
func (c *Cursor) bytes(off, n int64) []byte {
	if c.t.data != nil {
		return c.t.data[off : off+n]
	}
	l := &c.t.e.Loads
	if l.Tail != 0 && off < l.Cut && off+n > l.Cut {
		// No field does, but an instruction that an adrp's target follows from may.
		k := l.Cut - off
		b := append(make([]byte, 0, n), c.src.Bytes(l.Base+off, k)...)
		return append(b, c.src.Bytes(l.Tail, n-k)...)
	}
	return c.src.Bytes(l.At(off), n)
}

// Field is the reference's field in the old data, valid until the next call.
func (c *Cursor) Field(r *Ref) []byte { return c.bytes(r.Offset, r.Width) }

// From is the first reference at or after an offset of the file.
func (t *Table) From(off int64) int {
	i, _ := slices.BinarySearch(t.recs, uint64(max(off, 0))<<32)
	return i
}

// At reads reference i of a table in memory.
func (t *Table) At(i int) Ref {
	c := Cursor{t: t}
	return c.At(i)
}

const extraMask = 1<<24 - 1

// At reads reference i.
func (c *Cursor) At(i int) Ref {
	rec, e := c.rec(i), c.t.e
	rel := int64(rec >> 32)
	class, extra := Class(rec>>24&255), int64(rec&extraMask)
	r := Ref{Off: e.Loads.At(rel), Offset: rel, Class: class, Kind: shapes[class].kind, Width: int64(shapes[class].width)}
	if e.arm && class <= Immediate && class != 0 || class == LowBits {
		c.arm(&r, rel, extra)
		return r
	}
	if r.Kind == Length {
		r.Base = c.At(i - 1).Target
	}
	var v4, v8 int64
	switch field := c.bytes(rel, r.Width); r.Width {
	case 4:
		v4 = int64(int32(le.Uint32(field)))
		v8 = v4
	case 8:
		v8 = int64(le.Uint64(field))
	}
	switch r.Kind {
	case Relative:
		r.Adjust = extra
		if here, ok := e.Addr(r.Off); ok {
			r.Target, _ = e.Place(here + extra + v4)
		}
	case Backward:
		if here, ok := e.Addr(r.Off); ok {
			r.Target, _ = e.Place(here - int64(uint32(v4)))
		}
	case FromBase:
		r.Base = e.Bases[extra]
		r.Target = e.from(r.Base, v4)
	case FromTable:
		r.Base = r.Off - 4*extra
		r.Target = e.from(r.Base, v4)
	case Absolute:
		r.Target, _ = e.Place(v8)
	case Length:
		if r.Width == 4 {
			v8 = int64(uint32(v4))
		}
		r.Target = r.Base + v8 - 1
	case Scaled:
		r.Base, r.Adjust = e.Bases[extra], max(scales[class], 1)
		r.Target = r.Base + int64(uint32(v4))*r.Adjust
	case File:
		r.Target = e.Loads.At(v8 & (1<<56 - 1))
	case HexID:
		r.Target = e.Bases[extra] + 17
	}
	return r
}

// from is the place that lies a distance after a base.
func (e *Element) from(base Place, distance int64) Place {
	if addr, ok := e.Addr(base); ok {
		p, _ := e.Place(addr + distance)
		return p
	}
	return 0
}

// collector gathers references while an element is gone through.
type collector struct {
	*Element
	data    []byte                          // of the file; nil if it is read piece by piece
	read    func(b []byte, off int64) error // reads the data that holds the file
	err     error                           // of read
	buf     []byte                          // what was read last
	nearBuf []byte                          // what was read last for near, which is at nearAt
	nearAt  int64
	recs    []uint64
	strands []*strand // sorted records
	raw     int       // how many of them are not packed
	tables  []int64   // x86-64: addresses that may be those of jump tables
	lo, hi  int64     // addresses of code
	dwarf   *dwarf    // nil before the first section with debugging information
}

// add keeps a reference at an offset of the file.
func (c *collector) add(off int64, class Class, extra int64) {
	if extra < 0 || extra > extraMask || off < 0 || off+int64(shapes[class].width) > c.Size {
		return
	}
	c.recs = append(c.recs, uint64(off)<<32|uint64(class)<<24|uint64(extra))
}

// Table finds the references of an element whose bytes are data.
func (e *Element) Table(data []byte) *Table {
	c := &collector{Element: e, data: data}
	c.start(e.Size)
	c.collect()
	slices.Sort(c.recs)
	f := filter{e: e}
	kept := c.recs[:0]
	for _, rec := range c.recs {
		if f.keeps(rec) {
			kept = append(kept, rec)
		}
	}
	return &Table{e: e, data: data, recs: kept}
}

// Pack finds the references of an element and packs them; read reads the data
// that holds the file.
func (e *Element) Pack(read func(b []byte, off int64) error) (*Table, error) {
	own := *e // its bases grow, and who reads an older table of e still looks into those
	c := &collector{Element: &own, read: read}
	c.start(rawReferences)
	c.collect()
	c.spill(true)
	c.buf, c.recs = nil, nil
	n := 0
	for _, s := range c.strands {
		n += s.n
	}
	f, out := filter{e: &own}, newPacked(n)
	merge(c.strands, func(rec uint64) {
		if f.keeps(rec) {
			out.add(rec)
		}
	})
	return &Table{e: &own, packed: out.clip()}, c.err
}

// start makes room for as many references as a file of dense code has, and no more
// than most.
func (c *collector) start(most int64) {
	c.recs = linux.Huge[uint64](int(min(c.Size/12, most)))[:0]
	n := len(c.sections)
	c.Bases, c.Names = c.Bases[:n:n], c.Names[:n:n]
}

// strandLength is how many references make a strand at least, but for the last.
const strandLength = 1 << 10

// rawReferences is how many references are kept as they are before they are
// merged; what comes after is packed meanwhile.
const rawReferences = 1 << 18

// spill makes a strand of what was collected, if it is enough for one and the
// collector is one that packs. Collectors of large sections call it now and then.
func (c *collector) spill(last bool) {
	keep, least := c.raw+len(c.recs) <= rawReferences, strandLength
	if !keep {
		least = packLength
	}
	if last {
		least = 1
	}
	if c.read == nil || len(c.recs) < least {
		return
	}
	slices.Sort(c.recs)
	s := &strand{n: len(c.recs)}
	if keep {
		s.raw = c.recs
		c.raw += len(c.recs)
		c.recs = c.recs[len(c.recs):]
	} else {
		s.packed = pack(c.recs)
		c.recs = c.recs[:0]
	}
	c.strands = append(c.strands, s)
}

// filter leaves out references: of those that overlap the first stays, and a
// length goes with what it counts from.
type filter struct {
	e       *Element
	end     int64
	kept    int
	length  bool // the last that was kept is a length
	dropped bool // the last was not kept
}

// keeps is asked for every record in order.
func (f *filter) keeps(rec uint64) bool {
	off, class := int64(rec>>32), Class(rec>>24&255)
	width, length := int64(shapes[class].width), shapes[class].kind == Length
	split := f.e.Tail != 0 && off < f.e.Cut && off+width > f.e.Cut
	if off < f.end || split || f.dropped && length {
		f.dropped = true
		return false
	}
	if length && (f.kept == 0 || f.length) {
		return false
	}
	f.end, f.dropped, f.length = off+width, false, length
	f.kept++
	return true
}
