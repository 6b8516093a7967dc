package elfref

import (
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// TestAlternatingTables holds that small units which name two tables of
// abbreviations by turns do not have these read again and again.
func TestAlternatingTables(t *testing.T) {
	const units, tables = 50_000, 256 << 10
	section := func(name string, size int, fill func(b []byte)) sample.Section {
		return sample.Section{Name: name, Kind: typeProgbits, Data: func(func(string) uint64) []byte {
			b := make([]byte, size)
			fill(b)
			return b
		}}
	}
	data := sample.ELF(machineX86, []sample.Section{
		section(".debug_abbrev", tables, func([]byte) {}),
		section(".debug_info", units*12, func(b []byte) {
			for i := range units {
				u := b[i*12:]
				le.PutUint32(u, 8) // length
				u[4] = 4
				le.PutUint32(u[6:], uint32(i&1*(tables-100)))
				u[10] = 8
			}
		}),
	})
	e, _ := only(t, data)
	read := 0
	packed, err := e.Pack(func(b []byte, off int64) error {
		read += len(b)
		return reader(data).read(b, off)
	})
	if err != nil || packed.Len() < units {
		t.Fatalf("%d references: %v", packed.Len(), err)
	}
	if read > 4*len(data) {
		t.Errorf("%d bytes read of %d", read, len(data))
	}
}
