// Package compare says what really changed between two files or two trees: of
// programs, the functions whose code does something else, not those that only
// moved.
package compare

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/match"
)

// Change is what happened to a file.
type Change string

// The changes. A file that did not change is not told about.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	Mode    Change = "mode" // mode, kind or link target only
)

// File is one file that changed.
type File struct {
	Path    string `json:"path"`
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
func Trees(old, data fs.FS, done func(path string)) ([]File, error) {
	was, err := list(old)
	if err != nil {
		return nil, err
	}
	is, err := list(data)
	if err != nil {
		return nil, err
	}
	var out []File
	for path, a := range was {
		b, ok := is[path]
		if !ok {
			out = append(out, File{Path: path, Change: Removed, OldSize: a.size, OldMode: a.mode.String()})
			continue
		}
		f := File{Path: path, Change: Mode, OldSize: a.size, NewSize: b.size}
		if a.mode != b.mode {
			f.OldMode, f.NewMode = a.mode.String(), b.mode.String()
		}
		if a.mode.IsRegular() && b.mode.IsRegular() {
			x, err := read(old, path, a.size)
			if err != nil {
				return nil, err
			}
			y, err := read(data, path, b.size)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(x, y) {
				if f, err = Data(x, y); err != nil {
					return nil, err
				}
				f.Path = path
				if a.mode != b.mode {
					f.OldMode, f.NewMode = a.mode.String(), b.mode.String()
				}
			}
		}
		done(path)
		if f.Change != Mode || a.mode != b.mode || a.link != b.link {
			out = append(out, f)
		}
	}
	for path, b := range is {
		if _, ok := was[path]; !ok {
			out = append(out, File{Path: path, Change: Added, NewSize: b.size, NewMode: b.mode.String()})
		}
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
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
	b, err := fs.ReadFile(tree, path)
	if err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", path, err)
	}
	return b, nil
}

// Data compares two files that differ.
func Data(old, data []byte) (File, error) {
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
