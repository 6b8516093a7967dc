package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// baselinePrefix begins the names of bundles that publish a baseline.
const baselinePrefix = "baseline-"

// imageFile is an image that was read and verified.
type imageFile struct {
	*source
	release.Image
}

// PrepareBaseline prepares the publication of the images that an OS update
// installs. It writes base.json, which the OS image must contain, and from then
// on Prepare builds on this baseline. A baseline that the catalog has already
// gives a nil bundle: there is nothing to sign.
func (v *Vendor) PrepareBaseline(ctx context.Context, files []string, osVersion string, progress Progress) (release.Baseline, *Bundle, error) {
	if osVersion == "" {
		osVersion = v.OSVersion
	}
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	b, bundle, err := v.prepareBaseline(ctx, files, osVersion, progress)
	if err != nil {
		return release.Baseline{}, nil, fmt.Errorf("cannot prepare the baseline: %w", err)
	}
	return b, bundle, nil
}

func (v *Vendor) prepareBaseline(ctx context.Context, files []string, osVersion string, progress Progress) (release.Baseline, *Bundle, error) {
	b := release.Baseline{Schema: release.BaselineSchema, Product: v.Product, OSVersion: osVersion}
	repo, err := v.Repository()
	if err != nil {
		return b, nil, err
	}
	var images []imageFile
	defer func() {
		for _, i := range images {
			i.Close()
		}
	}()
	for _, name := range files {
		f, err := openSource(name)
		if err != nil {
			return b, nil, err
		}
		images = append(images, imageFile{source: f})
		_, img, err := Read(ctx, f, f.size, func(done, total int64) { progress("verify "+filepath.Base(name), done, total) })
		if err != nil {
			return b, nil, fmt.Errorf("%s: %w", name, err)
		}
		images[len(images)-1].Image = img
	}
	slices.SortFunc(images, func(a, b imageFile) int { return strings.Compare(a.Image.Name, b.Image.Name) })
	for _, i := range images {
		b.Cryptexes = append(b.Cryptexes, i.Image)
	}
	data, err := b.Encode()
	if err != nil {
		return b, nil, fault.New(fault.Usage, "%w", err)
	}
	var bundle *Bundle
	switch _, err := repo.Baseline(b.Digest()); {
	case errors.Is(err, catalog.ErrNoTarget):
		if bundle, err = v.bundleBaseline(repo, b, data, images); err != nil {
			return b, nil, err
		}
	case err != nil:
		return b, nil, err
	}
	return b, bundle, v.build(data, osVersion)
}

// bundleBaseline keeps the document and every image as a whole: they are what
// a device falls back to.
func (v *Vendor) bundleBaseline(repo *catalog.Repository, b release.Baseline, data []byte, images []imageFile) (*Bundle, error) {
	digest := b.Digest()
	name := fmt.Sprintf("%s%.12s", baselinePrefix, digest)
	dir := v.path(preparedName, name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	t, err := keep(dir, release.BaselinePath(digest), bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	targets := []catalog.Target{t}
	for _, i := range images {
		t, err := keep(dir, release.ImagePath(i.Digest), i.reader())
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	bundle, err := v.newBundle(repo, name, targets)
	if err != nil {
		return nil, err
	}
	return bundle, bundle.Write(filepath.Join(dir, bundleName))
}

// build makes a baseline the one that the next OS image contains.
func (v *Vendor) build(data []byte, osVersion string) error {
	if err := writeFile(v.path(baseName), data, 0o644); err != nil {
		return err
	}
	if osVersion == v.OSVersion {
		return nil
	}
	v.OSVersion = osVersion
	return v.save()
}

// Baseline is the baseline that the next OS image contains, from base.json or
// from another file.
func (v *Vendor) Baseline(file string) (release.Baseline, error) {
	if file == "" {
		file = v.path(baseName)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return release.Baseline{}, fault.New(fault.Usage, "there is no baseline yet: %s is missing", file).Hint("publish one: sealpub release baseline --dir %s IMAGE…", v.Dir)
	}
	if err != nil {
		return release.Baseline{}, fmt.Errorf("cannot read the baseline: %w", err)
	}
	return release.ParseBaseline(data)
}
