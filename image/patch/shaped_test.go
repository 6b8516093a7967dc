package patch

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/match"
)

// shaped makes a patch with one shape of models, whatever it costs.
func shaped(t testing.TB, old, data []byte, shape delta.Shape) []byte {
	t.Helper()
	was, err := match.Read(old)
	if err != nil {
		t.Fatal(err)
	}
	is, err := match.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	l := match.Plan(was, is)[0]
	l.Runs = match.Repeats(data, l.Runs, nil, leastRepeat)
	d, err := encodeAs(was, is, l, shape)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Inspect(bytes.NewReader(make1(t, old, data)))
	if err != nil {
		t.Fatal(err)
	}
	h.Runs, h.MapSize, h.Segments = int64(len(l.Runs)), int64(len(d.parts[0])), d.segments
	h.Memory = h.memory() + d.memory
	var b bytes.Buffer
	if _, err := write(&b, h, d.parts); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// smallELF is a little program for a machine (62 x86-64, 183 AArch64): calls,
// addresses of data, pointers, section headers. before bytes of code come first,
// so that everything moves.
func smallELF(machine uint16, before int) []byte {
	le := binary.LittleEndian
	const functions = 24
	code := make([]byte, before*4)
	for i := range code {
		code[i] = 0x90
		if machine == 183 {
			code[i] = []byte{0x1f, 0x20, 0x03, 0xd5}[i%4]
		}
	}
	size := len(code) + functions*32
	data := int64(64+56+size+4095) &^ 4095
	start := int64(64 + 56)
	for i := range functions {
		at := start + int64(len(code))
		to := start + int64(before*4+(i*7%functions)*32)
		value := data + int64(i*11%functions)*8
		var f []byte
		if machine == 62 {
			f = append(f, 0xe8)
			f = le.AppendUint32(f, uint32(to-(at+5)))
			f = append(f, 0x48, 0x8d, 0x05)
			f = le.AppendUint32(f, uint32(value-(at+12)))
			f = append(f, 0xb8, byte(i), byte(i*i), 0, 0, 0xc3)
		} else {
			f = le.AppendUint32(f, 0x94000000|uint32((to-at)>>2)&0x3ffffff)
			page := uint32((value&^4095 - (at+4)&^4095) >> 12)
			f = le.AppendUint32(f, 0x90000000|page&3<<29|page>>2&0x7ffff<<5)
			f = le.AppendUint32(f, 0x91000000|uint32(value&4095)<<10)
			f = le.AppendUint32(f, 0x52800000|uint32(i*i)<<5)
			f = le.AppendUint32(f, 0xd65f03c0)
		}
		code = append(append(code, f...), make([]byte, 32-len(f))...)
	}
	out := make([]byte, data)
	copy(out, "\x7fELF\x02\x01\x01")
	le.PutUint16(out[0x10:], 2)
	le.PutUint16(out[0x12:], machine)
	le.PutUint64(out[0x20:], 64)
	le.PutUint16(out[0x36:], 56)
	le.PutUint16(out[0x38:], 1)
	copy(out[start:], code)
	for i := range functions {
		out = le.AppendUint64(out, uint64(0x400000+start+int64(before*4+(i*5%functions)*32)))
	}
	names := "\x00.text\x00.data\x00.shstrtab\x00"
	strings := int64(len(out))
	out = append(out, names...)
	out = append(out, make([]byte, -len(out)&7)...)
	le.PutUint64(out[0x28:], uint64(len(out)))
	le.PutUint16(out[0x3a:], 64)
	le.PutUint16(out[0x3c:], 4)
	le.PutUint16(out[0x3e:], 3)
	section := func(name, kind uint32, flags uint64, addr, off, size int64) {
		out = le.AppendUint32(out, name)
		out = le.AppendUint32(out, kind)
		for _, v := range []uint64{flags, uint64(addr), uint64(off), uint64(size), 0, 1, 0} {
			out = le.AppendUint64(out, v)
		}
	}
	section(0, 0, 0, 0, 0, 0)
	section(1, 1, 6, 0x400000+start, start, int64(len(code)))
	section(7, 1, 3, 0x400000+data, data, functions*8)
	section(13, 3, 0, 0, strings, int64(len(names)))
	h := out[64:]
	le.PutUint32(h, 1)
	le.PutUint32(h[4:], 7)
	le.PutUint64(h[16:], 0x400000)
	le.PutUint64(h[32:], uint64(len(out)))
	le.PutUint64(h[40:], uint64(len(out)))
	return out
}
