package delta

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/sealant-os/sealant/image/patch/align"
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
	tables := NewTables([]*elfref.Element{one, &two}, func(b []byte, off int64) error { copy(b, data[off:]); return nil }, one.Table(data).Memory())
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

// TestBudget holds that tables which take turns are kept together, where that
// is less than looking into their files again and again, and others are not.
func TestBudget(t *testing.T) {
	data, err := os.ReadFile("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	found, err := elfref.Find(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d ELF files: %v", len(found), err)
	}
	const count = 120 // of tables, more than leastBudget holds
	n := int64(len(data))
	var elements []*elfref.Element
	for i := range int64(count) {
		e := *found[0]
		e.Base = i * n
		elements = append(elements, &e)
	}
	table := found[0].Table(data)
	size := table.Memory()
	if size*count < 2*leastBudget {
		t.Fatalf("tables of %d bytes are too small for this test", size)
	}
	tables := &Tables{Elements: elements, Extents: elfref.Extents(elements), loaded: map[*elfref.Element]*loading{}}
	for _, e := range elements {
		l := &loading{table: table}
		l.once.Do(func() {})
		tables.loaded[e] = l
	}
	layout := func(turns int) *Layout {
		l := &Layout{}
		for range turns {
			for i := range int64(count) {
				l.Runs = append(l.Runs, align.Run{New: int64(len(l.Runs)) * 100, Old: i*n + 50, Len: 100})
			}
		}
		return l
	}
	if got := tables.Budget(layout(1)); got != leastBudget {
		t.Errorf("one after the other: %d bytes", got)
	}
	if got := tables.Budget(layout(9)); got != size*count {
		t.Errorf("taking turns: %d bytes, not those of all tables, %d", got, size*count)
	}
	if got := tables.Budget(&Layout{}); got != leastBudget {
		t.Errorf("none: %d bytes", got)
	}
}
