package image

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

// Cryptex is an open image. Its fields are what its footer says; only Verify
// proves them, and only against each other.
type Cryptex struct {
	Name             string
	Subtype          Subtype
	Size             int64 // bytes of the whole file
	DataSize         int64 // bytes of the EROFS part; the verity superblock starts there
	Seal             seal.Seal
	TrustCacheDigest Digest // of the encoded trust cache
	TrustCacheSize   int64  // bytes of the encoded trust cache

	r io.ReaderAt
	f footer
}

// Open reads the footer of an image of size bytes. It takes the same time
// however large the image is, and refuses an image whose size is not exactly
// the one the footer says.
func Open(r io.ReaderAt, size int64) (*Cryptex, error) {
	if size < 4*blockSize || size%blockSize != 0 {
		return nil, fault.New(fault.Seal, "cannot open the image: it is not a cryptex, or it is cut short")
	}
	b := make([]byte, blockSize)
	if err := readFull(r, b, size-blockSize); err != nil {
		return nil, fmt.Errorf("cannot open the image: %w", err)
	}
	f, err := parseFooter(b, size)
	if err != nil {
		return nil, fault.New(fault.Seal, "cannot open the image: %w", err)
	}
	return &Cryptex{
		Name: f.name, Subtype: f.subtype, Size: size, DataSize: f.superblock,
		Seal: f.seal, TrustCacheDigest: f.cacheHash, TrustCacheSize: f.cacheSize,
		r: r, f: f,
	}, nil
}

// IsCryptex tells whether the file of size bytes ends as a cryptex does. It is
// a hint, not a check.
func IsCryptex(r io.ReaderAt, size int64) bool {
	b := make([]byte, len(footerMagic))
	return size >= 4*blockSize && size%blockSize == 0 &&
		readFull(r, b, size-blockSize) == nil && string(b) == footerMagic
}

// Options are the options with which Finish makes the same image again.
func (c *Cryptex) Options() Options {
	return Options{Name: c.Name, Subtype: c.Subtype, Salt: c.Seal.Salt}
}

// Data reads the EROFS part.
func (c *Cryptex) Data() *io.SectionReader { return io.NewSectionReader(c.r, 0, c.DataSize) }

// TreeOffset is where the hash tree starts in the file, after its superblock:
// dm-verity's hash start in bytes.
func (c *Cryptex) TreeOffset() int64 { return c.f.treeAt }

// TrustCacheOffset is where the trust cache starts in the file.
func (c *Cryptex) TrustCacheOffset() int64 { return c.f.cacheAt }

// Tree opens the file system for walking. See erofs.Image.
func (c *Cryptex) Tree() (*erofs.Image, error) { return erofs.Open(c.Data(), c.DataSize) }

// FS opens the file system for reading. It follows no symbolic links. Contents
// are not checked against the seal: Verify first.
func (c *Cryptex) FS() (fs.FS, error) {
	t, err := c.Tree()
	if err != nil {
		return nil, err
	}
	return t.FS(), nil
}

// TrustCache reads the trust cache and checks it against the footer.
func (c *Cryptex) TrustCache() (*trustcache.Cache, error) {
	b, err := c.EncodedTrustCache()
	if err != nil {
		return nil, err
	}
	return trustcache.Parse(b)
}

// EncodedTrustCache reads the bytes of the trust cache and checks them against
// the footer.
func (c *Cryptex) EncodedTrustCache() ([]byte, error) {
	b := make([]byte, c.f.footerAt-c.f.cacheAt)
	if err := readFull(c.r, b, c.f.cacheAt); err != nil {
		return nil, err
	}
	if len(bytes.Trim(b[c.f.cacheSize:], "\x00")) > 0 {
		return nil, fault.New(fault.Seal, "cannot read the trust cache: bytes follow it")
	}
	b = b[:c.f.cacheSize]
	if Digest(trustcache.Digest(b)) != c.f.cacheHash {
		return nil, fault.New(fault.Seal, "cannot read the trust cache: it does not have the digest in the footer")
	}
	return b, nil
}

