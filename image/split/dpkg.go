package split

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// maxList bounds a file of the package database, in bytes.
const maxList = 16 << 20

// documentation is what no program reads: it stays in the tree, since it is
// compressed, and a compressed file makes a patch large.
var documentation = []string{
	"usr/share/doc", "usr/share/doc-base", "usr/share/man", "usr/share/info",
	"usr/share/lintian", "usr/share/bug",
}

// packageFiles calls found for each path of an installed package that is to
// move. The path is resolved; it may not exist.
func (t tree) packageFiles(name string, found func(p string) error) error {
	lists, err := t.lists(name)
	if err != nil {
		return err
	}
	diverted, err := t.diversions()
	if err != nil {
		return err
	}
	for _, list := range lists {
		text, err := readList(list)
		if err != nil {
			return err
		}
		owner, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(list), ".list"), ":")
		for line := range strings.Lines(text) {
			file := strings.TrimSuffix(line, "\n")
			if to, ok := diverted[file]; ok && to.by != owner {
				file = to.file
			}
			p, err := t.resolve(file)
			if err != nil {
				return err
			}
			if !moves(p) {
				continue
			}
			if err := found(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// moves tells whether a path of a package moves into a cryptex.
func moves(p string) bool {
	for _, dir := range documentation {
		if within(p, dir) {
			return false
		}
	}
	return within(p, "usr") || within(p, "opt")
}

// within tells whether p is dir or lies below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") || dir == "." }

// lists finds the lists of a package's files: one, or one for each installed
// architecture.
func (t tree) lists(name string) ([]string, error) {
	dir := t.disk("var/lib/dpkg/info")
	if _, err := os.Stat(dir); err != nil {
		return nil, fault.New(fault.Failed, "cannot split out package %s: the tree has no package database: %w", name, err)
	}
	lists, _ := filepath.Glob(filepath.Join(dir, name+":*.list")) // a name has no wildcards
	if _, err := os.Stat(filepath.Join(dir, name+".list")); err == nil {
		lists = append(lists, filepath.Join(dir, name+".list"))
	}
	// NAME:ARCH of a package that is not multi-arch stands under its name.
	if bare, arch, ok := strings.Cut(name, ":"); ok && len(lists) == 0 {
		if a, err := t.architecture(bare); err == nil && (a == arch || a == "all") {
			return t.lists(bare)
		}
	}
	if len(lists) == 0 {
		return nil, fault.New(fault.Failed, "cannot split out package %s: it is not installed in the tree", name)
	}
	return lists, nil
}

// architecture looks a package's architecture up in the status file.
func (t tree) architecture(name string) (string, error) {
	b, err := os.ReadFile(t.disk("var/lib/dpkg/status"))
	if err != nil {
		return "", err
	}
	for record := range strings.SplitSeq(string(b), "\n\n") {
		if !strings.Contains("\n"+record, "\nPackage: "+name+"\n") {
			continue
		}
		for line := range strings.SplitSeq(record, "\n") {
			if arch, ok := strings.CutPrefix(line, "Architecture: "); ok {
				return arch, nil
			}
		}
	}
	return "", fs.ErrNotExist
}

// diversion is where dpkg-divert has put a file, for all packages but one.
type diversion struct{ file, by string }

func (t tree) diversions() (map[string]diversion, error) {
	text, err := readList(t.disk("var/lib/dpkg/diversions"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	diverted := map[string]diversion{}
	for ; len(lines) >= 3; lines = lines[3:] {
		diverted[path.Clean(lines[0])] = diversion{lines[1], lines[2]}
	}
	return diverted, nil
}

func readList(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("cannot read the package database: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err == nil && len(b) > maxList {
		err = fmt.Errorf("%s exceeds %d MiB", file, maxList>>20)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the package database: %w", err)
	}
	return string(b), nil
}
