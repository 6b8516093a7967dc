package fold

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sealant-os/sealant/image/patch/deflate"
)

func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%x is %d\n", r.Uint64(), r.IntN(100))
	}
	return b[:n]
}

// gz and zl are made by other programs' code: nothing here depends on recipes.
func gz(t *testing.T, plain []byte, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.Comment = name, name
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zl(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func nothing(int64) int64 { return 0 }

func TestFind(t *testing.T) {
	a, b, c := text(1, 5000), text(2, 700), text(3, 9000)
	damaged := gz(t, c, "")
	damaged[len(damaged)-7]++ // its checksum
	data := slices.Concat(text(9, 100), gz(t, a, "name"), []byte{0x1f, 0x8b, 8}, zl(t, b), damaged, gz(t, c, ""), gz(t, c, "")[:1000])
	found := Find(data, 1<<20, nothing)
	var got [][]byte
	for _, f := range found {
		p, err := Plain(data, f.Member)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if len(got) != 3 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], b) || !bytes.Equal(got[2], c) {
		t.Fatalf("%d members", len(got))
	}
	if f := Find(data, 4999, nothing); len(f) != 1 {
		t.Errorf("%d members of at most 4999 bytes", len(f))
	}
	if f := Find(data, 1<<20, func(at int64) int64 { return found[0].At + found[0].Folded }); len(f) != 2 {
		t.Errorf("%d members behind what is skipped", len(f))
	}
}

// TestFindCut gives Find data that ends anywhere.
func TestFindCut(t *testing.T) {
	data := slices.Concat(gz(t, text(1, 200), "n"), zl(t, text(2, 300)), []byte("PK\x03\x04\x14\x00\x00\x00\x08\x00"), make([]byte, 40))
	for n := range data {
		Find(data[:n], 1<<20, nothing)
	}
}

func TestSource(t *testing.T) {
	a, b := text(1, 5000), text(2, 700)
	file := slices.Concat(gz(t, a, ""), gz(t, b, ""), text(3, 100))
	var members []Member
	for _, f := range Find(file, 1<<20, nothing) {
		members = append(members, Member{At: f.At, Plain: f.Plain})
	}
	s, err := Unfold(bytes.NewReader(file), int64(len(file)), members)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(file)
	for _, p := range [][]byte{a, b} {
		want = append(append(want, make([]byte, -len(want)&(Align-1))...), p...)
	}
	if s.Size() != int64(len(want)) || s.Size() != Size(int64(len(file)), members) {
		t.Fatalf("%d bytes, want %d", s.Size(), len(want))
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, 1<<40))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, or it reads otherwise", err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		off := r.IntN(len(want))
		b := make([]byte, r.IntN(3000))
		n, err := s.ReadAt(b, int64(off))
		if !bytes.Equal(b[:n], want[off:off+n]) || n < len(b) && (err != io.EOF || off+n != len(want)) {
			t.Fatalf("%d bytes at %d: %d, %v", len(b), off, n, err)
		}
	}
	for _, bad := range []Member{{At: members[0].At, Plain: 4999}, {At: members[0].At, Plain: 5001}, {At: members[0].At + 1, Plain: 5000}, {At: int64(len(file)) - 1, Plain: 5}} {
		if _, err := Unfold(bytes.NewReader(file), int64(len(file)), []Member{bad}); err == nil {
			t.Errorf("%+v was inflated", bad)
		}
	}
}

func TestData(t *testing.T) {
	members := []Member{{At: 10, Folded: 5, Plain: 20}, {At: 15, Folded: 30, Plain: 2}, {At: 100, Folded: 10, Plain: 300}}
	d := NewData(members)
	if n := d.Size(120); n != 120+15-28+290 {
		t.Errorf("%d bytes", n)
	}
	for _, c := range []struct{ off, i, at, left, file int64 }{
		{0, -1, 0, 10, 0},
		{9, -1, 9, 1, 9},
		{10, 0, 0, 20, 10},
		{29, 0, 19, 1, 10},
		{30, 1, 0, 2, 15},
		{32, -1, 45, 55, 45},
		{86, -1, 99, 1, 99},
		{87, 2, 0, 300, 100},
		{386, 2, 299, 1, 100},
		{387, -1, 110, 1 << 62, 110},
	} {
		i, at, left := d.At(c.off)
		if int64(i) != c.i || at != c.at || left != c.left || d.File(c.off) != c.file {
			t.Errorf("%d: %d, %d, %d, %d", c.off, i, at, left, d.File(c.off))
		}
		if i < 0 && d.From(at) != c.off {
			t.Errorf("%d of the file is at %d, not %d", at, d.From(at), c.off)
		}
	}
}

// TestTrailer: a member's trailer is what its plain text says.
func TestTrailer(t *testing.T) {
	plain := text(1, 5000)
	if g := gz(t, plain, ""); !bytes.Equal(Gzip.of(plain), g[len(g)-8:]) {
		t.Error("gzip")
	}
	if z := zl(t, plain); !bytes.Equal(Zlib.of(plain), z[len(z)-4:]) {
		t.Error("zlib")
	}
	m := Member{Folded: 3, Plain: 5000, Recipe: recipe(deflate.Recipe{Program: deflate.Gzip, Level: 6}, Gzip)}
	steps := int64(1 << 30)
	if _, err := m.Fold(plain, &steps); err == nil {
		t.Error("a member shorter than its trailer")
	}
	if binary.LittleEndian.Uint32(Gzip.of(plain)[4:]) != 5000 {
		t.Error("size")
	}
}
