package publish

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/release"
)

// Comparison says how one image of a cryptex differs from another.
type Comparison struct {
	Files    []release.FileChange `json:"files"`    // every file that differs, by path
	Exports  Exports              `json:"exports"`  // of all changed ELF files together
	Findings []Finding            `json:"findings"` // what a security fix should not do
}

// Exports counts symbols that changed ELF files offer to others.
type Exports struct {
	Same    int `json:"same"`
	Added   int `json:"added"`
	Removed int `json:"removed"`
}

// Count is how many files changed in a way: release.Added, Removed, Content, Mode.
func (c *Comparison) Count(change string) int {
	n := 0
	for _, f := range c.Files {
		if f.Change == change {
			n++
		}
	}
	return n
}

// Finding is something that a security fix should not do, because programs,
// fleets or people outside rely on it. A release with findings is refused until
// each of their codes is acknowledged.
type Finding struct {
	Code string `json:"code"`
	Path string `json:"path"`
	Text string `json:"text"`
}

// The codes of findings.
const (
	FileAdded      = "file-added"
	FileRemoved    = "file-removed"
	ModeChanged    = "mode-changed"    // mode, owner, attributes, or the file's type
	SymbolRemoved  = "symbol-removed"  // an exported symbol is gone
	VersionChanged = "version-changed" // a version that people or programs read is another
	LabelLeaked    = "label-leaked"    // the improvement's id or label stands in a file
)

// Codes lists every code that a finding can have.
func Codes() []string {
	return []string{FileAdded, FileRemoved, ModeChanged, SymbolRemoved, VersionChanged, LabelLeaked}
}

// entry is one file of an image.
type entry struct {
	*erofs.Inode
	xattrs []erofs.Xattr
	target string
}

// comparer compares two images.
type comparer struct {
	old, new  *erofs.Image
	forbidden []string // what no file may contain: id and label
	result    *Comparison
}

// Compare compares two images file by file. The forbidden texts, an
// improvement's id and name, are looked for in changed files.
func Compare(ctx context.Context, old, improved *image.Cryptex, forbidden ...string) (*Comparison, error) {
	c := &comparer{forbidden: forbidden, result: &Comparison{Files: []release.FileChange{}, Findings: []Finding{}}}
	var err error
	if c.old, err = old.Tree(); err != nil {
		return nil, fmt.Errorf("cannot compare: old image: %w", err)
	}
	if c.new, err = improved.Tree(); err != nil {
		return nil, fmt.Errorf("cannot compare: new image: %w", err)
	}
	before, err := list(c.old)
	if err != nil {
		return nil, fmt.Errorf("cannot compare: old image: %w", err)
	}
	after, err := list(c.new)
	if err != nil {
		return nil, fmt.Errorf("cannot compare: new image: %w", err)
	}
	var paths []string
	for p := range before {
		paths = append(paths, p)
	}
	for p := range after {
		if _, ok := before[p]; !ok {
			paths = append(paths, p)
		}
	}
	sort.Strings(paths)
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.compare(p, before[p], after[p]); err != nil {
			return nil, fmt.Errorf("cannot compare %s: %w", p, err)
		}
	}
	return c.result, nil
}

// list reads the whole tree of an image; Walk checks its structure.
func list(img *erofs.Image) (map[string]*entry, error) {
	all := map[string]*entry{}
	return all, img.Walk(func(path string, n *erofs.Inode) error {
		if path == "" {
			return nil
		}
		e := &entry{Inode: n}
		var err error
		if e.xattrs, err = img.Xattrs(n); err != nil {
			return err
		}
		if n.IsSymlink() {
			if e.target, err = img.Target(n); err != nil {
				return err
			}
		}
		all[path] = e
		return nil
	})
}

func (e *entry) content() int64 {
	if e.IsRegular() {
		return e.Size
	}
	return 0
}

