package delta

import (
	"io"
)

// Source reads the old data through a window, so that memory stays small and
// neighbouring reads cost nothing. Reading errors stick: the bytes read are
// then zeros, and Err reports the error.
type Source struct {
	r     io.ReaderAt
	size  int64
	whole bool
	step  int64 // how much is read at a time, in bytes
	buf   []byte
	start int64 // offset of buf
	err   error
}

// window is how much a Source reads at a time, in bytes.
const window = 128 << 10

// SourceError is a failure to read the old data.
type SourceError struct{ Err error }

func (e *SourceError) Error() string { return "cannot read the source: " + e.Err.Error() }

// Unwrap returns the reader's error.
func (e *SourceError) Unwrap() error { return e.Err }

// NewSource returns a Source over the first size bytes of r.
func NewSource(r io.ReaderAt, size int64) *Source { return &Source{r: r, size: size, step: window} }

// MemorySource returns a Source over data that is in memory already.
func MemorySource(data []byte) *Source {
	return &Source{size: int64(len(data)), whole: true, buf: data}
}

// another is a Source of the same data with a small window of its own, for
// reading here and there.
func (s *Source) another() *Source {
	if s.whole {
		return MemorySource(s.buf)
	}
	return &Source{r: s.r, size: s.size, step: 8 << 10}
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
	s.fill(off, n)
	return s.buf[off-s.start:][:n]
}

// At returns the byte at off, or 0 outside the data.
func (s *Source) At(off int64) byte {
	if rel := off - s.start; rel >= 0 && rel < int64(len(s.buf)) {
		return s.buf[rel]
	}
	if off < 0 || off >= s.size || s.whole {
		return 0
	}
	return s.Bytes(off, 1)[0]
}

// fill moves the window so that it holds n bytes at off and, as data is mostly
// read forwards, little before and much after them.
func (s *Source) fill(off, n int64) {
	if s.buf == nil {
		s.buf = make([]byte, 0, s.step+4096)
	}
	s.start = max(off-off%4096-512, 0)
	end := min(max(s.start+s.step, off+n), s.size)
	s.buf = s.buf[:0]
	if want := int(end - s.start); want > cap(s.buf) {
		s.buf = make([]byte, want)
	} else {
		s.buf = s.buf[:want]
	}
	if s.err != nil {
		clear(s.buf)
		return
	}
	if k, err := s.r.ReadAt(s.buf, s.start); err != nil && k < len(s.buf) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		s.err = err
		clear(s.buf)
	}
}
