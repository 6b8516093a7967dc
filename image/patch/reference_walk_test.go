package patch

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"sort"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// rRun is a run; rElement and rLoads are new elements and what they load.
type rRun struct {
	data, old, n int64
	self         bool
}

type rElement struct {
	base, cut, tail int64
	old             int
	loads           []rLoad // nil: not known yet
}

type rLoad struct{ off, addr, file, mem int64 }

// reference is a whole decoder: slow, and without mercy for damage.
type reference struct {
	h        rHeader
	old      []byte
	refs     []elfref.Ref
	olds     []*elfref.Element
	runs     []rRun
	elements []rElement
	fixes    map[int64]int64
	sorted   []rRun // the projection
	out      []byte
}

func referenceDecode(old, p []byte) []byte {
	h := rReadHeader(p)
	old = rUnfold(old, h.from)
	d := &reference{h: h, old: old, fixes: map[int64]int64{}}
	var err error
	if d.olds, err = elfref.Find(sectionOf(old), int64(len(old))); err != nil {
		panic(err)
	}
	if !hasELF(p) {
		d.olds = nil
	}
	for _, e := range d.olds {
		data, _ := e.Read(func(b []byte, off int64) error { copy(b, old[off:]); return nil })
		t := e.Table(data)
		for i := range t.Len() {
			d.refs = append(d.refs, t.At(i))
		}
	}
	sort.SliceStable(d.refs, func(i, k int) bool { return d.refs[i].Off < d.refs[k].Off })
	rest := d.h.rest
	d.readMap(newRC(rest[:d.h.mapSize]))
	rest = rest[d.h.mapSize:]
	for _, s := range d.h.segments {
		w := newRWalk(d, s, rest[s.packed:s.packed+s.body])
		if s.packed > 0 {
			w.packed = rUnpack(rest[:s.packed], w.literals)
		}
		w.walk()
		rest = rest[s.packed+s.body:]
	}
	return rFold(d.out, h.to)
}

// readMap reads runs, elements and fixes.
func (d *reference) readMap(c *rc) {
	gapN, howN, lengthN, jumpN, shiftN, backN := newRNumber(4), newRNumber(5), newRNumber(5), newRNumber(4), newRNumber(4), newRNumber(3)
	var end, distance, lastNew, lastOld, mainNew, mainOld, j1, j2 int64
	var l1, l2, how, jumped, moved, excursion uint32
	for range d.h.runs {
		s := how<<1 | excursion
		gap := gapN.code(c, 1, 100+16*l1+s, 1000+32*l1+1024*l2, 200000+s)
		at, g := end+gap, bl(gap)
		on, back := lastOld+at-lastNew, mainOld+at-mainNew
		how = uint32(howN.code(c, s, 100+16*g+s, 1000+16*l1+s, 2000+512*l1+16*g+s, 100000+512*l2+16*l1+s))
		r, far := rRun{data: at}, false
		switch how {
		case 0:
			r.old = on
		case 1:
			u := jumpN.code(c, 1, 100+g, 200+2*jumped+excursion, 300+l1)
			jumped, j2, j1 = bl(u), j1, unzigzag(u)
			far = j1 > 4096 || j1 < -4096
			r.old = lastOld + j1
		case 2:
			r.old = back
		case 3:
			u := shiftN.code(c, 1, 100+g, 200+moved, 300+l1)
			moved = bl(u)
			r.old = back + unzigzag(u)
		case 4:
			if u := backN.code(c, 1, 100+g, 200+bl(distance)); u != 0 {
				distance = u
			}
			r.old, r.self = at-distance, true
		case 5, 6:
			if how == 6 {
				j1, j2 = j2, j1
			}
			far = j1 > 4096 || j1 < -4096
			r.old = lastOld + j1
		}
		h := how
		r.n = lengthN.code(c, h, 100+8*g+h, 300+8*l1+h, 500+512*g+16384*l1+h, 1000000+1024*h+32*jumped+g)
		d.runs = append(d.runs, r)
		end, l2, l1 = at+r.n, l1, bl(r.n)
		if r.self {
			continue
		}
		lastNew, lastOld = end, r.old+r.n
		if how != 2 && how != 3 && r.n < 256 && (excursion == 1 || far) {
			excursion = 1
		} else {
			excursion, mainNew, mainOld = 0, lastNew, lastOld
		}
	}
	d.project()
	d.readElements(c)
}

