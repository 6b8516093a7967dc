//go:build !amd64 || purego

package entropy

func opinions(l *lanes, slots []uint32, nib uint32, w1, w2 []int32, n int, first int32) (sum1, sum2 int64) {
	return opinionsGo(l, slots, nib, w1, w2, n, first)
}

func learn(l *lanes, w1, w2 []int32, n int, e1, e2 int32, shift1, shift2 uint, bit int) {
	learnGo(l, w1, w2, n, e1, e2, shift1, shift2, bit)
}
