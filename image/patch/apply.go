package patch

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/internal/fault"
)

// Source is the old data. *io.SectionReader and *bytes.Reader are Sources.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Default bounds of Apply.
const (
	DefaultMaxMemory = 256 << 20 // bytes
	// A result may be this many bytes, or this many times as large as its source.
	defaultMaxResult = 1 << 30
	defaultMaxGrowth = 8
)

// ApplyOptions bound what a patch may ask for. The zero value is right for
// patches of any origin.
type ApplyOptions struct {
	MaxMemory int64 // bytes of memory; 0 means DefaultMaxMemory
	MaxResult int64 // bytes of the result; 0 means 1 GiB or 8 times the source
	Progress  func(done, total int64)
	Context   context.Context // cancels; nil means never
}

// Result is what Apply made.
type Result struct {
	Digest image.Digest
	Size   int64
}

// Apply writes to dst what p makes of old. It refuses, with a fault.Seal, an
// old source that is not the patch's, a damaged patch, and a result that has
// not the digest that the patch declares.
//
// When it fails dst holds rubbish: hand it a temporary file and rename that
// only after Apply has succeeded. When p can seek, its checksum is verified
// before anything is written.
func Apply(dst image.File, old Source, p io.Reader, o ApplyOptions) (Result, error) {
	if o.MaxMemory == 0 {
		o.MaxMemory = DefaultMaxMemory
	}
	if o.MaxResult == 0 {
		o.MaxResult = max(defaultMaxResult, defaultMaxGrowth*old.Size())
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	if err := checkSum(p); err != nil {
		return Result{}, err
	}
	sum := &summed{r: bufio.NewReaderSize(p, 64<<10)}
	h, _, err := readHeader(sum)
	if err != nil {
		return Result{}, err
	}
	if err := admit(h, o); err != nil {
		return Result{}, err
	}
	a := &applier{header: h, options: o, old: old, dst: dst, in: sum, hash: sha512.New384(), total: h.SourceSize + h.ResultSize}
	if err := a.checkSource(); err != nil {
		return Result{}, err
	}
	if err := a.run(); err != nil {
		return Result{}, a.explain(err)
	}
	return Result{Digest: h.Result, Size: h.ResultSize}, nil
}

// admit refuses a patch that asks for more than it may.
func admit(h *Header, o ApplyOptions) error {
	if h.Memory > o.MaxMemory {
		return fault.New(fault.Failed, "cannot apply the patch: it needs %d MiB of memory, %d are allowed", h.Memory>>20, o.MaxMemory>>20).Hint("use the whole image, or allow more memory")
	}
	if need := h.memory(); need > h.Memory {
		return damaged("it needs %d bytes of memory and declares %d", need, h.Memory)
	}
	if h.ResultSize > o.MaxResult {
		return fault.New(fault.Failed, "cannot apply the patch: its result has %d bytes, %d are allowed", h.ResultSize, o.MaxResult)
	}
	return nil
}

// Memory that applying takes whatever the patch: buffers and the program.
const baseMemory = 16 << 20

// tableMemory is what tables of references may take together, in bytes; a
// larger one is kept alone.
const tableMemory = 24 << 20

// memory is what applying takes, in bytes, as far as the header shows it.
func (h *Header) memory() int64 {
	most := int64(0)
	for _, s := range h.Segments {
		most = max(most, s.shape().Memory(h.SourceSize)+s.Packed)
	}
	return baseMemory + most + min(h.Runs, 1<<40)*64
}

// checkSum reads p, if it can seek, to its end and back, and verifies the
// checksum that ends a patch.
func checkSum(p io.Reader) error {
	seeker, ok := p.(io.Seeker)
	if !ok {
		return nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil // a pipe, for example
	}
	var crc uint32
	var tail []byte // the last 4 bytes seen, not yet summed
	buf := make([]byte, 64<<10)
	for {
		n, err := p.Read(buf)
		chunk := append(tail, buf[:n]...)
		cut := max(len(chunk)-4, 0)
		crc = crc32.Update(crc, castagnoli, chunk[:cut])
		tail = append([]byte(nil), chunk[cut:]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return readFailure(err)
		}
	}
	if len(tail) < 4 {
		return damaged("it ends too early")
	}
	if crc != binary.LittleEndian.Uint32(tail) {
		// A foreign file is told from a damaged patch by its header.
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return readFailure(err)
		}
		if _, _, err := readHeader(p); err != nil {
			return err
		}
		return damaged("its checksum is wrong")
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return readFailure(err)
	}
	return nil
}

// summed reads the patch and keeps its checksum.
type summed struct {
	r   *bufio.Reader
	crc uint32
	one [1]byte
}

