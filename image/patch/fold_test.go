package patch

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/deflate"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/fold"
	"github.com/sealant-os/sealant/image/patch/match"
)

// deflated is a stream as a program makes it.
func deflated(t testing.TB, plain []byte, r deflate.Recipe) []byte {
	t.Helper()
	steps := int64(1 << 40)
	out, err := deflate.Deflate(bytes.Clone(plain), r, int64(len(plain))+1000, &steps)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// gz is a gzip file as GNU gzip makes it.
func gz(t testing.TB, plain []byte, level int) []byte {
	b := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3}, deflated(t, plain, deflate.Recipe{Level: level})...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
}

// prose is text of so many lines, of which one in every is another.
func prose(lines, every, version int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	var b []byte
	for i := range lines {
		b = fmt.Appendf(b, "line %d says %x\n", i, r.Uint64()>>(i%40))
		if i%every == every/2 {
			b = fmt.Appendf(b, "and that is so in version %x\n", bytes.Repeat([]byte{byte(version), byte(i)}, version))
		}
	}
	return b
}

// jar is a zip archive whose members zlib has compressed.
func jar(t testing.TB, members, version int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := range members {
		plain := prose(60+i, 50, 0)
		if i%3 == 0 {
			plain = prose(60+i, 50, version)
		}
		stream := deflated(t, plain, deflate.Recipe{Program: deflate.Zlib8, Level: 6})
		f, err := w.CreateRaw(&zip.FileHeader{
			Name: fmt.Sprintf("member-%d.txt", i), Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(plain),
			CompressedSize64: uint64(len(stream)), UncompressedSize64: uint64(len(plain)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(stream); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// folds are pairs with compressed members.
func folds(t testing.TB) map[string][2][]byte {
	around := func(b []byte) []byte { return slices.Concat(noise(1, 5000), b, noise(2, 3000)) }
	zlib := func(version int) []byte {
		plain := prose(400, 90, version)
		c := deflated(t, plain, deflate.Recipe{Program: deflate.Zlib8, Level: 9})
		c = append([]byte{0x78, 0xda}, c...)
		return append(c, binary.BigEndian.AppendUint32(nil, adler(plain))...)
	}
	program := func(fill int) []byte { return append(smallELF(62, fill), prose(100, 9, 1)...) }
	both := func(make func(version int) []byte) [2][]byte { return [2][]byte{make(1), make(2)} }
	return map[string][2][]byte{
		"gzip":       both(func(v int) []byte { return gz(t, prose(900, 200, v), 9) }),
		"inside":     both(func(v int) []byte { return around(gz(t, prose(900, 200, v), 6)) }),
		"two":        both(func(v int) []byte { return slices.Concat(gz(t, prose(500, 200, v), 9), gz(t, prose(400, 90, v+5), 1)) }),
		"one is new": {around(gz(t, prose(300, 90, 1), 9)), slices.Concat(gz(t, prose(300, 90, 2), 9), around(gz(t, bytes.ToUpper(prose(300, 90, 3)), 9)))},
		"gone":       {slices.Concat(gz(t, prose(300, 90, 1), 9), gz(t, prose(500, 200, 1), 9)), gz(t, prose(500, 200, 2), 9)},
		"zlib":       both(func(v int) []byte { return around(zlib(v)) }),
		"jar":        both(func(v int) []byte { return around(jar(t, 20, v)) }),
		"program":    {around(gz(t, program(0), 9)), around(gz(t, program(3), 9))},
		"behind":     {slices.Concat(gz(t, prose(300, 90, 1), 9), make([]byte, 1000), smallELF(62, 0)), slices.Concat(gz(t, prose(300, 90, 2), 9), make([]byte, 100), smallELF(62, 3))},
	}
}

func adler(b []byte) uint32 {
	x, y := uint32(1), uint32(0)
	for _, c := range b {
		x = (x + uint32(c)) % 65521
		y = (y + x) % 65521
	}
	return y<<16 | x
}

func TestFold(t *testing.T) {
	for name, pair := range folds(t) {
		t.Run(name, func(t *testing.T) {
			for i := range 2 {
				old, data := pair[i], pair[1-i]
				p := make1(t, old, data)
				h, err := Inspect(bytes.NewReader(p))
				if err != nil {
					t.Fatal(err)
				}
				if h.Fold == nil || len(h.Fold.From) == 0 || len(h.Fold.To) == 0 {
					t.Errorf("no member is taken apart; %d bytes", len(p))
				}
				if again := make1(t, old, data); !bytes.Equal(p, again) {
					t.Error("a second run made another patch")
				}
				got, err := apply1(old, p)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%v, or the result differs", err)
				}
				if !bytes.Equal(referenceDecode(old, p), data) {
					t.Error("the reference decoder gives another result")
				}
			}
		})
	}
}

// TestFoldGain: it must be worth it.
func TestFoldGain(t *testing.T) {
	pair := [2][]byte{gz(t, prose(9000, 800, 1), 9), gz(t, prose(9000, 800, 2), 9)}
	if p := make1(t, pair[0], pair[1]); len(p) > 400 {
		t.Errorf("the patch has %d bytes", len(p))
	}
}

// TestFoldNot: members that nobody can make again, or that did not change, are
// left alone.
func TestFoldNot(t *testing.T) {
	other := func(version int) []byte {
		var b bytes.Buffer
		b.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3})
		w, _ := flate.NewWriter(&b, 9)
		plain := prose(900, 200, version)
		_, _ = w.Write(plain)
		_ = w.Close()
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b.Bytes(), crc32.ChecksumIEEE(plain)), uint32(len(plain)))
	}
	same := gz(t, prose(900, 200, 1), 9)
	for name, pair := range map[string][2][]byte{
		"another program": {other(1), other(2)},
		"unchanged":       {slices.Concat(same, prose(10, 5, 1)), slices.Concat(prose(10, 5, 2), same)},
		"only in one":     {prose(900, 200, 1), same},
	} {
		p := make1(t, pair[0], pair[1])
		if h, err := Inspect(bytes.NewReader(p)); err != nil || h.Fold != nil {
			t.Errorf("%s: %v, %v", name, h.Fold, err)
		}
		if got, err := apply1(pair[0], p); err != nil || !bytes.Equal(got, pair[1]) {
			t.Errorf("%s: %v, or the result differs", name, err)
		}
	}
}

