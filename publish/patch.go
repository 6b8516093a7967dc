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
	if err = p.both(q, &c); err != nil {
		return c, err
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

// both makes the patch and the antipatch, which share most of the work, and
// proves and keeps them.
func (p *preparation) both(q *opened, c *release.Change) error {
	there, err := p.work()
	if err != nil {
		return err
	}
	defer there.remove()
	back, err := p.work()
	if err != nil {
		return err
	}
	defer back.remove()
	a, b, err := patch.MakeBoth(there, back, q.oldFile, q.newFile, patch.MakeOptions{
		Context: p.ctx, Progress: func(done, total int64) { p.progress("patch "+c.Name, done, total) },
	})
	if err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	if c.Patch, err = p.prove("patch "+c.Name, there, a.Size, q.oldFile, q.newFile, c.From.Digest, c.To.Digest); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	if c.Antipatch, err = p.prove("antipatch "+c.Name, back, b.Size, q.newFile, q.oldFile, c.To.Digest, c.From.Digest); err != nil {
		return fmt.Errorf("antipatch: %w", err)
	}
	if err := p.adopt(c.Patch, there.Name()); err != nil {
		return err
	}
	return p.adopt(c.Antipatch, back.Name())
}

// working is a file in the work folder.
type working struct{ *os.File }

func (p *preparation) work() (working, error) {
	f, err := os.CreateTemp(filepath.Join(p.dir, "work"), "patch-*")
	return working{f}, err
}

func (w working) remove() {
	w.Close()
	os.Remove(w.Name())
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
		made, out, err := p.make("shortcut "+c.Name, old, q.newFile, before.To.Digest, c.To.Digest)
		if err != nil {
			return err
		}
		defer out.remove()
		if made.Size >= c.Patch.Size {
			return nil
		}
		if err := p.adopt(made, out.Name()); err != nil {
			return err
		}
		c.Shortcut, c.PreviousDigest = &made, &before.To.Digest
	}
	return nil
}

// errChanged says that somebody wrote to an image while it was worked on.
var errChanged = fault.New(fault.Seal, "the image changed while it was read")

// make makes one patch in the work folder and proves it.
func (p *preparation) make(step string, old, improved *source, from, to release.Digest) (release.File, working, error) {
	out, err := p.work()
	if err != nil {
		return release.File{}, out, err
	}
	stats, err := patch.Make(out, old, improved, patch.MakeOptions{
		Context: p.ctx, Progress: func(done, total int64) { p.progress(step, done, total) },
	})
	var made release.File
	if err == nil {
		made, err = p.prove(step, out, stats.Size, old, improved, from, to)
	}
	if err != nil {
		out.remove()
	}
	return made, out, err
}

// prove applies a patch that was made, and compares every byte. The images must
// still be those that were verified: from and to are their digests.
func (p *preparation) prove(step string, out working, size int64, old, improved *source, from, to release.Digest) (release.File, error) {
	made := &source{out.File, size}
	header, err := patch.Inspect(made.reader())
	if err != nil {
		return release.File{}, err
	}
	if release.Digest(header.Source) != from || release.Digest(header.Result) != to {
		return release.File{}, errChanged
	}
	if err := p.apply(step, old, improved, made); err != nil {
		return release.File{}, err
	}
	digest, err := patch.Digest(made)
	return release.File{Digest: release.Digest(digest), Size: size}, err
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
