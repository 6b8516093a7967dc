package delta

import (
	"bytes"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/image/patch/pack"
)

// largestWindow bounds the window of packed literals, as a power of two.
const largestWindow = 24

// unpacker reads packed literals.
type unpacker struct {
	packed *bytes.Reader
	r      *pack.Reader
}

func newUnpacker(packed []byte, window uint) (*unpacker, error) {
	u := &unpacker{packed: bytes.NewReader(packed)}
	r, err := pack.NewReader(u.packed, int64(len(packed)), window)
	if err != nil {
		return nil, err
	}
	u.r = r
	return u, nil
}

// packedLiteral appends the new bytes up to to from the packed literals.
func (w *walker) packedLiteral(to int64) error {
	if w.encoding {
		if !w.measuring {
			w.raw = append(w.raw, w.view[w.pos-w.base:to-w.base]...)
		}
		w.pos = to
		return nil
	}
	for w.pos < to {
		n := int(min(to-w.pos, window))
		at := len(w.view)
		w.view = append(w.view, make([]byte, n)...)
		if _, err := io.ReadFull(w.unpacker.r, w.view[at:]); err != nil {
			return fmt.Errorf("cannot unpack literals: %w", err)
		}
		if w.account != nil {
			w.account(w.pos, Literals, int64(n)*8*w.packed/max(w.packing, 1))
		}
		w.pos += int64(n)
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}
