package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/advisory"
)

// Folders of the public pages.
const (
	advisoriesName = "advisories" // words about improvements, one document each
	securityName   = "security"   // the pages, as a server shows them
)

// AdvisoryPath is where the words about an improvement stand.
func (v *Vendor) AdvisoryPath(id string) string {
	return v.path(advisoriesName, filepath.Base(id)+".json")
}

// SecurityPath is where the public pages stand.
func (v *Vendor) SecurityPath() string { return v.path(securityName) }

// NewAdvisory begins the words about a published improvement with the words of
// its manifest. It does not replace words that stand already.
func (v *Vendor) NewAdvisory(id string) (string, error) {
	if err := release.CheckID(id); err != nil {
		return "", fault.New(fault.Usage, "%w", err)
	}
	repo, err := v.Repository()
	if err != nil {
		return "", err
	}
	m, err := repo.Manifest(id)
	if err != nil {
		return "", fault.New(fault.Usage, "cannot begin an advisory: %w", err)
	}
	name := v.AdvisoryPath(id)
	if _, err := os.Stat(name); err == nil {
		return "", fault.New(fault.Usage, "cannot begin an advisory: %s is there already", name).Hint("edit it, then: sealpub advisory render")
	}
	data, err := advisory.Draft(m).Encode()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", fmt.Errorf("cannot begin an advisory: %w", err)
	}
	if err := writeFile(name, data, 0o644); err != nil {
		return "", fmt.Errorf("cannot begin an advisory: %w", err)
	}
	return name, nil
}

// Bulletin gathers all published improvements, recalls and words.
func (v *Vendor) Bulletin() (*advisory.Bulletin, error) {
	repo, err := v.Repository()
	if err != nil {
		return nil, err
	}
	manifests, err := repo.Manifests()
	if err != nil {
		return nil, err
	}
	recalls, err := repo.RecallList(v.Product)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(v.path(advisoriesName, "*.json"))
	if err != nil {
		return nil, err
	}
	var words []advisory.Words
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read an advisory: %w", err)
		}
		w, err := advisory.ParseWords(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if filepath.Base(name) != w.ID+".json" {
			return nil, fmt.Errorf("%s speaks of %s", name, w.ID)
		}
		words = append(words, w)
	}
	return advisory.New(v.Publisher, v.Product, manifests, recalls, words, v.now())
}

// Render writes the public pages into a folder and returns their paths in it.
// A file that has not changed keeps its time.
func (v *Vendor) Render(b *advisory.Bulletin, dir string) ([]string, error) {
	files, err := b.Files()
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		old, err := os.ReadFile(path)
		if err == nil && string(old) == string(files[name]) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot write the pages: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("cannot write the pages: %w", err)
		}
		if err := writeFile(path, files[name], 0o644); err != nil {
			return nil, fmt.Errorf("cannot write the pages: %w", err)
		}
	}
	return names, nil
}
