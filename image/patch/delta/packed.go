package delta

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// PackedWindow is the dictionary of packed literals, in bytes.
const PackedWindow = 16 << 20

// pack compresses literals as LZMA2 with a dictionary of PackedWindow.
func pack(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := lzma.Writer2Config{DictCap: PackedWindow, BufSize: 64 << 10, Matcher: lzma.HashTable4}.NewWriter2(&out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unpacker reads packed literals. It takes PackedWindow of memory, whatever it
// reads.
type unpacker struct {
	packed *bytes.Reader
	r      *lzma.Reader2
}

func newUnpacker(packed []byte) (*unpacker, error) {
	u := &unpacker{packed: bytes.NewReader(packed)}
	r, err := lzma.Reader2Config{DictCap: PackedWindow}.NewReader2(u.packed)
	if err != nil {
		return nil, err
	}
	u.r = r
	return u, nil
}

// close is an error unless all literals have been read.
func (u *unpacker) close() error {
	if n, err := u.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("there are more literals than places for them")
	}
	if u.packed.Len() != 0 {
		return fmt.Errorf("literals go on after their end")
	}
	return nil
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
		w.pos += int64(n)
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}
