package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/store"
)

// maxApps is how many apps are remembered. A new one beyond it displaces the one
// that was used longest ago.
const maxApps = 100

// Store keeps observations in a folder: one small file for each app, replaced as
// a whole, so that a power cut leaves the old file or the new one. A file that
// does not read is put aside and told; it costs that one app its counts and
// nothing else.
type Store struct {
	dir string
}

// Names in the folder.
const (
	appsDir   = "apps"
	promptsAt = "prompts.json"
	aside     = "broken" // the last file that did not read
	temporary = ".tmp-"  // prefix of a file that an interrupted write left
)

// Open opens the store in dir, making the folder if needed. Only one process may
// write at a time (the agent, or root's command where no agent runs); anybody who
// may read the files can read.
func Open(dir string) (*Store, error) {
	s := &Store{dir}
	if err := os.MkdirAll(s.path(appsDir), 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the evidence: %w", err)
	}
	return s, nil
}

func (s *Store) path(name ...string) string {
	return filepath.Join(append([]string{s.dir}, name...)...)
}

// appFile is the file of an app: ids are free text and may not be file names.
func (s *Store) appFile(app string) string {
	sum := sha256.Sum256([]byte(app))
	return s.path(appsDir, hex.EncodeToString(sum[:16])+".json")
}

// load reads every app's document. Problems are told and cost the one file.
func (s *Store) load() (map[string]*document, []error) {
	apps := make(map[string]*document)
	entries, err := os.ReadDir(s.path(appsDir))
	if err != nil {
		return apps, []error{fmt.Errorf("cannot read the evidence: %w", err)}
	}
	var problems []error
	for _, e := range entries {
		path := s.path(appsDir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), temporary):
			os.Remove(path) // what an interrupted write left
			continue
		case !strings.HasSuffix(e.Name(), ".json"):
			continue
		}
		d, err := s.read(path)
		if err == nil && s.appFile(d.App) != path {
			err = fmt.Errorf("it is about %q and lies in the wrong file", d.App)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("cannot read %s, put aside as %s: %w", path, s.path(aside), err))
			os.Rename(path, s.path(aside))
			continue
		}
		apps[d.App] = d
	}
	return apps, problems
}

func (s *Store) read(path string) (*document, error) {
	data, err := store.ReadFile(path, maxDocument)
	if err != nil {
		return nil, err
	}
	return parseDocument(data)
}

// save writes one app's document, durably.
func (s *Store) save(d *document) error {
	data, err := d.encode()
	for err == nil && len(data) > maxDocument && d.dropOldest() {
		data, err = d.encode()
	}
	if err == nil {
		err = store.WriteFile(s.appFile(d.App), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the evidence of %s: %w", d.App, err)
	}
	return nil
}

func (s *Store) forget(app string) error {
	if err := os.Remove(s.appFile(app)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget the evidence of %s: %w", app, err)
	}
	return nil
}
