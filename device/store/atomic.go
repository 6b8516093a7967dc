package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// temporary is the prefix of files that nobody may rely on: an interrupted
// write leaves one, Tidy removes it.
const temporary = ".tmp-"

// Pending is a file that is being written. It appears under its name only by
// Commit; Close without Commit leaves nothing.
type Pending struct {
	*os.File
	final string
	done  bool
}

func newPending(final string, mode fs.FileMode) (*Pending, error) {
	f, err := os.OpenFile(temporaryName(filepath.Dir(final)), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, final: final}, nil
}

func temporaryName(dir string) string {
	var b [8]byte
	rand.Read(b[:])
	return filepath.Join(dir, temporary+hex.EncodeToString(b[:]))
}

// Commit makes the bytes durable and gives the file its name, replacing an
// older file of that name. The file is closed.
func (p *Pending) Commit() error {
	if p.done || p.final == "" {
		return errors.New("cannot commit: the file has no name to get, or was committed")
	}
	err := p.Sync()
	if cerr := p.File.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(p.Name(), p.final)
	}
	if err != nil {
		os.Remove(p.Name())
		p.done = true
		return fmt.Errorf("cannot write %s: %w", p.final, err)
	}
	p.done = true
	return syncDir(filepath.Dir(p.final))
}

// Close removes the file unless it was committed.
func (p *Pending) Close() error {
	if p.done {
		return nil
	}
	p.done = true
	err := p.File.Close()
	if p.final == "" {
		return err
	}
	if rerr := os.Remove(p.Name()); err == nil {
		err = rerr
	}
	return err
}

// WriteFile replaces a small file of an organ's own folder (EvidenceDir,
// AnalyticsDir), durably, and reads it back.
func WriteFile(path string, data []byte, mode fs.FileMode) error { return writeFile(path, data, mode) }

// ReadFile reads a whole file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) { return readFile(path, limit) }

// writeFile replaces a small file and reads it back: a disk that lies about a
// write must not go unnoticed in state that decides the next boot.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	p, err := newPending(path, mode)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer p.Close()
	if _, err := p.Write(data); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := p.Commit(); err != nil {
		return err
	}
	back, err := readFile(path, int64(len(data)))
	if err != nil || !bytes.Equal(back, data) {
		return fmt.Errorf("cannot write %s: other bytes were read back (%w)", path, err)
	}
	return nil
}

// readFile reads a whole file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, nil
}

// link points a symbolic link at target, replacing the old one in one step.
func link(path, target string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	tmp := temporaryName(filepath.Dir(path))
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if back, err := os.Readlink(path); err != nil || back != target {
		return fmt.Errorf("%s: %q was read back (%w)", path, back, err)
	}
	return nil
}

// remove deletes a file or folder durably; one that is not there is no error.
func remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	return nil
}

// Tidy removes what interrupted writes left. The caller holds Lock.
func (s *Store) Tidy() error {
	for _, dir := range []string{"", "images", "sets", "journal", "identity", "downloads"} {
		if err := tidy(s.path(dir)); err != nil {
			return err
		}
	}
	releases, err := os.ReadDir(s.path("patches"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, r := range releases {
		if err := tidy(s.path("patches", r.Name())); err != nil {
			return err
		}
	}
	return nil
}

func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Scratch is a temporary file that never gets a name: among the images if size
// bytes are free there, else in memory below /run, else an error that is
// ErrNoRoom.
func (s *Store) Scratch(size int64) (*Pending, error) {
	for _, dir := range []string{s.path("images"), s.RunDir()} {
		if free, err := freeAt(dir); err != nil || free < size {
			continue
		}
		f, err := os.OpenFile(temporaryName(dir), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot make a scratch file: %w", err)
		}
		// Without a name nothing of it outlives this process.
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot make a scratch file: %w", err)
		}
		return &Pending{File: f}, nil
	}
	return nil, fmt.Errorf("cannot make a scratch file of %d bytes: %w", size, ErrNoRoom)
}

// ErrNoRoom says that no file system has the room that is asked for.
var ErrNoRoom = errors.New("no room")
