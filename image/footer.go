package image

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

// footer is the last block of an image. All numbers are little-endian, what
// is not named is zero.
//
//	   0  16  "sealant cryptex" and a line feed
//	  16   4  version 1
//	  20   1  subtype: 1 os, 2 app
//	  21   1  length of the name
//	  22  32  name, zero padded
//	  56   8  size of the data; the superblock starts there
//	  64   8  where the hash tree starts
//	  72   8  where the trust cache starts
//	  80   8  size of the trust cache without its padding
//	  88   8  where the footer starts
//	  96  32  root of the hash tree
//	 128  32  salt of the hash tree
//	 160  48  SHA-384 of the trust cache
//	4064  32  SHA-256 of bytes 0 to 4063
type footer struct {
	name       string
	subtype    Subtype
	seal       seal.Seal
	cacheSize  int64
	cacheHash  Digest
	treeAt     int64
	cacheAt    int64
	footerAt   int64
	superblock int64 // = size of the data
}

const (
	footerMagic   = "sealant cryptex\n"
	footerVersion = 1
	blockSize     = seal.BlockSize
)

// parts lays out what comes after the data.
func parts(name string, subtype Subtype, s seal.Seal, cacheSize int64, cacheHash Digest) footer {
	f := footer{name: name, subtype: subtype, seal: s, cacheSize: cacheSize, cacheHash: cacheHash}
	f.superblock = int64(s.DataBlocks) * blockSize
	f.treeAt = f.superblock + blockSize
	f.cacheAt = f.treeAt + seal.HashSize(s.DataBlocks)
	f.footerAt = f.cacheAt + (cacheSize+blockSize-1)/blockSize*blockSize
	return f
}

func (f footer) size() int64 { return f.footerAt + blockSize }

func (f footer) encode() []byte {
	b, le := make([]byte, blockSize), binary.LittleEndian
	copy(b, footerMagic)
	le.PutUint32(b[16:], footerVersion)
	b[20], b[21] = byte(f.subtype), byte(len(f.name))
	copy(b[22:54], f.name)
	for i, n := range []int64{f.superblock, f.treeAt, f.cacheAt, f.cacheSize, f.footerAt} {
		le.PutUint64(b[56+8*i:], uint64(n))
	}
	copy(b[96:], f.seal.Root[:])
	copy(b[128:], f.seal.Salt[:])
	copy(b[160:], f.cacheHash[:])
	sum := sha256.Sum256(b[:4064])
	copy(b[4064:], sum[:])
	return b
}

// parseFooter reads the footer of an image of size bytes. It takes only what
// encode writes: it reads the few fields that are free, lays out the parts
// anew and compares every byte.
func parseFooter(b []byte, size int64) (footer, error) {
	refuse := func(format string, args ...any) (footer, error) {
		return footer{}, fault.New(fault.Seal, format, args...)
	}
	if len(b) != blockSize || string(b[:16]) != footerMagic {
		return refuse("it is not a cryptex, or it is cut short")
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[16:]); v != footerVersion {
		return refuse("its format version %d is not known", v)
	}
	data, cacheSize := le.Uint64(b[56:]), le.Uint64(b[80:])
	if data == 0 || data%blockSize != 0 || data/blockSize > seal.MaxDataBlocks || cacheSize > trustcache.MaxSize {
		return refuse("its footer is out of bounds")
	}
	s := seal.Seal{Root: [32]byte(b[96:]), Salt: [32]byte(b[128:]), DataBlocks: data / blockSize}
	name := string(b[22 : 22+min(int(b[21]), MaxName)])
	f := parts(name, Subtype(b[20]), s, int64(cacheSize), Digest(b[160:208]))
	if string(f.encode()) != string(b) {
		return refuse("its footer is damaged")
	}
	if CheckName(name) != nil || strings.Contains(f.subtype.String(), "unknown") {
		return refuse("its footer names no cryptex")
	}
	if f.size() != size {
		return refuse("it has %d bytes, not the %d its footer says", size, f.size())
	}
	return f, nil
}