// TestFoldMutations flips every byte, cuts everywhere: all of it is refused.
func TestFoldMutations(t *testing.T) {
	pair := [2][]byte{gz(t, prose(200, 90, 1), 9), gz(t, prose(200, 90, 2), 9)}
	p := make1(t, pair[0], pair[1])
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 1 << (i % 8)
		for what, b := range map[string][]byte{"a flipped bit": bad, "a cut": p[:i]} {
			if _, err := apply1(pair[0], b); err == nil {
				t.Fatalf("%s at %d was accepted", what, i)
			}
		}
	}
}

func TestFoldCancel(t *testing.T) {
	pair := folds(t)["jar"]
	p := make1(t, pair[0], pair[1])
	ctx, cancel := context.WithCancel(t.Context())
	o := ApplyOptions{Context: ctx, Progress: func(done, total int64) {
		if done > int64(len(pair[0])) {
			cancel()
		}
	}}
	if _, err := Apply(&memory{}, bytes.NewReader(pair[0]), bytes.NewReader(p), o); err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

// TestFoldProgress: it counts bytes of the files, and ends at their end.
func TestFoldProgress(t *testing.T) {
	pair := folds(t)["inside"]
	var last, all int64
	o := ApplyOptions{Progress: func(done, total int64) {
		if done < last || done > total {
			t.Errorf("%d after %d of %d", done, last, total)
		}
		last, all = done, total
	}}
	if _, err := Apply(&memory{}, bytes.NewReader(pair[0]), bytes.NewReader(make1(t, pair[0], pair[1])), o); err != nil || last != all {
		t.Errorf("%v: %d of %d", err, last, all)
	}
}

// FuzzFold gives header parsing members of any kind.
func FuzzFold(f *testing.F) {
	x := &Fold{From: []fold.Member{{At: 10, Plain: 500}}, To: []fold.Member{{At: 5, Folded: 60, Plain: 700, Recipe: 0x49}, {At: 65, Folded: 9, Plain: 70, Recipe: 0x16}}}
	f.Add(x.marshal(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &fields{b: b}
		x := parseFold(in)
		if in.err != nil {
			return
		}
		if got := x.marshal(nil); !bytes.Equal(got, b[:len(b)-len(in.b)]) {
			t.Errorf("% x is written as % x", b, got)
		}
		h := &Header{SourceSize: 1 << 20, ResultSize: 1 << 20, Fold: x, Segments: []Segment{{Size: 1 << 20}}}
		if x.check(h) == nil && (h.from() < h.SourceSize || x.memory() < 0) {
			t.Errorf("%+v", x)
		}
		end := int64(0)
		for i, m := range x.To {
			if m.At < end || m.Folded == 0 || m.Plain == 0 {
				t.Errorf("member %d: %+v", i, m)
			}
			end = m.At + m.Folded
		}
	})
}

// bombsOfMembers are hostile patches with members; old gets what they need.
func bombsOfMembers(t *testing.T, old []byte, add func(name string, change func(b *bomb)), bare func(b *bomb, parts ...[]byte)) {
	zeros := deflated(t, make([]byte, 60<<20), deflate.Recipe{Program: deflate.Zlib8, Level: 9}) // 1000 : 1
	copy(old[1000:], zeros)
	// with makes the patch one of members, over a result of so many literals of 0.
	with := func(b *bomb, x *Fold, size int64) {
		n := size/32 + 8
		b.header.Transforms = []Transform{newTransform(walkTransform), newTransform(foldTransform)}
		b.header.Fold, b.header.ResultSize = x, size
		b.header.Segments = []Segment{{Size: max(fold.NewData(x.To).Size(size), 1), Coded: n, Bits: 12}}
		bare(b, make([]byte, n))
		b.header.Memory = 250 << 20
	}
	member := func(at, folded, plain int64) fold.Member {
		return fold.Member{At: at, Folded: folded, Plain: plain, Recipe: 9}
	}
	add("member: a bomb of the source", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 1000, Plain: 60 << 20}}}, 4<<10)
	})
	add("member: many bombs of the source", func(b *bomb) {
		x := &Fold{}
		for i := range int64(maxMembers) {
			x.From = append(x.From, fold.Member{At: 1000 + i, Plain: 10 << 10})
		}
		with(b, x, 4<<10)
	})
	add("member: larger than declared", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 1000, Plain: 1 << 20}}}, 4<<10)
	})
	add("member: smaller than declared", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 1000, Plain: 100 << 20}}}, 4<<10)
	})
	add("member: huge", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 1000, Plain: deflate.MaxPlain}}}, 4<<10)
	})
	add("member: none in the source", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 900_000, Plain: 1 << 20}}}, 4<<10)
	})
	add("member: outside the source", func(b *bomb) {
		with(b, &Fold{From: []fold.Member{{At: 1 << 40, Plain: 1 << 20}}}, 4<<10)
	})
	add("member: outside the result", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(4000, 1000, 2000)}}, 4<<10)
	})
	add("member: empty", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(10, 10, 0)}}, 4<<10)
	})
	add("member: unknown recipe", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{{At: 10, Folded: 10, Plain: 10, Recipe: 0x3f}}}, 4<<10)
	})
	add("member: across segments", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(10, 10, 1000)}}, 4<<10)
		s := b.header.Segments[0]
		a, c := s, s
		a.Size, c.Size = 500, s.Size-500
		b.header.Segments = []Segment{a, c}
	})
	add("member: of another size", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(10, 1000, 20_000)}}, 64<<10)
	})
	add("member: too long", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(10, 5, 50_000)}}, 64<<10)
	})
	add("member: zeros without end", func(b *bomb) {
		with(b, &Fold{To: []fold.Member{member(10, 60_000, 60<<20)}}, 2<<20)
	})
	add("member: many plain texts", func(b *bomb) {
		x := &Fold{}
		for i := range int64(4000) {
			x.To = append(x.To, member(i*10, 9, 1<<20))
		}
		with(b, x, 64<<10)
	})
	add("member: a chain for each byte", func(b *bomb) {
		r := rand.New(rand.NewPCG(1, 1))
		plain := make([]byte, 1<<19) // in the source as it is
		for i := range plain {
			plain[i] = byte(r.IntN(2))
		}
		at := int64(len(old)) - int64(len(plain))
		copy(old[at:], plain)
		with(b, &Fold{To: []fold.Member{member(10, 1<<20, int64(len(plain)))}}, 2<<20)
		layout := delta.EncodeLayout(&delta.Layout{Runs: []align.Run{{New: 10, Old: at, Len: int64(len(plain))}}}, nil)
		b.header.Runs, b.header.MapSize, b.parts[0] = 1, int64(len(layout)), layout
	})
}

