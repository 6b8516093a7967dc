// Package sample makes small ELF files for tests, whose addresses move as those
// of real ones do.
package sample

import "encoding/binary"

var le = binary.LittleEndian

// Section is a section of a file.
type Section struct {
	Name  string
	Kind  uint32 // 1 is content that only the program knows
	Flags uint64 // 1 write, 2 alloc, 4 exec
	Entry uint64

	// Data are its bytes, as many whatever at says: that is the address of a
	// section which has flags, else 0.
	Data func(at func(name string) uint64) []byte
}

// ELF puts a file for a machine (62 x86-64, 183 AArch64) together, which can be
// loaded at any address.
func ELF(machine uint16, sections []Section) []byte {
	const head = 64 + 56
	where := map[string]uint64{}
	at := func(name string) uint64 { return where[name] }
	off := uint64(head)
	for _, s := range sections {
		off = (off + 63) &^ 63
		if s.Flags != 0 {
			where[s.Name] = off
		}
		off += uint64(len(s.Data(at)))
	}
	out := make([]byte, head)
	copy(out, "\x7fELF\x02\x01\x01")
	le.PutUint16(out[0x10:], 3)
	le.PutUint16(out[0x12:], machine)
	le.PutUint64(out[0x20:], 64)
	le.PutUint16(out[0x36:], 56)
	le.PutUint16(out[0x38:], 1)
	names, headers := []byte{0}, make([]byte, 64)
	header := func(s Section, off, size int) {
		h := le.AppendUint32(nil, uint32(len(names)))
		names = append(append(names, s.Name...), 0)
		h = le.AppendUint32(h, s.Kind)
		for _, v := range []uint64{s.Flags, where[s.Name], uint64(off), uint64(size), 0, 1, s.Entry} {
			h = le.AppendUint64(h, v)
		}
		headers = append(headers, h...)
	}
	for _, s := range sections {
		out = append(out, make([]byte, -len(out)&63)...)
		d := s.Data(at)
		header(s, len(out), len(d))
		out = append(out, d...)
	}
	header(Section{Name: ".shstrtab", Kind: 3}, len(out), len(names)+len(".shstrtab")+1)
	out = append(out, names...)
	out = append(out, make([]byte, -len(out)&7)...)
	le.PutUint64(out[0x28:], uint64(len(out)))
	le.PutUint16(out[0x3a:], 64)
	le.PutUint16(out[0x3c:], uint16(len(headers)/64))
	le.PutUint16(out[0x3e:], uint16(len(headers)/64-1))
	out = append(out, headers...)
	load := out[64:]
	le.PutUint32(load, 1)
	le.PutUint32(load[4:], 7)
	le.PutUint64(load[32:], uint64(len(out)))
	le.PutUint64(load[40:], uint64(len(out)))
	return out
}

// bytes is data under construction.
type bytes []byte

func (b *bytes) u8(v ...byte) { *b = append(*b, v...) }
func (b *bytes) u16(v uint16) { *b = le.AppendUint16(*b, v) }
func (b *bytes) u32(v ...uint32) {
	for _, v := range v {
		*b = le.AppendUint32(*b, v)
	}
}

func (b *bytes) u64(v ...uint64) {
	for _, v := range v {
		*b = le.AppendUint64(*b, v)
	}
}

func (b *bytes) leb(v ...uint64) {
	for _, v := range v {
		*b = binary.AppendUvarint(*b, v)
	}
}
func (b *bytes) text(s string) { *b = append(append(*b, s...), 0) }

// unit appends what fill makes, with its length before it.
func (b *bytes) unit(fill func(b *bytes)) {
	at := len(*b)
	b.u32(0)
	fill(b)
	le.PutUint32((*b)[at:], uint32(len(*b)-at-4))
}
