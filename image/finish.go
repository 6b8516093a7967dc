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
	o, err := o.check()
	if err != nil {
		return Summary{}, err
	}
	fail := func(err error) (Summary, error) {
		return Summary{}, fmt.Errorf("cannot seal cryptex %s: %w", o.Name, err)
	}
	if dataSize < blockSize || dataSize%blockSize != 0 || dataSize/blockSize > seal.MaxDataBlocks {
		return fail(fault.New(fault.Failed, "data of %d bytes is not 1 to %d whole blocks", dataSize, seal.MaxDataBlocks))
	}
	s := seal.Seal{Salt: o.Salt, DataBlocks: uint64(dataSize) / blockSize}
	lay := parts(o.Name, o.Subtype, s, 0, Digest{})
	if err := f.Truncate(dataSize); err != nil {
		return fail(err)
	}
	if err := f.Truncate(lay.size()); err != nil {
		return fail(err)
	}
	if _, err := f.WriteAt(s.Superblock(), lay.superblock); err != nil {
		return fail(err)
	}
	p := pass{
		data: f, size: dataSize, salt: o.Salt, progress: o.Progress,
		tree: io.NewOffsetWriter(f, lay.treeAt), digest: sha512.New384(),
	}
	got, err := p.run(ctx)
	if err != nil {
		return fail(err)
	}
	lay = parts(o.Name, o.Subtype, got.seal, int64(len(got.cache)), trustcache.Digest(got.cache))
	if err := f.Truncate(lay.size()); err != nil {
		return fail(err)
	}
	if _, err := f.WriteAt(got.cache, lay.cacheAt); err != nil {
		return fail(err)
	}
	if _, err := f.WriteAt(lay.encode(), lay.footerAt); err != nil {
		return fail(err)
	}
	if _, err := io.Copy(p.digest, io.NewSectionReader(f, dataSize, lay.size()-dataSize)); err != nil {
		return fail(err)
	}
	return Summary{
		Name: o.Name, Subtype: o.Subtype, Size: lay.size(), DataSize: dataSize,
		Digest: Digest(p.digest.Sum(nil)), Seal: got.seal, TrustCache: lay.cacheHash,
		Files: got.files, Executables: int(binary.LittleEndian.Uint32(got.cache[12:])),
	}, nil
}
