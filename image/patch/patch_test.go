package patch

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref/sample"
	"github.com/sealant-os/sealant/internal/fault"
)

// noise returns n bytes that no coder can shorten.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// variant changes data a little: bytes flipped, stretches moved, added, removed.
func variant(seed uint64, data []byte) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	out := bytes.Clone(data)
	for range 20 {
		out[r.IntN(len(out))]++
	}
	cut := len(out) / 3
	out = append(append(bytes.Clone(out[cut:]), noise(seed, 300)...), out[:cut-50]...)
	return out
}

func make1(t testing.TB, old, data []byte) []byte {
	t.Helper()
	var p bytes.Buffer
	s, err := Make(&p, bytes.NewReader(old), bytes.NewReader(data), MakeOptions{})
	if err != nil {
		t.Fatalf("Make: %v", err)
	}
	if s.Size != int64(p.Len()) {
		t.Fatalf("Make says %d bytes and wrote %d", s.Size, p.Len())
	}
	return p.Bytes()
}

func apply1(old, p []byte) ([]byte, error) {
	out := &memory{data: []byte("left over from before")}
	r, err := Apply(out, bytes.NewReader(old), bytes.NewReader(p), ApplyOptions{})
	if err == nil && r.Size != int64(len(out.data)) {
		return nil, errors.New("Apply says another size than it wrote")
	}
	return out.data, err
}

func TestRoundTrip(t *testing.T) {
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), 500)
	random := noise(7, 100_000)
	for _, c := range []struct {
		name      string
		old, data []byte
		atMost    int // bytes of the patch
	}{
		{"both empty", nil, nil, 200},
		{"from empty", nil, []byte("hello"), 200},
		{"to empty", []byte("hello"), nil, 200},
		{"equal", random, random, 200},
		{"one byte", []byte{1}, []byte{2}, 200},
		{"text", text, bytes.Replace(text, []byte("lazy"), []byte("tired"), 3), 300},
		{"moved", random, variant(3, random), 1100},
		{"new", random, noise(8, 5000), 5400},
		{"doubled", random, append(bytes.Clone(random), random...), 250},
		{"zeros", random, make([]byte, 1<<20), 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := make1(t, c.old, c.data)
			if again := make1(t, c.old, c.data); !bytes.Equal(p, again) {
				t.Error("a second run made another patch")
			}
			got, err := apply1(c.old, p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.data) {
				t.Fatal("the result differs")
			}
			if len(p) > c.atMost {
				t.Errorf("the patch has %d bytes, want at most %d", len(p), c.atMost)
			}
		})
	}
}

func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "pool")
		piece := rapid.Custom(func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "fresh") {
				return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
			}
			i := rapid.IntRange(0, len(pool)-1).Draw(t, "from")
			return pool[i:rapid.IntRange(i, len(pool)).Draw(t, "to")]
		})
		old := bytes.Join(rapid.SliceOfN(piece, 0, 20).Draw(t, "old"), nil)
		data := bytes.Join(rapid.SliceOfN(piece, 0, 20).Draw(t, "new"), nil)
		var p bytes.Buffer
		if _, err := Make(&p, bytes.NewReader(old), bytes.NewReader(data), MakeOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := apply1(old, p.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("got %x, want %x", got, data)
		}
	})
}

// TestMutations flips every bit, cuts at every place and extends: each must be
// refused, with a kind that ends in exit code 32 or 1.
func TestMutations(t *testing.T) {
	old := noise(1, 3000)
	p := make1(t, old, variant(5, old))
	refused := func(what string, at int, p []byte, seekable bool) {
		var r io.Reader = bytes.NewReader(p)
		if !seekable {
			r = io.MultiReader(r)
		}
		_, err := Apply(&memory{}, bytes.NewReader(old), r, ApplyOptions{})
		if err == nil {
			t.Fatalf("%s at %d was accepted", what, at)
		}
		if k := fault.KindOf(err); k != fault.Seal && k != fault.Failed {
			t.Fatalf("%s at %d: kind %v of %v", what, at, k, err)
		}
	}
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 1 << (i % 8)
		refused("a flipped bit", i, bad, i%2 == 0)
		bad[i] = ^p[i]
		refused("an inverted byte", i, bad, i%2 == 1)
		refused("a cut", i, p[:i], i%3 == 0)
	}
	refused("an extra byte", len(p), append(bytes.Clone(p), 0), false)
	refused("an extra byte", len(p), append(bytes.Clone(p), 0), true)
	refused("a second patch", len(p), append(bytes.Clone(p), p...), false)
}

