package split

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// tree is an operating system tree. Paths in it are relative and clean, "."
// is its root. No symbolic link leads out of it: an absolute target starts at
// its root, as it would on the device.
type tree struct{ root string }

func (t tree) disk(p string) string { return filepath.Join(t.root, p) }

func (t tree) lstat(p string) (fs.FileInfo, error) { return os.Lstat(t.disk(p)) }

// maxLinks bounds how many symbolic links one path may lead through, as the
// kernel does.
const maxLinks = 40

// resolve follows the symbolic links of all directories that a path leads
// through, but not of its last component. What does not exist is kept as it
// is written.
func (t tree) resolve(p string) (string, error) {
	at, links := ".", 0
	rest := strings.Split(strings.Trim(p, "/"), "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at) // of "." it is "."
			continue
		}
		next := path.Join(at, part)
		if len(rest) == 0 {
			return next, nil
		}
		info, err := t.lstat(next)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cannot read the tree: %w", err)
		}
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("cannot read the tree: /%s leads through too many symbolic links", p)
		}
		target, err := os.Readlink(t.disk(next))
		if err != nil {
			return "", fmt.Errorf("cannot read the tree: %w", err)
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// directory follows a path to the directory it means, or returns false.
func (t tree) directory(p string) (string, bool, error) {
	p, err := t.resolve(p + "/.")
	if err != nil {
		return "", false, err
	}
	info, err := t.lstat(p)
	return p, err == nil && info.IsDir(), nil
}

// glob calls found for everything that matches the components of a pattern
// below a directory.
func (t tree) glob(dir string, parts []string, found func(p string) error) error {
	if len(parts) == 0 {
		return found(dir)
	}
	part, last := parts[0], len(parts) == 1
	if !strings.ContainsAny(part, `*?[\`) {
		p := path.Join(dir, part)
		if _, err := t.lstat(p); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cannot read the tree: %w", err)
		}
		if last {
			return found(p)
		}
		p, ok, err := t.directory(p)
		if err != nil || !ok {
			return err
		}
		return t.glob(p, parts[1:], found)
	}
	if part == "**" && !last {
		if err := t.glob(dir, parts[1:], found); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(t.disk(dir))
	if err != nil {
		return fmt.Errorf("cannot read the tree: %w", err)
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		match, _ := path.Match(part, e.Name()) // checked when the rule was read
		switch {
		case part == "**" && e.IsDir():
			err = t.glob(p, parts, found)
		case part == "**" && last, match && last:
			err = found(p)
		case match && e.IsDir():
			err = t.glob(p, parts[1:], found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
