package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// BaseOptions say which baseline is to be installed by hand.
type BaseOptions struct {
	Document string   // file of the baseline's description, base.json
	Images   []string // files of its images; one that is not named is taken from the installed baseline
	Into     string   // root of the system that gets it, "" for this device's own
	Unlisted bool     // take it though this device's catalog does not list it
	DryRun   bool
}

// BaseInstalled is what came of it.
type BaseInstalled struct {
	Product   string         `json:"product"`
	OSVersion string         `json:"os_version"`
	Baseline  release.Digest `json:"baseline"`
	Into      string         `json:"into"`
	Was       string         `json:"was,omitempty"` // OS version of the baseline that it replaced
	Listed    bool           `json:"listed"`        // the signed catalog lists it
	Cryptexes int            `json:"cryptexes"`
	Bytes     int64          `json:"bytes"`   // of all images
	Changed   bool           `json:"changed"` // false: this baseline was installed and whole
	Restart   bool           `json:"restart"` // it takes force with the next restart of this device
}

// InstallBase puts a baseline that was brought by hand in the place of the one
// that the operating system delivered: description and images together, by one
// rename. Every byte of every image is verified against the description, and
// the description against the signed catalog.
//
// What runs is not touched. The next boot finds that what was staged or current
// belongs to another baseline, and uses the new one's images; the next check
// gets the new baseline's ticket, and throws away what was for the old one.
func (d *Device) InstallBase(ctx context.Context, o BaseOptions, report Report) (BaseInstalled, error) {
	res := BaseInstalled{Into: o.Into}
	target := d.Store
	if o.Into != "" {
		target = store.Below(o.Into)
	}
	res.Into, res.Restart = target.Root(), target.Root() == d.Store.Root()
	document, err := store.ReadFile(o.Document, release.MaxBaseline)
	if err != nil {
		return res, fault.New(fault.Usage, "cannot read the baseline's description: %w", err)
	}
	b, err := release.ParseBaseline(document)
	if err != nil {
		return res, err
	}
	res.Product, res.OSVersion, res.Baseline, res.Cryptexes = b.Product, b.OSVersion, b.Digest(), len(b.Cryptexes)
	for _, c := range b.Cryptexes {
		res.Bytes += c.Size
	}
	was, err := activate.ReadBaseline(target)
	switch {
	case err == nil && was.Product != b.Product:
		return res, fault.New(fault.NotEligible, "cannot install the baseline: it is for %s, this system is %s", b.Product, was.Product)
	case err == nil:
		res.Was = was.OSVersion
	case !errors.Is(err, os.ErrNotExist):
		report.warn("baseline", "the installed baseline can't be read and is replaced: %v", err)
	}
	if res.Listed, err = d.vouched(ctx, b, o.Unlisted, report); err != nil {
		return res, err
	}
	files, err := d.baseImages(ctx, b, o.Images, target, report)
	defer closeFiles(files)
	if err != nil {
		return res, err
	}
	res.Changed = was.Digest() != b.Digest() || len(o.Images) > 0
	if o.DryRun || !res.Changed {
		return res, nil
	}
	if d.Store.Exists() {
		lock, err := d.Store.Lock()
		if err != nil {
			return res, err
		}
		defer lock.Unlock()
	}
	return res, placeBase(ctx, target, b, document, files, report)
}

// vouched asks the signed catalog, as fresh as it can be had, for the baseline.
func (d *Device) vouched(ctx context.Context, b release.Baseline, unlisted bool, report Report) (bool, error) {
	refuse := func(err error) (bool, error) {
		if unlisted {
			report.warn("catalog", "the catalog does not vouch for this baseline; your word is taken for it")
			return false, nil
		}
		return false, fault.New(fault.Refused, "cannot install the baseline: %w", err).
			Hint("if you know where it is from: --unlisted")
	}
	c, err := d.refreshed(ctx)
	if err != nil {
		old, oldErr := d.catalog()
		if oldErr != nil {
			return refuse(fmt.Errorf("the catalog can't say whether it is the vendor's: %w", err))
		}
		c = old // what was verified before is enough to know an old baseline
	}
	known, err := c.Baseline(ctx, b.Digest())
	if err != nil {
		return refuse(fmt.Errorf("the vendor's catalog does not list %s %s with these images: %w", b.Product, b.OSVersion, err))
	}
	if known.Product != b.Product {
		return refuse(fmt.Errorf("the catalog lists it for %s", known.Product))
	}
	report.done("catalog", "v%d lists this baseline", c.Version())
	return true, nil
}

