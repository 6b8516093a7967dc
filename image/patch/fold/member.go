// Package fold takes compressed members of files apart, so that a patch is made
// between the plain texts, and puts them together again.
//
// The publisher finds the members of two files (Find) and chooses those whose
// plain text is worth having (Choose). Whoever applies a patch gets their places
// from its header, reads a source with the plain texts behind it (Unfold), and
// compresses members of the result as it comes (Fold). Both are hostile: nothing
// is read outside the source, and nothing becomes larger than was declared.
//
// spec/patch-fold.md has every bit.
package fold

import (
	"bufio"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
	"sort"

	"github.com/sealant-os/sealant/image/patch/deflate"
)

// Trailer is what follows a member's stream and is computed from its plain text.
type Trailer byte

// The trailers.
const (
	None Trailer = iota // the bytes behind the stream are data like others
	Gzip                // CRC-32 and size, 8 bytes
	Zlib                // Adler-32, 4 bytes
	trailers
)

// size is the trailer's size in bytes.
func (t Trailer) size() int64 { return [trailers]int64{0, 8, 4}[t] }

// Member is a compressed member of a file.
type Member struct {
	At     int64 `json:"at"`               // offset of its stream
	Folded int64 `json:"folded,omitempty"` // bytes of stream and trailer; 0 where nobody needs to know
	Plain  int64 `json:"plain"`            // bytes
	Recipe byte  `json:"-"`                // see spec/patch-fold.md
}

// recipe puts a recipe and a trailer into a byte.
func recipe(r deflate.Recipe, t Trailer) byte {
	return byte(r.Level) | byte(r.Program)<<4 | byte(t)<<6
}

// Made is how the member is compressed, and what follows its stream; ok says
// whether this program knows that.
func (m Member) Made() (r deflate.Recipe, t Trailer, ok bool) {
	r, t = deflate.Recipe{Program: deflate.Program(m.Recipe >> 4 & 3), Level: int(m.Recipe & 15)}, Trailer(m.Recipe>>6)
	return r, t, r.Valid() && t < trailers
}

// Fold compresses the member's plain text to its Folded bytes, in no more than
// *steps (see deflate.Deflate).
func (m Member) Fold(plain []byte, steps *int64) ([]byte, error) {
	r, t, ok := m.Made()
	if !ok || m.Folded < t.size() {
		return nil, fmt.Errorf("the member at %d has no recipe", m.At)
	}
	out, err := deflate.Deflate(plain, r, m.Folded-t.size(), steps)
	if err == nil && int64(len(out)) != m.Folded-t.size() {
		err = fmt.Errorf("it has %d bytes, not %d", len(out), m.Folded-t.size())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot compress the member at %d: %w", m.At, err)
	}
	return append(out, t.of(plain)...), nil
}

// of is the trailer of a plain text.
func (t Trailer) of(plain []byte) []byte {
	switch t {
	case Gzip:
		b := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(plain))
		return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
	case Zlib:
		return binary.BigEndian.AppendUint32(nil, adler32.Checksum(plain))
	}
	return nil
}

// Align is what plain texts behind a source begin at multiples of, in bytes, so
// that programs among them are found.
const Align = 512

func aligned(n int64) int64 { return (n + Align - 1) &^ (Align - 1) }

// Size is the size of a source of so many bytes with the plain texts of members
// behind it.
func Size(source int64, members []Member) int64 {
	for _, m := range members {
		source = aligned(source) + m.Plain
	}
	return source
}

// Source is a source with the plain texts of some of its members behind it.
type Source struct {
	r      io.ReaderAt
	size   int64 // of the source itself
	whole  int64
	starts []int64 // of the plain texts
	plain  [][]byte
}

// Unfold inflates members of a source of size bytes. Each must have exactly the
// plain text's size that it declares: the caller has bounded that.
func Unfold(r io.ReaderAt, size int64, members []Member) (*Source, error) {
	s := &Source{r: r, size: size, whole: Size(size, members)}
	at := size
	for _, m := range members {
		plain, _, err := inflate(io.NewSectionReader(r, m.At, size-m.At), m.Plain, m.Plain)
		if err != nil {
			return nil, fmt.Errorf("cannot inflate the member at %d: %w", m.At, err)
		}
		if int64(len(plain)) != m.Plain {
			return nil, fmt.Errorf("the member at %d has %d bytes, not %d", m.At, len(plain), m.Plain)
		}
		at = aligned(at)
		s.starts, s.plain = append(s.starts, at), append(s.plain, plain)
		at += m.Plain
	}
	return s, nil
}

// Size is the source's size, with all plain texts.
func (s *Source) Size() int64 { return s.whole }

// ReadAt reads from the source, and from the plain texts behind it.
func (s *Source) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) && off < s.whole {
		if off < s.size {
			k, err := s.r.ReadAt(b[n:][:min(int64(len(b)-n), s.size-off)], off)
			if n, off = n+k, off+int64(k); err != nil && (err != io.EOF || off < s.size) {
				return n, err
			}
			continue
		}
		i := sort.Search(len(s.starts), func(i int) bool { return s.starts[i] > off }) - 1
		k := 0
		if i >= 0 && off < s.starts[i]+int64(len(s.plain[i])) {
			k = copy(b[n:], s.plain[i][off-s.starts[i]:])
		} else {
			k = int(min(int64(len(b)-n), s.starts[i+1]-off))
			clear(b[n:][:k])
		}
		n, off = n+k, off+int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// inflate reads a stream of at most so many plain bytes, for which there is room
// for some at first, and says how long it is.
func inflate(r io.Reader, first, most int64) (plain []byte, folded int64, err error) {
	in := &counted{r: bufio.NewReaderSize(r, 4<<10)}
	f := flate.NewReader(in)
	plain = make([]byte, 0, min(first, most)+deflate.Slack)
	for {
		if len(plain) == cap(plain) {
			plain = append(make([]byte, 0, min(2*int64(cap(plain)), most+deflate.Slack)), plain...)
		}
		n, err := f.Read(plain[len(plain):cap(plain)])
		plain = plain[:len(plain)+n]
		switch {
		case int64(len(plain)) > most:
			return nil, 0, fmt.Errorf("it has more than %d bytes", most)
		case err == io.EOF:
			return plain, in.n, nil
		case err != nil:
			return nil, 0, err
		}
	}
}

// counted counts the bytes that are read one by one, as package flate does.
type counted struct {
	r *bufio.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
