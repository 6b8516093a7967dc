package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/internal/fault"
)

// Tree computes a hash tree piece by piece, in any order and by several
// goroutines at once. It keeps 32 bytes in memory for every SpanSize of data,
// and writes each hash block as soon as it is known.
type Tree struct {
	out    io.WriterAt // offset 0 is the first byte of the tree
	salt   [SaltSize]byte
	blocks uint64 // data blocks
	levels []level
	above  []byte        // digests of the blocks of level 0 (of the data block, if there is one)
	added  atomic.Uint64 // data blocks hashed so far
}

// NewTree begins the tree over so many data blocks. The tree's blocks are
// written to out, whose offset 0 is the first byte after the superblock, by as
// many goroutines as call Add.
func NewTree(out io.WriterAt, dataBlocks uint64, salt [SaltSize]byte) (*Tree, error) {
	if dataBlocks == 0 || dataBlocks > MaxDataBlocks {
		return nil, fault.New(fault.Failed, "cannot seal %d data blocks: 1 to %d can be sealed", dataBlocks, uint64(MaxDataBlocks))
	}
	ls, _ := levels(dataBlocks)
	n := uint64(1)
	if len(ls) > 0 {
		n = ls[0].blocks
	}
	return &Tree{out: out, salt: salt, blocks: dataBlocks, levels: ls, above: make([]byte, n*DigestSize)}, nil
}

