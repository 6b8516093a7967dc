// Package suffix sorts the suffixes of a byte string.
//
// The algorithm is Go's own (index/suffixarray, linear-time SA-IS), which the
// standard library keeps to itself; the copy here keeps its notice (NOTICE) and
// drops the variants that patches do not need. Encoders use this package,
// decoders never.
package suffix

import "github.com/sealant-os/sealant/internal/linux"

// Limit is the longest string that can be sorted.
const Limit = 1<<31 - 1

// Array returns the starts of all suffixes of text in lexical order. It takes
// 4 bytes of memory per byte of text, plus the result's little more than that
// while it works. The text must be shorter than Limit.
func Array(text []byte) []int32 {
	sa := linux.Huge[int32](len(text))
	saisBytes(text, 256, sa, make([]int32, 2*256))
	return sa
}