func (d *reference) readElements(c *rc) {
	countN, fixN, oldN, baseN, tailN, cutN, fromN, toN := newRNumber(0), newRNumber(0), newRNumber(0), newRNumber(0), newRNumber(0), newRNumber(0), newRNumber(0), newRNumber(0)
	usual := &rFlag{}
	guess := func(i int, before int64) rElement {
		if i < 0 || i >= len(d.olds) {
			return rElement{base: before, old: i}
		}
		e := rElement{old: i}
		e.base, _ = d.at(d.olds[i].Base)
		if d.olds[i].Tail != 0 {
			e.tail, _ = d.at(d.olds[i].Tail)
			e.cut = d.olds[i].Cut
		}
		return e
	}
	next, before := 0, int64(0)
	for range countN.code(c) {
		e := guess(next, before)
		if next >= len(d.olds) {
			e.old = -1
		}
		if usual.code(c) == 0 {
			e = guess(next+int(unzigzag(oldN.code(c)&(1<<32-1))), before)
			e.base += baseN.signed(c)
			e.tail += tailN.signed(c)
			if e.tail != 0 {
				e.cut += 4096 * cutN.signed(c)
			} else {
				e.cut = 0
			}
		}
		d.elements = append(d.elements, e)
		next, before = e.old+1, e.base
	}
	from, shift := int64(0), int64(0)
	for range fixN.code(c) {
		from += fromN.code(c)
		shift += toN.signed(c)
		to, _ := d.at(from)
		d.fixes[from] = to + shift
	}
}

// project sorts and cuts the runs.
func (d *reference) project() {
	all := slices.DeleteFunc(slices.Clone(d.runs), func(r rRun) bool { return r.self })
	sort.SliceStable(all, func(i, k int) bool { return all[i].old < all[k].old })
	for _, r := range all {
		for len(d.sorted) > 0 {
			k := &d.sorted[len(d.sorted)-1]
			over := k.old + k.n - r.old
			if over <= 0 {
				break
			}
			if r.n <= k.n {
				r.old, r.data, r.n = r.old+over, r.data+over, r.n-over
				break
			}
			if k.n -= over; k.n > 0 {
				break
			}
			d.sorted = d.sorted[:len(d.sorted)-1]
		}
		if r.n > 0 {
			d.sorted = append(d.sorted, r)
		}
	}
}

// at projects.
func (d *reference) at(old int64) (int64, bool) {
	if len(d.sorted) == 0 {
		return old, false
	}
	i := sort.Search(len(d.sorted), func(i int) bool { return d.sorted[i].old > old }) - 1
	if i < 0 {
		return old - d.sorted[0].old + d.sorted[0].data, false
	}
	r := d.sorted[i]
	to := r.data + old - r.old
	if old < r.old+r.n {
		return to, true
	}
	if i+1 < len(d.sorted) && d.sorted[i+1].old-old < old-r.old-r.n {
		return old - d.sorted[i+1].old + d.sorted[i+1].data, false
	}
	return to, false
}

const unbackedPlace = int64(1) << 62

// place and addr are the loads' two directions.
func (e *rElement) place(index int, addr int64) (int64, bool) {
	for _, l := range e.loads {
		if addr >= l.addr && addr < l.addr+l.mem {
			if addr < l.addr+l.file {
				return l.off + addr - l.addr, true
			}
			return unbackedPlace | int64(index)<<44 | addr, true
		}
	}
	return 0, false
}

func (e *rElement) addr(p int64) (int64, bool) {
	if p >= unbackedPlace {
		return p & (1<<44 - 1), true
	}
	for _, l := range e.loads {
		if p >= l.off && p < l.off+l.file {
			return l.addr + p - l.off, true
		}
	}
	return 0, false
}

// load reads the loads of a new element, if it is whole up to its program
// headers; start is that of the segment.
func (d *reference) load(e *rElement, start int64) {
	if e.loads != nil || e.base < start || int64(len(d.out)) < e.base+64 {
		return
	}
	b := d.out[e.base:]
	le := binary.LittleEndian
	m, n := le.Uint16(b[0x12:]), int64(le.Uint16(b[0x38:]))
	if string(b[:6]) != "\x7fELF\x02\x01" || m != 62 && m != 183 || le.Uint64(b[0x20:]) != 64 || le.Uint16(b[0x36:]) != 56 || n == 0 || n > 64 || int64(len(b)) < 64+56*n {
		return
	}
	e.loads = []rLoad{}
	at := func(off int64) int64 {
		if e.tail != 0 && off >= e.cut {
			return e.tail + off - e.cut
		}
		return e.base + off
	}
	for i := range n {
		h := b[64+56*i:]
		off, addr, file, mem := le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[32:]), le.Uint64(h[40:])
		limit := uint64(1<<60 - e.base)
		if le.Uint32(h) != 1 || addr >= 1<<44 || mem >= 1<<44 || addr+mem >= 1<<44 || file > mem || off > limit || file > limit-off {
			continue
		}
		l := rLoad{at(int64(off)), int64(addr), int64(file), int64(mem)}
		if k := e.cut - int64(off); e.tail != 0 && k > 0 && k < l.file {
			e.loads = append(e.loads, rLoad{l.off, l.addr, k, k})
			l = rLoad{e.tail, l.addr + k, l.file - k, l.mem - k}
		}
		e.loads = append(e.loads, l)
	}
}