// scratch holds the buffers of one Add.
type scratch struct {
	salted [SaltSize + BlockSize]byte // salt ‖ block
	hashes [BlockSize]byte            // one hash block
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Add hashes the data that starts at a byte offset. The offset is a multiple
// of SpanSize, and so is len(data) unless it ends the data. No piece may be
// added twice; pieces may be added at the same time.
func (t *Tree) Add(offset int64, data []byte) error {
	first, n := uint64(offset)/BlockSize, uint64(len(data))/BlockSize
	if offset < 0 || offset%SpanSize != 0 || len(data)%BlockSize != 0 ||
		first+n > t.blocks || (n%span != 0 && first+n != t.blocks) {
		return fmt.Errorf("cannot hash %d bytes at %d: not a piece of the tree", len(data), offset)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	copy(s.salted[:], t.salt[:])
	for at := first; len(data) > 0; at += span {
		piece := data[:min(len(data), SpanSize)]
		data = data[len(piece):]
		used := 0
		for ; len(piece) > 0; piece = piece[BlockSize:] {
			copy(s.salted[SaltSize:], piece[:BlockSize])
			sum := sha256.Sum256(s.salted[:])
			used += copy(s.hashes[used:], sum[:])
		}
		slot := t.above[at/span*DigestSize:][:DigestSize]
		if len(t.levels) == 0 {
			copy(slot, s.hashes[:])
			break
		}
		clear(s.hashes[used:])
		if err := t.put(s, t.levels[0].offset+int64(at/span)*BlockSize, slot); err != nil {
			return err
		}
	}
	t.added.Add(n)
	return nil
}

// put writes s.hashes as the hash block at an offset of the tree and leaves
// its digest in slot.
func (t *Tree) put(s *scratch, offset int64, slot []byte) error {
	if _, err := t.out.WriteAt(s.hashes[:], offset); err != nil {
		return err
	}
	copy(s.salted[SaltSize:], s.hashes[:])
	sum := sha256.Sum256(s.salted[:])
	copy(slot, sum[:])
	return nil
}

// Close computes the upper levels and returns the seal. All data must have
// been added.
func (t *Tree) Close() (Seal, error) {
	if n := t.added.Load(); n != t.blocks {
		return Seal{}, fmt.Errorf("cannot close the hash tree: %d of %d data blocks were added", n, t.blocks)
	}
	s := new(scratch)
	copy(s.salted[:], t.salt[:])
	digests := t.above
	for _, l := range t.levels[min(1, len(t.levels)):] {
		next := make([]byte, l.blocks*DigestSize)
		for i := range l.blocks {
			clear(s.hashes[:])
			copy(s.hashes[:], digests[i*BlockSize:])
			if err := t.put(s, l.offset+int64(i)*BlockSize, next[i*DigestSize:]); err != nil {
				return Seal{}, err
			}
		}
		digests = next
	}
	seal := Seal{Salt: t.salt, DataBlocks: t.blocks}
	copy(seal.Root[:], digests)
	return seal, nil
}

// Compute seals the data: it reads dataBlocks blocks from data, writes the
// hash tree (without superblock) to out and returns the seal. It uses every
// processor.
func Compute(ctx context.Context, data io.ReaderAt, dataBlocks uint64, salt [SaltSize]byte, out io.WriterAt) (Seal, error) {
	t, err := NewTree(out, dataBlocks, salt)
	if err != nil {
		return Seal{}, err
	}
	size := int64(dataBlocks) * BlockSize
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := make([]byte, min(2*SpanSize, size))
			for {
				at := next.Add(2*SpanSize) - 2*SpanSize
				if at >= size {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				piece := buf[:min(2*SpanSize, size-at)]
				if n, err := data.ReadAt(piece, at); n < len(piece) {
					return fmt.Errorf("cannot read the data to seal: %w", noEOF(err))
				}
				if err := t.Add(at, piece); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return Seal{}, err
	}
	return t.Close()
}

// Verify reads all data and the whole hash tree (without superblock) and
// refuses both unless they are exactly what the seal says. The caller must
// have the seal from somewhere trustworthy, such as a verified ticket.
func Verify(ctx context.Context, data, tree io.ReaderAt, want Seal) error {
	got, err := Compute(ctx, data, want.DataBlocks, want.Salt, Compare(tree))
	if err != nil {
		return err
	}
	return want.Check(got)
}

// Check refuses a computed seal that is not s.
func (s Seal) Check(got Seal) error {
	if got != s {
		return fault.New(fault.Seal, "cannot accept the image: its data has the seal %s, not %s", got, s)
	}
	return nil
}

// Compare returns a writer that writes nothing: it refuses every byte that
// does not already stand in r. A Tree that writes to it checks a stored tree.
func Compare(r io.ReaderAt) io.WriterAt { return comparer{r} }

type comparer struct{ r io.ReaderAt }

func (c comparer) WriteAt(p []byte, off int64) (int, error) {
	var buf [BlockSize]byte
	for done := 0; done < len(p); {
		b := buf[:min(BlockSize, len(p)-done)]
		if n, err := c.r.ReadAt(b, off+int64(done)); n < len(b) {
			return done, fault.New(fault.Seal, "cannot accept the hash tree: it is cut short: %w", noEOF(err))
		}
		if !bytes.Equal(b, p[done:done+len(b)]) {
			return done, fault.New(fault.Seal, "cannot accept the hash tree: the block at %d does not match what it covers", off+int64(done))
		}
		done += len(b)
	}
	return len(p), nil
}

// Writer seals data that passes through it in order.
type Writer struct {
	tree *Tree
	buf  []byte
	at   int64
}

// NewWriter returns a Writer that seals dataBlocks blocks of data and writes
// the hash tree (without superblock) to out.
func NewWriter(out io.WriterAt, dataBlocks uint64, salt [SaltSize]byte) (*Writer, error) {
	t, err := NewTree(out, dataBlocks, salt)
	if err != nil {
		return nil, err
	}
	return &Writer{tree: t, buf: make([]byte, 0, SpanSize)}, nil
}

// Write hashes the next bytes of the data.
func (w *Writer) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), SpanSize-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if len(w.buf) == SpanSize {
			if err := w.flush(); err != nil {
				return total - len(p) - n, err
			}
		}
	}
	return total, nil
}

func (w *Writer) flush() error {
	err := w.tree.Add(w.at, w.buf)
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// Close ends the data and returns the seal.
func (w *Writer) Close() (Seal, error) {
	if len(w.buf) > 0 {
		if err := w.flush(); err != nil {
			return Seal{}, err
		}
	}
	return w.tree.Close()
}

// noEOF turns the end of a file where there should be more into an error that
// says so.
func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
