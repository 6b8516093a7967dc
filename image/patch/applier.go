package patch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/internal/fault"
)

// Memory that applying takes whatever the patch, in bytes: the program, its
// buffers, and what the collector of garbage has not collected yet.
const baseMemory = 30 << 20

// decoders is how many segments are decoded at once, if there are more.
const decoders = 2

// memory is what applying takes, in bytes, as far as the header shows it.
func (h *Header) memory() int64 {
	most := int64(0)
	for _, s := range h.Segments {
		most = max(most, s.memory(h.from()))
	}
	n := int64(min(decoders, len(h.Segments)))
	return baseMemory + n*most + min(h.Runs, 1<<40)*64 + h.coded()/128 + h.Fold.memory() + h.Tables
}

// memory is what decoding a segment takes, in bytes.
func (s Segment) memory(source int64) int64 { return s.shape().Memory(source) + s.Packed + s.Coded }

// learning is how many places each segment may learn about, within the memory
// that the header declares.
func (h *Header) learning() int {
	return 1 + int((h.Memory-h.memory())/int64(min(decoders, len(h.Segments)))/delta.PlaceMemory)
}

// applier is one run of Apply.
type applier struct {
	header  *Header
	options ApplyOptions
	old     Source
	from    Source // the old data, with plain texts behind it
	folding *folding
	dst     image.File
	in      *summed
	total   int64
	account delta.Account
	share   atomic.Pointer[func(to, from, n int64) error] // nil when there is no way

	mu      sync.Mutex
	moved   sync.Cond // something below has changed
	done    int64     // of the progress
	written []int64   // by segment: how far its data is written
	failed  error
}

