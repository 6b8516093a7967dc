package elfref

import (
	"bytes"
	"os"
	"testing"
)

// TestPackAgain reads a table while another of the same file is being made, as
// segments that are decoded side by side do when the first was let go of.
func TestPackAgain(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Find(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(found) == 0 {
		t.Fatalf("no ELF file: %v", err)
	}
	first, err := found[0].Pack(reader(data).read)
	if err != nil {
		t.Fatal(err)
	}
	c := first.Cursor(reader(data))
	i := 0
	for c.At(i).Class != GoName {
		i++
	}
	want, reads := c.At(i), 0
	second, err := found[0].Pack(func(b []byte, off int64) error {
		reads++
		if got := first.Cursor(reader(data)).At(i); got != want {
			t.Fatalf("meanwhile reference %d is %+v, not %+v", i, got, want)
		}
		return reader(data).read(b, off)
	})
	if err != nil || reads == 0 {
		t.Fatal(reads, err)
	}
	if a, b := second.Cursor(reader(data)).At(i), c.At(i); a != want || b != want {
		t.Errorf("reference %d is %+v and %+v, not %+v", i, a, b, want)
	}
}

// TestAcrossCut reads bytes that lie in both pieces of a file, of which the first
// ends where the data does.
func TestAcrossCut(t *testing.T) {
	data := reader("tailtail" + "0123456789abcdef")
	e := &Element{Loads: Loads{Base: 8, Cut: 16, Tail: 2}, Size: 20}
	table := &Table{e: e, packed: &packed{}}
	for off, want := range map[int64]string{0: "0123", 12: "cdef", 13: "defi", 15: "filt", 16: "ilta"} {
		if got := table.Cursor(data).bytes(off, 4); string(got) != want {
			t.Errorf("at %d is %q, not %q", off, got, want)
		}
	}
}
