package delta

import (
	"bytes"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// TestHostileElements gives a decoder elements that stem from files that the old
// data doesn't have, and after each another one, whose guess follows from it.
func TestHostileElements(t *testing.T) {
	old := []*elfref.Element{{}, {}}
	for _, from := range []int64{-2, -5, -1 << 31, 2, 3, 1<<31 - 1} {
		c, k := entropy.NewEncoder(), elementCoder{}
		k.count.Code(c, 2)
		for range 2 {
			k.usual.Code(c, 0)
			k.old.Code(c, entropy.Zigzag(from))
			k.base.Code(c, 0)
			k.tail.Code(c, 0)
		}
		k.fixes.Code(c, 0)
		data := c.Finish()
		if l, err := DecodeLayout(bytes.NewReader(data), int64(len(data)), 0, 1<<20, 1<<20, old, nil); err == nil {
			t.Errorf("from file %d of %d: %+v", from, len(old), l.Elements)
		}
	}
}
