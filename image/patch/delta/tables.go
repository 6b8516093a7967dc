package delta

import (
	"fmt"
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

	mu     sync.Mutex
	left   int64 // bytes of files that may still be looked into
	loaded map[*elfref.Element]*loading
	keeper keeper
}

// loading is a table that is being made, or has been.
type loading struct {
	once  sync.Once
	table *elfref.Table
	err   error
}

// NewTables reads files with read as they are needed, and keeps budget bytes of
// tables; a walk that needs a larger one fails.
func NewTables(elements []*elfref.Element, read func(b []byte, off int64) error, budget int64) *Tables {
	left := int64(leastLooked)
	for _, e := range elements {
		left += mostLooked * e.Size
	}
	return &Tables{Elements: elements, Extents: elfref.Extents(elements), read: read, keeper: keeper{budget: budget}, left: left, loaded: map[*elfref.Element]*loading{}}
}

// A patch may have each file looked into so often on the average, and all files
// for so many bytes more: one whose runs come and go between files, so that none
// is kept, could keep a device busy for days. Budget keeps clear of it.
const (
	mostLooked  = 4
	leastLooked = 64 << 20
)

// leastBudget is what tables of an element are granted whatever the layout, in
// bytes.
const leastBudget = 8 << 20

// Budget is how many bytes of tables to keep on a walk through a layout, so that
// files are looked into twice at the most on the average. t has all tables.
func (t *Tables) Budget(l *Layout) int64 {
	size := map[*elfref.Element]int64{} // of the tables that are needed
	var turns []*elfref.Element         // in which order
	all, most, files := int64(0), int64(0), int64(0)
	for _, r := range l.Runs {
		if r.Self {
			continue
		}
		for _, e := range t.between(r.Old, r.Old+r.Len) {
			if len(turns) > 0 && turns[len(turns)-1] == e.Element {
				continue
			}
			turns = append(turns, e.Element)
			if size[e.Element] == 0 {
				n := max(t.Of(e.Element).Memory(), 1)
				size[e.Element] = n
				all, most, files = all+n, max(most, n), files+e.Size
			}
		}
	}
	budget := int64(leastBudget)
	for budget < all && looked(turns, size, budget) > 2*files {
		budget *= 2
	}
	return max(min(budget, max(all, leastBudget)), most)
}

// looked is how many bytes of files are looked into, taken in turn, if so many
// bytes of tables are kept.
func looked(turns []*elfref.Element, size map[*elfref.Element]int64, budget int64) int64 {
	k, n := keeper{budget: budget}, int64(0)
	kept := map[*elfref.Element]bool{}
	for _, e := range turns {
		if !kept[e] {
			n += e.Size
			for _, gone := range k.keep(e, size[e]) {
				delete(kept, gone)
			}
			kept[e] = true
		}
	}
	return n
}

// keeper says which tables are kept: those that were made last, as many as fit.
type keeper struct {
	budget, used int64
	recent       []kept // oldest first
}

type kept struct {
	e    *elfref.Element
	size int64
}

// keep counts a new table, and forgets those that were made first.
func (k *keeper) keep(e *elfref.Element, size int64) (gone []*elfref.Element) {
	for len(k.recent) > 0 && k.used+size > k.budget {
		gone = append(gone, k.recent[0].e)
		k.used -= k.recent[0].size
		k.recent = k.recent[1:]
	}
	k.recent = append(k.recent, kept{e, size})
	k.used += size
	return gone
}

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
		if l.table, l.err = e.Pack(t.read); l.err != nil {
			l.err = &SourceError{l.err}
			return
		}
		size := l.table.Memory()
		if size > t.keeper.budget {
			l.table, l.err = nil, fmt.Errorf("it declares %d bytes of memory for references, and those of one program take %d", t.keeper.budget, size)
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, gone := range t.keeper.keep(e, size) {
			delete(t.loaded, gone)
		}
	})
	if l.err != nil {
		return nil, l.err
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
