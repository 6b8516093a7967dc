// Package seal computes and checks the seal of an image: the root hash of a
// dm-verity hash tree, with everything the kernel needs to check it.
//
// The parties: a publisher computes the seal of an image's data when it builds
// the image; a device computes it again before it mounts the image, and the
// kernel checks every single read against it (dm-verity). A ticket carries
// Seal.Digest and the root, so whoever holds a verified ticket knows what each
// block of the image must be. Nothing here is secret and nothing here is
// signed: a Seal taken from the image itself proves only that the image agrees
// with itself.
//
// Bytes. The format is the one of cryptsetup's veritysetup, format 1 with a
// superblock, so that veritysetup and the kernel read it as it is:
//
//	superblock  512 bytes, zero padded to one block of 4096 bytes
//	level n-1   one block: the digests of the blocks of level n-2
//	…
//	level 0     the digests of the data blocks, 128 in each block of 4096 bytes
//
// A digest is SHA-256(salt ‖ block), the last block of a level is zero padded,
// and the root is the digest of the one block of the highest level (of the one
// data block, if there is only one: then there are no levels). Data and hash
// blocks are 4096 bytes, the salt has 32. spec/seal.md says it in full.
package seal

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"

	"github.com/sealant-os/sealant/internal/fault"
)

// Sizes in bytes of everything a seal is made of.
const (
	BlockSize  = 4096             // data blocks and hash blocks
	DigestSize = 32               // SHA-256
	SaltSize   = 32               // the salt of every digest
	perBlock   = BlockSize / 32   // digests in one hash block
	span       = perBlock         // data blocks that one leaf hash block covers
	SpanSize   = span * BlockSize // their bytes: 512 KiB
)

// MaxDataBlocks bounds an image's data to 1 TiB, so that no superblock or
// footer can ask for unbounded work or memory.
const MaxDataBlocks = 1 << 28

// Seal is the identity of an image's data: its dm-verity root, and what else
// the kernel's dm-verity target needs to check it.
type Seal struct {
	Root       [DigestSize]byte // digest of the top of the hash tree
	Salt       [SaltSize]byte   // hashed before each block
	DataBlocks uint64           // number of data blocks of BlockSize bytes
}

// String is the root in lower-case hex, as veritysetup prints it.
func (s Seal) String() string { return hex.EncodeToString(s.Root[:]) }

// UUID is the superblock's UUID. It is derived from the salt (version 8), so
// that a seal's superblock is a function of the seal.
func (s Seal) UUID() [16]byte {
	sum := sha256.Sum256(append([]byte("sealant verity uuid 1\x00"), s.Salt[:]...))
	var id [16]byte
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Superblock is the block before the hash tree: the 512 bytes of
// veritysetup's superblock, zero padded to BlockSize.
//
//	 0   8  "verity", two zeros      64   4  data block size 4096
//	 8   4  version 1                68   4  hash block size 4096
//	12   4  hash type 1              72   8  data blocks
//	16  16  UUID                     80   2  salt size 32
//	32  32  "sha256", zero padded    88 256  salt, zero padded
//
// All numbers are little-endian; what is not named is zero.
func (s Seal) Superblock() []byte {
	b := make([]byte, BlockSize)
	copy(b, "verity\x00\x00")
	binary.LittleEndian.PutUint32(b[8:], 1)
	binary.LittleEndian.PutUint32(b[12:], 1)
	id := s.UUID()
	copy(b[16:], id[:])
	copy(b[32:], "sha256")
	binary.LittleEndian.PutUint32(b[64:], BlockSize)
	binary.LittleEndian.PutUint32(b[68:], BlockSize)
	binary.LittleEndian.PutUint64(b[72:], s.DataBlocks)
	binary.LittleEndian.PutUint16(b[80:], SaltSize)
	copy(b[88:], s.Salt[:])
	return b
}

// ParseSuperblock reads a block that Superblock made and returns its salt and
// number of data blocks; the root stands elsewhere and is left zero. It accepts
// nothing but the canonical block: one flipped bit anywhere is refused.
func ParseSuperblock(block []byte) (Seal, error) {
	if len(block) != BlockSize {
		return Seal{}, fault.New(fault.Seal, "cannot read the verity superblock: %d bytes, not %d", len(block), BlockSize)
	}
	s := Seal{DataBlocks: binary.LittleEndian.Uint64(block[72:])}
	copy(s.Salt[:], block[88:])
	if s.DataBlocks == 0 || s.DataBlocks > MaxDataBlocks {
		return Seal{}, fault.New(fault.Seal, "cannot read the verity superblock: it names %d data blocks", s.DataBlocks)
	}
	if !bytes.Equal(block, s.Superblock()) {
		return Seal{}, fault.New(fault.Seal, "cannot read the verity superblock: not the canonical form")
	}
	return s, nil
}

// Digest is SHA-384(superblock block ‖ root): the 48 bytes by which a ticket
// names a seal.
func (s Seal) Digest() [48]byte {
	h := sha512.New384()
	h.Write(s.Superblock())
	h.Write(s.Root[:])
	var d [48]byte
	h.Sum(d[:0])
	return d
}

// HashSize is the size in bytes of the hash tree over so many data blocks,
// without the superblock. It is 0 for one data block, whose digest is the root.
func HashSize(dataBlocks uint64) int64 {
	_, size := levels(dataBlocks)
	return size
}

// level is one level of the tree: where it starts within the tree, and its
// number of blocks.
type level struct {
	offset int64
	blocks uint64
}

// levels lays the tree out, lowest level first in the slice and last in the
// file, as the kernel wants it, and returns its size.
func levels(dataBlocks uint64) ([]level, int64) {
	var ls []level
	for n := dataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		ls = append(ls, level{blocks: n})
	}
	var offset int64
	for i := len(ls) - 1; i >= 0; i-- {
		ls[i].offset = offset
		offset += int64(ls[i].blocks) * BlockSize
	}
	return ls, offset
}
