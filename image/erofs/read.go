package erofs

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// Image is an image that can be read. It reads hostile bytes safely: every
// number is checked before it is used, and what Write would not have written
// is refused.
type Image struct {
	r     io.ReaderAt
	size  int64
	meta  int64 // where the metadata starts
	root  uint64
	epoch int64
	count uint64 // inodes
	label string
	uuid  [16]byte
}

// Inode is one file, directory or symbolic link of an image.
type Inode struct {
	NID      uint64 // its number, st_ino of the mounted file system
	Mode     uint32 // type and permission bits, as in st_mode
	UID, GID uint32
	Links    uint32 // names it has
	Size     int64  // bytes of content
	Mtime    int64  // seconds since 1970
	Offset   int64  // where its content starts in the image; it is contiguous

	xattrAt   int64
	xattrSize int
}

// IsDir, IsRegular and IsSymlink tell an inode's type; it is one of the three.
func (n *Inode) IsDir() bool     { return n.Mode&ModeType == ModeDirectory }
func (n *Inode) IsRegular() bool { return n.Mode&ModeType == ModeRegular }
func (n *Inode) IsSymlink() bool { return n.Mode&ModeType == ModeSymlink }

// bad is the error for an image that Write did not write.
func bad(format string, args ...any) error {
	return fault.New(fault.Seal, "cannot read the EROFS image: "+format, args...)
}

// Open reads the superblock of an image of size bytes.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	if size < 2*BlockSize || size%BlockSize != 0 || size > MaxBlocks*BlockSize {
		return nil, bad("%d bytes are no whole number of blocks within the limits", size)
	}
	b := make([]byte, BlockSize)
	if err := readFull(r, b, 0); err != nil {
		return nil, err
	}
	sb, le := b[superOffset:superOffset+superSize], binary.LittleEndian
	if le.Uint32(sb) != superMagic {
		return nil, bad("there is no superblock")
	}
	metaBlock := int64(le.Uint32(sb[40:]))
	i := &Image{
		r: r, size: size,
		meta:  metaBlock * BlockSize,
		root:  uint64(le.Uint16(sb[14:])),
		count: le.Uint64(sb[16:]),
		epoch: int64(le.Uint64(sb[24:])),
		label: strings.TrimRight(string(sb[64:80]), "\x00"),
		uuid:  [16]byte(sb[48:64]),
	}
	switch {
	case int64(le.Uint32(sb[36:])) != size/BlockSize:
		return nil, bad("it has %d blocks, not the %d its superblock says", size/BlockSize, le.Uint32(sb[36:]))
	case i.meta < BlockSize || i.meta >= size || size-i.meta > MaxMetadata:
		return nil, bad("its metadata is out of place")
	case i.count == 0 || i.count > MaxInodes || i.epoch < 0:
		return nil, bad("its superblock is out of bounds")
	}
	// What is left must be what Write writes: clear what was read, compare.
	p := plan{epoch: i.epoch, metaBlock: uint32(metaBlock), metaSize: size - i.meta, inodes: []*inode{{nid: i.root}}}
	want := p.superblock(Options{UUID: i.uuid, Label: i.label})
	le.PutUint64(want[superOffset+16:], i.count)
	if string(want) != string(b) {
		return nil, bad("its superblock asks for features that are not known")
	}
	return i, nil
}

// Label is the file system's label.
func (i *Image) Label() string { return i.label }

// UUID is the file system's UUID.
func (i *Image) UUID() [16]byte { return i.uuid }

// Inodes is the number of files, directories and symbolic links that the
// superblock names; Walk checks it.
func (i *Image) Inodes() uint64 { return i.count }

// Content reads a regular file's content.
func (i *Image) Content(n *Inode) *io.SectionReader {
	if !n.IsRegular() {
		return io.NewSectionReader(i.r, 0, 0)
	}
	return io.NewSectionReader(i.r, n.Offset, n.Size)
}

// Target is a symbolic link's target.
func (i *Image) Target(n *Inode) (string, error) {
	b := make([]byte, n.Size)
	if !n.IsSymlink() {
		return "", bad("inode %d is not a symbolic link", n.NID)
	}
	if err := readFull(i.r, b, n.Offset); err != nil {
		return "", err
	}
	if slices.Contains(b, 0) {
		return "", bad("the target of symbolic link %d is none", n.NID)
	}
	return string(b), nil
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return bad("it is cut short")
	}
	return err
}

