// Package compare says what really changed between two files or two trees: of
// programs, the functions whose code does something else, not those that only
// moved; of archives, what they hold; of texts, the lines.
package compare

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/pattern"
)

// Change is what happened to a file.
type Change string

// The changes. A file that did not change is not told about.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	Renamed Change = "renamed" // and nothing else
	Mode    Change = "mode"    // mode, kind or link target only
)

// File is one file that changed.
type File struct {
	Path    string `json:"path"`
	OldPath string `json:"old_path,omitempty"` // if another
	Change  Change `json:"change"`
	OldSize int64  `json:"old_size"` // bytes
	NewSize int64  `json:"new_size"`
	OldMode string `json:"old_mode,omitempty"`
	NewMode string `json:"new_mode,omitempty"`

	// Of programs and libraries:
	OldBuild string    `json:"old_build_id,omitempty"`
	NewBuild string    `json:"new_build_id,omitempty"`
	Sections []Section `json:"sections,omitempty"` // that changed

	FunctionsChanged []string `json:"functions_changed,omitempty"`
	FunctionsSame    int      `json:"functions_same,omitempty"`
	SymbolsAdded     []string `json:"symbols_added,omitempty"`
	SymbolsRemoved   []string `json:"symbols_removed,omitempty"`
	StringsAdded     []string `json:"strings_added,omitempty"`
	StringsRemoved   []string `json:"strings_removed,omitempty"`

	// Of texts, compressed ones too:
	LinesAdded   []string `json:"lines_added,omitempty"` // sorted; one that only moved is none
	LinesRemoved []string `json:"lines_removed,omitempty"`

	// Of archives:
	Members  []File `json:"members,omitempty"`  // that changed
	Repacked bool   `json:"repacked,omitempty"` // what is in it is the same
}

// Section is a section of an ELF file.
type Section struct {
	Name    string `json:"name"`
	OldSize int64  `json:"old_size"` // bytes
	NewSize int64  `json:"new_size"`
}

// maxFile is the largest file that is compared, in bytes.
const maxFile = 1<<31 - 2

// Trees compares two trees. done is told each path that was looked at.
func Trees(old, data fs.FS, done func(path string)) ([]File, error) { return trees(old, data, done, 0) }

// trees compares two trees, which lie so deep in archives.
func trees(old, data fs.FS, done func(path string), depth int) ([]File, error) {
	was, err := list(old)
	if err != nil {
		return nil, err
	}
	is, err := list(data)
	if err != nil {
		return nil, err
	}
	var out []File
	names := renamed(was, is)
	for path, a := range was {
		to := cmp.Or(names[path], path)
		b, ok := is[to]
		if !ok {
			out = append(out, File{Path: path, Change: Removed, OldSize: a.size, OldMode: a.mode.String()})
			continue
		}
		delete(is, to)
		f := File{Change: Mode, OldSize: a.size, NewSize: b.size}
		if a.mode.IsRegular() && b.mode.IsRegular() {
			x, err := read(old, path, a.size)
			if err != nil {
				return nil, err
			}
			y, err := read(data, to, b.size)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(x, y) {
				if f, err = compare(x, y, depth); err != nil {
					return nil, err
				}
			}
		}
		f.Path = to
		if to != path {
			f.OldPath = path
		}
		if a.mode != b.mode {
			f.OldMode, f.NewMode = a.mode.String(), b.mode.String()
		}
		done(path)
		switch {
		case f.Change != Mode || a.mode != b.mode || a.link != b.link:
			out = append(out, f)
		case to != path:
			f.Change = Renamed
			out = append(out, f)
		}
	}
	for path, b := range is {
		out = append(out, File{Path: path, Change: Added, NewSize: b.size, NewMode: b.mode.String()})
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

// renamed pairs files that went with those that came in their place: whose paths
// differ by numbers only, as those of versions do.
func renamed(was, is map[string]entry) map[string]string {
	went, came := unnumbered(was, is), unnumbered(is, was)
	names := map[string]string{}
	for key, from := range went {
		if to := came[key]; len(from) == 1 && len(to) == 1 {
			names[from[0]] = to[0]
		}
	}
	return names
}

var number = pattern.Lazy(`[0-9]+`)

// unnumbered are the paths that only one of two trees has, by what they are
// without their numbers.
func unnumbered(tree, other map[string]entry) map[string][]string {
	out := map[string][]string{}
	for path := range tree {
		if _, both := other[path]; !both {
			key := number().ReplaceAllString(path, "0")
			out[key] = append(out[key], path)
		}
	}
	return out
}

// entry is a file of a tree.
type entry struct {
	mode fs.FileMode
	size int64
	link string
}

// list lists all of a tree but its folders.
func list(tree fs.FS) (map[string]entry, error) {
	out := map[string]entry{}
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: st.Mode(), size: st.Size()}
		if e.mode&fs.ModeSymlink != 0 {
			if e.link, err = fs.ReadLink(tree, path); err != nil {
				return err
			}
		}
		out[path] = e
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot compare the trees: %w", err)
	}
	return out, nil
}

