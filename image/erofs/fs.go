package erofs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// FS is the image as a file system of Go. It follows no symbolic links, and
// its FileInfo.Sys is an *Inode. It may be used by several goroutines at once.
func (i *Image) FS() fs.ReadLinkFS { return tree{i} }

type tree struct{ i *Image }

// Lookup finds the inode of a slash-separated path without following symbolic
// links; "" and "." are the root. The error is fs.ErrNotExist if there is none.
func (i *Image) Lookup(name string) (*Inode, error) {
	w := i.window()
	n, err := i.inode(w, i.root)
	if err != nil {
		return nil, err
	}
	if name == "." || name == "" {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		var found uint64
		if !n.IsDir() {
			return nil, fs.ErrNotExist
		}
		err := i.entries(w, n, func(e Entry) (bool, error) {
			if e.Name == part {
				found = e.NID
			}
			return e.Name < part, nil
		})
		if err != nil {
			return nil, err
		}
		if found == 0 {
			return nil, fs.ErrNotExist
		}
		if n, err = i.inode(w, found); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (t tree) lookup(op, name string) (*Inode, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, err := t.i.Lookup(name)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// Open implements fs.FS.
func (t tree) Open(name string) (fs.File, error) {
	n, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	f := file{i: t.i, info: stat{path.Base(name), n}}
	if n.IsDir() {
		return &dir{file: f}, nil
	}
	if !n.IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is a symbolic link")}
	}
	f.SectionReader = t.i.Content(n)
	return f, nil
}

// Lstat implements fs.ReadLinkFS.
func (t tree) Lstat(name string) (fs.FileInfo, error) {
	n, err := t.lookup("lstat", name)
	if err != nil {
		return nil, err
	}
	return stat{path.Base(name), n}, nil
}

// Stat implements fs.StatFS. It does not follow symbolic links.
func (t tree) Stat(name string) (fs.FileInfo, error) { return t.Lstat(name) }

// ReadLink implements fs.ReadLinkFS.
func (t tree) ReadLink(name string) (string, error) {
	n, err := t.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	if !n.IsSymlink() {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return t.i.Target(n)
}

// stat is an inode as a FileInfo.
type stat struct {
	name string
	n    *Inode
}

func (s stat) Name() string       { return s.name }
func (s stat) Size() int64        { return s.n.Size }
func (s stat) ModTime() time.Time { return time.Unix(s.n.Mtime, 0) }
func (s stat) IsDir() bool        { return s.n.IsDir() }
func (s stat) Sys() any           { return s.n }

func (s stat) Mode() fs.FileMode {
	m := fs.FileMode(s.n.Mode & 0o777)
	for _, bit := range []struct {
		unix uint32
		mode fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if s.n.Mode&bit.unix != 0 {
			m |= bit.mode
		}
	}
	switch {
	case s.n.IsDir():
		m |= fs.ModeDir
	case s.n.IsSymlink():
		m |= fs.ModeSymlink
	}
	return m
}

type file struct {
	*io.SectionReader
	i    *Image
	info stat
}

func (f file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f file) Close() error               { return nil }

// dir is an open directory.
type dir struct {
	file
	read bool
	left []fs.DirEntry
}

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("is a directory")}
}

// ReadDir implements fs.ReadDirFile.
func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		d.read = true
		var all []Entry
		w := d.i.window()
		err := d.i.entries(w, d.info.n, func(e Entry) (bool, error) {
			all = append(all, e)
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			child, err := d.i.inode(w, e.NID)
			if err != nil {
				return nil, err
			}
			d.left = append(d.left, fs.FileInfoToDirEntry(stat{e.Name, child}))
		}
	}
	if n <= 0 {
		n = len(d.left)
	} else if len(d.left) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.left))
	out := d.left[:n]
	d.left = d.left[n:]
	return out, nil
}
