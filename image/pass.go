package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

// chunkSize is how much is read at once.
const chunkSize = 2 * seal.SpanSize

// pass reads the data of an image once and computes everything that follows
// from it: hash tree, trust cache, and if wanted the digest. The three are
// computed side by side, and the tree by every processor.
type pass struct {
	data     io.ReaderAt
	size     int64
	salt     [seal.SaltSize]byte
	tree     io.WriterAt // gets the hash tree
	digest   hash.Hash   // gets the data, if not nil
	progress func(done, total int64)

	// ready waits until the data up to an offset is there, if not nil: then the
	// data is still being written.
	ready func(to int64) error
}

// computed is what a pass finds out.
type computed struct {
	seal  seal.Seal
	cache []byte // the encoded trust cache
	files int    // regular files, each name counted
}

// chunk is a piece of the data on its way through the consumers, the last of
// which gives it back.
type chunk struct {
	at   int64
	data []byte
	uses atomic.Int32
}

func (p *pass) run(ctx context.Context) (computed, error) {
	var out computed
	// While the data is still being written nobody knows which files it has:
	// every block is measured by itself, and what is a program is told later.
	var found *executables
	var blocks measures
	var err error
	if p.ready != nil {
		blocks = make(measures, p.size/seal.BlockSize)
	} else if found, err = p.executables(ctx, &out); err != nil {
		return out, err
	}
	tree, err := seal.NewTree(p.tree, uint64(p.size)/seal.BlockSize, p.salt)
	if err != nil {
		return out, err
	}
	workers := runtime.GOMAXPROCS(0)
	depth := workers + 3
	all := ctx
	g, ctx := errgroup.WithContext(ctx)
	free := make(chan *chunk, depth)
	for range depth {
		free <- &chunk{data: make([]byte, min(chunkSize, p.size))}
	}
	consumer := func(in <-chan *chunk, use func(*chunk) error) func() error {
		return func() error {
			for c := range in {
				if err := use(c); err != nil {
					return err
				}
				if c.uses.Add(-1) == 0 {
					free <- c // never blocks: there are depth chunks
				}
			}
			return nil
		}
	}
	hashed := make(chan *chunk, depth)
	outs := []chan *chunk{hashed}
	for range workers {
		g.Go(consumer(hashed, func(c *chunk) error { blocks.take(c.at, c.data); return tree.Add(c.at, c.data) }))
	}
	if found != nil {
		measured := make(chan *chunk, depth)
		outs = append(outs, measured)
		g.Go(consumer(measured, func(c *chunk) error { found.take(c.at, c.data); return nil }))
	}
	if p.digest != nil {
		whole := make(chan *chunk, depth)
		outs = append(outs, whole)
		g.Go(consumer(whole, func(c *chunk) error { p.digest.Write(c.data); return nil }))
	}
	g.Go(func() error {
		defer func() {
			for _, o := range outs {
				close(o)
			}
		}()
		for at := int64(0); at < p.size; at += chunkSize {
			var c *chunk
			select {
			case c = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			c.at, c.data = at, c.data[:min(chunkSize, p.size-at)]
			if p.ready != nil {
				if err := p.ready(at + int64(len(c.data))); err != nil {
					return err
				}
			}
			if err := readFull(p.data, c.data, at); err != nil {
				return err
			}
			if p.progress != nil {
				p.progress(at+int64(len(c.data)), p.size)
			}
			c.uses.Store(int32(len(outs)))
			for _, o := range outs {
				o <- c // never blocks either
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return out, err
	}
	if out.seal, err = tree.Close(); err != nil {
		return out, err
	}
	if found == nil {
		if found, err = p.executables(all, &out); err == nil {
			err = found.measure(p.data, blocks)
		}
		if err != nil {
			return out, err
		}
	}
	out.cache, err = found.encode()
	return out, err
}

// measures are the SHA-256 digests of all blocks of the data, if they are
// wanted.
type measures [][sha256.Size]byte

// take measures the blocks of a piece.
func (m measures) take(at int64, data []byte) {
	if m == nil {
		return
	}
	for i := range len(data) / seal.BlockSize {
		m[at/seal.BlockSize+int64(i)] = sha256.Sum256(data[i*seal.BlockSize:][:seal.BlockSize])
	}
}

// executable is a file of the trust cache, under all its names.
type executable struct {
	offset, size int64
	kind         trustcache.Kind
	paths        []string
	measure      trustcache.Measure
	digest       [32]byte
}

// executables are the files to be measured, in the order of their content.
type executables struct {
	files []*executable
	next  int // the first that is not measured to its end
}

// executables walks the file system, checks all of it, and finds what belongs
// in the trust cache.
func (p *pass) executables(ctx context.Context, out *computed) (*executables, error) {
	tree, err := erofs.Open(io.NewSectionReader(p.data, 0, p.size), p.size)
	if err != nil {
		return nil, err
	}
	found := &executables{}
	byNID := map[uint64]*executable{}
	listed := 0
	err = tree.Walk(func(path string, n *erofs.Inode) error {
		if !n.IsRegular() {
			return ctx.Err()
		}
		out.files++
		x, seen := byNID[n.NID]
		if !seen {
			kind, runs, err := trustcache.KindOf(n.Mode, tree.Content(n), n.Size)
			if err != nil {
				return err
			}
			if runs {
				x = &executable{offset: n.Offset, size: n.Size, kind: kind}
				found.files = append(found.files, x)
			}
			if runs || n.Links > 1 {
				byNID[n.NID] = x
			}
		}
		if x == nil {
			return nil
		}
		x.paths = append(x.paths, path)
		if listed += len(path); listed > trustcache.MaxSize {
			return fault.New(fault.Failed, "the trust cache would exceed %d MiB", trustcache.MaxSize>>20)
		}
		return nil
	})
	slices.SortFunc(found.files, func(a, b *executable) int { return cmp.Compare(a.offset, b.offset) })
	return found, err
}

// take measures what lies in a piece of the data. Pieces come in order, and
// contents don't overlap.
func (e *executables) take(at int64, data []byte) {
	end := at + int64(len(data))
	for e.next < len(e.files) {
		x := e.files[e.next]
		if x.offset >= end {
			return
		}
		from, to := max(x.offset, at), min(x.offset+x.size, end)
		if from < to {
			x.measure.Write(data[from-at : to-at])
		}
		if x.offset+x.size > end {
			return
		}
		x.digest = x.measure.Sum()
		x.measure = trustcache.Measure{}
		e.next++
	}
}

// measure measures all files from the measures of their blocks; of the data it
// reads only what lies in no whole block.
func (e *executables) measure(data io.ReaderAt, blocks measures) error {
	for _, x := range e.files {
		done := int64(0)
		if x.offset%seal.BlockSize == 0 {
			for ; done+seal.BlockSize <= x.size; done += seal.BlockSize {
				x.measure.Block(blocks[(x.offset+done)/seal.BlockSize])
			}
		}
		if _, err := io.Copy(&x.measure, io.NewSectionReader(data, x.offset+done, x.size-done)); err != nil {
			return err
		}
		x.digest, x.measure = x.measure.Sum(), trustcache.Measure{}
	}
	return nil
}

// encode is the trust cache of the measured files.
func (e *executables) encode() ([]byte, error) {
	var c trustcache.Cache
	for _, x := range e.files {
		for _, path := range x.paths {
			c.Entries = append(c.Entries, trustcache.Entry{Path: path, Kind: x.kind, Digest: x.digest})
		}
	}
	slices.SortFunc(c.Entries, func(a, b trustcache.Entry) int { return cmp.Compare(a.Path, b.Path) })
	return c.Encode()
}
