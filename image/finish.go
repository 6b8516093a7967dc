package image

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

// Finish makes an image of a file that holds the EROFS data: it cuts the file
// after dataSize bytes, appends superblock, hash tree, trust cache and footer,
// and returns what the image is. It reads the data once, with all processors,
// and uses little memory however large the data is. The same data and options
// always give the same bytes.
func Finish(f File, dataSize int64, o Options) (Summary, error) {
	return FinishContext(context.Background(), f, dataSize, o)
}

// FinishContext is Finish that ends early when the context does.
func FinishContext(ctx context.Context, f File, dataSize int64, o Options) (Summary, error) {
	b, err := begin(f, dataSize, o)
	if err != nil {
		return Summary{}, err
	}
	return b.finish(ctx, nil)
}

// FinishWhile is FinishContext of data that is still being written: ready waits
// until the data up to an offset stands in the file, so that nothing is read
// again that has left the memory meanwhile. It gives the file its size and
// returns; from then on the data may be written. wait waits for the end. It
// takes 32 bytes of memory for every 4096 of the data.
func FinishWhile(ctx context.Context, f File, dataSize int64, o Options, ready func(to int64) error) (wait func() (Summary, error), err error) {
	b, err := begin(f, dataSize, o)
	if err != nil {
		return nil, err
	}
	type result struct {
		sum Summary
		err error
	}
	done := make(chan result, 1)
	go func() {
		sum, err := b.finish(ctx, ready)
		done <- result{sum, err}
	}()
	return func() (Summary, error) { r := <-done; return r.sum, r.err }, nil
}

// begun is an image whose file has its size and its superblock.
type begun struct {
	f        File
	dataSize int64
	options  Options
	lay      footer
}

func (b *begun) fail(err error) error {
	return fmt.Errorf("cannot seal cryptex %s: %w", b.options.Name, err)
}

func begin(f File, dataSize int64, o Options) (*begun, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	b := &begun{f: f, dataSize: dataSize, options: o}
	if dataSize < blockSize || dataSize%blockSize != 0 || dataSize/blockSize > seal.MaxDataBlocks {
		return nil, b.fail(fault.New(fault.Failed, "data of %d bytes is not 1 to %d whole blocks", dataSize, seal.MaxDataBlocks))
	}
	s := seal.Seal{Salt: o.Salt, DataBlocks: uint64(dataSize) / blockSize}
	b.lay = parts(o.Name, o.Subtype, s, 0, Digest{})
	if err := f.Truncate(dataSize); err != nil {
		return nil, b.fail(err)
	}
	if err := f.Truncate(b.lay.size()); err != nil {
		return nil, b.fail(err)
	}
	if _, err := f.WriteAt(s.Superblock(), b.lay.superblock); err != nil {
		return nil, b.fail(err)
	}
	return b, nil
}

func (b *begun) finish(ctx context.Context, ready func(to int64) error) (Summary, error) {
	f, o := b.f, b.options
	p := pass{
		data: f, size: b.dataSize, salt: o.Salt, progress: o.Progress,
		tree: io.NewOffsetWriter(f, b.lay.treeAt), digest: sha512.New384(), ready: ready,
	}
	got, err := p.run(ctx)
	if err != nil {
		return Summary{}, b.fail(err)
	}
	lay := parts(o.Name, o.Subtype, got.seal, int64(len(got.cache)), trustcache.Digest(got.cache))
	if err := f.Truncate(lay.size()); err != nil {
		return Summary{}, b.fail(err)
	}
	if _, err := f.WriteAt(got.cache, lay.cacheAt); err != nil {
		return Summary{}, b.fail(err)
	}
	if _, err := f.WriteAt(lay.encode(), lay.footerAt); err != nil {
		return Summary{}, b.fail(err)
	}
	if _, err := io.Copy(p.digest, io.NewSectionReader(f, b.dataSize, lay.size()-b.dataSize)); err != nil {
		return Summary{}, b.fail(err)
	}
	return Summary{
		Name: o.Name, Subtype: o.Subtype, Size: lay.size(), DataSize: b.dataSize,
		Digest: Digest(p.digest.Sum(nil)), Seal: got.seal, TrustCache: lay.cacheHash,
		Files: got.files, Executables: int(binary.LittleEndian.Uint32(got.cache[12:])),
	}, nil
}