func TestWrongSource(t *testing.T) {
	old := noise(1, 3000)
	p := make1(t, old, variant(5, old))
	other := bytes.Clone(old)
	other[2999] ^= 1
	for name, source := range map[string][]byte{"one bit": other, "shorter": old[:2999], "longer": append(bytes.Clone(old), 0), "empty": nil} {
		out := &memory{}
		_, err := Apply(out, bytes.NewReader(source), bytes.NewReader(p), ApplyOptions{})
		if fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: %v", name, err)
		}
		if len(out.data) != 0 {
			t.Errorf("%s: something was written", name)
		}
	}
}

func TestBounds(t *testing.T) {
	old := noise(1, 3000)
	p := make1(t, old, variant(5, old))
	for name, o := range map[string]ApplyOptions{"memory": {MaxMemory: 1 << 20}, "result": {MaxResult: 100}} {
		if _, err := Apply(&memory{}, bytes.NewReader(old), bytes.NewReader(p), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Apply(&memory{}, bytes.NewReader(old), bytes.NewReader(p), ApplyOptions{Context: ctx}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestBomb declares what no honest encoder would.
func TestBomb(t *testing.T) {
	old := noise(1, 3000)
	good, err := Inspect(bytes.NewReader(make1(t, old, variant(5, old))))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(h *Header){
		"huge result":    func(h *Header) { h.ResultSize, h.Segments[0].Size = 1<<45, 1<<45 },
		"many runs":      func(h *Header) { h.Runs = 1 << 30; h.ResultSize, h.Segments[0].Size = 1<<30, 1<<30 },
		"little memory":  func(h *Header) { h.Memory = 1 << 20 },
		"much memory":    func(h *Header) { h.Memory = 1 << 40 },
		"no segments":    func(h *Header) { h.Segments = nil },
		"empty segment":  func(h *Header) { h.Segments[0].Size = 0 },
		"big models":     func(h *Header) { h.Segments[0].Bits = 40 },
		"unknown":        func(h *Header) { h.Transforms[0].Version = 99 },
		"unknown method": func(h *Header) { h.Transforms[0].ID = 77 },
		"long body":      func(h *Header) { h.Segments[0].Coded = 1 << 40 },
		"only zeros":     func(h *Header) { h.ResultSize, h.Segments[0].Size = 1<<29, 1<<29 },
	} {
		h := *good
		h.Segments = append([]Segment(nil), good.Segments...)
		h.Transforms = append([]Transform(nil), good.Transforms...)
		change(&h)
		var p bytes.Buffer
		if _, err := write(&p, &h, [][]byte{make([]byte, good.MapSize), make([]byte, good.Segments[0].Coded)}); err != nil {
			t.Fatal(err)
		}
		_, err := Apply(&memory{}, bytes.NewReader(old), bytes.NewReader(p.Bytes()), ApplyOptions{})
		if k := fault.KindOf(err); err == nil || k != fault.Seal && k != fault.Failed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzApply applies damaged patches, with every checksum and the source's digest
// put right, or the fuzzer would not get far. The sources are noise and
// programs; the models are small, so that many patches are tried.
func FuzzApply(f *testing.F) {
	old := noise(1, 3000)
	sources := [][]byte{old, smallELF(62, 0), smallELF(183, 0), append(smallELF(62, 0), smallELF(183, 3)...), sample.Debug(62, 0)}
	results := [][]byte{variant(5, old), smallELF(62, 5), smallELF(183, 5), append(smallELF(62, 2), variant(3, smallELF(183, 0))...), sample.Debug(62, 4)}
	for i, old := range sources {
		for j, data := range [][]byte{results[i], old, nil} {
			if j == 2 {
				f.Add(uint8(i), make1(f, old, data))
				continue
			}
			for _, shape := range []delta.Shape{{Bits: 12}, {Bits: 12, Light: true, Watch: 2}, {Bits: 12, Primed: true}, {Bits: 13, Packed: true, Window: 12}} {
				f.Add(uint8(i), shaped(f, old, data, shape))
			}
		}
	}
	f.Fuzz(func(t *testing.T, source uint8, p []byte) {
		old := sources[int(source)%len(sources)]
		if h, n, err := readHeader(bytes.NewReader(p)); err == nil && h.Size <= int64(len(p)) {
			h.Source, h.SourceSize = sha512.Sum384(old), int64(len(old))
			var b bytes.Buffer
			if _, err := write(&b, h, [][]byte{p[n : h.Size-4]}); err != nil {
				t.Fatal(err)
			}
			p = b.Bytes()
		}
		out := &memory{}
		if _, err := Apply(out, bytes.NewReader(old), bytes.NewReader(p), ApplyOptions{MaxResult: 1 << 16, MaxMemory: 64 << 20}); err == nil {
			if _, err := Inspect(bytes.NewReader(p)); err != nil {
				t.Fatal("accepted a patch that cannot be inspected")
			}
		}
	})
}

func TestMakeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Make(io.Discard, bytes.NewReader([]byte("a")), bytes.NewReader([]byte("b")), MakeOptions{Context: ctx}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
