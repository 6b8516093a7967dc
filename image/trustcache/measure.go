package trustcache

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	blockSize = 4096
	perBlock  = blockSize / sha256.Size
)

// Measure computes a file's fs-verity digest while the file's bytes pass
// through it in order: SHA-256, 4096-byte blocks, no salt, as `fsverity
// digest` prints it. It needs one block of memory for each level of the file's
// hash tree. The zero Measure is ready for use.
type Measure struct {
	size   uint64
	data   []byte   // the block being filled
	levels [][]byte // for each level, the digests of the block being filled
	counts []uint64 // for each level, its digests so far
}

// Write takes the next bytes of the file. It never fails.
func (m *Measure) Write(p []byte) (int, error) {
	n := len(p)
	m.size += uint64(n)
	if len(m.data) > 0 {
		k := min(len(p), blockSize-len(m.data))
		m.data = append(m.data, p[:k]...)
		p = p[k:]
		if len(m.data) < blockSize {
			return n, nil
		}
		m.add(0, sha256.Sum256(m.data))
		m.data = m.data[:0]
	}
	for ; len(p) >= blockSize; p = p[blockSize:] {
		m.add(0, sha256.Sum256(p[:blockSize]))
	}
	m.data = append(m.data, p...)
	return n, nil
}

// Block takes the next whole block of 4096 bytes of the file by its SHA-256
// digest. What was taken before must be whole blocks too.
func (m *Measure) Block(digest [sha256.Size]byte) {
	m.size += blockSize
	m.add(0, digest)
}

// add puts a digest at the end of a level; a level's block that is full
// becomes a digest of the next level only when one more comes, since the last
// block of the highest level is the root.
func (m *Measure) add(l int, digest [sha256.Size]byte) {
	if l == len(m.levels) {
		m.levels = append(m.levels, make([]byte, 0, blockSize))
		m.counts = append(m.counts, 0)
	}
	if len(m.levels[l]) == blockSize {
		full := sha256.Sum256(m.levels[l])
		m.levels[l] = m.levels[l][:0]
		m.add(l+1, full)
	}
	m.levels[l] = append(m.levels[l], digest[:]...)
	m.counts[l]++
}

// Sum ends the file and returns its digest. The Measure must not be used
// afterwards.
func (m *Measure) Sum() [32]byte {
	if len(m.data) > 0 {
		m.add(0, sha256.Sum256(pad(m.data)))
	}
	var root [32]byte
	for l := 0; l < len(m.levels); l++ {
		if m.counts[l] == 1 { // the only digest of its level: the root
			copy(root[:], m.levels[l])
			break
		}
		m.add(l+1, sha256.Sum256(pad(m.levels[l])))
	}
	// The fs-verity descriptor: include/uapi/linux/fsverity.h. Everything
	// that is not set, salt and signature among it, is zero.
	var d [256]byte
	d[0] = 1  // version
	d[1] = 1  // hash algorithm: SHA-256
	d[2] = 12 // log2 of the block size
	binary.LittleEndian.PutUint64(d[8:], m.size)
	copy(d[16:], root[:])
	return sha256.Sum256(d[:])
}

// pad fills a block up with zeros.
func pad(b []byte) []byte {
	return append(b, make([]byte, blockSize-len(b))...)
}
