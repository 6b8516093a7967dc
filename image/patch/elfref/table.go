package elfref

import "slices"

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
	SectionSize: "section size", StubIndex: "stub index",
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
	SectionAddr: {Absolute, 8}, SectionOff: {File, 8}, SectionSize: {Length, 8}, StubIndex: {Scaled, 4},
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

// Table holds the references of one element, 8 bytes each, in the order of
// their offsets, without overlaps.
type Table struct {
	e    *Element
	data []byte   // of the file
	recs []uint64 // offset in the file (32 bits), class (8), extra (24)
}

// Memory is what a table of n references takes for an element, in bytes, while
// it is made too.
func (e *Element) Memory(n int) int64 { return e.Size + 16*int64(n) }

// Len is the number of references.
func (t *Table) Len() int { return len(t.recs) }

// Bytes is the file.
func (t *Table) Bytes() []byte { return t.data }

// From is the first reference at or after an offset of the file.
func (t *Table) From(off int64) int {
	i, _ := slices.BinarySearch(t.recs, uint64(max(off, 0))<<32)
	return i
}

const extraMask = 1<<24 - 1

// At reads reference i.
func (t *Table) At(i int) Ref {
	rec := t.recs[i]
	rel := int64(rec >> 32)
	class, extra := Class(rec>>24&255), int64(rec&extraMask)
	r := Ref{Off: t.e.Loads.At(rel), Offset: rel, Class: class, Kind: shapes[class].kind, Width: int64(shapes[class].width)}
	e, field := t.e, t.data[rel:]
	if e.arm && class <= Immediate && class != 0 || class == LowBits {
		t.arm(&r, rel, extra)
		return r
	}
	switch r.Kind {
	case Relative:
		r.Adjust = extra
		if here, ok := e.Addr(r.Off); ok {
			r.Target, _ = e.Place(here + extra + int64(int32(le.Uint32(field))))
		}
	case Backward:
		if here, ok := e.Addr(r.Off); ok {
			r.Target, _ = e.Place(here - int64(le.Uint32(field)))
		}
	case FromBase:
		r.Base = e.Bases[extra]
		r.Target = t.from(r.Base, field)
	case FromTable:
		r.Base = r.Off - 4*extra
		r.Target = t.from(r.Base, field)
	case Absolute:
		v := int64(int32(le.Uint32(field)))
		if r.Width == 8 {
			v = int64(le.Uint64(field))
		}
		r.Target, _ = e.Place(v)
	case Length:
		before := t.At(i - 1)
		r.Base = before.Target
		v := int64(le.Uint32(field))
		if r.Width == 8 {
			v = int64(le.Uint64(field))
		}
		r.Target = r.Base + v - 1
	case Scaled:
		r.Base, r.Adjust = e.Bases[extra], max(scales[class], 1)
		r.Target = r.Base + int64(le.Uint32(field))*r.Adjust
	case File:
		r.Target = e.Loads.At(int64(le.Uint64(field) & (1<<56 - 1)))
	case HexID:
		r.Target = e.Bases[extra] + 17
	}
	return r
}

// from is the place that lies a field's value after a base.
func (t *Table) from(base Place, field []byte) Place {
	if addr, ok := t.e.Addr(base); ok {
		p, _ := t.e.Place(addr + int64(int32(le.Uint32(field))))
		return p
	}
	return 0
}

// collector gathers references while an element is gone through.
type collector struct {
	*Element
	data   []byte
	recs   []uint64
	tables []int64 // x86-64: addresses that may be those of jump tables
	lo, hi int64   // addresses of code
}

// add keeps a reference at an offset of the file.
func (c *collector) add(off int64, class Class, extra int64) {
	if extra < 0 || extra > extraMask || off < 0 || off+int64(shapes[class].width) > int64(len(c.data)) {
		return
	}
	c.recs = append(c.recs, uint64(off)<<32|uint64(class)<<24|uint64(extra))
}

// Table finds the references of an element whose bytes are data.
func (e *Element) Table(data []byte) *Table {
	c := &collector{Element: e, data: data}
	c.Bases, c.Names = c.Bases[:len(c.sections)], c.Names[:len(c.sections)]
	c.collect()
	slices.Sort(c.recs)
	// Of overlapping references the first stays; a length goes with what it
	// counts from.
	kept := c.recs[:0]
	end, dropped := int64(0), false
	for _, rec := range c.recs {
		off, class := int64(rec>>32), Class(rec>>24&255)
		split := e.Tail != 0 && off < e.Cut && off+int64(shapes[class].width) > e.Cut
		if off < end || split || dropped && shapes[class].kind == Length {
			dropped = true
			continue
		}
		if shapes[class].kind == Length && (len(kept) == 0 || shapes[Class(kept[len(kept)-1]>>24&255)].kind == Length) {
			continue
		}
		end, dropped = off+int64(shapes[class].width), false
		kept = append(kept, rec)
	}
	return &Table{e: e, data: data, recs: kept}
}
