package elfref

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// reader is a Source and a way to read, over data in memory.
type reader []byte

func (r reader) Bytes(off, n int64) []byte { return bytes.Clone(r[off : off+n]) }

func (r reader) read(b []byte, off int64) error { copy(b, r[off:]); return nil }

// TestPack holds that a packed table says what the one in memory does, for this
// program and for whatever ELF files the machine has in both forms of linking.
func TestPack(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sampled := filepath.Join(t.TempDir(), "sample")
	if err := os.WriteFile(sampled, sample.Debug(machineX86, 300), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{self, "/bin/sh", "/bin/bash", sampled} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found, err := Find(bytes.NewReader(data), int64(len(data)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: no ELF file: %v", name, err)
		}
		e := found[0]
		whole, _ := e.Read(reader(data).read)
		want := e.Table(whole)
		got, err := e.Pack(reader(data).read)
		if err != nil {
			t.Fatal(err)
		}
		if got.Len() != want.Len() || got.Len() < 300 {
			t.Fatalf("%s: %d references, not %d", name, got.Len(), want.Len())
		}
		if m := got.Memory(); m != want.Memory() || m > 4*int64(got.Len()) {
			t.Errorf("%s: %d references take %d bytes", name, got.Len(), m)
		}
		c, d := got.Cursor(reader(data)), want.Cursor(nil)
		for i := range got.Len() {
			if a, b := c.At(i), d.At(i); a != b {
				t.Fatalf("%s: reference %d is %+v, not %+v", name, i, a, b)
			}
		}
		for range 1000 {
			off := rand.Int64N(int64(len(data)))
			if a, b := c.From(off), want.From(off); a != b {
				t.Fatalf("%s: the first reference from %d on is %d, not %d", name, off, a, b)
			}
		}
	}
}

// TestMerge merges lists that overlap.
func TestMerge(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []uint64
		var strands []*strand
		for range 1 + r.IntN(6) {
			var recs []uint64
			for range 1 + r.IntN(300) {
				recs = append(recs, r.Uint64N(2000)<<32|uint64(1+r.IntN(int(classes)-1))<<24|r.Uint64N(6))
			}
			slices.Sort(recs)
			s := &strand{raw: recs, n: len(recs)}
			if r.IntN(2) == 0 {
				s = &strand{packed: pack(recs), n: len(recs)}
			}
			strands, all = append(strands, s), append(all, recs...)
		}
		slices.Sort(all)
		var got []uint64
		merge(strands, func(rec uint64) { got = append(got, rec) })
		if !slices.Equal(got, all) {
			t.Fatalf("seed %d: merged wrongly", seed)
		}
	}
}
