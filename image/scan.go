package image

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Scan reads the tree below a directory, without its contents. It names up to
// five of the things that an image can't hold.
func Scan(dir string) (*erofs.Node, error) {
	s := scanner{linked: map[fileID]*erofs.Node{}}
	root, err := s.root(dir)
	if err != nil {
		return nil, err
	}
	if err := s.children(root, dir, "/"); err != nil {
		return nil, err
	}
	return root, s.refusal()
}

// Select reads only some paths below a directory: each with everything below
// it, and the directories that lead there. The paths are relative and clean,
// lead through no symbolic links, and none lies below another.
func Select(dir string, paths []string) (*erofs.Node, error) {
	s := scanner{linked: map[fileID]*erofs.Node{}}
	root, err := s.root(dir)
	if err != nil {
		return nil, err
	}
	known := map[string]*erofs.Node{".": root}
	// add reads one path; what lies below it only if it was asked for.
	var add func(p string, below bool) (*erofs.Node, error)
	add = func(p string, below bool) (*erofs.Node, error) {
		if n := known[p]; n != nil {
			return n, nil
		}
		parent, err := add(path.Dir(p), false)
		if err != nil || parent == nil {
			return nil, err
		}
		info, err := os.Lstat(filepath.Join(dir, p))
		if err != nil {
			return nil, fmt.Errorf("cannot read the tree: %w", err)
		}
		n, err := s.node(filepath.Join(dir, p), "/"+p, info)
		if err != nil || n == nil {
			return nil, err
		}
		parent.Children = append(parent.Children, erofs.Child{Name: path.Base(p), Node: n})
		known[p] = n
		if below && info.IsDir() {
			err = s.children(n, filepath.Join(dir, p), "/"+p)
		}
		return n, err
	}
	for _, p := range paths {
		if _, err := add(p, true); err != nil {
			return nil, err
		}
	}
	return root, s.refusal()
}

// scanner turns files on disk into nodes.
type scanner struct {
	linked  map[fileID]*erofs.Node // files with several names, by identity
	refused []string
}

type fileID struct{ dev, ino uint64 }

// root reads the top of a tree.
func (s *scanner) root(dir string) (*erofs.Node, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the tree: %w", err)
	}
	if !info.IsDir() {
		return nil, fault.New(fault.Failed, "cannot read the tree: %s is not a directory", dir)
	}
	// With a trailing slash a symbolic link to a directory is followed, once.
	return s.node(strings.TrimSuffix(dir, "/")+"/", "/", info)
}

func (s *scanner) refusal() error {
	const shown = 5
	if n := len(s.refused); n > shown {
		s.refused = append(s.refused[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	if len(s.refused) > 0 {
		return fault.New(fault.Failed, "cannot keep %s: an image holds files, directories and symbolic links only", strings.Join(s.refused, ", "))
	}
	return nil
}

func (s *scanner) children(parent *erofs.Node, dir, shown string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read the tree: %w", err)
	}
	for _, e := range entries {
		file, shown := filepath.Join(dir, e.Name()), strings.TrimSuffix(shown, "/")+"/"+e.Name()
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("cannot read the tree: %w", err)
		}
		n, err := s.node(file, shown, info)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		parent.Children = append(parent.Children, erofs.Child{Name: e.Name(), Node: n})
		if info.IsDir() {
			if err := s.children(n, file, shown); err != nil {
				return err
			}
		}
	}
	return nil
}

// node reads all of a file but its content. It returns nil for what an image
// can't hold, and the same node again for a hard link.
func (s *scanner) node(file, shown string, info fs.FileInfo) (*erofs.Node, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fault.New(fault.Failed, "cannot read the tree: %s is not on a disk of Linux", file)
	}
	if what := irregular(info.Mode()); what != "" {
		s.refused = append(s.refused, what+" "+shown)
		return nil, nil
	}
	id := fileID{uint64(st.Dev), st.Ino}
	if n := s.linked[id]; n != nil {
		return n, nil
	}
	n := &erofs.Node{Mode: st.Mode, UID: st.Uid, GID: st.Gid}
	switch {
	case info.Mode().IsRegular():
		n.Size, n.Mtime = st.Size, info.ModTime().Unix()
		n.Open = func() (io.ReadCloser, error) { return os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW, 0) }
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the tree: %w", err)
		}
		n.Target = target
	}
	names, values, err := linux.Xattrs(file)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		n.Xattrs = append(n.Xattrs, erofs.Xattr{Name: name, Value: values[i]})
	}
	if !info.IsDir() && st.Nlink > 1 {
		s.linked[id] = n
	}
	return n, nil
}

// irregular names what an image can't hold.
func irregular(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeDevice != 0:
		return "device"
	case m.IsRegular(), m.IsDir(), m&fs.ModeSymlink != 0:
		return ""
	}
	return "irregular file"
}
