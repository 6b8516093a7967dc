package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealant-os/sealant/internal/linux"
)

// An operating system image brings base.json and base/NAME.cryptex as plain
// files. A baseline that is installed by hand must take the place of all of
// them at once, so from then on they lie in a folder of their own, and one link
// says which:
//
//	/usr/lib/sealant/base.json     -> baseline/base.json
//	/usr/lib/sealant/base          -> baseline/base
//	/usr/lib/sealant/baseline      -> baselines/DIGEST     switched by one rename
//	/usr/lib/sealant/baselines/DIGEST/{base.json,base/NAME.cryptex}
//
// What was there before is brought into that shape first, link by link, each
// step of which leaves the same bytes under the same names.
const (
	baselineLink = "baseline"
	baselineDir  = "baselines"
	delivered    = "delivered" // the folder of what the operating system image brought
)

// sealantDir is the operating system's folder.
func (s *Store) sealantDir(parts ...string) string {
	return filepath.Join(append([]string{s.root, "usr/lib/sealant"}, parts...)...)
}

// NewBaseline is a baseline that is about to be installed.
type NewBaseline struct {
	s         *Store
	dir, name string
}

// NewBaseline makes an empty place for a baseline. What an interrupted
// installation left is removed.
func (s *Store) NewBaseline(d Digest) (*NewBaseline, error) {
	b := &NewBaseline{s, s.sealantDir(baselineDir, temporary+d.String()), d.String()}
	if err := b.Close(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "base"), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make room for a baseline: %w", err)
	}
	return b, nil
}

// Free is the room for images, in bytes, and the folder that names the file system.
func (b *NewBaseline) Free() (int64, string, error) {
	n, err := freeAt(b.dir)
	return n, b.dir, err
}

// Image makes the file of one image; the caller commits it.
func (b *NewBaseline) Image(name string) (*Pending, error) {
	if err := checkCryptexName(name); err != nil {
		return nil, err
	}
	return newPending(filepath.Join(b.dir, "base", name+".cryptex"), 0o644)
}

// Commit puts the baseline with this description in the place of the one that
// is installed, by one rename, and removes the others. The images must be
// committed. It may be repeated after a crash.
func (b *NewBaseline) Commit(document []byte) error {
	if err := writeFile(filepath.Join(b.dir, "base.json"), document, 0o644); err != nil {
		return err
	}
	final := b.s.sealantDir(baselineDir, b.name)
	if err := syncDir(filepath.Join(b.dir, "base")); err != nil {
		return err
	}
	if b.s.installed() == b.name {
		// The same one again: what is in place may be damaged, so it is swapped.
		if err := linux.Exchange(b.dir, final); err != nil {
			return err
		}
		return errors.Join(syncDir(b.s.sealantDir(baselineDir)), b.Close())
	}
	if err := os.RemoveAll(final); err != nil { // never pointed to
		return fmt.Errorf("cannot replace %s: %w", final, err)
	}
	if err := os.Rename(b.dir, final); err != nil {
		return fmt.Errorf("cannot install a baseline: %w", err)
	}
	if err := syncDir(b.s.sealantDir(baselineDir)); err != nil {
		return err
	}
	if err := b.s.foldBaseline(); err != nil {
		return err
	}
	if err := b.s.pointBaseline(b.name); err != nil {
		return err
	}
	// Where nothing was installed, base.json appears last.
	for _, name := range []string{"base", "base.json"} {
		if err := b.s.lead(name); err != nil {
			return err
		}
	}
	return b.s.sweepBaselines(b.name)
}

// Close removes what was not committed.
func (b *NewBaseline) Close() error {
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("cannot remove %s: %w", b.dir, err)
	}
	return nil
}

// installed is the name of the folder that the link says, "" if there is none.
func (s *Store) installed() string {
	text, err := os.Readlink(s.sealantDir(baselineLink))
	if err != nil || filepath.Dir(text) != baselineDir {
		return ""
	}
	return filepath.Base(text)
}

// foldBaseline brings what the operating system image brought as plain files
// into the shape with the link. Names keep leading to the same bytes.
func (s *Store) foldBaseline() error {
	if s.installed() != "" {
		return nil // lead completes what an earlier crash left
	}
	if _, err := os.Lstat(s.sealantDir("base.json")); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever installed
	}
	dir := s.sealantDir(baselineDir, delivered)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot fold the baseline: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "base"), 0o755); err != nil {
		return fmt.Errorf("cannot fold the baseline: %w", err)
	}
	images, err := filepath.Glob(s.sealantDir("base", "*.cryptex"))
	if err != nil {
		return fmt.Errorf("cannot fold the baseline: %w", err)
	}
	for _, path := range images {
		if err := os.Link(path, filepath.Join(dir, "base", filepath.Base(path))); err != nil {
			return fmt.Errorf("cannot fold the baseline: %w", err)
		}
	}
	if err := os.Link(s.sealantDir("base.json"), filepath.Join(dir, "base.json")); err != nil {
		return fmt.Errorf("cannot fold the baseline: %w", err)
	}
	if err := errors.Join(syncDir(filepath.Join(dir, "base")), syncDir(dir)); err != nil {
		return err
	}
	if err := s.pointBaseline(delivered); err != nil {
		return err
	}
	return errors.Join(s.lead("base"), s.lead("base.json"))
}

// pointBaseline switches the link.
func (s *Store) pointBaseline(name string) error {
	return link(s.sealantDir(baselineLink), filepath.Join(baselineDir, name))
}

// lead makes a name a link into the installed baseline.
func (s *Store) lead(name string) error {
	path, text := s.sealantDir(name), filepath.Join(baselineLink, name)
	fi, err := os.Lstat(path)
	if err != nil || !fi.IsDir() {
		return link(path, text)
	}
	// A folder can't be renamed over: it swaps places with the link.
	next := temporaryName(s.sealantDir())
	if err := os.Symlink(text, next); err != nil {
		return fmt.Errorf("cannot link %s: %w", path, err)
	}
	if err := linux.Exchange(next, path); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := syncDir(s.sealantDir()); err != nil {
		return err
	}
	return os.RemoveAll(next)
}

// sweepBaselines removes every baseline but the named one. What is still
// mounted keeps its bytes until it is unmounted.
func (s *Store) sweepBaselines(keep string) error {
	all, err := names(s.sealantDir(baselineDir))
	if err != nil {
		return err
	}
	for _, name := range all {
		if name != keep {
			if err := os.RemoveAll(s.sealantDir(baselineDir, name)); err != nil {
				return fmt.Errorf("cannot remove an old baseline: %w", err)
			}
		}
	}
	for _, pattern := range []string{s.sealantDir(temporary + "*"), s.sealantDir(baselineDir, temporary+"*")} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("cannot tidy up: %w", err)
			}
		}
	}
	return nil
}