// field puts a target into a field: the spec's list. prev is where the reference
// before led to.
func (w *rWalk) field(e *rElement, r *elfref.Ref, old []byte, at, to int64) (uint64, bool) {
	switch r.Kind {
	case elfref.Length:
		v := to + 1 - w.prev
		return uint64(v), v >= 0 && v < 1<<31
	case elfref.Scaled:
		return uint64(uint32((to - w.base(r.Base)) / r.Adjust)), true
	case elfref.File:
		if e.tail != 0 && to >= e.tail && to < e.tail+4096 {
			return uint64(to - e.tail + e.cut), true
		}
		return uint64(to - e.base), true
	}
	a, ok := e.addr(to)
	here, known := e.addr(at)
	switch r.Kind {
	case elfref.FromBase:
		here, known = e.addr(w.base(r.Base))
	case elfref.FromTable:
		here, known = e.addr(at - (r.Off - r.Base))
	case elfref.Absolute:
		return uint64(a), ok
	}
	if !ok || !known {
		return 0, false
	}
	x := binary.LittleEndian.Uint32(old)
	put := func(v int64, shift, n uint) uint64 {
		mask := uint32(1<<n-1) << shift
		return uint64(x&^mask | uint32(v)<<shift&mask)
	}
	switch r.Kind {
	case elfref.Relative:
		return uint64(uint32(a - here - r.Adjust)), true
	case elfref.Backward:
		return uint64(uint32(here - a)), true
	case elfref.FromBase, elfref.FromTable:
		return uint64(uint32(a - here)), true
	case elfref.Branch26:
		return put(int64(uint32(a-here)>>2), 0, 26), true
	case elfref.Branch19:
		return put(int64(uint32(a-here)>>2), 5, 19), true
	case elfref.Branch14:
		return put(int64(uint32(a-here)>>2), 5, 14), true
	case elfref.Page:
		p := (a&^4095 - here&^4095) >> 12
		x = uint32(put(p>>2, 5, 19))
		return put(p&3, 29, 2), true
	}
	return put(a&4095>>uint(r.Adjust), 10, 12), true // low bits
}

// target turns it around.
func (w *rWalk) target(e *rElement, index int, r *elfref.Ref, at int64, v uint64) (int64, bool) {
	here, ok := e.addr(at)
	signed := int64(int32(v))
	sx := func(v uint64, n uint) int64 { return int64(v<<(64-n)) >> (64 - n) * 4 }
	switch r.Kind {
	case elfref.Length:
		return w.prev + int64(v) - 1, v < 1<<40
	case elfref.Scaled:
		return w.base(r.Base) + int64(uint32(v))*r.Adjust, true
	case elfref.File:
		off := int64(v & (1<<56 - 1))
		if e.tail != 0 && off >= e.cut {
			return e.tail + off - e.cut, v < 1<<40
		}
		return e.base + off, v < 1<<40
	case elfref.Absolute:
		if v == 0 {
			return 0, false
		}
		if r.Width == 8 {
			signed = int64(v)
		}
		return e.place(index, signed)
	case elfref.FromBase:
		here, ok = e.addr(w.base(r.Base))
	case elfref.FromTable:
		here, ok = e.addr(at - (r.Off - r.Base))
	}
	if !ok {
		return 0, false
	}
	switch r.Kind {
	case elfref.Relative:
		return e.place(index, here+r.Adjust+signed)
	case elfref.Backward:
		return e.place(index, here-int64(uint32(v)))
	case elfref.FromBase, elfref.FromTable:
		return e.place(index, here+signed)
	case elfref.Branch26:
		return e.place(index, here+sx(v, 26))
	case elfref.Branch19:
		return e.place(index, here+sx(v>>5, 19))
	case elfref.Branch14:
		return e.place(index, here+sx(v>>5, 14))
	}
	return 0, false
}

// hexOf is what a debug link says of the build-id before it.
func hexOf(id []byte) []byte { return []byte(hex.EncodeToString(id)) }
