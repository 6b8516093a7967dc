package delta

import (
	"io"
	"slices"
)

// Source reads the old data through windows, so that memory stays small,
// neighbouring reads cost nothing, and reading here and there costs little.
// Reading errors stick: the bytes read are then zeros, and Err reports the
// error.
type Source struct {
	r     io.ReaderAt
	size  int64
	whole bool
	shift uint // log2 of how much is read at a time, in bytes
	buf   []byte
	start int64 // offset of buf
	slots [slots]slot
	wide  []byte
	err   error
}

// slot is a window that starts at a multiple of its size, and goes on a little
// behind its end.
type slot struct {
	start int64
	buf   []byte // nil: nothing was read yet
}

const (
	slots   = 8
	overlap = 4 << 10 // bytes behind a window's end; more than that is never cached

	// window is how much is read at most in one piece, in bytes.
	window = 128 << 10
)

// SourceError is a failure to read the old data.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return "cannot read the source: " + e.Err.Error() }

// Unwrap returns the reader's error.
func (e *SourceError) Unwrap() error { return e.Err }

// NewSource returns a Source over the first size bytes of r.
func NewSource(r io.ReaderAt, size int64) *Source { return &Source{r: r, size: size, shift: 14} }

// MemorySource returns a Source over data that is in memory already.
func MemorySource(data []byte) *Source {
	return &Source{size: int64(len(data)), whole: true, buf: data}
}

// another is a Source of the same data with small windows of its own, for
// reading here and there.
func (s *Source) another() *Source {
	if s.whole {
		return MemorySource(s.buf)
	}
	return &Source{r: s.r, size: s.size, shift: 13}
}

// Size is the size of the old data in bytes.
func (s *Source) Size() int64 { return s.size }

// Err is the first error of reading.
func (s *Source) Err() error { return s.err }

// Bytes returns n bytes at off, at most window of them; both must lie within
// the data. The slice is valid until the next call.
func (s *Source) Bytes(off, n int64) []byte {
	if rel := off - s.start; rel >= 0 && rel+n <= int64(len(s.buf)) {
		return s.buf[rel : rel+n]
	}
	if n > overlap {
		if s.wide == nil {
			s.wide = make([]byte, window)
		}
		s.read(s.wide[:n], off)
		return s.wide[:n]
	}
	s.turn(off)
	return s.buf[off-s.start:][:n]
}

// AppendTo appends n bytes at off, at most window of them, which must lie within
// the data.
func (s *Source) AppendTo(b []byte, off, n int64) []byte {
	if n <= overlap || s.whole {
		return append(b, s.Bytes(off, n)...)
	}
	b = slices.Grow(b, int(n))
	s.read(b[len(b):len(b)+int(n)], off)
	return b[:len(b)+int(n)]
}

// At returns the byte at off, or 0 outside the data.
func (s *Source) At(off int64) byte {
	if rel := off - s.start; rel >= 0 && rel < int64(len(s.buf)) {
		return s.buf[rel]
	}
	if off < 0 || off >= s.size || s.whole {
		return 0
	}
	s.turn(off)
	return s.buf[off-s.start]
}

// turn makes buf the window that off is in.
func (s *Source) turn(off int64) {
	k := &s.slots[off>>s.shift%slots]
	start := off >> s.shift << s.shift
	if k.buf == nil || k.start != start {
		n := min(1<<s.shift+overlap, s.size-start)
		if int64(cap(k.buf)) < n {
			k.buf = make([]byte, n, min(1<<s.shift+overlap, s.size))
		}
		k.start, k.buf = start, k.buf[:n]
		s.read(k.buf, start)
	}
	s.start, s.buf = k.start, k.buf
}

// read fills b from off on.
func (s *Source) read(b []byte, off int64) {
	if s.err != nil {
		clear(b)
		return
	}
	if k, err := s.r.ReadAt(b, off); err != nil && k < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		s.err = err
		clear(b)
	}
}
