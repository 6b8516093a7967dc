package split

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/fault"
)

// Plan is what a split will do. Making one changes nothing.
type Plan struct {
	Cryptexes []Part // sorted by name

	tree   tree
	owners map[string]string // claimed path → cryptex
}

// Part is what one cryptex gets.
type Part struct {
	Name  string
	Moves []string // paths that a link replaces, sorted; relative to the tree
	Files int      // regular files among and below them
	Bytes int64    // their content

	root *erofs.Node
}

// New plans a split of the tree below root. It refuses rules that match
// nothing, paths that two cryptexes claim, and what an image can't hold.
func New(root string, rules []Rule) (*Plan, error) {
	if len(rules) == 0 {
		return nil, fault.New(fault.Usage, "cannot split the tree: no cryptex is named")
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("cannot split the tree: %w", err)
	}
	if info, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("cannot split the tree: %w", err)
	} else if !info.IsDir() {
		return nil, fault.New(fault.Failed, "cannot split the tree: %s is not a directory", root)
	}
	p := &Plan{tree: tree{abs}, owners: map[string]string{}}
	if err := p.interrupted(); err != nil {
		return nil, err
	}
	for _, r := range rules {
		if err := r.check(); err != nil {
			return nil, err
		}
		if err := p.claimAll(r); err != nil {
			return nil, err
		}
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	if err := p.hardLinks(); err != nil {
		return nil, err
	}
	for i := range p.Cryptexes {
		if err := p.fill(&p.Cryptexes[i]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// claimAll claims what one rule names.
func (p *Plan) claimAll(r Rule) error {
	for _, pattern := range r.Patterns {
		parts, err := components(pattern)
		if err != nil {
			return err
		}
		n := 0
		err = p.tree.glob(".", parts, func(file string) error {
			n++
			return p.claim(r.Name, file)
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Failed, "cannot split out cryptex %s: nothing in the tree matches %s", r.Name, pattern)
		}
	}
	for _, pkg := range r.Packages {
		n := 0
		err := p.tree.packageFiles(pkg, func(file string) error {
			info, err := p.tree.lstat(file)
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
				return nil // left out when it was installed, or shared
			}
			if err != nil {
				return fmt.Errorf("cannot read the tree: %w", err)
			}
			n++
			return p.claim(r.Name, file)
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Failed, "cannot split out cryptex %s: package %s has no files in the tree that can move", r.Name, pkg)
		}
	}
	return nil
}

// claim gives one path to a cryptex.
func (p *Plan) claim(name, file string) error {
	for _, kept := range []string{Mounts, "usr/lib/sealant"} {
		if within(kept, file) || within(file, kept) {
			return fault.New(fault.Failed, "cannot move /%s into cryptex %s: /%s must stay where it is", file, name, kept)
		}
	}
	if target, err := os.Readlink(p.tree.disk(file)); err == nil && within(strings.Trim(target, "/"), Mounts) {
		return fault.New(fault.Failed, "cannot move /%s into cryptex %s: it was split out before, to %s", file, name, target)
	}
	if other, ok := p.owners[file]; ok && other != name {
		return claimedTwice(file, other, name)
	}
	p.owners[file] = name
	return nil
}

func claimedTwice(file, a, b string) error {
	return fault.New(fault.Failed, "cannot split the tree: cryptex %s and cryptex %s both claim /%s", a, b, file)
}

// owner is the cryptex that gets a path, itself or with a directory above it.
func (p *Plan) owner(file string) string {
	for ; file != "."; file = path.Dir(file) {
		if name, ok := p.owners[file]; ok {
			return name
		}
	}
	return ""
}

// settle drops claims below claimed directories and sorts the rest.
func (p *Plan) settle() error {
	parts := map[string]*Part{}
	for file, name := range p.owners {
		above := p.owner(path.Dir(file))
		if above != "" && above != name {
			return claimedTwice(file, above, name)
		}
		if parts[name] == nil {
			parts[name] = &Part{Name: name}
		}
		if above == "" {
			parts[name].Moves = append(parts[name].Moves, file)
		}
	}
	for _, part := range parts {
		slices.Sort(part.Moves)
		p.Cryptexes = append(p.Cryptexes, *part)
	}
	slices.SortFunc(p.Cryptexes, func(a, b Part) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// hardLinks refuses a file of which only some names move: the others would
// keep the old content when the cryptex is patched.
func (p *Plan) hardLinks() error {
	type id struct{ dev, ino uint64 }
	names := map[id]string{} // files with several names that move
	each := func(root string, fn func(file string, key id) error) error {
		return filepath.WalkDir(p.tree.disk(root), func(file string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(p.tree.root, file)
			if err != nil {
				return err
			}
			if st := info.Sys().(*syscall.Stat_t); st.Nlink > 1 {
				return fn(rel, id{uint64(st.Dev), st.Ino})
			}
			return nil
		})
	}
	for _, part := range p.Cryptexes {
		for _, m := range part.Moves {
			err := each(m, func(file string, key id) error {
				names[key] = file
				return nil
			})
			if err != nil {
				return fmt.Errorf("cannot read the tree: %w", err)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return each(".", func(file string, key id) error {
		moved, ok := names[key]
		if !ok || p.owner(file) == p.owner(moved) {
			return nil
		}
		return fault.New(fault.Failed, "cannot move /%s into cryptex %s: it is also called /%s, which does not move there", moved, p.owner(moved), file).
			Hint("claim both names, or give each its own copy")
	})
}

// fill reads what a cryptex gets, and turns its symbolic links the right way.
func (p *Plan) fill(part *Part) error {
	root, err := image.Select(p.tree.root, part.Moves)
	if err != nil {
		return err
	}
	part.root = root
	seen := map[*erofs.Node]bool{}
	var visit func(at string, n *erofs.Node) error
	visit = func(at string, n *erofs.Node) error {
		if seen[n] {
			return nil
		}
		seen[n] = true
		switch n.Mode & erofs.ModeType {
		case erofs.ModeRegular:
			part.Files++
			part.Bytes += n.Size
		case erofs.ModeSymlink:
			n.Target, err = p.retarget(part.Name, at, n.Target)
			if err != nil {
				return err
			}
		}
		for _, c := range n.Children {
			if err := visit(path.Join(at, c.Name), c.Node); err != nil {
				return err
			}
		}
		return nil
	}
	return visit(".", root)
}

// retarget is the target of a symbolic link that moves into a cryptex. A
// relative link to what moves along stays as it is, and so does an absolute
// one; any other relative link becomes absolute, since from the cryptex's mount
// point it would lead nowhere.
func (p *Plan) retarget(name, link, target string) (string, error) {
	if path.IsAbs(target) {
		return target, nil
	}
	written := path.Join(path.Dir(link), target)
	for strings.HasPrefix(written, "../") {
		written = written[3:] // the root's parent is the root
	}
	real, err := p.tree.resolve(path.Dir(link) + "/" + target)
	if err != nil {
		return "", err
	}
	if real == written && p.owner(real) == name {
		return target, nil
	}
	return "/" + real, nil
}
