package match

import (
	"bytes"
	"encoding/binary"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/internal/linux"
)

var le = binary.LittleEndian

// File is old or new data with what is known about it.
type File struct {
	Data     []byte
	Elements []*elfref.Element
	Tables   *delta.Tables
	labels   map[elfref.Place]uint64
	slots    []elfref.Place // words that the loader fills in
}

// Read finds the ELF files in data, and their references.
func Read(data []byte) (*File, error) {
	elements, err := elfref.Find(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	return Known(data, elements), nil
}

// Known is data of which it is known where the ELF files are.
func Known(data []byte, elements []*elfref.Element) *File {
	f := &File{Data: data, Elements: elements, Tables: delta.MemoryTables(elements, data)}
	f.label()
	return f
}

// Plain is a file of which nothing is known but its bytes.
func Plain(data []byte) *File { return &File{Data: data, Tables: delta.MemoryTables(nil, data)} }

// Cut is the file without what follows its first size bytes, where no ELF file
// may be.
func (f *File) Cut(size int64) (*File, error) {
	for _, e := range f.Elements {
		if e.Base+e.Size > size || e.Tail != 0 && e.Tail >= size {
			return Read(f.Data[:size])
		}
	}
	cut := *f
	cut.Data = f.Data[:size]
	return &cut, nil
}

// references calls yield for every reference, in the order of the data; what it
// points to is valid until yield returns.
func (f *File) references(yield func(r *elfref.Ref)) {
	var r elfref.Ref
	for _, e := range f.Elements {
		t := f.Tables.Of(e)
		for i := range t.Len() {
			r = t.At(i)
			yield(&r)
		}
	}
}

// view is a copy of the data in which every reference is replaced by a value
// that stands for its meaning, so that equal meaning looks equal. Words that the
// loader fills in look like their symbol, if other has that too: what the file
// has in them is much the same for all.
func (f *File) view(other map[uint64]elfref.Place, meaning func(r *elfref.Ref) uint64) []byte {
	v := linux.Huge[byte](len(f.Data))
	copy(v, f.Data)
	f.references(func(r *elfref.Ref) {
		field := v[r.Off:][:r.Width]
		if r.Kind == elfref.HexID {
			for i := range field {
				field[i] = 'h'
			}
			return
		}
		x := meaning(r)
		if mask := elfref.ArmMask(r.Kind); mask != 0 {
			h := uint32(x*0x9E3779B1) ^ uint32(x>>7)
			le.PutUint32(field, le.Uint32(field)&^mask|h&mask)
		} else if r.Width == 8 {
			// Small numbers must not look half equal to zeros.
			le.PutUint64(field, x^x<<32)
		} else {
			le.PutUint32(field, uint32(x))
		}
	})
	for _, p := range f.slots {
		if h := f.labels[p]; other[h] > 0 && p+8 <= int64(len(v)) {
			le.PutUint64(v[p:], h)
		}
	}
	return v
}

// compact makes a place short enough for a field.
func compact(p elfref.Place) uint64 {
	if p >= elfref.Unbacked {
		return 0x80000000 | uint64(p&0x3fffffff) | uint64(elfref.Index(p)&63)<<32
	}
	return uint64(p)
}

// fields is the set of bytes that belong to references, 64 to a word.
func (f *File) fields() []uint64 {
	set := linux.Huge[uint64](len(f.Data)/64 + 1)
	f.references(func(r *elfref.Ref) {
		for i := r.Off; i < r.Off+r.Width; i++ {
			set[i>>6] |= 1 << (i & 63)
		}
	})
	return set
}
