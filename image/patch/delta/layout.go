package delta

import (
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// Layout is what both sides know before they walk: where the new data stems
// from, and where in it the ELF files lie.
type Layout struct {
	Runs     []align.Run
	Elements []Element // by Base
	Fixes    []Fix     // by From
}

// Element is an ELF file of the new data.
type Element struct {
	Base int64
	Cut  int64 // see elfref.Loads
	Tail int64
	Old  int // index of the old data's file that it stems from, -1 for none
}

// Fix says where a place that fields count from has gone, where the projection
// does not.
type Fix struct{ From, To elfref.Place }

// Limits of a layout.
const (
	maxElements = 1 << 16
	maxFixes    = 1 << 20
	maxOffset   = 1 << 60

	block = 4096 // bytes, of what comes before a tail
)

// EncodeLayout codes a layout; old are the ELF files of the old data.
func EncodeLayout(l *Layout, old []*elfref.Element) []byte {
	c, k := entropy.NewEncoder(), newRunCoder()
	for _, r := range l.Runs {
		if _, err := k.code(c, r); err != nil {
			panic(err) // runs within any data are in range
		}
	}
	var e elementCoder
	e.code(c, l, old)
	return c.Finish()
}

// DecodeLayout decodes a layout with count runs from exactly size bytes of in.
// The runs it returns lie within both data, in the order of the new, and don't
// overlap there. The caller has bounded count by the memory it grants.
func DecodeLayout(in io.ByteReader, size, count, oldSize, newSize int64, old []*elfref.Element, account Account) (*Layout, error) {
	c, k := entropy.NewDecoder(in, size), newRunCoder()
	l := &Layout{}
	before := int64(0)
	for range count {
		end := k.end
		r, err := k.code(c, align.Run{})
		if err == nil {
			err = c.Err()
		}
		if err == nil {
			err = check(r, end, newSize, oldSize)
		}
		if err != nil {
			return nil, err
		}
		l.Runs = append(l.Runs, r)
		if spent := c.Spent(); account != nil {
			account(r.New, Map, spent-before)
			before = spent
		}
	}
	var e elementCoder
	if err := e.code(c, l, old); err != nil {
		return nil, err
	}
	last := int64(-1)
	for _, e := range l.Elements {
		if e.Base <= last || e.Base >= newSize || e.Cut < 0 || e.Cut >= newSize || e.Tail < 0 || e.Tail >= newSize || e.Old < -1 || e.Old >= len(old) {
			return nil, fmt.Errorf("element at %d is out of bounds", e.Base)
		}
		last = e.Base
	}
	return l, c.Close()
}

// elementCoder codes elements and fixes.
type elementCoder struct {
	count, fixes entropy.Numbers
	usual        entropy.Flag
	old, base    entropy.Numbers
	tail, cut    entropy.Numbers
	from, to     entropy.Numbers
}

// code codes what follows the runs.
func (k *elementCoder) code(c *entropy.Coder, l *Layout, old []*elfref.Element) error {
	n := k.count.Code(c, uint64(len(l.Elements)))
	if n > maxElements {
		return fmt.Errorf("%d elements are more than %d", n, maxElements)
	}
	if c.Decoding() {
		l.Elements = make([]Element, n)
	}
	p := align.Project(l.Runs)
	next, end := 0, int64(0)
	for i := range l.Elements {
		e := l.Elements[i]
		guess := Element{Base: end, Old: -1}
		if next < len(old) {
			guess = k.guess(p, old, next)
		}
		usual := 0
		if e == guess {
			usual = 1
		}
		if k.usual.Code(c, usual) != 0 {
			e = guess
		} else {
			e.Old = int(entropy.Unzigzag(k.old.Code(c, entropy.Zigzag(int64(e.Old-next)))&(1<<32-1))) + next
			if e.Old < -1 || e.Old >= len(old) {
				return fmt.Errorf("element stems from number %d of %d", e.Old, len(old))
			}
			guess = Element{Base: end, Old: e.Old}
			if e.Old >= 0 && e.Old < len(old) {
				guess = k.guess(p, old, e.Old)
			}
			d := entropy.Unzigzag(k.base.Code(c, entropy.Zigzag(e.Base-guess.Base)))
			if d > maxOffset || d < -maxOffset {
				return fmt.Errorf("element is out of range")
			}
			e.Base = guess.Base + d
			t := entropy.Unzigzag(k.tail.Code(c, entropy.Zigzag(e.Tail-guess.Tail)))
			if t > maxOffset || t < -maxOffset {
				return fmt.Errorf("element is out of range")
			}
			e.Tail = guess.Tail + t
			cut := int64(0) // of the whole blocks that come before the tail
			if e.Tail != 0 {
				cut = entropy.Unzigzag(k.cut.Code(c, entropy.Zigzag((e.Cut-guess.Cut)/block)))
			}
			if cut > maxOffset/block || cut < -maxOffset/block {
				return fmt.Errorf("element is out of range")
			}
			if e.Cut = guess.Cut + cut*block; e.Tail == 0 {
				e.Cut = 0
			}
		}
		if err := c.Err(); err != nil {
			return err
		}
		if c.Decoding() {
			l.Elements[i] = e
		}
		next, end = e.Old+1, e.Base
	}
	return k.codeFixes(c, l, p)
}

// guess is where an old element has gone if it went with its runs.
func (k *elementCoder) guess(p *align.Projection, old []*elfref.Element, i int) Element {
	e := Element{Old: i}
	e.Base, _ = p.At(old[i].Base)
	if old[i].Tail != 0 {
		e.Tail, _ = p.At(old[i].Tail)
		e.Cut = old[i].Cut
	}
	return e
}

func (k *elementCoder) codeFixes(c *entropy.Coder, l *Layout, p *align.Projection) error {
	n := k.fixes.Code(c, uint64(len(l.Fixes)))
	if n > maxFixes {
		return fmt.Errorf("%d fixes are more than %d", n, maxFixes)
	}
	if c.Decoding() {
		l.Fixes = nil
	}
	from, shift := int64(0), int64(0)
	for i := range int(n) {
		var f Fix
		if !c.Decoding() {
			f = l.Fixes[i]
		}
		d := k.from.Code(c, uint64(f.From-from))
		if d > maxOffset || from > maxOffset {
			return fmt.Errorf("fix is out of range")
		}
		f.From = from + int64(d)
		to, _ := p.At(f.From)
		s := entropy.Unzigzag(k.to.Code(c, entropy.Zigzag(f.To-to-shift)))
		if s > maxOffset || s < -maxOffset || shift > maxOffset || shift < -maxOffset {
			return fmt.Errorf("fix is out of range")
		}
		shift += s
		f.To = to + shift
		if c.Decoding() {
			l.Fixes = append(l.Fixes, f)
		}
		if err := c.Err(); err != nil {
			return err
		}
		from = f.From
	}
	return nil
}

// elementAt is the index of the new element that an offset may belong to.
func (l *Layout) elementAt(off int64) int {
	return sort.Search(len(l.Elements), func(i int) bool { return l.Elements[i].Base > off }) - 1
}

// Within cuts a layout's runs to those between two offsets, where no run may
// cross.
func (l *Layout) Within(start, end int64) ([]align.Run, error) {
	from := sort.Search(len(l.Runs), func(i int) bool { return l.Runs[i].New >= start })
	to := sort.Search(len(l.Runs), func(i int) bool { return l.Runs[i].New >= end })
	if to > from {
		if r := l.Runs[to-1]; r.New+r.Len > end {
			return nil, fmt.Errorf("a run crosses the end of a segment")
		}
	}
	for _, r := range l.Runs[from:to] {
		if r.Self && r.Old < start {
			return nil, fmt.Errorf("a run stems from before its segment")
		}
	}
	return slices.Clip(l.Runs[from:to]), nil
}
