package device

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
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// intact says whether the store's image of that digest is there and has it, by
// reading all of it.
func (d *Device) intact(ctx context.Context, digest release.Digest) bool {
	f, err := d.Store.OpenImage(store.Digest(digest))
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
	return sealOf(c, want)
}

// patched applies a patch to an image in the store and writes the result to
// dst, which the caller commits or throws away.
func (d *Device) patched(ctx context.Context, dst image.File, from release.Digest, p io.Reader, want release.File, progress func(done, total int64)) error {
	src, err := d.Store.OpenImage(store.Digest(from))
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
func (d *Device) openPatch(rel, cryptex string, kind store.PatchKind, file release.File) (*os.File, error) {
	f, err := d.Store.OpenPatch(rel, cryptex, kind)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(d.Store.DownloadPath(store.Digest(file.Digest)))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the %s of %s: %w", kind, cryptex, err)
	}
	return f, nil
}

// build makes the improved image of one cryptex from the baseline's and the
// patch. A patch that fails is no end: the whole image is asked for instead,
// if there is a catalog to ask.
func (d *Device) build(ctx context.Context, rel string, c release.Change, cat *catalog.Client, report Report) error {
	if d.intact(ctx, c.To.Digest) {
		return nil
	}
	err := d.buildPatched(ctx, rel, c, report)
	if err == nil || ctx.Err() != nil || noSpace(err) {
		return err
	}
	if cat == nil {
		return err
	}
	report.warn("apply "+c.Name, "the patch can't be used (%v); the whole image is downloaded instead", err)
	if err := d.buildWhole(ctx, c, cat, report); err != nil {
		return err
	}
	return nil
}

func (d *Device) buildPatched(ctx context.Context, rel string, c release.Change, report Report) error {
	p, err := d.openPatch(rel, c.Name, store.Patch, c.Patch)
	if err != nil {
		return err
	}
	defer p.Close()
	dst, err := d.Store.NewImage(store.Digest(c.To.Digest))
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := d.patched(ctx, dst, c.From.Digest, p, c.Whole(), report.progress("apply "+c.Name)); err != nil {
		return err
	}
	if err := checkImage(dst.File, c.Image()); err != nil {
		return err
	}
	return dst.Commit()
}

func (d *Device) buildWhole(ctx context.Context, c release.Change, cat *catalog.Client, report Report) error {
	whole := c.Whole()
	path := release.ImagePath(whole.Digest)
	if err := d.download(ctx, cat, path, whole, report.progress("download "+c.Name)); err != nil {
		return err
	}
	return d.adoptDownload(ctx, c.Image())
}

// adoptDownload makes a downloaded whole image one of the store's images.
func (d *Device) adoptDownload(ctx context.Context, want release.Image) error {
	src, err := d.Store.OpenDownload(store.Digest(want.Digest))
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
	return d.Store.KeepImage(store.Digest(want.Digest))
}

// scratchRoom is what must stay free on a file system of which scratch space
// is taken, in bytes.
const scratchRoom = 4 << 20

// prove applies the antipatch to the improved image and compares the result
// with the baseline: the removal is tried before the improvement is installed.
// Where the baseline's own image is damaged, the result takes its place.
func (d *Device) prove(ctx context.Context, rel string, c release.Change, report Report) error {
	p, err := d.openPatch(rel, c.Name, store.Antipatch, c.Antipatch)
	if err != nil {
		return err
	}
	defer p.Close()
	dst, err := d.Store.NewImage(store.Digest(c.From.Digest))
	if err != nil {
		return err
	}
	defer dst.Close()
	want := release.File{Digest: c.From.Digest, Size: c.From.Size}
	if err := d.patched(ctx, dst, c.To.Digest, p, want, report.progress("check "+c.Name)); err != nil {
		if noSpace(err) || ctx.Err() != nil {
			return err
		}
		return fault.New(fault.Seal, "the antipatch of %s does not lead back to the baseline: %w", c.Name, err)
	}
	if d.Store.HasImage(store.Digest(c.From.Digest)) {
		return nil // the scratch file goes
	}
	return dst.Commit()
}
