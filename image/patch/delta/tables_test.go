package delta

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// TestLookedIntoTooOften has two files looked into by turns, of which only one
// is kept.
func TestLookedIntoTooOften(t *testing.T) {
	data, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	found, err := elfref.Find(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d ELF files: %v", len(found), err)
	}
	one, two := found[0], *found[0]
	made := 0
	tables := NewTables([]*elfref.Element{one, &two}, func(b []byte, off int64) error { copy(b, data[off:]); return nil }, 1)
	tables.left = 10 * one.Size
	for err == nil && made < 100 {
		if _, err = tables.get([]*elfref.Element{one, &two}[made%2]); err == nil {
			made++
		}
	}
	if made != 10 || !errors.Is(err, errWork) {
		t.Errorf("looked into %d times: %v", made, err)
	}
	if want := int64(leastLooked) + 2*mostLooked*one.Size; NewTables([]*elfref.Element{one, &two}, nil, 1).left != want {
		t.Errorf("not %d bytes at first", want)
	}
}
