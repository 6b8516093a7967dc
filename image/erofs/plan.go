package erofs

import (
	"io"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// Node is one file, directory or symbolic link to be written. The same *Node
// under two names is a hard link.
type Node struct {
	Mode     uint32 // type and permission bits, as in st_mode
	UID, GID uint32
	Mtime    int64  // seconds since 1970, of a regular file; before 1970 counts as 1970
	Size     int64  // of a regular file, in bytes
	Target   string // of a symbolic link
	Xattrs   []Xattr
	Children []Child                       // of a directory
	Open     func() (io.ReadCloser, error) // content of a regular file, Size bytes; called once
}

// Child is a node's name in its directory.
type Child struct {
	Name string
	Node *Node
}

// ClampTimes makes no file of the tree newer than latest, in seconds since
// 1970.
func (n *Node) ClampTimes(latest int64) {
	n.Mtime = min(n.Mtime, latest)
	for _, c := range n.Children {
		c.Node.ClampTimes(latest)
	}
}

// plan is where everything goes.
type plan struct {
	inodes    []*inode // in the order of the tree, the root first
	byNode    map[*Node]*inode
	epoch     int64  // the commonest time of the tree
	metaBlock uint32 // first block of the metadata
	metaSize  int64  // bytes, a multiple of BlockSize
	names     int    // directory entries but "." and ".."
}

func (p *plan) size() int64 { return int64(p.metaBlock)*BlockSize + p.metaSize }

// inode is a node and its place.
type inode struct {
	node      *Node
	path      string
	names     []dirent // of a directory, sorted, "." and ".." among them
	xattrs    []storedXattr
	xattrSize int // bytes of the stored attributes, header included
	size      int64
	mtime     int64
	nlink     uint32
	core      int // size of the inode itself
	inline    bool
	block     uint32 // first block of content that is not inline
	nid       uint64
}

type dirent struct {
	name  string
	inode *inode
}

type storedXattr struct {
	index byte
	name  string // without the prefix
	value []byte
}

func (x storedXattr) size() int {
	return int(align(int64(xattrEntry+len(x.name)+len(x.value)), 4))
}

// layOut checks the tree and gives everything its place.
func layOut(root *Node) (*plan, error) {
	if root.Mode&ModeType != ModeDirectory {
		return nil, fault.New(fault.Failed, "cannot make an image: its root is not a directory")
	}
	p := &plan{byNode: map[*Node]*inode{}}
	top, err := p.add(root, "")
	if err != nil {
		return nil, err
	}
	top.names = append(top.names, dirent{"..", top})
	top.nlink++
	for _, in := range p.inodes {
		if in.node.Mode&ModeType == ModeDirectory {
			slices.SortFunc(in.names, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
			in.size = direntsSize(in.names)
		}
	}
	p.epoch = p.commonestTime()
	next := int64(1)
	for _, typ := range []uint32{ModeRegular, ModeDirectory, ModeSymlink} {
		for _, in := range p.inodes {
			if in.node.Mode&ModeType != typ {
				continue
			}
			p.shape(in)
			if !in.inline && in.size > 0 {
				in.block = uint32(next)
				next += align(in.size, BlockSize) / BlockSize
				if next > MaxBlocks {
					return nil, fault.New(fault.Failed, "cannot make an image: the tree is larger than 1 TiB")
				}
			}
		}
	}
	p.metaBlock = uint32(next)
	at := int64(slot)
	for _, in := range p.inodes {
		at = place(in, at)
		in.nid = uint64(at / slot)
		at += int64(in.core + in.xattrSize)
		if in.inline {
			at += in.size
		}
		at = align(at, slot)
		if at > MaxMetadata {
			return nil, fault.New(fault.Failed, "cannot make an image: its metadata exceeds %d MiB", MaxMetadata>>20)
		}
	}
	p.metaSize = align(at, BlockSize)
	if p.size() > MaxBlocks*BlockSize {
		return nil, fault.New(fault.Failed, "cannot make an image: the tree is larger than 1 TiB")
	}
	return p, nil
}

// place is where an inode goes at or after an offset: inode and inline content
// never cross a block boundary.
func place(in *inode, at int64) int64 {
	whole := int64(in.core)
	if in.inline {
		whole += int64(in.xattrSize) + in.size
	}
	if at%BlockSize+whole > BlockSize {
		return align(at, BlockSize)
	}
	return at
}

// shape decides what form an inode has.
func (p *plan) shape(in *inode) {
	n := in.node
	in.mtime = p.epoch
	if n.Mode&ModeType == ModeRegular {
		in.mtime = max(n.Mtime, 0)
	}
	in.core = compactSize
	if n.UID > 0xffff || n.GID > 0xffff || in.nlink > 0xffff || in.size > 0xffffffff || in.mtime != p.epoch {
		in.core = extendedSize
	}
	in.inline = in.size > 0 && in.size <= inlineLimit && int64(in.core+in.xattrSize)+in.size <= BlockSize
}

// add checks a node and what is below it, and puts them into the plan.
func (p *plan) add(n *Node, path string) (*inode, error) {
	refuse := func(format string, args ...any) (*inode, error) {
		return nil, fault.New(fault.Failed, "cannot keep %q: "+format, append([]any{"/" + path}, args...)...)
	}
	if in := p.byNode[n]; in != nil {
		if n.Mode&ModeType == ModeDirectory {
			return refuse("a directory can have one place only")
		}
		in.nlink++
		return in, nil
	}
	if len(path) > MaxPath {
		return refuse("its path is longer than %d bytes", MaxPath)
	}
	in := &inode{node: n, path: "/" + path, nlink: 1}
	p.inodes = append(p.inodes, in)
	p.byNode[n] = in
	var why string
	if in.xattrs, in.xattrSize, why = storeXattrs(n.Xattrs); why != "" {
		return refuse("%s", why)
	}
	if n.Mode&^(ModeType|modePerm) != 0 {
		return refuse("mode %o is none", n.Mode)
	}
	switch n.Mode & ModeType {
	case ModeRegular:
		if in.size = n.Size; n.Size < 0 || n.Size > 0 && n.Open == nil {
			return refuse("it has no content of %d bytes", n.Size)
		}
	case ModeSymlink:
		if in.size = int64(len(n.Target)); in.size == 0 || in.size > MaxTarget || strings.Contains(n.Target, "\x00") {
			return refuse("its target of %d bytes is none", len(n.Target))
		}
	case ModeDirectory:
		if err := p.addChildren(in, path); err != nil {
			return nil, err
		}
	default:
		return refuse("an image holds files, directories and symbolic links only")
	}
	return in, nil
}

func (p *plan) addChildren(in *inode, path string) error {
	in.names = append(in.names, dirent{".", in})
	in.nlink = 1
	if p.names += len(in.node.Children); p.names > MaxInodes {
		return fault.New(fault.Failed, "cannot make an image: more than %d files", MaxInodes)
	}
	children := slices.Clone(in.node.Children)
	slices.SortFunc(children, func(a, b Child) int { return strings.Compare(a.Name, b.Name) })
	for i, c := range children {
		if c.Name == "" || c.Name == "." || c.Name == ".." || len(c.Name) > MaxName || strings.ContainsAny(c.Name, "/\x00") {
			return fault.New(fault.Failed, "cannot keep %q in %q: not a file name", c.Name, in.path)
		}
		if i > 0 && c.Name == children[i-1].Name {
			return fault.New(fault.Failed, "cannot keep %q in %q: it is there twice", c.Name, in.path)
		}
		child, err := p.add(c.Node, strings.TrimPrefix(path+"/"+c.Name, "/"))
		if err != nil {
			return err
		}
		in.names = append(in.names, dirent{c.Name, child})
		if c.Node.Mode&ModeType == ModeDirectory {
			child.names = append(child.names, dirent{"..", in})
			child.nlink++ // its own "."
			in.nlink++    // the child's ".."
		}
	}
	return nil
}

// storeXattrs brings attributes into their stored form and order, or says why
// it can't.
func storeXattrs(xattrs []Xattr) (stored []storedXattr, size int, why string) {
	if len(xattrs) == 0 {
		return nil, 0, ""
	}
	size = xattrHeader
	for _, x := range xattrs {
		s, ok := storeXattr(x)
		if !ok {
			return nil, 0, "its extended attribute " + x.Name + " can't be stored"
		}
		stored = append(stored, s)
		size += s.size()
	}
	if size > MaxXattrs {
		return nil, 0, "its extended attributes are too large"
	}
	slices.SortFunc(stored, func(a, b storedXattr) int {
		if a.index != b.index {
			return int(a.index) - int(b.index)
		}
		return strings.Compare(a.name, b.name)
	})
	for i := range stored[1:] {
		if stored[i].index == stored[i+1].index && stored[i].name == stored[i+1].name {
			return nil, 0, "an extended attribute is there twice"
		}
	}
	return stored, size, ""
}

func storeXattr(x Xattr) (storedXattr, bool) {
	for _, p := range xattrPrefixes {
		rest, ok := strings.CutPrefix(x.Name, p.prefix)
		if !ok || (rest == "") != p.whole || len(x.Name) > MaxName || len(x.Value) > 0xffff || strings.Contains(rest, "\x00") {
			continue
		}
		return storedXattr{p.index, rest, x.Value}, true
	}
	return storedXattr{}, false
}

// commonestTime is the modification time that most regular files have, the
// latest of them if there are several; 0 without files.
func (p *plan) commonestTime() int64 {
	counts := map[int64]int{}
	for _, in := range p.inodes {
		if in.node.Mode&ModeType == ModeRegular {
			counts[max(in.node.Mtime, 0)]++
		}
	}
	var best int64
	for t, n := range counts {
		if n > counts[best] || n == counts[best] && t > best {
			best = t
		}
	}
	return best
}

// fitDirents is how many of the entries fit into one block.
func fitDirents(names []dirent) int {
	used := 0
	for i, d := range names {
		if used += direntSize + len(d.name); used > BlockSize {
			return i
		}
	}
	return len(names)
}

// direntsSize is the size of a directory's content: whole blocks, but for the
// last.
func direntsSize(names []dirent) int64 {
	var size int64
	for len(names) > 0 {
		n := fitDirents(names)
		size = align(size, BlockSize)
		for _, d := range names[:n] {
			size += int64(direntSize + len(d.name))
		}
		names = names[n:]
	}
	return size
}