func (c *comparer) find(code, path, format string, args ...any) {
	c.result.Findings = append(c.result.Findings, Finding{Code: code, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (c *comparer) compare(path string, old, improved *entry) error {
	change := release.FileChange{Path: path}
	switch {
	case old == nil:
		change.Change, change.After = release.Added, improved.content()
		c.find(FileAdded, path, "is not in the baseline: it is seen only inside the cryptex, as no folder of the system has a link to it")
		c.result.Files = append(c.result.Files, change)
		return c.inspect(&change, nil, improved)
	case improved == nil:
		change.Change, change.Before = release.Removed, old.content()
		c.find(FileRemoved, path, "is missing from the improvement")
		c.result.Files = append(c.result.Files, change)
		return nil
	}
	change.Before, change.After = old.content(), improved.content()
	attributes := c.attributes(path, old, improved)
	same, err := c.sameContent(old, improved)
	if err != nil {
		return err
	}
	switch {
	case same && !attributes:
		return nil
	case same:
		change.Change = release.Mode
	default:
		change.Change = release.Content
		if err := c.inspect(&change, old, improved); err != nil {
			return err
		}
	}
	c.result.Files = append(c.result.Files, change)
	return nil
}

// attributes finds differences beside the content; true if there are any.
func (c *comparer) attributes(path string, old, improved *entry) bool {
	found := len(c.result.Findings)
	if old.Mode&erofs.ModeType != improved.Mode&erofs.ModeType {
		c.find(ModeChanged, path, "was a %s, is a %s", kind(old), kind(improved))
	} else if old.Mode != improved.Mode {
		c.find(ModeChanged, path, "mode was %04o, is %04o", old.Mode&^erofs.ModeType, improved.Mode&^erofs.ModeType)
	}
	if old.UID != improved.UID || old.GID != improved.GID {
		c.find(ModeChanged, path, "owner was %d:%d, is %d:%d", old.UID, old.GID, improved.UID, improved.GID)
	}
	equal := slices.EqualFunc(old.xattrs, improved.xattrs, func(a, b erofs.Xattr) bool {
		return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
	})
	if !equal {
		c.find(ModeChanged, path, "extended attributes differ")
	}
	return len(c.result.Findings) > found
}

func kind(e *entry) string {
	switch {
	case e.IsDir():
		return "directory"
	case e.IsSymlink():
		return "symbolic link"
	}
	return "file"
}

func (c *comparer) sameContent(old, improved *entry) (bool, error) {
	switch {
	case old.IsSymlink() && improved.IsSymlink():
		return old.target == improved.target, nil
	case !old.IsRegular() || !improved.IsRegular():
		return old.Mode&erofs.ModeType == improved.Mode&erofs.ModeType, nil
	case old.Size != improved.Size:
		return false, nil
	}
	return sameBytes(c.old.Content(old.Inode), c.new.Content(improved.Inode))
}

// sameBytes compares two readers to their ends.
func sameBytes(a, b io.Reader) (bool, error) {
	const chunk = 1 << 18
	x, y := make([]byte, chunk), make([]byte, chunk)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			if ended(errA) && ended(errB) {
				return true, nil
			}
			if !ended(errA) && errA != nil {
				return false, errA
			}
			if !ended(errB) && errB != nil {
				return false, errB
			}
			return false, nil
		}
	}
}

func ended(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// inspect looks into the content of a new or changed file.
func (c *comparer) inspect(change *release.FileChange, old, improved *entry) error {
	if !improved.IsRegular() {
		return nil
	}
	after := c.new.Content(improved.Inode)
	var before *io.SectionReader
	if old != nil && old.IsRegular() {
		before = c.old.Content(old.Inode)
	}
	if err := c.versions(change.Path, before, after); err != nil {
		return err
	}
	if before == nil {
		return nil
	}
	a, isELF := readELF(before)
	b, stillELF := readELF(after)
	if !isELF || !stillELF {
		return nil
	}
	if a.buildID != "" || b.buildID != "" {
		change.Build = &release.Build{Before: a.buildID, After: b.buildID}
	}
	c.exports(change.Path, a.exports, b.exports)
	return nil
}

func (c *comparer) exports(path string, before, after map[string]bool) {
	var gone []string
	for name := range before {
		if after[name] {
			c.result.Exports.Same++
		} else {
			gone = append(gone, name)
		}
	}
	c.result.Exports.Added += len(after) - (len(before) - len(gone))
	c.result.Exports.Removed += len(gone)
	if len(gone) > 0 {
		sort.Strings(gone)
		shown := gone[:min(len(gone), 3)]
		c.find(SymbolRemoved, path, "%d exported symbols are gone: %s%s", len(gone), join(shown), more(len(gone)-len(shown)))
	}
}

func join(names []string) string {
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%.80s", n)
	}
	return out
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}