// Verify reads every byte of the image and refuses it unless its parts agree:
// data and hash tree with the seal, the trust cache with the files, and the
// file system with itself. progress may be nil. The caller compares Seal and
// TrustCacheDigest with a verified ticket; Verify can't know them.
func (c *Cryptex) Verify(ctx context.Context, progress func(done, total int64)) error {
	_, err := c.verify(ctx, progress, false)
	return err
}

// VerifyDigest is Verify and Digest in one reading.
func (c *Cryptex) VerifyDigest(ctx context.Context, progress func(done, total int64)) (Digest, error) {
	return c.verify(ctx, progress, true)
}

func (c *Cryptex) verify(ctx context.Context, progress func(done, total int64), whole bool) (Digest, error) {
	fail := func(err error) (Digest, error) {
		return Digest{}, fmt.Errorf("cannot verify cryptex %s: %w", c.Name, err)
	}
	if err := c.checkSuperblock(); err != nil {
		return fail(err)
	}
	stored, err := c.EncodedTrustCache()
	if err != nil {
		return fail(err)
	}
	p := pass{
		data: c.r, size: c.DataSize, salt: c.Seal.Salt, progress: progress,
		tree: seal.Compare(io.NewSectionReader(c.r, c.f.treeAt, c.f.cacheAt-c.f.treeAt)),
	}
	if whole {
		p.digest = sha512.New384()
	}
	got, err := p.run(ctx)
	if err != nil {
		return fail(err)
	}
	if err := c.Seal.Check(got.seal); err != nil {
		return fail(err)
	}
	if !bytes.Equal(got.cache, stored) {
		return fail(fault.New(fault.Seal, "its trust cache does not list its files"))
	}
	if !whole {
		return Digest{}, nil
	}
	if _, err := io.Copy(p.digest, io.NewSectionReader(c.r, c.DataSize, c.Size-c.DataSize)); err != nil {
		return fail(err)
	}
	return Digest(p.digest.Sum(nil)), nil
}

// VerifyFrame reads all of the image but its data: the verity superblock, every
// block of the hash tree, and the trust cache, each of which must be what the
// footer says. It is for who has the kernel check the data at every read (by
// dm-verity, with the seal of a verified ticket), and takes a hundredth of the
// time of Verify. The caller compares Seal and TrustCacheDigest with the ticket.
func (c *Cryptex) VerifyFrame() error {
	err := c.checkSuperblock()
	if err == nil {
		err = seal.VerifyTree(io.NewSectionReader(c.r, c.f.treeAt, c.f.cacheAt-c.f.treeAt), c.Seal)
	}
	if err == nil {
		_, err = c.EncodedTrustCache()
	}
	if err != nil {
		return fmt.Errorf("cannot verify cryptex %s: %w", c.Name, err)
	}
	return nil
}

func (c *Cryptex) checkSuperblock() error {
	block := make([]byte, blockSize)
	if err := readFull(c.r, block, c.f.superblock); err != nil {
		return err
	}
	if !bytes.Equal(block, c.Seal.Superblock()) {
		return fault.New(fault.Seal, "its verity superblock is damaged")
	}
	return nil
}

// Digest reads the whole file and returns its digest.
func (c *Cryptex) Digest() (Digest, error) {
	h := sha512.New384()
	n, err := io.CopyBuffer(h, io.NewSectionReader(c.r, 0, c.Size), make([]byte, 1<<20))
	if err == nil && n != c.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Digest{}, fmt.Errorf("cannot read cryptex %s: %w", c.Name, err)
	}
	return Digest(h.Sum(nil)), nil
}

// readFull reads exactly len(b) bytes.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fault.New(fault.Seal, "it is cut short")
	}
	return err
}