// TestFoldSegments: a patch in several segments, as another encoder may make it,
// with members in both, of which the second one reads back what is before it.
func TestFoldSegments(t *testing.T) {
	plain := [2][]byte{prose(300, 90, 1), prose(200, 70, 2)}
	filler := noise(5, 300)
	data := slices.Concat(filler, gz(t, plain[0], 9), filler, gz(t, plain[1], 6), filler)
	var to []fold.Member
	for _, f := range fold.Find(data, 1<<20, func(int64) int64 { return 0 }) {
		m := f.Member
		m.Recipe = 0x40 | byte([]int{9, 6}[len(to)])
		to = append(to, m)
	}
	x := &Fold{To: to}
	whole, err := fold.NewData(to).Unfolded(data, func(m fold.Member) ([]byte, error) { return fold.Plain(data, m) })
	if err != nil || len(to) != 2 {
		t.Fatalf("%v, %d members", err, len(to))
	}
	file := match.Plain(whole)
	split := fold.NewData(to).Start(1) // a segment may begin with a member
	end := int64(len(whole))
	// The plain text before it comes again at the end of the first segment, too.
	l := &delta.Layout{Runs: match.Repeats(whole, nil, nil, 100)}
	l.Runs = slices.DeleteFunc(l.Runs, func(r align.Run) bool {
		return r.New < split && r.New+r.Len > split || r.New >= split && r.Old < split
	})
	h := &Header{
		Source: sha512.Sum384(nil), Result: sha512.Sum384(data), ResultSize: int64(len(data)), Fold: x,
		Transforms: []Transform{newTransform(walkTransform), newTransform(foldTransform)},
	}
	parts := [][]byte{delta.EncodeLayout(l, nil)}
	for _, s := range []delta.Segment{{End: split, Shape: delta.Shape{Bits: 12}}, {Start: split, End: end, Shape: delta.Shape{Bits: 12}}} {
		coded, _, err := delta.Encode(delta.MemorySource(nil), match.Plain(nil).Tables, file.Data, l, s)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, coded.Body)
		h.Segments = append(h.Segments, Segment{Size: s.End - s.Start, Coded: int64(len(coded.Body)), Bits: 12})
	}
	h.Runs, h.MapSize = int64(len(l.Runs)), int64(len(parts[0]))
	h.Memory = h.memory() + 1<<20
	var p bytes.Buffer
	if _, err := write(&p, h, parts); err != nil {
		t.Fatal(err)
	}
	got, err := apply1(nil, p.Bytes())
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%v, or the result differs", err)
	}
	if !bytes.Equal(referenceDecode(nil, p.Bytes()), data) {
		t.Error("the reference decoder gives another result")
	}
}

