package delta

import (
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// TestNothing: a pointer that is 0 does not lead to the start of the file.
func TestNothing(t *testing.T) {
	loads := &elfref.Loads{List: []elfref.Load{{Off: 0, Addr: 0, FileSize: 4096, MemSize: 4096}}}
	w := &walker{}
	for _, width := range []int64{4, 8} {
		r := &elfref.Ref{Kind: elfref.Absolute, Width: width}
		if p, ok := w.leads(r, 0, loads, 0); ok {
			t.Errorf("%d bytes of 0 lead to %d", width, p)
		}
		if p, ok := w.leads(r, 0, loads, 8); !ok || p != 8 {
			t.Errorf("%d bytes of 8 lead to %d", width, p)
		}
	}
}
