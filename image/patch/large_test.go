//go:build slow

package patch

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestAboveTwoGigabytes makes and applies a patch of files with holes that are
// larger than offsets of 31 bits reach.
func TestAboveTwoGigabytes(t *testing.T) {
	const size = 2_200_000_000
	dir := t.TempDir()
	open := func(name string, changes map[int64][]byte) *io.SectionReader {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for off, b := range changes {
			if _, err := f.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
		}
		return io.NewSectionReader(f, 0, size)
	}
	block, other := noise(1, 1<<20), noise(2, 1<<20)
	old := open("old", map[int64][]byte{0: block, 1 << 31: other, size - 500: block[:500]})
	data := open("new", map[int64][]byte{100: block, 1<<31 + 5000: other, size - 500: block[100:600]})
	var p bytes.Buffer
	if _, err := Make(&p, old, data, MakeOptions{}); err != nil {
		t.Fatal(err)
	}
	if p.Len() > 10_000 {
		t.Errorf("the patch has %d bytes", p.Len())
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := Apply(out, old, bytes.NewReader(p.Bytes()), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if same, err := equal(out, data, size); err != nil || !same {
		t.Errorf("the result differs: %v", err)
	}
}

// equal compares the first size bytes of two files.
func equal(a, b io.ReaderAt, size int64) (bool, error) {
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(x)) {
		n := min(int64(len(x)), size-off)
		for _, r := range []struct {
			from io.ReaderAt
			to   []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if _, err := io.ReadFull(io.NewSectionReader(r.from, off, n), r.to); err != nil {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}
