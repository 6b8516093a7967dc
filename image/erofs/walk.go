package erofs

import (
	"cmp"
	"slices"
)

// Walk calls fn for the root, whose path is "", and for everything below it,
// in the order of the tree: a directory, then its children sorted by name. A
// file with several names comes once for each.
//
// Walk is also the check of the whole structure. It visits each directory
// once, and refuses an image where directories form a loop, where contents
// overlap or exceed the image, where attributes or targets can't be read, or
// where the numbers of inodes and links are not what the image says; so a caller whose walk ended without an error may
// rely on that. Work and memory are bounded by the size of the metadata.
func (i *Image) Walk(fn func(path string, n *Inode) error) error {
	k := walker{i: i, fn: fn, w: i.window(), inodes: map[uint64]*visited{}}
	root, err := k.i.inode(k.w, i.root)
	if err != nil {
		return err
	}
	if !root.IsDir() {
		return bad("its root is not a directory")
	}
	if err := k.visit("", root, typeDirectory); err != nil {
		return err
	}
	return k.finish()
}

type walker struct {
	i      *Image
	fn     func(string, *Inode) error
	w      *window
	inodes map[uint64]*visited
	bytes  int64 // of content so far
	names  int   // directory entries so far
}

// visited is what is remembered of an inode.
type visited struct {
	offset, size int64
	links, found uint32
	dir          bool
}

func (k *walker) visit(path string, n *Inode, kind byte) error {
	if len(path) > MaxPath {
		return bad("a path is longer than %d bytes", MaxPath)
	}
	if want := direntType(n.Mode); kind != want {
		return bad("%q has type %d in its directory and %d by itself", path, kind, want)
	}
	v := k.inodes[n.NID]
	if v == nil {
		if uint64(len(k.inodes)) == k.i.count {
			return bad("it has more inodes than it says")
		}
		v = &visited{offset: n.Offset, size: n.Size, links: n.Links, dir: n.IsDir()}
		k.inodes[n.NID] = v
		if k.bytes += n.Size; k.bytes > k.i.size {
			return bad("its contents overlap")
		}
		if _, err := k.i.Xattrs(n); err != nil {
			return err
		}
		if n.IsSymlink() {
			if _, err := k.i.Target(n); err != nil {
				return err
			}
		}
	} else if v.dir {
		return bad("directory %q has two places", path)
	}
	v.found++
	if err := k.fn(path, n); err != nil {
		return err
	}
	if !n.IsDir() {
		return nil
	}
	v.found = 2
	// The children are visited after the entries are read, since both share
	// the window.
	var children []Entry
	err := k.i.entries(k.w, n, func(e Entry) (bool, error) {
		if k.names++; k.names > MaxInodes {
			return false, bad("it has more than %d names", MaxInodes)
		}
		children = append(children, e)
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, e := range children {
		child, err := k.i.inode(k.w, e.NID)
		if err != nil {
			return err
		}
		below := e.Name
		if path != "" {
			below = path + "/" + e.Name
		}
		if child.IsDir() {
			v.found++
		}
		if err := k.visit(below, child, e.kind); err != nil {
			return err
		}
	}
	return nil
}

// finish checks what can only be known at the end.
func (k *walker) finish() error {
	if uint64(len(k.inodes)) != k.i.count {
		return bad("it has %d inodes, not the %d it says", len(k.inodes), k.i.count)
	}
	all := make([]*visited, 0, len(k.inodes))
	for nid, v := range k.inodes {
		if v.found != v.links {
			return bad("inode %d has %d links, not the %d it says", nid, v.found, v.links)
		}
		if v.size > 0 {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *visited) int { return cmp.Compare(a.offset, b.offset) })
	for j := 1; j < len(all); j++ {
		if all[j-1].offset+all[j-1].size > all[j].offset {
			return bad("its contents overlap")
		}
	}
	return nil
}