func (s *summed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.crc = crc32.Update(s.crc, castagnoli, b[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.crc = crc32.Update(s.crc, castagnoli, s.one[:])
	}
	return b, err
}

// applier is one run of Apply.
type applier struct {
	header  *Header
	options ApplyOptions
	old     Source
	dst     image.File
	in      *summed
	hash    hash.Hash
	written int64
	done    int64
	total   int64
}

// step counts progress and notices a cancellation.
func (a *applier) step(n int64) error {
	a.done += n
	a.options.Progress(a.done, a.total)
	return a.options.Context.Err()
}

// checkSource verifies that the old data is the patch's.
func (a *applier) checkSource() error {
	h := a.header
	if a.old.Size() != h.SourceSize {
		return fault.New(fault.Seal, "cannot apply the patch: it is for a source of %d bytes, this one has %d", h.SourceSize, a.old.Size())
	}
	got, err := digest(a.old, h.SourceSize, a.step)
	if err != nil {
		return err
	}
	if got != h.Source {
		return fault.New(fault.Seal, "cannot apply the patch: it is for another source (sha-384 %s, this one has %s)", short(h.Source), short(got))
	}
	return nil
}

func short(d image.Digest) string { return fmt.Sprintf("%x…", d[:8]) }

// run decodes the map and the segments, finishes a sealed image, and verifies.
func (a *applier) run() error {
	h := a.header
	if err := a.dst.Truncate(0); err != nil {
		return fmt.Errorf("cannot write the result: %w", err)
	}
	var elements []*elfref.Element
	if h.has(elfTransform) {
		var err error
		if elements, err = elfref.Find(a.old, h.SourceSize); err != nil {
			return &delta.SourceError{Err: err}
		}
	}
	layout, err := delta.DecodeLayout(a.in, h.MapSize, h.Runs, h.SourceSize, h.coded(), elements)
	if err != nil {
		return err
	}
	tables := delta.NewTables(elements, func(b []byte, off int64) error {
		_, err := io.ReadFull(io.NewSectionReader(a.old, off, int64(len(b))), b)
		return err
	}, tableMemory)
	sink := delta.Sink{Write: a.write, ReadAt: func(b []byte, off int64) error {
		_, err := io.ReadFull(io.NewSectionReader(a.dst, off, int64(len(b))), b)
		return err
	}}
	start := int64(0)
	for _, s := range h.Segments {
		seg := delta.Segment{Start: start, End: start + s.Size, Shape: s.shape()}
		literals := make([]byte, s.Packed) // within the memory that was granted
		if _, err := io.ReadFull(a.in, literals); err != nil {
			return readFailure(err)
		}
		if err := delta.Decode(delta.NewSource(a.old, h.SourceSize), tables, literals, a.in, s.Coded, layout, seg, sink); err != nil {
			return err
		}
		start = seg.End
	}
	if err := a.end(); err != nil {
		return err
	}
	var got image.Digest
	if h.Seal != nil {
		if got, err = a.seal(); err != nil {
			return err
		}
	} else {
		a.hash.Sum(got[:0])
	}
	if got != h.Result {
		return fault.New(fault.Seal, "cannot apply the patch: the result has sha-384 %s, not %s", short(got), short(h.Result))
	}
	return nil
}

// write takes new data from a segment.
func (a *applier) write(b []byte) error {
	if _, err := a.dst.WriteAt(b, a.written); err != nil {
		return &fileError{fmt.Errorf("cannot write the result: %w", err)}
	}
	if a.header.Seal == nil {
		a.hash.Write(b)
	}
	a.written += int64(len(b))
	return a.step(int64(len(b)))
}

// end verifies the checksum and that nothing follows.
func (a *applier) end() error {
	want := a.in.crc
	var tail [4]byte
	if _, err := io.ReadFull(a.in, tail[:]); err != nil {
		return readFailure(err)
	}
	if binary.LittleEndian.Uint32(tail[:]) != want {
		return damaged("its checksum is wrong")
	}
	if _, err := a.in.ReadByte(); err != io.EOF {
		return damaged("data follows its end")
	}
	return nil
}

// fileError is a failure of the files around the patch, not of the patch.
type fileError struct{ error }

func (e *fileError) Unwrap() error { return e.error }

// explain gives an error its kind: what is not a failure around the patch is
// damage of the patch.
func (a *applier) explain(err error) error {
	var known *fault.Error
	var file *fileError
	if errors.As(err, &known) || errors.As(err, &file) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var source *delta.SourceError
	if errors.As(err, &source) {
		return err
	}
	return damaged("%w", err)
}

// digest reads the first size bytes of r.
func digest(r io.ReaderAt, size int64, step func(int64) error) (image.Digest, error) {
	h, buf := sha512.New384(), make([]byte, 256<<10)
	for off := int64(0); off < size; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return image.Digest{}, fmt.Errorf("cannot read the source: %w", err)
		}
		h.Write(buf[:n])
		off += int64(n)
		if err := step(int64(n)); err != nil {
			return image.Digest{}, err
		}
	}
	var d image.Digest
	h.Sum(d[:0])
	return d, nil
}

// Digest is the digest of a whole file.
func Digest(s Source) (image.Digest, error) {
	return digest(s, s.Size(), func(int64) error { return nil })
}
