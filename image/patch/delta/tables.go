package delta

import (
	"runtime"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// Tables holds the references of the old data's ELF files: those used last, as
// many as fit into its memory. Several walks may use it at once.
type Tables struct {
	Elements []*elfref.Element
	Extents  []elfref.Extent
	read     func(b []byte, off int64) error
	budget   int64

	mu     sync.Mutex
	used   int64
	left   int64 // bytes of files that may still be looked into
	loaded map[*elfref.Element]*loading
	recent []*elfref.Element // oldest first
}

// loading is a table that is being made, or has been.
type loading struct {
	once  sync.Once
	table *elfref.Table
	err   error
}

// NewTables reads files with read as they are needed, and keeps about budget
// bytes of tables.
func NewTables(elements []*elfref.Element, read func(b []byte, off int64) error, budget int64) *Tables {
	left := int64(leastLooked)
	for _, e := range elements {
		left += mostLooked * e.Size
	}
	return &Tables{Elements: elements, Extents: elfref.Extents(elements), read: read, budget: budget, left: left, loaded: map[*elfref.Element]*loading{}}
}

// A patch may have each file looked into so often on the average, and all files
// for so many bytes more: one whose runs come and go between files, so that none
// is kept, could keep a device busy for days.
const (
	mostLooked  = 64
	leastLooked = 4 << 30
)

// MemoryTables computes all tables of data in memory.
func MemoryTables(elements []*elfref.Element, data []byte) *Tables {
	t := &Tables{Elements: elements, Extents: elfref.Extents(elements), loaded: map[*elfref.Element]*loading{}}
	tables := make([]*elfref.Table, len(elements))
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, e := range elements {
		group.Go(func() error { tables[i] = e.Table(within(e, data)); return nil })
	}
	_ = group.Wait()
	for i, e := range elements {
		t.loaded[e] = &loading{table: tables[i]}
		t.loaded[e].once.Do(func() {})
	}
	return t
}

// Of is the table of an element that MemoryTables has computed.
func (t *Tables) Of(e *elfref.Element) *elfref.Table { return t.loaded[e].table }

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
	t.mu.Lock()
	l, ok := t.loaded[e]
	if !ok {
		l = &loading{}
		t.loaded[e] = l
	}
	t.mu.Unlock()
	l.once.Do(func() {
		if !t.look(e) {
			return
		}
		if l.table, l.err = e.Pack(t.read); l.err == nil {
			t.keep(e, l.table.Memory())
		}
	})
	if l.err != nil {
		return nil, &SourceError{l.err}
	}
	if l.table == nil {
		return nil, errWork
	}
	return l.table, nil
}

// look counts a file that is looked into, and says whether it may be.
func (t *Tables) look(e *elfref.Element) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left -= e.Size
	return t.left >= 0
}

// keep counts a new table, and forgets those that were made first.
func (t *Tables) keep(e *elfref.Element, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.recent) > 0 && t.used+size > t.budget {
		first := t.recent[0]
		t.recent = t.recent[1:]
		t.used -= t.loaded[first].table.Memory()
		delete(t.loaded, first)
	}
	t.recent = append(t.recent, e)
	t.used += size
}
