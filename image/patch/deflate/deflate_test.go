package deflate

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// inputs are plain data of many kinds and sizes.
func inputs() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	text := func(n int) []byte {
		var b bytes.Buffer
		for b.Len() < n {
			fmt.Fprintf(&b, "%s ", strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(3)))
			if r.IntN(9) == 0 {
				fmt.Fprintf(&b, "the word %d of them\n", r.IntN(40))
			}
		}
		return b.Bytes()[:n]
	}
	few := func(n, symbols int) []byte { // few different bytes: long chains, deep codes
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(min(r.IntN(symbols), r.IntN(symbols), r.IntN(symbols)))
		}
		return b
	}
	rows := func(n int) []byte { // short matches far away
		var b []byte
		for len(b) < n {
			b = binary.LittleEndian.AppendUint32(b, uint32(r.IntN(1<<12))*77)
			b = append(b, byte(r.IntN(3)), 0, 0)
		}
		return b[:n]
	}
	skewed := func(n int) []byte { // codes longer than their limit
		b := make([]byte, n)
		for i := range b {
			k := 0
			for k < 40 && r.IntN(5) < 2 {
				k++
			}
			b[i] = byte(k * 5)
		}
		return b
	}
	all := map[string][]byte{"empty": {}, "one": {'x'}, "two": []byte("ab"), "three": []byte("aaa"), "four": []byte("abab")}
	kinds := []struct {
		name string
		make func(n int) []byte
	}{
		{"text", text},
		{"noise", noise},
		{"few", func(n int) []byte { return few(n, 5) }},
		{"zeros", func(n int) []byte { return make([]byte, n) }},
		{"rows", rows},
		{"skewed", skewed},
		{"twice", func(n int) []byte { half := noise(n / 2); return append(half, half...) }},
		{"mixed", func(n int) []byte { return append(append(noise(n/3), text(n/3)...), few(n/3, 60)...) }},
	}
	for i, n := range []int{10, 300, 5000, 65274, 65275, 65400, 65535, 65536, 65537, 98000, 98304, 150_000} {
		for j, k := range kinds {
			if n < 6000 || (i+j)%4 == 0 {
				all[fmt.Sprintf("%s %d", k.name, n)] = k.make(n)
			}
		}
		k := kinds[i%len(kinds)] // around the end of the first window
		for _, n := range []int{32505, 32506, 32507, 32768, 33000 + i} {
			all[fmt.Sprintf("%s %d", k.name, n)] = k.make(n)
		}
	}
	all["text 1 MiB"], all["rows 1 MiB"] = text(1<<20+777), rows(1<<20)
	return all
}

// made by gzip itself at a level: the bare stream.
func byGzip(t *testing.T, plain []byte, level int) []byte {
	t.Helper()
	cmd := exec.Command("gzip", "-c", "-n", fmt.Sprintf("-%d", level))
	cmd.Stdin = bytes.NewReader(plain)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gzip: %v", err)
	}
	return out[10 : len(out)-8]
}

// byZlib are the bare streams of Python's zlib, of all plain data, with memLevel
// 8 and 9, at each level.
func byZlib(t *testing.T, plain [][]byte) (streams [][2][10][]byte) {
	t.Helper()
	cmd := exec.Command("python3", "-c", `
import sys, zlib
put = lambda b: sys.stdout.buffer.write(len(b).to_bytes(4, "little") + b)
while size := sys.stdin.buffer.read(4):
    data = sys.stdin.buffer.read(int.from_bytes(size, "little"))
    for mem in 8, 9:
        for level in range(1, 10):
            c = zlib.compressobj(level, zlib.DEFLATED, -15, mem)
            put(c.compress(data) + c.flush())
`)
	var in []byte
	for _, p := range plain {
		in = append(binary.LittleEndian.AppendUint32(in, uint32(len(p))), p...)
	}
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	streams = make([][2][10][]byte, len(plain))
	for i := range streams {
		for mem := range 2 {
			for level := 1; level <= 9; level++ {
				n := binary.LittleEndian.Uint32(out)
				streams[i][mem][level], out = out[4:4+n], out[4+n:]
			}
		}
	}
	return streams
}

