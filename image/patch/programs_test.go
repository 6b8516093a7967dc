package patch

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/fault"
)

// hashed is an ELF file with a hash table of a size in bytes.
func hashed(size int) []byte {
	const head = 64 + 56 + 2*64
	le, b := binary.LittleEndian, make([]byte, head+size)
	copy(b, "\x7fELF\x02\x01")
	le.PutUint16(b[0x12:], 62)
	le.PutUint64(b[0x20:], 64)
	le.PutUint64(b[0x28:], 64+56)
	le.PutUint16(b[0x36:], 56)
	le.PutUint16(b[0x38:], 1)
	le.PutUint16(b[0x3a:], 64)
	le.PutUint16(b[0x3c:], 2)
	table := b[64+56+64:]
	le.PutUint32(table[4:], 5)
	le.PutUint64(table[24:], head)
	le.PutUint64(table[32:], uint64(size))
	return b
}

// TestLargePrograms: a patch whose source takes more memory to look into than it
// declares is refused, and looking into it ends when the context does.
func TestLargePrograms(t *testing.T) {
	patchOf := func(old []byte) []byte {
		empty := delta.EncodeLayout(&delta.Layout{}, nil)
		b := &bomb{header: Header{
			Source: sha512.Sum384(old), SourceSize: int64(len(old)), ResultSize: 1, MapSize: int64(len(empty)),
			Transforms: []Transform{newTransform(walkTransform), newTransform(elfTransform)},
			Segments:   []Segment{{Size: 1, Coded: 8, Bits: delta.MinBits, Light: true}},
		}, parts: [][]byte{empty, bytes.Repeat([]byte{255}, 8)}}
		b.header.Memory = b.header.memory()
		return b.bytes(t)
	}
	old := hashed(40 << 20)
	_, err := apply1(old, patchOf(old))
	if fault.KindOf(err) != fault.Seal || !strings.Contains(err.Error(), "to look into its source") {
		t.Errorf("a large program: %v", err)
	}
	old = hashed(1 << 20)
	if _, err = apply1(old, patchOf(old)); err == nil || strings.Contains(err.Error(), "to look into its source") {
		t.Errorf("a small program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &applier{old: bytes.NewReader(old), options: ApplyOptions{Context: ctx}}
	if err := a.read(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("reading for a table: %v", err)
	}
}

// TestTables: a patch is applied with as much memory for references as its
// encoder declares, and refused if it declares less than one program's take.
func TestTables(t *testing.T) {
	old, data := program(t, "amd64", ""), program(t, "amd64", moreCode)
	p := make1(t, old, data)
	h, n, err := readHeader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	was, err := match.Read(old)
	if err != nil || len(was.Elements) != 1 {
		t.Fatalf("%d programs: %v", len(was.Elements), err)
	}
	need := was.Tables.Of(was.Elements[0]).Memory()
	declaring := func(tables int64) error {
		h.Memory += tables - h.Tables
		h.Tables = tables
		_, err := apply1(old, (&bomb{header: *h, parts: [][]byte{p[n : len(p)-4]}}).bytes(t))
		return err
	}
	if err := declaring(need); err != nil {
		t.Errorf("%d bytes, as many as it takes: %v", need, err)
	}
	if err := declaring(need - 1); fault.KindOf(err) != fault.Seal || !strings.Contains(err.Error(), "memory for references") {
		t.Errorf("one byte less: %v", err)
	}
}
