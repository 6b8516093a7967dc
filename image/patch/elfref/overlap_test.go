package elfref

import (
	"bytes"
	"testing"
)

// TestOverlappingSections holds that a small file whose sections all name the
// same bytes is not gone through once for each.
func TestOverlappingSections(t *testing.T) {
	const size, count = 256 << 10, 1000
	data := make([]byte, size+count*sectSize)
	copy(data, "\x7fELF\x02\x01\x01")
	le.PutUint16(data[0x10:], 3)
	le.PutUint16(data[0x12:], machineX86)
	le.PutUint64(data[0x20:], headSize)
	le.PutUint64(data[0x28:], size)
	le.PutUint16(data[0x36:], progSize)
	le.PutUint16(data[0x38:], 1)
	le.PutUint16(data[0x3a:], sectSize)
	sections := func(n uint16) int64 {
		le.PutUint16(data[0x3c:], n)
		for i := range int(n) {
			h := data[size+i*sectSize:]
			le.PutUint32(h[4:], typeProgbits)
			le.PutUint64(h[8:], flagAlloc|flagExec)
			le.PutUint64(h[24:], 0x1000)
			le.PutUint64(h[32:], size-0x1000)
		}
		found, err := Find(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		read := int64(0)
		for _, e := range found {
			_, err := e.Pack(func(b []byte, off int64) error {
				read += int64(len(b))
				return reader(data).read(b, off)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return read
	}
	if n := sections(1); n < size/2 {
		t.Errorf("one section: %d bytes read: the file is not looked into", n)
	}
	if n := sections(count); n > 2*size {
		t.Errorf("%d sections over the same bytes: %d bytes read of %d", count, n, size)
	}
}
