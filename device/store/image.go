package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NewImage starts an image of the given digest. The caller writes it, checks
// that the bytes have the digest, and commits. Several may be written at once.
func (s *Store) NewImage(d Digest) (*Pending, error) {
	p, err := newPending(s.path("images", d.String()), 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write image: %w", err)
	}
	return p, nil
}

// LinkBase records that the image with this digest is the OS update's own
// file NAME.cryptex: the state holds a link, not a copy.
func (s *Store) LinkBase(d Digest, name string) error {
	if err := checkCryptexName(name); err != nil {
		return err
	}
	path := s.path("images", d.String())
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
		return nil // a copy made from the antipatch
	}
	return link(path, baseLink(name))
}

// baseLink is the text of such a link. It is resolved below the store's root,
// because in the initrd the device's / is elsewhere.
func baseLink(name string) string { return "/usr/lib/sealant/base/" + name + ".cryptex" }

// ImagePath is the file that holds an image: in images, or the OS update's own
// file if that is what images points to.
func (s *Store) ImagePath(d Digest) string {
	path := s.path("images", d.String())
	target, err := os.Readlink(path)
	if err != nil {
		return path
	}
	name, ok := strings.CutPrefix(target, filepath.Dir(baseLink("x"))+"/")
	name, isCryptex := strings.CutSuffix(name, ".cryptex")
	if !ok || !isCryptex || checkCryptexName(name) != nil {
		return path
	}
	return s.BaseImagePath(name)
}

// OpenImage opens an image for reading. Its bytes are not verified: whoever
// uses them verifies this very file handle.
func (s *Store) OpenImage(d Digest) (*os.File, error) {
	f, err := os.Open(s.ImagePath(d))
	if err != nil {
		return nil, fmt.Errorf("cannot open image: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open image %s: %w", d, err)
	}
	return f, nil
}

// HasImage says whether a file or link for the image is there. It says nothing
// about its bytes.
func (s *Store) HasImage(d Digest) bool {
	fi, err := os.Stat(s.ImagePath(d))
	return err == nil && fi.Mode().IsRegular()
}

// Images lists the digests of all images that are there, links included.
func (s *Store) Images() ([]Digest, error) {
	all, err := names(s.path("images"))
	if err != nil {
		return nil, err
	}
	var ds []Digest
	for _, n := range all {
		var d Digest
		if d.UnmarshalText([]byte(n)) == nil {
			ds = append(ds, d)
		}
	}
	return ds, nil
}

// RemoveImage deletes an image or the link to one. The caller has made sure
// that no set in a slot and no process uses it.
func (s *Store) RemoveImage(d Digest) error { return remove(s.path("images", d.String())) }

// PatchKind tells the two directions apart.
type PatchKind string

// The two kinds of patch a device keeps.
const (
	Patch     PatchKind = "patch"     // baseline to improvement
	Antipatch PatchKind = "antipatch" // improvement to baseline
)

// PatchPath is where a release's patch of a cryptex lies.
func (s *Store) PatchPath(release, cryptex string, kind PatchKind) string {
	return s.path("patches", release, cryptex+"."+string(kind))
}

// OpenPatch opens a kept patch; fs.ErrNotExist if it isn't kept.
func (s *Store) OpenPatch(release, cryptex string, kind PatchKind) (*os.File, error) {
	if err := errors.Join(checkWord(release), checkCryptexName(cryptex)); err != nil {
		return nil, err
	}
	return os.Open(s.PatchPath(release, cryptex, kind))
}

// KeepPatch moves a finished download to its place among the patches.
func (s *Store) KeepPatch(release, cryptex string, kind PatchKind, d Digest) error {
	if err := errors.Join(checkWord(release), checkCryptexName(cryptex)); err != nil {
		return err
	}
	return s.keep(d, release, cryptex+"."+string(kind))
}

// KeepManifest keeps a release's manifest beside its patches, so that showing
// and reapplying it work offline.
func (s *Store) KeepManifest(release string, data []byte) error {
	if err := checkWord(release); err != nil {
		return err
	}
	if err := os.MkdirAll(s.path("patches", release), 0o755); err != nil {
		return err
	}
	return writeFile(s.path("patches", release, "manifest.json"), data, 0o644)
}

// Manifest reads a kept manifest; ErrEmpty if there is none.
func (s *Store) Manifest(release string) ([]byte, error) {
	if err := checkWord(release); err != nil {
		return nil, err
	}
	data, err := readFile(s.path("patches", release, "manifest.json"), maxDocument)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("manifest of %s: %w", release, ErrEmpty)
	}
	return data, err
}

// Patches lists the releases whose patches are kept.
func (s *Store) Patches() ([]string, error) { return names(s.path("patches")) }

// RemovePatches deletes a release's patches and manifest.
func (s *Store) RemovePatches(release string) error {
	if err := checkWord(release); err != nil {
		return err
	}
	return remove(s.path("patches", release))
}

func (s *Store) keep(d Digest, release, name string) error {
	dir := s.path("patches", release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(s.DownloadPath(d), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("cannot keep %s of %s: %w", name, release, err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(s.path("patches"))
}

// DownloadPath is where a download with this digest grows. It keeps its bytes
// over interruptions; only its digest says when it is whole.
func (s *Store) DownloadPath(d Digest) string { return s.path("downloads", d.String()) }

// OpenDownload opens a download for reading and appending, creating it.
func (s *Store) OpenDownload(d Digest) (*os.File, error) {
	f, err := os.OpenFile(s.DownloadPath(d), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open download: %w", err)
	}
	return f, nil
}

// RemoveDownload throws a download away.
func (s *Store) RemoveDownload(d Digest) error { return remove(s.DownloadPath(d)) }

// RemoveDownloads throws all of them away.
func (s *Store) RemoveDownloads() error {
	all, err := names(s.path("downloads"))
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := remove(s.path("downloads", n)); err != nil {
			return err
		}
	}
	return nil
}

// KeepImage makes a finished download one of the images. The caller has
// checked that it has the digest.
func (s *Store) KeepImage(d Digest) error {
	if err := os.Rename(s.DownloadPath(d), s.path("images", d.String())); err != nil {
		return fmt.Errorf("cannot keep image: %w", err)
	}
	return syncDir(s.path("images"))
}
