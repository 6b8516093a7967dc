package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// Published tells how far a publication came.
type Published struct {
	Version int64 // of the targets metadata
	Shown   bool  // devices see it now; else after the server's next look
	State   catalog.State
}

// Publish puts a bundle with enough signatures into the catalog. If the online
// keys are in the folder devices see it at once.
func (v *Vendor) Publish(b *Bundle) (Published, error) {
	p, err := v.publish(b)
	if err != nil {
		return Published{}, fmt.Errorf("cannot publish %s: %w", b.Name, err)
	}
	return p, nil
}

func (v *Vendor) publish(b *Bundle) (Published, error) {
	repo, err := v.Repository()
	if err != nil {
		return Published{}, err
	}
	data, err := b.draft.Encode()
	if err != nil {
		return Published{}, err
	}
	if present, err := repo.Metadata(catalog.Targets); err == nil && bytes.Equal(present, data) {
		// It was published by a run that ended before it was done.
		return v.finish(repo, b)
	}
	draft, err := repo.ReadDraft(catalog.Targets, data)
	if err != nil {
		return Published{}, err
	}
	// Signatures first: without them nothing is copied.
	if s := draft.Signed(); !s.Enough() {
		return Published{}, fault.New(fault.Refused, "%d of %d signatures", s.Valid, s.Threshold).
			Hint("%d more of the %d owners must sign: sealpub sign %s", s.Threshold-s.Valid, s.Keys, v.BundlePath(b.Name))
	}
	added, _ := draft.Changed()
	for _, want := range added {
		if err := v.bring(repo, b.Name, want); err != nil {
			return Published{}, err
		}
	}
	if err := repo.Publish(draft); err != nil {
		return Published{}, err
	}
	return v.finish(repo, b)
}

// finish clears up after a publication and shows it to devices.
func (v *Vendor) finish(repo *catalog.Repository, b *Bundle) (Published, error) {
	p := Published{Version: b.draft.Version()}
	if err := os.RemoveAll(v.path(preparedName, b.Name)); err != nil {
		return p, err
	}
	return v.show(repo, p)
}

// show lets devices see what was published, if the online keys are at hand.
func (v *Vendor) show(repo *catalog.Repository, p Published) (Published, error) {
	online, err := v.online()
	if err != nil || len(online) == 0 {
		return p, err
	}
	p.State, err = repo.Refresh(online, v.now())
	p.Shown = err == nil
	if fault.KindOf(err) == fault.Refused {
		return p, nil // other online keys are in force: those of the server
	}
	return p, err
}

// bring copies one prepared file into the catalog, if it is what was signed.
func (v *Vendor) bring(repo *catalog.Repository, bundle string, want catalog.Target) error {
	f, err := os.Open(v.path(preparedName, bundle, "targets", filepath.FromSlash(want.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, "%s is missing in %s", want.Path, v.path(preparedName, bundle)).Hint("publish where it was prepared, or prepare it again")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := repo.Store(want.Path, f)
	if err != nil {
		return err
	}
	if got.SHA256 != want.SHA256 || got.Length != want.Length {
		return fault.New(fault.Seal, "%s is not the file that was signed", want.Path).Hint("prepare it again")
	}
	return nil
}

// BundlePath is where Prepare leaves a bundle.
func (v *Vendor) BundlePath(name string) string { return v.path(preparedName, name, bundleName) }

// Withdraw gives up a prepared release.
func (v *Vendor) Withdraw(name string) error {
	if release.CheckID(name) != nil && catalog.CheckCeremonyName(name) != nil && !strings.HasPrefix(name, baselinePrefix) {
		return fault.New(fault.Usage, "cannot withdraw %q: it is not the name of anything prepared", name)
	}
	dir := v.path(preparedName, filepath.Base(name))
	if _, err := os.Stat(dir); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot withdraw %s: %w", name, err)
		}
		return nil
	}
	if release.CheckID(name) != nil {
		return fault.New(fault.Usage, "cannot withdraw %s: it is not prepared here", name)
	}
	repo, err := v.Repository()
	if err != nil {
		return err
	}
	if _, err := repo.Target(release.ManifestPath(name)); err == nil {
		return fault.New(fault.Refused, "cannot withdraw %s: it is published", name).Hint("take it back from devices: sealsrv recall %s", name)
	}
	return fault.New(fault.Usage, "cannot withdraw %s: there is no such release", name)
}
