package suffix

import (
	"bytes"
	"sort"
	"testing"

	"pgregory.net/rapid"
)

// TestArray compares with sorting the suffixes one by one.
func TestArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom([]byte{2, 4, 255}).Draw(t, "alphabet")
		text := rapid.SliceOfN(rapid.ByteRange(0, alphabet), 0, 400).Draw(t, "text")
		text = bytes.Repeat(text, rapid.IntRange(1, 3).Draw(t, "times"))
		want := make([]int32, len(text))
		for i := range want {
			want[i] = int32(i)
		}
		sort.Slice(want, func(a, b int) bool { return bytes.Compare(text[want[a]:], text[want[b]:]) < 0 })
		got := Array(text)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("suffix %d of %x is %d, want %d", i, text, got[i], want[i])
			}
		}
	})
}
