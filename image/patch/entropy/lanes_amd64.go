//go:build !purego

package entropy

import "golang.org/x/sys/cpu"

//go:noescape
func opinionsAVX2(l *lanes, slots *uint32, w1, w2 *int32, stretch *int32, nib uint32, n int, first int32) (sum1, sum2 int64)

//go:noescape
func learnAVX2(l *lanes, w1, w2 *int32, rates *int32, n int, e1, e2 int32, shift1, shift2 uint64, toward uint32)

var wide = cpu.X86.HasAVX2

func opinions(l *lanes, slots []uint32, nib uint32, w1, w2 []int32, n int, first int32) (sum1, sum2 int64) {
	if !wide {
		return opinionsGo(l, slots, nib, w1, w2, n, first)
	}
	// The indexes were made within slots.
	return opinionsAVX2(l, &slots[0], &w1[:2*n][0], &w2[:2*n][0], &stretchTable[0], nib, n, first)
}

func learn(l *lanes, w1, w2 []int32, n int, e1, e2 int32, shift1, shift2 uint, bit int) {
	if !wide {
		learnGo(l, w1, w2, n, e1, e2, shift1, shift2, bit)
		return
	}
	learnAVX2(l, &w1[:2*n][0], &w2[:2*n][0], &rates[0], n, e1, e2, uint64(shift1), uint64(shift2), uint32(bit)*(whole-1))
}
