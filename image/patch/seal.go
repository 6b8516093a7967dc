package patch

import (
	"bytes"
	"fmt"

	"github.com/sealant-os/sealant/image"
)

// memory is a file in memory.
type memory struct{ data []byte }

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(b, off)
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("cannot write at %d", off)
	}
	if end := off + int64(len(b)); end > int64(len(m.data)) {
		if err := m.Truncate(end); err != nil {
			return 0, err
		}
	}
	return copy(m.data[off:], b), nil
}

func (m *memory) Truncate(size int64) error {
	if size <= int64(len(m.data)) {
		m.data = m.data[:size]
		return nil
	}
	m.data = append(m.data, make([]byte, size-int64(len(m.data)))...)
	return nil
}

// resealed is a file of data that stays as it is, and a tail that is written.
type resealed struct {
	data []byte
	tail memory
}

func (r *resealed) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(r.data)) {
		n = copy(b, r.data[off:])
		b, off = b[n:], off+int64(n)
	}
	if len(b) == 0 {
		return n, nil
	}
	k, err := r.tail.ReadAt(b, off-int64(len(r.data)))
	return n + k, err
}

func (r *resealed) WriteAt(b []byte, off int64) (int, error) {
	return r.tail.WriteAt(b, off-int64(len(r.data)))
}

func (r *resealed) Truncate(size int64) error {
	return r.tail.Truncate(max(size-int64(len(r.data)), 0))
}

// sealOf says how the tail of a sealed image follows from its data; nil if data
// is no sealed image, or one that this program would not make like that.
func sealOf(data []byte) *Seal {
	c, err := image.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil
	}
	s := &Seal{Name: c.Name, Subtype: c.Subtype, Salt: c.Seal.Salt, DataSize: c.DataSize}
	again := &resealed{data: data[:s.DataSize]}
	if _, err := image.Finish(again, s.DataSize, s.options()); err != nil || !bytes.Equal(again.tail.data, data[s.DataSize:]) {
		return nil
	}
	return s
}

func (s *Seal) options() image.Options {
	return image.Options{Name: s.Name, Subtype: s.Subtype, Salt: s.Salt}
}
