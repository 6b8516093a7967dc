package patch

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
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
	// A result may have this many bytes, and as many more for each byte of the
	// source and of the patch.
	defaultMaxResult = 64 << 20
	growthOfSource   = 8
	growthOfPatch    = 64
)

// ApplyOptions bound what a patch may ask for. The zero value is right for
// patches of any origin.
type ApplyOptions struct {
	MaxMemory int64 // bytes of memory; 0 means DefaultMaxMemory
	MaxResult int64 // bytes of the result; 0 means 64 MiB and 8 times the source and 64 times the patch
	Progress  func(done, total int64)
	Context   context.Context // cancels; nil means never

	// Share makes n bytes of the result at an offset those of the source at
	// another, which are known to be the same: by sharing the blocks on disk, or
	// by copying inside the kernel. All three are multiples of 4096. After a
	// *fault.Unsupported it is not asked again; any other error ends Apply. nil
	// means that there is no way. Segments ask at the same time.
	Share func(to, from, n int64) error

	account delta.Account // see Explain
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
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	if err := checkSize(p); err != nil {
		return Result{}, err
	}
	sum := &summed{r: bufio.NewReaderSize(p, 64<<10)}
	h, _, err := readHeader(sum)
	if err != nil {
		return Result{}, err
	}
	if o.MaxResult == 0 {
		o.MaxResult = defaultMaxResult + growthOfSource*old.Size() + growthOfPatch*min(h.Size, maxSize)
	}
	if err := admit(h, o); err != nil {
		return Result{}, err
	}
	a := &applier{header: h, options: o, old: old, dst: dst, in: sum, total: h.SourceSize + h.ResultSize, account: h.Fold.account(o.account)}
	a.moved.L = &a.mu
	if o.Share != nil {
		a.share.Store(&o.Share)
	}
	if err := a.run(); err != nil {
		return Result{}, explain(err)
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

// checkSize refuses p, if it can seek, unless it has the size that its header
// tells and the right checksum.
func checkSize(p io.Reader) error {
	seeker, ok := p.(io.Seeker)
	if !ok {
		return nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil // a pipe, for example
	}
	h, _, err := readHeader(p)
	if err != nil {
		return err
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return readFailure(err)
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return readFailure(err)
	}
	if end-start != h.Size {
		return damaged("it has %d bytes, its header says %d", end-start, h.Size)
	}
	if err := checkSum(p, h.Size); err != nil {
		return err
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return readFailure(err)
	}
	return nil
}

// checkSum verifies the checksum that ends a patch of a size.
func checkSum(p io.Reader, size int64) error {
	crc := crc32.New(castagnoli())
	if _, err := io.CopyN(crc, p, size-4); err != nil {
		return readFailure(err)
	}
	var tail [4]byte
	if _, err := io.ReadFull(p, tail[:]); err != nil {
		return readFailure(err)
	}
	if crc.Sum32() != binary.LittleEndian.Uint32(tail[:]) {
		return damaged("its checksum is wrong")
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
	s.crc = crc32.Update(s.crc, castagnoli(), b[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.crc = crc32.Update(s.crc, castagnoli(), s.one[:])
	}
	return b, err
}

// digest reads the first size bytes of r.
func digest(r io.ReaderAt, size int64, step func(int64) error) (image.Digest, error) {
	h, buf := sha512.New384(), make([]byte, 64<<10)
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