// window reads small pieces that lie near each other.
type window struct {
	r    io.ReaderAt
	buf  []byte
	at   int64
	size int64 // of the image
}

const windowSize = 64 << 10

func (i *Image) window() *window { return &window{r: i.r, size: i.size} }

// bytes returns n bytes at an offset. They are valid until the next call.
func (w *window) bytes(at int64, n int) ([]byte, error) {
	if at < 0 || n < 0 || at > w.size-int64(n) {
		return nil, bad("%d bytes at %d lie outside", n, at)
	}
	if at < w.at || at+int64(n) > w.at+int64(len(w.buf)) {
		w.at = at / BlockSize * BlockSize
		length := min(max(windowSize, int(at-w.at)+n), int(min(w.size-w.at, 1<<30)))
		if cap(w.buf) < length {
			w.buf = make([]byte, length)
		}
		w.buf = w.buf[:length]
		if err := readFull(w.r, w.buf, w.at); err != nil {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	return w.buf[at-w.at:][:n], nil
}

// inode reads and checks one inode.
func (i *Image) inode(w *window, nid uint64) (*Inode, error) {
	if nid == 0 || nid >= uint64(i.size-i.meta)/slot {
		return nil, bad("inode %d lies outside", nid)
	}
	at := i.meta + int64(nid)*slot
	b, err := w.bytes(at, compactSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	format, icount, mode := le.Uint16(b), le.Uint16(b[2:]), le.Uint16(b[4:])
	n := &Inode{NID: nid, Mode: uint32(mode), Mtime: i.epoch}
	core, reserved := int64(compactSize), uint32(0)
	block := le.Uint32(b[16:])
	if format&1 == 0 {
		n.Links, n.Size = uint32(le.Uint16(b[6:])), int64(le.Uint32(b[8:]))
		n.UID, n.GID = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
		reserved = le.Uint32(b[12:]) | le.Uint32(b[20:]) | le.Uint32(b[28:])
	} else {
		core = extendedSize
		if b, err = w.bytes(at, extendedSize); err != nil {
			return nil, err
		}
		n.Size, n.Mtime = int64(le.Uint64(b[8:])), int64(le.Uint64(b[32:]))
		n.UID, n.GID, n.Links = le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[44:])
		reserved = uint32(le.Uint16(b[6:])) | le.Uint32(b[20:]) | le.Uint32(b[40:]) |
			le.Uint32(b[48:]) | le.Uint32(b[52:]) | le.Uint32(b[56:]) | le.Uint32(b[60:])
	}
	if reserved != 0 || format&^1 != layoutPlain<<1 && format&^1 != layoutInline<<1 {
		return nil, bad("inode %d has a form that is not known", nid)
	}
	if !n.IsDir() && !n.IsRegular() && !n.IsSymlink() {
		return nil, bad("inode %d is no file, directory or symbolic link", nid)
	}
	if n.Size < 0 || n.Size > i.size || n.Mtime < 0 || n.Links == 0 {
		return nil, bad("inode %d is out of bounds", nid)
	}
	if n.IsSymlink() && (n.Size == 0 || n.Size > MaxTarget) || n.IsDir() && n.Size < 2*direntSize {
		return nil, bad("inode %d has a size that can't be", nid)
	}
	if icount > 0 {
		n.xattrAt, n.xattrSize = at+core, xattrHeader+(int(icount)-1)*4
		if n.xattrSize > MaxXattrs || n.xattrAt > i.size-int64(n.xattrSize) {
			return nil, bad("inode %d has attributes out of bounds", nid)
		}
	}
	switch {
	case format>>1 == layoutInline:
		n.Offset = at + core + int64(n.xattrSize)
		if block != 0 || n.Size == 0 || n.Size > inlineLimit || at/BlockSize != (n.Offset+n.Size-1)/BlockSize {
			return nil, bad("inode %d has content out of place", nid)
		}
	case n.Size == 0 && block == 0:
	default:
		n.Offset = int64(block) * BlockSize
		if n.Size == 0 || block == 0 || n.Offset > i.meta || n.Size > i.meta-n.Offset {
			return nil, bad("inode %d has content out of place", nid)
		}
	}
	return n, nil
}

// Xattrs reads an inode's extended attributes, in the stored order: by name
// space, then by name.
func (i *Image) Xattrs(n *Inode) ([]Xattr, error) {
	if n.xattrSize == 0 {
		return nil, nil
	}
	b := make([]byte, n.xattrSize)
	if err := readFull(i.r, b, n.xattrAt); err != nil {
		return nil, err
	}
	for _, c := range b[:xattrHeader] {
		if c != 0 {
			return nil, bad("inode %d has shared attributes", n.NID)
		}
	}
	var xattrs []Xattr
	var last storedXattr
	for b = b[xattrHeader:]; len(b) > 0; {
		s := storedXattr{index: b[1]}
		nameLen, valueLen := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		if xattrEntry+nameLen+valueLen > len(b) {
			return nil, bad("inode %d has attributes that are cut short", n.NID)
		}
		s.name = string(b[xattrEntry:][:nameLen])
		s.value = b[xattrEntry+nameLen:][:valueLen]
		x := Xattr{Value: s.value}
		for _, p := range xattrPrefixes {
			if p.index == s.index {
				x.Name = p.prefix + s.name
			}
		}
		if _, ok := storeXattr(x); !ok {
			return nil, bad("inode %d has an attribute that is none", n.NID)
		}
		if len(xattrs) > 0 && (s.index < last.index || s.index == last.index && s.name <= last.name) {
			return nil, bad("inode %d has attributes out of order", n.NID)
		}
		if s.size() > len(b) {
			return nil, bad("inode %d has attributes that are cut short", n.NID)
		}
		xattrs, last, b = append(xattrs, x), s, b[s.size():]
	}
	return xattrs, nil
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	NID  uint64
	kind byte
}

// entries calls fn for each entry of a directory but "." and "..", in order of
// the names, until fn is false.
func (i *Image) entries(w *window, dir *Inode, fn func(Entry) (bool, error)) error {
	last, dots := "", 0
	for at := int64(0); at < dir.Size; at += BlockSize {
		b, err := w.bytes(dir.Offset+at, int(min(BlockSize, dir.Size-at)))
		if err != nil {
			return err
		}
		names, err := parseDirents(b)
		if err != nil {
			return bad("directory %d: %v", dir.NID, err)
		}
		for _, e := range names {
			if e.Name <= last {
				return bad("directory %d: %q is out of order", dir.NID, e.Name)
			}
			last = e.Name
			if e.Name == "." || e.Name == ".." {
				if dots++; e.kind != typeDirectory || e.Name == "." && e.NID != dir.NID {
					return bad("directory %d: %q is not what it must be", dir.NID, e.Name)
				}
				continue
			}
			if more, err := fn(e); err != nil || !more {
				return err
			}
		}
	}
	if dots != 2 {
		return bad("directory %d lacks \".\" or \"..\"", dir.NID)
	}
	return nil
}

var errDirents = errors.New("its entries are damaged")

// parseDirents reads one block of a directory.
func parseDirents(b []byte) ([]Entry, error) {
	if len(b) < direntSize {
		return nil, errDirents
	}
	first := int(binary.LittleEndian.Uint16(b[8:]))
	if first < direntSize || first%direntSize != 0 || first > len(b) {
		return nil, errDirents
	}
	es := make([]Entry, first/direntSize)
	at := first
	for k := range es {
		d := b[k*direntSize:]
		end := len(b)
		if k+1 < len(es) {
			end = int(binary.LittleEndian.Uint16(d[direntSize+8:]))
		} else {
			for end > at && b[end-1] == 0 {
				end--
			}
		}
		if int(binary.LittleEndian.Uint16(d[8:])) != at || end <= at || end > len(b) || end-at > MaxName || d[11] != 0 {
			return nil, errDirents
		}
		es[k] = Entry{Name: string(b[at:end]), NID: binary.LittleEndian.Uint64(d), kind: d[10]}
		if strings.ContainsAny(es[k].Name, "/\x00") {
			return nil, errDirents
		}
		at = end
	}
	return es, nil
}
