package pack

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func unpack(p []byte, n int, window uint) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(p), int64(len(p)), window)
	if err != nil {
		return nil, err
	}
	out := make([]byte, n)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, err
	}
	return out, r.Close()
}

// content is made of noise, text and repetitions.
func content(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	var b []byte
	for len(b) < n {
		switch k := r.IntN(4); {
		case k == 0:
			for range r.IntN(3000) {
				b = append(b, byte(r.Uint32()))
			}
		case k == 1 || len(b) == 0:
			b = append(b, strings.Repeat("some words and then ", 1+r.IntN(20))...)
		default:
			from := r.IntN(len(b))
			b = append(b, b[from:min(from+r.IntN(1<<uint(r.IntN(14)))+1, len(b))]...)
		}
	}
	return b[:n]
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name   string
		data   []byte
		window uint
		atMost int
	}{
		{"nothing", nil, 12, 0},
		{"a byte", []byte{7}, 12, 5},
		{"zeros", make([]byte, 1<<20), 20, 60},
		{"text", bytes.Repeat([]byte("to be or not to be, "), 10_000), 18, 120},
		{"content", content(1, 300_000), 19, 300_000},
		{"small window", content(2, 300_000), 12, 300_000},
		{"one block", content(3, blockSize), 16, blockSize},
		{"one block and a byte", content(4, blockSize+1), 17, blockSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Encode(c.data, c.window)
			if !bytes.Equal(Encode(c.data, c.window), p) {
				t.Error("a second run made something else")
			}
			if len(p) > c.atMost {
				t.Errorf("%d bytes, want at most %d", len(p), c.atMost)
			}
			got, err := unpack(p, len(c.data), c.window)
			if err != nil || !bytes.Equal(got, c.data) {
				t.Fatalf("the result differs: %v", err)
			}
		})
	}
	noise := make([]byte, 200_000)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	if p := Encode(noise, 18); len(p) > len(noise)+16 {
		t.Errorf("noise grows by %d bytes", len(p)-len(noise))
	}
}

// TestDamage holds that no input makes a reader fail, or go on for ever.
func TestDamage(t *testing.T) {
	data := content(5, 20_000)
	p := Encode(data, 15)
	for i := 0; i < len(p); i += 1 + len(p)/100 {
		bad := bytes.Clone(p)
		bad[i] ^= 1 << (i % 8)
		if got, err := unpack(bad, len(data), 15); err == nil && bytes.Equal(got, data) {
			t.Fatalf("a flipped bit at %d changes nothing", i)
		}
		if got, err := unpack(p[:i], len(data), 15); err == nil && bytes.Equal(got, data) {
			t.Fatalf("a cut at %d changes nothing", i)
		}
	}
	if _, err := unpack(append(bytes.Clone(p), make([]byte, 9)...), len(data), 15); err == nil {
		t.Error("extra bytes were accepted")
	}
	if _, err := NewReader(bytes.NewReader(p), 1, MaxWindow+1); err == nil {
		t.Error("a large window was accepted")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(Encode(content(6, 3000), 12), 3000)
	f.Add(Encode(content(7, 70_000), 12), 70_000)
	f.Fuzz(func(t *testing.T, p []byte, n int) {
		if n < 0 || n > 1<<18 {
			return
		}
		_, _ = unpack(p, n, MinWindow)
	})
}
