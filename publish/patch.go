package publish

import (
	"crypto/sha512"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// patch makes what brings one cryptex there and back, proves it, and keeps it.
func (p *preparation) patch(q *opened, account *CryptexAccount) (release.Change, error) {
	c := release.Change{
		Name: q.pair.Name, Subtype: q.from.Subtype, From: q.from.State(), To: q.to.State(),
		Changed: len(account.Comparison.Files),
	}
	c.Files = append([]release.FileChange{}, account.Comparison.Files[:min(c.Changed, release.MaxChanges)]...)
	var err error
	if c.Patch, err = p.prove("patch "+c.Name, q.oldFile, q.newFile, c.From.Digest, c.To.Digest); err != nil {
		return c, fmt.Errorf("patch: %w", err)
	}
	if c.Antipatch, err = p.prove("antipatch "+c.Name, q.newFile, q.oldFile, c.To.Digest, c.From.Digest); err != nil {
		return c, fmt.Errorf("antipatch: %w", err)
	}
	if err := p.shortcut(q, &c); err != nil {
		return c, fmt.Errorf("shortcut: %w", err)
	}
	account.Patch, account.Antipatch = c.Patch.Size, c.Antipatch.Size
	if c.Shortcut != nil {
		account.Shortcut = c.Shortcut.Size
	}
	// The whole image is the way for a device whose patch fails.
	sum := sha512.New384()
	t, err := p.keep(release.ImagePath(c.To.Digest), io.TeeReader(q.newFile.reader(), sum))
	if err != nil {
		return c, fmt.Errorf("image: %w", err)
	}
	if release.Digest(sum.Sum(nil)) != c.To.Digest {
		return c, errChanged
	}
	p.targets = append(p.targets, t)
	return c, nil
}

// shortcut makes a patch from the previous improvement's image, and keeps it if
// it is smaller than the one from the baseline.
func (p *preparation) shortcut(q *opened, c *release.Change) error {
	if p.previous == nil {
		return nil
	}
	for _, before := range p.previous.Cryptexes {
		if before.Name != c.Name || before.To.Digest == c.To.Digest {
			continue
		}
		f, err := p.repo.Open(release.ImagePath(before.To.Digest))
		if err != nil {
			return err
		}
		old := &source{f, before.To.Size}
		defer old.Close()
		made, name, err := p.make("shortcut "+c.Name, old, q.newFile, before.To.Digest, c.To.Digest)
		if err != nil {
			return err
		}
		defer os.Remove(name)
		if made.Size >= c.Patch.Size {
			return nil
		}
		if err := p.adopt(made, name); err != nil {
			return err
		}
		c.Shortcut, c.PreviousDigest = &made, &before.To.Digest
	}
	return nil
}

// errChanged says that somebody wrote to an image while it was worked on.
var errChanged = fault.New(fault.Seal, "the image changed while it was read")

// prove makes a patch, applies it, compares every byte, and keeps it.
func (p *preparation) prove(step string, old, improved *source, from, to release.Digest) (release.File, error) {
	made, name, err := p.make(step, old, improved, from, to)
	if err != nil {
		return release.File{}, err
	}
	defer os.Remove(name)
	return made, p.adopt(made, name)
}

// make makes a patch in the work folder and proves it. The images must still be
// those that were verified: from and to are their digests.
func (p *preparation) make(step string, old, improved *source, from, to release.Digest) (release.File, string, error) {
	out, err := os.CreateTemp(filepath.Join(p.dir, "work"), "patch-*")
	if err != nil {
		return release.File{}, "", err
	}
	defer out.Close()
	fail := func(err error) (release.File, string, error) {
		os.Remove(out.Name())
		return release.File{}, "", err
	}
	stats, err := patch.Make(out, old, improved, patch.MakeOptions{
		Context: p.ctx, Progress: func(done, total int64) { p.progress(step, done, total) },
	})
	if err != nil {
		return fail(err)
	}
	header, err := patch.Inspect((&source{out, stats.Size}).reader())
	if err != nil {
		return fail(err)
	}
	if release.Digest(header.Source) != from || release.Digest(header.Result) != to {
		return fail(errChanged)
	}
	if err := p.apply(step, old, improved, &source{out, stats.Size}); err != nil {
		return fail(err)
	}
	digest, err := patch.Digest(&source{out, stats.Size})
	if err != nil {
		return fail(err)
	}
	return release.File{Digest: release.Digest(digest), Size: stats.Size}, out.Name(), nil
}

// apply proves a patch as a device will: applied to the old image it gives the
// new one, compared here byte by byte besides what Apply verifies itself.
func (p *preparation) apply(step string, old, improved, made *source) error {
	result, err := os.CreateTemp(filepath.Join(p.dir, "work"), "result-*")
	if err != nil {
		return err
	}
	defer os.Remove(result.Name())
	defer result.Close()
	r, err := patch.Apply(result, old, made.reader(), patch.ApplyOptions{
		Context: p.ctx, Progress: func(done, total int64) { p.progress("prove "+step, done, total) },
	})
	if err != nil {
		return fmt.Errorf("cannot apply it again: %w", err)
	}
	same, err := sameBytes(io.NewSectionReader(result, 0, r.Size), improved.reader())
	if err != nil {
		return fmt.Errorf("cannot compare its result: %w", err)
	}
	if !same || r.Size != improved.size {
		return fault.New(fault.Seal, "its result is not the image it was made for")
	}
	return nil
}

// adopt keeps a proven patch as a target.
func (p *preparation) adopt(made release.File, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := p.keep(release.PatchPath(made.Digest), f)
	if err != nil {
		return err
	}
	p.targets = append(p.targets, t)
	return nil
}
