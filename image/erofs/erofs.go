// Package erofs writes and reads the file system of an image: a small, strict
// subset of EROFS, the read-only file system of Linux.
//
// Why our own and not a library: an image must be a function of its tree,
// byte for byte, with hard links, extended attributes and owners of any size;
// its layout must change little when its tree changes little, since every
// change is paid for in a patch; and the reader meets hostile bytes, so it
// reads nothing but what this writer writes. mkfs.erofs and the Go libraries
// do one or the other.
//
// Layout, in blocks of 4096 bytes:
//
//	block 0      the superblock at byte 1024; the rest is zero
//	files        the content of each regular file that is not inline, from a
//	             block boundary on, contiguous, its last block zero padded,
//	             in the order of the tree
//	directories  the entries of each directory that is not inline, likewise
//	metadata     32 zero bytes, then for each file, directory and symbolic
//	             link, in the order of the tree: inode, attributes, and its
//	             content if that is inline
//
// The order of the tree is: a directory, then its children sorted by name in
// byte order, each followed by what is below it. A file with several names
// stands where the first one is. Metadata comes last so that a file that grows
// within its last block moves nothing, and content is contiguous so that file
// offsets in a patch are offsets in an image.
//
// Content of 1 to 2048 bytes is inline if inode, attributes and content fit
// into one block; they then share one. All attributes are inline. There is no
// compression, no chunk, no shared attribute, no checksum (dm-verity covers
// every byte). Kernels from 5.4 on mount it.
//
// Times. An image keeps the modification time of regular files in whole
// seconds, because caches trust it (Python's compiled modules, QML): a fixed
// time would let stale code run on. The commonest time of a tree becomes the
// time of the file system, and files that have it need no time of their own.
// Directories and symbolic links have the time of the file system.
//
// spec/cryptex.md says it in full.
package erofs

// BlockSize is the size of a block in bytes.
const BlockSize = 4096

// Limits, of the writer as of the reader.
const (
	MaxBlocks   = 1 << 28   // blocks of an image: 1 TiB
	MaxMetadata = 256 << 20 // bytes of metadata
	MaxInodes   = 1 << 19   // files, directories and symbolic links, and names of all of them
	MaxName     = 255       // bytes of a name
	MaxPath     = 4095      // bytes of a path
	MaxTarget   = 4095      // bytes of a symbolic link's target
	MaxXattrs   = 64 << 10  // bytes of a file's extended attributes, as stored
)

// The superblock: fs/erofs/erofs_fs.h of Linux.
const (
	superOffset = 1024
	superSize   = 128
	superMagic  = 0xe0f5e1e2
	compatMtime = 2 // inodes hold modification times
)

// Inodes.
const (
	slot          = 32 // inodes stand at multiples of it; their number is the multiple
	compactSize   = 32
	extendedSize  = 64
	rootNID       = 1
	inlineLimit   = 2048
	layoutPlain   = 0
	layoutInline  = 2
	direntSize    = 12
	xattrHeader   = 12
	xattrEntry    = 4
	typeRegular   = 1 // types of directory entries
	typeDirectory = 2
	typeSymlink   = 7
)

// Types of files within Inode.Mode and Node.Mode, as in st_mode.
const (
	ModeType      = 0o170000
	ModeRegular   = 0o100000
	ModeDirectory = 0o040000
	ModeSymlink   = 0o120000
	modePerm      = 0o007777
)

// Xattr is one extended attribute: its whole name, as in "security.capability",
// and its value.
type Xattr struct {
	Name  string
	Value []byte
}

// xattrPrefixes are the name spaces that EROFS can store, with their numbers.
// An access control list is its prefix alone.
var xattrPrefixes = []struct {
	index  byte
	prefix string
	whole  bool // the prefix is the name
}{
	{1, "user.", false},
	{2, "system.posix_acl_access", true},
	{3, "system.posix_acl_default", true},
	{4, "trusted.", false},
	{6, "security.", false},
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }
