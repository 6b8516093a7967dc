package build

import (
	"context"
	"errors"
	"os"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// scratchRoom is what must stay free on a file system of which scratch space
// is taken, in bytes.
const scratchRoom = 4 << 20

// Restore applies the antipatch of one cryptex and compares the result with
// the baseline. With the operating system's own image intact the result is
// only a proof, and is thrown away; with no room even for that, the intact
// image is enough. If that image is damaged, the result takes its place.
func (b *Builder) Restore(ctx context.Context, rel string, c release.Change) error {
	intact := Intact(ctx, b.Store, c.From.Digest)
	dst, err := b.scratch(c.From, intact)
	if err != nil {
		if intact && errors.Is(err, store.ErrNoRoom) {
			b.Note("antipatch "+c.Name, "no room to apply the antipatch; the baseline's own image was read and is intact")
			return nil
		}
		return err
	}
	defer dst.Close()
	err = b.reverse(ctx, rel, c, dst.File)
	switch {
	case err == nil && !intact:
		return dst.Commit()
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case intact:
		// The proof failed, but the way back doesn't need it.
		b.Warn("antipatch "+c.Name, "the antipatch can't be applied (%v); the baseline's own image was read and is intact", err)
		return nil
	}
	return fault.New(fault.Seal, "cannot restore %s: its baseline image is damaged and the antipatch can't be applied: %w", c.Name, err).
		Hint("reinstall the operating system's image %s", b.Store.BaseImagePath(c.Name))
}

func (b *Builder) reverse(ctx context.Context, rel string, c release.Change, dst *os.File) error {
	p, err := b.openPatch(rel, c.Name, store.Antipatch, c.Antipatch)
	if err != nil {
		return err
	}
	defer p.Close()
	want := release.File{Digest: c.From.Digest, Size: c.From.Size}
	return b.patched(ctx, dst, c.To.Digest, p, want, b.Progress("antipatch "+c.Name))
}

// scratch makes a file for a baseline's image: one that can stay if the image
// is needed, else one for a proof only.
func (b *Builder) scratch(from release.State, proof bool) (*store.Pending, error) {
	if proof {
		return b.Store.Scratch(from.Size + scratchRoom)
	}
	return b.Store.NewImage(store.Digest(from.Digest))
}
