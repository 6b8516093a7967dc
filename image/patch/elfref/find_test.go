package elfref

import (
	"bytes"
	"testing"
)

// tailed is an EROFS image of one small ELF file, whose last bytes stand behind
// its inode. The same bytes also stand behind the rest of the file.
func tailed() (data []byte, inode int) {
	const base, size, cut = 2 * blockSize, blockSize + 200, blockSize
	data = make([]byte, 5*blockSize)
	le.PutUint32(data[1024:], 0xe0f5e1e2)
	data[1036] = 12
	inode = blockSize
	writeInode(data[inode:], base, size)
	head := data[base:]
	copy(head, "\x7fELF\x02\x01")
	le.PutUint16(head[0x12:], machineX86)
	le.PutUint64(head[0x20:], headSize)
	le.PutUint64(head[0x28:], size-sectSize)
	le.PutUint16(head[0x36:], progSize)
	le.PutUint16(head[0x38:], 1)
	le.PutUint16(head[0x3a:], sectSize)
	le.PutUint16(head[0x3c:], 1)
	copy(data[inode+32:], head[cut:size])
	return data, inode
}

// writeInode writes a compact inode of a file whose tail follows.
func writeInode(b []byte, base, size int) {
	b[0], b[5] = 4, 0x80
	le.PutUint32(b[8:], uint32(size))
	le.PutUint32(b[16:], uint32(base/blockSize))
}

// TestTails: what only looks like an inode takes no file's tail away.
func TestTails(t *testing.T) {
	find := func(data []byte) *Element {
		t.Helper()
		es, err := Find(bytes.NewReader(data), int64(len(data)))
		if err != nil || len(es) != 1 {
			t.Fatalf("found %d files: %v", len(es), err)
		}
		return es[0]
	}
	data, inode := tailed()
	if e := find(data); e.Tail != int64(inode)+32 || e.Cut != blockSize || e.Size != blockSize+200 {
		t.Errorf("tail at %d, cut at %d, %d bytes", e.Tail, e.Cut, e.Size)
	}
	for name, decoy := range map[string]struct{ at, size int }{
		"a size that does not hold the section headers": {512, blockSize + 100},
		"a size that the image does not hold":           {512, 9*blockSize + 100},
		"a tail in two blocks":                          {blockSize - 96, blockSize + 201},
		"a tail behind the image":                       {5*blockSize - 32, blockSize + 201},
	} {
		data, inode := tailed()
		clear(data[inode:][:32])
		writeInode(data[decoy.at:], 2*blockSize, decoy.size)
		if e := find(data); e.Tail != 0 || e.Size != blockSize+200 {
			t.Errorf("%s: tail at %d, %d bytes", name, e.Tail, e.Size)
		}
	}
}