// TestFoldReadBack: a self run over more than a decoder keeps in view stems from
// a plain text that was compressed long ago.
func TestFoldReadBack(t *testing.T) {
	old := gz(t, prose(9000, 800, 1), 9)
	plain := prose(9000, 800, 2)
	plain = append(plain, noise(1, 400_000)...)
	plain = append(plain, plain[200_000:500_000]...)
	data := slices.Concat(gz(t, plain, 9), noise(2, 300_000), plain[100_000:300_000])
	p := make1(t, old, data)
	h, err := Inspect(bytes.NewReader(p))
	if err != nil || h.Fold == nil {
		t.Fatalf("%v, %v", err, h.Fold)
	}
	if got, err := apply1(old, p); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, or the result differs", err)
	}
}

// TestFoldShare: what lies around members is shared with the source all the same.
func TestFoldShare(t *testing.T) {
	around, more := noise(1, 256<<10), noise(2, 128<<10)
	file := func(version int) []byte {
		m := gz(t, prose(900, 200, version), 9)
		return slices.Concat(around, m, make([]byte, -len(m)&(1<<16-1)), more)
	}
	old, data := file(1), file(2)
	p := make1(t, old, data)
	out, shared := &memory{}, int64(0)
	o := ApplyOptions{Share: func(to, from, n int64) error {
		if !bytes.Equal(old[from:from+n], data[to:to+n]) {
			t.Errorf("%d bytes at %d are not those at %d of the source", n, to, from)
		}
		shared += n
		_, err := out.WriteAt(old[from:from+n], to)
		return err
	}}
	if _, err := Apply(out, bytes.NewReader(old), bytes.NewReader(p), o); err != nil || !bytes.Equal(out.data, data) {
		t.Errorf("%v, or the result differs", err)
	}
	if shared < int64(len(around)+len(more))-64<<10 {
		t.Errorf("only %d bytes were shared", shared)
	}
}

// TestFoldExplain: what a plain text costs is told of the file that holds it.
func TestFoldExplain(t *testing.T) {
	pair := folds(t)["gzip"]
	files, err := Explain(&memory{}, bytes.NewReader(pair[0]), bytes.NewReader(make1(t, pair[0], pair[1])), ApplyOptions{})
	if err != nil || len(files) != 1 || files[0].Bytes == 0 {
		t.Errorf("%+v, %v", files, err)
	}
}