// baseImages opens the files of a baseline's images, in its order, and verifies
// each whole.
func (d *Device) baseImages(ctx context.Context, b release.Baseline, paths []string, target *store.Store, report Report) ([]*os.File, error) {
	given := map[string]string{}
	for _, path := range paths {
		name, err := nameOf(path)
		if err != nil {
			return nil, err
		}
		if _, ok := b.Cryptex(name); !ok {
			return nil, fault.New(fault.Usage, "cannot use %s: the baseline has no cryptex %s", path, name)
		}
		if before, twice := given[name]; twice {
			return nil, fault.New(fault.Usage, "cannot use %s: %s is an image of %s too", path, before, name)
		}
		given[name] = path
	}
	var files []*os.File
	for _, c := range b.Cryptexes {
		path, ok := given[c.Name]
		if !ok {
			path = target.BaseImagePath(c.Name)
		}
		f, err := os.Open(path)
		if err != nil {
			if !ok {
				return files, fault.New(fault.Usage, "cannot install the baseline: no image of %s is given or installed", c.Name)
			}
			return files, fault.New(fault.Usage, "cannot open the image of %s: %w", c.Name, err)
		}
		files = append(files, f)
		if err := isImage(ctx, f, c, report.progress("verify "+c.Name)); err != nil {
			return files, fault.New(fault.Seal, "cannot use %s as %s: %w", path, c.Name, err)
		}
		report.done("verify "+c.Name, "%s, all bytes read", filepath.Base(path))
	}
	return files, nil
}

// nameOf reads which cryptex a file is, from its footer.
func nameOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.Usage, "cannot open an image: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	c, err := image.Open(f, fi.Size())
	if err != nil {
		return "", fault.New(fault.Seal, "cannot use %s: %w", path, err)
	}
	return c.Name, nil
}

// isImage verifies that a file is the image that a baseline describes: all of
// its bytes, its seal and its trust cache.
func isImage(ctx context.Context, f *os.File, want release.Image, progress func(done, total int64)) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	c, err := image.Open(f, fi.Size())
	if err != nil {
		return err
	}
	digest, err := c.VerifyDigest(ctx, progress)
	if err != nil {
		return err
	}
	is := release.Image{
		Name: c.Name, Subtype: release.Subtype(c.Subtype), Digest: release.Digest(digest), Size: c.Size, TrustCache: release.Digest(c.TrustCacheDigest),
		Seal: release.Seal{Root: c.Seal.Root, Salt: c.Seal.Salt, DataBlocks: int64(c.Seal.DataBlocks), Digest: c.Seal.Digest()},
	}
	if is != want {
		return fmt.Errorf("it is %s %s, the baseline names %s %s", is.Name, is.Digest, want.Name, want.Digest)
	}
	return nil
}

// placeBase copies what was verified, verifies the copies, and switches.
func placeBase(ctx context.Context, target *store.Store, b release.Baseline, document []byte, files []*os.File, report Report) (err error) {
	place, err := target.NewBaseline(store.Digest(b.Digest()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	need := int64(scratchRoom)
	for _, c := range b.Cryptexes {
		need += c.Size
	}
	if free, where, err := place.Free(); err != nil {
		return err
	} else if free < need {
		return fault.New(fault.Failed, "cannot install the baseline: the file system of %s has %d bytes free, %d are needed", where, free, need)
	}
	for i, c := range b.Cryptexes {
		if err := copyImage(ctx, place, c, files[i], report); err != nil {
			return err
		}
	}
	if err := place.Commit(document); err != nil {
		return err
	}
	report.done("installed", "%s %s", b.Product, release.DisplayVersion(b.OSVersion))
	return nil
}

// scratchRoom is what must stay free on the operating system's file system, in bytes.
const scratchRoom = 1 << 20

func copyImage(ctx context.Context, place *store.NewBaseline, c release.Image, from *os.File, report Report) error {
	to, err := place.Image(c.Name)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(to.File, io.LimitReader(from, c.Size)); err != nil {
		return fmt.Errorf("cannot copy the image of %s: %w", c.Name, err)
	}
	if err := isImage(ctx, to.File, c, report.progress("copy "+c.Name)); err != nil {
		return fault.New(fault.Seal, "cannot use the copy of %s: %w", c.Name, err)
	}
	return to.Commit()
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