// step counts progress and notices a cancellation.
func (a *applier) step(n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
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

// read reads the old data.
func (a *applier) read(b []byte, off int64) error {
	if err := a.options.Context.Err(); err != nil {
		return err // programs may be gone through for long before anything is written
	}
	_, err := io.ReadFull(io.NewSectionReader(a.from, off, int64(len(b))), b)
	return err
}

// run decodes the map and the segments, and verifies. What follows the data of
// a sealed image is computed while the data is being written.
func (a *applier) run() error {
	h := a.header
	tables, err := a.prepare()
	if err != nil {
		return err
	}
	layout, err := delta.DecodeLayout(a.in, h.MapSize, h.Runs, h.from(), h.coded(), tables.Elements, a.account)
	if err != nil {
		return err
	}
	if err := a.dst.Truncate(0); err != nil {
		return writeFailure(err)
	}
	a.folding = newFolding(h)
	a.written = make([]int64, len(h.Segments))
	start := int64(0)
	for i, s := range h.Segments {
		a.written[i] = a.folding.File(start)
		start += s.Size
	}
	wait, err := a.follow()
	if err != nil {
		return err
	}
	err = a.decode(tables, layout)
	if err == nil {
		err = a.end()
	}
	a.mu.Lock()
	a.failed = err
	a.moved.Broadcast()
	a.mu.Unlock()
	got, waitErr := wait()
	if err != nil {
		return err
	}
	if waitErr != nil {
		return waitErr
	}
	if got != h.Result {
		return fault.New(fault.Seal, "cannot apply the patch: the result has sha-384 %s, not %s", short(got), short(h.Result))
	}
	return nil
}

// prepare verifies the source, and meanwhile inflates members of it and finds
// the ELF files in it.
func (a *applier) prepare() (*delta.Tables, error) {
	a.from = a.old
	var elements []*elfref.Element
	g := errgroup.Group{}
	g.Go(a.checkSource)
	if a.old.Size() == a.header.SourceSize {
		err := a.unfold()
		if err == nil && a.header.has(elfTransform) {
			if elements, err = elfref.Find(a.from, a.from.Size()); err != nil {
				err = &delta.SourceError{Err: err}
			}
		}
		if err != nil {
			return nil, cmp.Or(g.Wait(), err) // members of another source are no members
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, e := range elements {
		if need := e.Scratch(); need > a.header.Memory {
			return nil, damaged("it declares %d bytes of memory, and to look into its source takes %d", a.header.Memory, need)
		}
	}
	return delta.NewTables(elements, a.read, a.header.Tables), nil
}

// follow computes the digest of the result, and what follows the data of a
// sealed image, as the data comes.
func (a *applier) follow() (wait func() (image.Digest, error), err error) {
	h := a.header
	if h.Seal != nil {
		finished, err := image.FinishWhile(a.options.Context, a.dst, h.Seal.DataSize, h.Seal.options(), a.await)
		if err != nil {
			return nil, err
		}
		return func() (image.Digest, error) {
			sum, err := finished()
			if err == nil && sum.Size != h.ResultSize {
				err = fmt.Errorf("the sealed result has %d bytes, not %d", sum.Size, h.ResultSize)
			}
			if err == nil {
				err = a.step(h.ResultSize - h.Seal.DataSize)
			}
			return sum.Digest, err
		}, nil
	}
	if err := a.dst.Truncate(h.ResultSize); err != nil {
		return nil, writeFailure(err)
	}
	g := errgroup.Group{}
	hash := sha512.New384()
	g.Go(func() error {
		buf := make([]byte, 64<<10)
		for off := int64(0); off < h.ResultSize; {
			b := buf[:min(int64(len(buf)), h.ResultSize-off)]
			if err := a.await(off + int64(len(b))); err != nil {
				return err
			}
			if _, err := io.ReadFull(io.NewSectionReader(a.dst, off, int64(len(b))), b); err != nil {
				return &fileError{fmt.Errorf("cannot read the result: %w", err)}
			}
			hash.Write(b)
			off += int64(len(b))
		}
		return nil
	})
	return func() (d image.Digest, err error) {
		err = g.Wait()
		hash.Sum(d[:0])
		return d, err
	}, nil
}

// await waits until the data up to an offset is written.
func (a *applier) await(to int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.failed != nil {
			return a.failed
		}
		at, end := int64(0), int64(0)
		for i, s := range a.header.Segments {
			end += s.Size
			if at = a.written[i]; at < a.folding.File(end) {
				break
			}
		}
		if at >= to {
			return nil
		}
		a.moved.Wait()
	}
}

// decode decodes all segments, some of them at once.
func (a *applier) decode(tables *delta.Tables, layout *delta.Layout) error {
	h := a.header
	g, ctx := errgroup.WithContext(a.options.Context)
	places := make(chan struct{}, min(decoders, runtime.GOMAXPROCS(0)))
	at := int64(0)
	for i, s := range h.Segments {
		// The patch is read here, in its order, and never further than needed: what
		// a segment takes is granted for those that are being decoded.
		places <- struct{}{}
		literals := make([]byte, s.Packed) // within the memory that was granted
		if _, err := io.ReadFull(a.in, literals); err != nil {
			_ = g.Wait()
			return readFailure(err)
		}
		in := io.ByteReader(a.in)
		if len(h.Segments) > 1 {
			body := make([]byte, s.Coded)
			if _, err := io.ReadFull(a.in, body); err != nil {
				_ = g.Wait()
				return readFailure(err)
			}
			in = bytes.NewReader(body)
		}
		seg := delta.Segment{Start: at, End: at + s.Size, Shape: s.shape(), Segments: len(h.Segments)}
		at = seg.End
		g.Go(func() error {
			defer func() { <-places }()
			out := &folder{sharer: &sharer{applier: a, layout: layout}, segment: i, at: seg.Start}
			sink := delta.Sink{
				Account: a.account,
				Write: func(b []byte) error {
					if err := ctx.Err(); err != nil {
						return err
					}
					return out.write(b)
				},
				ReadAt: out.readBack,
			}
			return delta.Decode(delta.NewSource(a.from, a.from.Size()), tables, literals, in, s.Coded, layout, seg, sink, h.learning())
		})
	}
	return g.Wait()
}

// wrote counts n more bytes of the result from segment i.
func (a *applier) wrote(i int, n int64) error {
	a.mu.Lock()
	a.written[i] += n
	a.moved.Broadcast()
	a.mu.Unlock()
	return a.step(n)
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

func writeFailure(err error) error { return &fileError{fmt.Errorf("cannot write the result: %w", err)} }

// explain gives an error its kind: what is not a failure around the patch is
// damage of the patch.
func explain(err error) error {
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