func read(tree fs.FS, path string, size int64) ([]byte, error) {
	if size > maxFile {
		return nil, fmt.Errorf("cannot compare %s: it has %d bytes", path, size)
	}
	f, err := tree.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, size+1))
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("it has not the %d bytes that it says", size)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", path, err)
	}
	return b, nil
}

// Data compares two files that differ.
func Data(old, data []byte) (File, error) { return compare(old, data, 0) }

func compare(old, data []byte, depth int) (File, error) {
	f := File{Change: Changed, OldSize: int64(len(old)), NewSize: int64(len(data))}
	was, err := match.Read(old)
	if err != nil {
		return f, err
	}
	is, err := match.Read(data)
	if err != nil {
		return f, err
	}
	if len(was.Elements) == 0 || len(is.Elements) == 0 || was.Elements[0].Base != 0 || is.Elements[0].Base != 0 {
		if known, err := f.archives(old, data, depth); known || err != nil {
			return f, err
		}
		f.text(old, data)
		return f, nil
	}
	oldView, newView := match.Views(was, is)
	a, b := program{was, was.Elements[0], oldView}, program{is, is.Elements[0], newView}
	f.OldBuild, f.NewBuild = a.build(), b.build()
	f.sections(a, b)
	f.symbols(a, b)
	f.StringsAdded, f.StringsRemoved = difference(a.strings(), b.strings())
	return f, nil
}

// program is an ELF file with a view in which moved code looks the same.
type program struct {
	file *match.File
	*elfref.Element
	view []byte
}

// build is the build-id in hex.
func (p program) build() string {
	off, size := p.Named(".note.gnu.build-id")
	if size < 20 || size > 64 || off+size > int64(len(p.file.Data)) {
		return ""
	}
	return hex.EncodeToString(p.file.Data[off+16 : off+size])
}

// sections tells which sections changed beyond their addresses.
func (f *File) sections(a, b program) {
	names := slices.Concat(a.Names, b.Names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if name == "" {
			continue
		}
		ao, as := a.Named(name)
		bo, bs := b.Named(name)
		if as == bs && ao+as <= int64(len(a.view)) && bo+bs <= int64(len(b.view)) && bytes.Equal(a.view[ao:ao+as], b.view[bo:bo+bs]) {
			continue
		}
		f.Sections = append(f.Sections, Section{name, as, bs})
	}
}

// symbols tells which functions changed, and which symbols came and went.
func (f *File) symbols(a, b program) {
	old, data := a.functions(), b.functions()
	var before, after []string
	for name := range old {
		before = append(before, name)
	}
	for name := range data {
		after = append(after, name)
	}
	f.SymbolsAdded, f.SymbolsRemoved = difference(before, after)
	for name, x := range old {
		y, ok := data[name]
		switch {
		case !ok || x == nil || y == nil:
		case bytes.Equal(x, y):
			f.FunctionsSame++
		default:
			f.FunctionsChanged = append(f.FunctionsChanged, name)
		}
	}
	slices.Sort(f.FunctionsChanged)
}

// functions are the symbols that a program defines, with the code of those that
// are functions.
func (p program) functions() map[string][]byte {
	out := map[string][]byte{}
	for _, s := range p.Symbols(p.file.Tables.Of(p.Element)) {
		if s.Role != elfref.Defined {
			continue
		}
		if _, twice := out[s.Name]; twice {
			continue
		}
		out[s.Name] = nil
		if s.Code && s.Size > 0 && s.Place >= 0 && s.Place+s.Size <= int64(len(p.view)) {
			out[s.Name] = p.view[s.Place : s.Place+s.Size]
		}
	}
	return out
}

// Strings of at least minString printable bytes count.
const minString = 6

// strings lists the strings among the read-only data.
func (p program) strings() []string {
	off, size := p.Named(".rodata")
	if off+size > int64(len(p.file.Data)) {
		return nil
	}
	var out []string
	for _, s := range bytes.Split(p.file.Data[off:off+size], []byte{0}) {
		if len(s) >= minString && printable(s) {
			out = append(out, string(s))
		}
	}
	return out
}

func printable(s []byte) bool {
	for _, c := range s {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// difference is what is only in b, and what is only in a, sorted.
func difference(a, b []string) (added, removed []string) {
	in := func(list []string) map[string]bool {
		m := map[string]bool{}
		for _, s := range list {
			m[s] = true
		}
		return m
	}
	x, y := in(a), in(b)
	for s := range y {
		if !x[s] {
			added = append(added, s)
		}
	}
	for s := range x {
		if !y[s] {
			removed = append(removed, s)
		}
	}
	slices.Sort(added)
	slices.Sort(removed)
	return added, removed
}
