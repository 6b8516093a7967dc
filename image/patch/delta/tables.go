package delta

import (
	"runtime"
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// Tables holds the references of the old data's ELF files: those used last, as
// many as fit into its memory.
type Tables struct {
	Elements []*elfref.Element
	Extents  []elfref.Extent
	read     func(b []byte, off int64) error
	memory   []byte // the old data, if it is in memory
	budget   int64
	used     int64
	loaded   map[*elfref.Element]*elfref.Table
	recent   []*elfref.Element // oldest first
}

// NewTables reads files with read as they are needed, and keeps about budget
// bytes of tables.
func NewTables(elements []*elfref.Element, read func(b []byte, off int64) error, budget int64) *Tables {
	return &Tables{Elements: elements, Extents: elfref.Extents(elements), read: read, budget: budget, loaded: map[*elfref.Element]*elfref.Table{}}
}

// MemoryTables computes all tables of data in memory.
func MemoryTables(elements []*elfref.Element, data []byte) *Tables {
	t := &Tables{Elements: elements, Extents: elfref.Extents(elements), memory: data, budget: 1 << 62, loaded: map[*elfref.Element]*elfref.Table{}}
	tables := make([]*elfref.Table, len(elements))
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, e := range elements {
		group.Go(func() error { tables[i] = e.Table(within(e, data)); return nil })
	}
	_ = group.Wait()
	for i, e := range elements {
		t.loaded[e] = tables[i]
	}
	return t
}

// Of is the table of an element that MemoryTables has computed.
func (t *Tables) Of(e *elfref.Element) *elfref.Table { return t.loaded[e] }

// within are the bytes of an element of data in memory.
func within(e *elfref.Element, data []byte) []byte {
	if e.Tail == 0 {
		return data[e.Base : e.Base+e.Size]
	}
	b, _ := e.Read(func(b []byte, off int64) error { copy(b, data[off:]); return nil })
	return b
}

// between are the pieces of elements that have bytes between two offsets.
func (t *Tables) between(from, to int64) []elfref.Extent {
	es := t.Extents
	i := sort.Search(len(es), func(i int) bool { return es[i].To > from })
	j := i
	for j < len(es) && es[j].From < to {
		j++
	}
	return es[i:j]
}

// get computes an element's table, or finds it.
func (t *Tables) get(e *elfref.Element) (*elfref.Table, error) {
	if table, ok := t.loaded[e]; ok {
		return table, nil
	}
	for len(t.recent) > 0 && t.used+2*e.Size > t.budget {
		first := t.recent[0]
		t.recent = t.recent[1:]
		t.used -= first.Memory(t.loaded[first].Len())
		delete(t.loaded, first)
	}
	data, err := e.Read(t.read)
	if err != nil {
		return nil, &SourceError{err}
	}
	table := e.Table(data)
	t.loaded[e] = table
	t.recent = append(t.recent, e)
	t.used += e.Memory(table.Len())
	return table, nil
}
