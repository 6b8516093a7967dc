// Package build brings the images of a release about: patches are downloaded,
// applied, and tried backwards; the baseline is restored. Every result is
// compared with what the signed release says, whoever sent the bytes. Work that
// was done before is not done again, so that a build that was interrupted is
// simply started again.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// Builder builds from what a store has and a catalog offers.
type Builder struct {
	Store   *store.Store
	Catalog *catalog.Client // nil: nothing can be downloaded

	// Progress returns what is told of bytes done in a step, of how many.
	Progress func(step string) func(done, total int64)
	// Warn and Note are told of what does not stop the work.
	Warn, Note func(step, format string, args ...any)
}

// Intact says whether the store's image of that digest is there and has it, by
// reading all of it.
func Intact(ctx context.Context, s *store.Store, digest release.Digest) bool {
	f, err := s.OpenImage(store.Digest(digest))
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := digestOf(ctx, f)
	return err == nil && got == digest
}

// checkImage compares a written image with what the release says of it: seal,
// name, subtype, trust cache. Its digest was compared before.
func checkImage(f *os.File, want release.Image) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	c, err := image.Open(f, fi.Size())
	if err != nil {
		return fault.New(fault.Seal, "cannot use the image of %s: %w", want.Name, err)
	}
	return compare(c, want)
}

// patched applies a patch to an image in the store and writes the result to
// dst, which the caller commits or throws away.
func (b *Builder) patched(ctx context.Context, dst *os.File, from release.Digest, p io.Reader, want release.File, progress func(done, total int64)) error {
	src, err := b.Store.OpenImage(store.Digest(from))
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	got, err := patch.Apply(dst, io.NewSectionReader(src, 0, fi.Size()), p, patch.ApplyOptions{
		MaxResult: want.Size, Progress: progress, Context: ctx,
		Share: func(to, from, n int64) error { return linux.ShareRange(dst, to, src, from, n) },
	})
	if err != nil {
		return err
	}
	if release.Digest(got.Digest) != want.Digest || got.Size != want.Size {
		return fault.New(fault.Seal, "the patch makes %.12s… of %d bytes, not the release's %.12s… of %d",
			release.Digest(got.Digest), got.Size, want.Digest, want.Size)
	}
	return nil
}

// openPatch opens a patch or antipatch, kept or just downloaded.
func (b *Builder) openPatch(rel, cryptex string, kind store.PatchKind, file release.File) (*os.File, error) {
	f, err := b.Store.OpenPatch(rel, cryptex, kind)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(b.Store.DownloadPath(store.Digest(file.Digest)))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the %s of %s: %w", kind, cryptex, err)
	}
	return f, nil
}

// Build makes the improved image of one cryptex from the baseline's and the
// patch. A patch that fails is no end: the whole image is asked for instead,
// if there is a catalog to ask.
func (b *Builder) Build(ctx context.Context, rel string, c release.Change) error {
	if Intact(ctx, b.Store, c.To.Digest) {
		return nil
	}
	err := b.buildPatched(ctx, rel, c)
	if err == nil || ctx.Err() != nil || store.NoSpace(err) || b.Catalog == nil {
		return err
	}
	b.Warn("apply "+c.Name, "the patch can't be used (%v); the whole image is downloaded instead", err)
	return b.buildWhole(ctx, c)
}

func (b *Builder) buildPatched(ctx context.Context, rel string, c release.Change) error {
	p, err := b.openPatch(rel, c.Name, store.Patch, c.Patch)
	if err != nil {
		return err
	}
	defer p.Close()
	dst, err := b.Store.NewImage(store.Digest(c.To.Digest))
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := b.patched(ctx, dst.File, c.From.Digest, p, c.Whole(), b.Progress("apply "+c.Name)); err != nil {
		return err
	}
	if err := checkImage(dst.File, c.Image()); err != nil {
		return err
	}
	return dst.Commit()
}

func (b *Builder) buildWhole(ctx context.Context, c release.Change) error {
	return b.Whole(ctx, c.Image())
}

// Whole downloads an image as it is, and puts it in the place of the store's.
func (b *Builder) Whole(ctx context.Context, want release.Image) error {
	file := release.File{Digest: want.Digest, Size: want.Size}
	if err := b.download(ctx, release.ImagePath(want.Digest), file, b.Progress("download "+want.Name)); err != nil {
		return err
	}
	return b.adoptDownload(ctx, want)
}

// adoptDownload makes a downloaded whole image one of the store's images.
func (b *Builder) adoptDownload(ctx context.Context, want release.Image) error {
	src, err := b.Store.OpenDownload(store.Digest(want.Digest))
	if err != nil {
		return err
	}
	defer src.Close()
	if got, err := digestOf(ctx, src); err != nil || got != want.Digest {
		return fault.New(fault.Seal, "cannot use the image of %s: its digest is %.12s… (%w)", want.Name, got, err)
	}
	if err := checkImage(src, want); err != nil {
		return err
	}
	return b.Store.KeepImage(store.Digest(want.Digest))
}

// Prove applies the antipatch to the improved image and compares the result
// with the baseline: the removal is tried before the improvement is installed.
// Where the baseline's own image is damaged, the result takes its place.
func (b *Builder) Prove(ctx context.Context, rel string, c release.Change) error {
	p, err := b.openPatch(rel, c.Name, store.Antipatch, c.Antipatch)
	if err != nil {
		return err
	}
	defer p.Close()
	dst, err := b.Store.NewImage(store.Digest(c.From.Digest))
	if err != nil {
		return err
	}
	defer dst.Close()
	want := release.File{Digest: c.From.Digest, Size: c.From.Size}
	if err := b.patched(ctx, dst.File, c.To.Digest, p, want, b.Progress("check "+c.Name)); err != nil {
		if store.NoSpace(err) || ctx.Err() != nil {
			return err
		}
		return fault.New(fault.Seal, "the antipatch of %s does not lead back to the baseline: %w", c.Name, err)
	}
	if b.Store.HasImage(store.Digest(c.From.Digest)) {
		return nil // the scratch file goes
	}
	return dst.Commit()
}

// compare checks that an image, as its own footer describes it, is the one that
// the release names. Its bytes are not read.
func compare(c *image.Cryptex, want release.Image) error {
	if c.Name != want.Name || uint8(c.Subtype) != uint8(want.Subtype) || c.Seal.Root != want.Seal.Root ||
		c.Seal.Salt != want.Seal.Salt || int64(c.Seal.DataBlocks) != want.Seal.DataBlocks || release.Digest(c.TrustCacheDigest) != want.TrustCache {
		return fault.New(fault.Seal, "cannot use the image of %s: its seal is not that of the release", want.Name)
	}
	return nil
}
