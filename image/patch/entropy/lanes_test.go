package entropy

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLanes holds the two ways of looking at lanes equal.
func TestLanes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	weight := func() int32 {
		if r.IntN(8) == 0 {
			return int32(r.Uint32())
		}
		return r.Int32N(1<<20) - 1<<19
	}
	for round := range 100_000 {
		contexts := 1 + r.IntN(maxContexts)
		n := lanesOf(contexts)
		slots := make([]uint32, 4*contexts)
		for i := range slots {
			slots[i] = (r.Uint32()&^1023 | r.Uint32N(slotLimit+1)) ^ fresh
			if r.IntN(3) == 0 {
				slots[i] = 0
			}
		}
		a := newLanes(contexts)
		for j := range contexts {
			a.at[j] = uint32(4 * j)
		}
		b := a
		rows := [4][]int32{}
		for i := range 2 {
			for range rowLength(contexts) {
				rows[i] = append(rows[i], weight())
			}
			rows[i+2] = slices.Clone(rows[i])
		}
		nib, first, bit := r.Uint32N(4), []int32{firstWeight, bitWeight}[r.IntN(2)], r.IntN(2)
		x1, x2 := opinions(&a, slots, nib, rows[0], rows[1], n, first)
		y1, y2 := opinionsGo(&b, slots, nib, rows[2], rows[3], n, first)
		clear(b.slot[contexts:])
		if a != b || x1 != y1 || x2 != y2 {
			t.Fatalf("round %d: opinions: %v, %d, %d is not\n%v, %d, %d", round, a, x1, x2, b, y1, y2)
		}
		e1, e2 := r.Int32N(1<<17+1)-1<<16, r.Int32N(1<<17+1)-1<<16
		shift := uint(13 + r.IntN(4))
		learn(&a, rows[0], rows[1], n, e1, e2, shift, 16, bit)
		learnGo(&b, rows[2], rows[3], n, e1, e2, shift, 16, bit)
		for i := range maxContexts - contexts {
			a.slot[contexts+i] = 0
		}
		if a != b || !slices.Equal(rows[0], rows[2]) || !slices.Equal(rows[1], rows[3]) {
			t.Fatalf("round %d: learn: %v is not\n%v", round, a, b)
		}
	}
}