func same(t *testing.T, name string, plain, want []byte, r Recipe) {
	t.Helper()
	steps := int64(1 << 40)
	got, err := Deflate(plain, r, int64(len(want)), &steps)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s, %v: %v; %d bytes, the program makes %d", name, r, err, len(got), len(want))
	}
}

// TestOracles compares with the programs themselves.
func TestOracles(t *testing.T) {
	all := inputs()
	names := slices.Sorted(maps.Keys(all))
	var plain [][]byte
	for _, name := range names {
		plain = append(plain, all[name])
	}
	for i, streams := range byZlib(t, plain) {
		for level := 1; level <= 9; level++ {
			same(t, names[i], plain[i], streams[0][level], Recipe{Zlib8, level})
			same(t, names[i], plain[i], streams[1][level], Recipe{Zlib9, level})
			same(t, names[i], plain[i], byGzip(t, plain[i], level), Recipe{Gzip, level})
		}
	}
}

func TestRecognise(t *testing.T) {
	plain := inputs()["text 1 MiB"][:70_000:70_000]
	for _, r := range []Recipe{{Gzip, 9}, {Zlib8, 6}, {Zlib9, 1}} {
		stream := ours(t, plain, r)
		for _, likely := range []Recipe{{}, r, {Gzip, 4}} {
			got, steps, ok := Recognise(stream, plain, likely, 1<<30)
			if !ok || steps <= 0 || !bytes.Equal(ours(t, plain, got), stream) { // several may make the same
				t.Errorf("%v: %v, %d steps, %v", r, got, steps, ok)
			}
		}
		stream[len(stream)/2] ^= 1
		if got, _, ok := Recognise(stream, plain, r, 1<<30); ok {
			t.Errorf("%v: a damaged stream is made by %v", r, got)
		}
	}
}

// ours is what Deflate makes.
func ours(t testing.TB, plain []byte, r Recipe) []byte {
	t.Helper()
	w, steps := &writer{most: 1 << 40}, int64(1<<40)
	if err := deflate(bytes.Clone(plain), r, w, &steps); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	return w.out
}

// TestSteps gives a deflater data along whose chains it would go for long.
func TestSteps(t *testing.T) {
	var hostile []byte
	for i := range 200_000 {
		hostile = append(hostile, "ab"...)
		hostile = append(hostile, byte(i), byte(i>>8))
	}
	steps := int64(1000)
	if _, err := Deflate(hostile, Recipe{Gzip, 9}, 1<<20, &steps); err != ErrSteps {
		t.Errorf("%v, %d steps left", err, steps)
	}
	if steps < -10_000 {
		t.Errorf("it went on for %d steps", -steps)
	}
}

func TestSize(t *testing.T) {
	plain := inputs()["noise 5000"]
	n := int64(len(ours(t, plain, Recipe{Zlib8, 6})))
	for _, size := range []int64{0, 1, n - 1} {
		steps := int64(1 << 30)
		if out, err := Deflate(plain, Recipe{Zlib8, 6}, size, &steps); err != ErrSize {
			t.Errorf("%d instead of %d: %v, %d bytes", size, n, err, len(out))
		}
	}
}

// FuzzDeflate looks whether what is made can be read again.
func FuzzDeflate(f *testing.F) {
	f.Add([]byte("abcabcabcabd"), byte(9), uint16(1000))
	f.Add([]byte{0}, byte(0x16), uint16(1))
	f.Fuzz(func(t *testing.T, seed []byte, recipe byte, times uint16) {
		r := Recipe{Program(recipe >> 4), int(recipe & 15)}
		if !r.Valid() || len(seed)*int(times) > 1<<20 {
			return
		}
		plain := bytes.Repeat(seed, int(times))
		for i := 0; i < len(plain); i += 1 + len(seed) {
			plain[i] += byte(i >> 4)
		}
		got, err := io.ReadAll(flate.NewReader(bytes.NewReader(ours(t, plain, r))))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%v: %v", r, err)
		}
	})
}
