package seal

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/internal/fault"
)

// VerifyTree reads a stored hash tree (without superblock) and refuses it
// unless every one of its blocks is what the seal's root says. The data is not
// read: that each of its blocks is what the tree says is for whoever reads it,
// the kernel's dm-verity for one. The caller must have the seal from somewhere
// trustworthy.
func VerifyTree(tree io.ReaderAt, want Seal) error {
	if want.DataBlocks == 0 || want.DataBlocks > MaxDataBlocks {
		return fault.New(fault.Seal, "cannot check a hash tree: it covers %d blocks", want.DataBlocks)
	}
	list, _ := levels(want.DataBlocks)
	salted := sha256.New()
	var digest [DigestSize]byte
	var above [BlockSize]byte
	blocks := make([]byte, SpanSize)
	for n, l := range list {
		for first := uint64(0); first < l.blocks; first += perBlock {
			count := min(perBlock, l.blocks-first)
			if got, err := tree.ReadAt(blocks[:count*BlockSize], l.offset+int64(first)*BlockSize); got < int(count*BlockSize) {
				return fmt.Errorf("cannot read a hash tree: %w", noEOF(err))
			}
			parents := want.Root[:]
			if n+1 < len(list) {
				if got, err := tree.ReadAt(above[:], list[n+1].offset+int64(first/perBlock)*BlockSize); got < BlockSize {
					return fmt.Errorf("cannot read a hash tree: %w", noEOF(err))
				}
				parents = above[:]
			}
			for i := range count {
				salted.Reset()
				salted.Write(want.Salt[:])
				salted.Write(blocks[i*BlockSize : (i+1)*BlockSize])
				if [DigestSize]byte(parents[i*DigestSize:]) != [DigestSize]byte(salted.Sum(digest[:0])) {
					return fault.New(fault.Seal, "the hash tree is damaged: block %d of level %d", first+i, n)
				}
			}
		}
	}
	return nil
}
