package match

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/sealant-os/sealant/image/patch/align"
)

// TestLongest compares what an index finds with what looking everywhere does.
func TestLongest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := func(n, of int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(of)) * 255 / byte(of-1)
		}
		return b
	}
	for range 40 {
		old := letters(r.IntN(60), 2+r.IntN(3))
		x := NewIndex(old)
		for range 200 {
			q := letters(4+r.IntN(8), 2+r.IntN(3))
			if len(old) > 8 && r.IntN(2) == 0 {
				q = append(bytes.Clone(old[len(old)-r.IntN(8):]), q...)
			}
			best := 0
			for i := range old {
				n := 0
				for n < len(q) && i+n < len(old) && old[i+n] == q[n] {
					n++
				}
				best = max(best, n)
			}
			got, at, _ := x.longest(q)
			if best < 3 {
				continue // what shares less with all is not worth finding
			}
			if got != best || !bytes.Equal(old[at:at+got], q[:got]) {
				t.Fatalf("%v in %v: %d bytes at %d, not %d", q, old, got, at, best)
			}
		}
	}
}

// TestPieces finds the same anchors whatever runs at once, and no less where a
// piece ends.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	old := make([]byte, 1<<20)
	for i := range old {
		old[i] = byte(r.Uint32())
	}
	data := append(bytes.Clone(old[1000:500_000]), old[490_000:]...)
	b := newBlocks(old)
	whole := b.find(data, 0)
	cut := piecewise(len(data), 100_000, func(from, to int) []align.Run { return b.find(data[:to], from) })
	if len(whole) != 2 || len(cut) != len(whole) {
		t.Fatalf("%d anchors, in pieces %d", len(whole), len(cut))
	}
	for i, run := range cut {
		if d := run.New - whole[i].New; d < -16 || d > 16 {
			t.Errorf("anchor %d is %+v in pieces, %+v in one", i, run, whole[i])
		}
	}
}
