package patch

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// rWalk is one segment's decoding.
type rWalk struct {
	*reference
	s          rSegment
	c          *rc
	start, end int64
	runs       []rRun
	packed     []byte
	literals   int // how many there are

	quiet, gap, g1, g2 int64
	d1, d2, o1, p1     uint32
	far                int64
	asked              *rBitMixer
	gaps, differences  *rMixer
	longGaps           [4]*rNumber

	lit  *rMixer
	ring []byte         // all literals
	seen map[uint64]int // by hash: where they go on
	old6 map[uint64]int
	m    uint

	flags   map[[4]int]*rFlag
	history map[int]int
	lastN   uint32
	misses  *rMixer
	hexFlag rFlag
	learned map[int64]int64
	near    map[[2]int64]int64
	prev    int64
}

func newRWalk(d *reference, s rSegment, body []byte) *rWalk {
	w := &rWalk{reference: d, s: s, c: newRC(body), start: int64(len(d.out)), quiet: s.watch, gap: -1}
	w.end = w.start + s.size
	w.literals = int(s.size)
	for _, r := range d.runs {
		if r.data >= w.start && r.data < w.end {
			w.runs = append(w.runs, r)
			w.literals -= int(r.n)
		}
	}
	b := min(s.b, 16)
	asks, differs, lits := 7, 8, 12
	if s.light {
		asks, differs, lits = 2, 3, 4
	}
	w.asked = &rBitMixer{contexts: asks, b: max(12, min(s.b-2, 16)), slots: map[[2]uint32]*rSlot{}, w: map[int][]int64{}}
	w.gaps, w.differences = newRMixer(4, min(s.b, 14)), newRMixer(differs, b)
	for i := range w.longGaps {
		w.longGaps[i] = newRNumber(0)
	}
	w.lit, w.seen = newRMixer(lits, s.b), map[uint64]int{}
	if s.primed {
		w.m = uint(max(12, min(bits.Len(uint(len(d.old))), 22)))
		w.old6 = map[uint64]int{}
		for i := 6; i <= len(d.old); i++ {
			w.old6[rSix(d.old[i-6:i])*0x9E3779B97F4A7C15>>(64-w.m)] = i
		}
	}
	w.flags, w.history, w.misses = map[[4]int]*rFlag{}, map[int]int{}, newRMixer(3, b)
	w.learned, w.near = map[int64]int64{}, map[[2]int64]int64{}
	return w
}

// rSix puts six bytes together, the first lowest.
func rSix(b []byte) (v uint64) {
	for i := range 6 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

func (w *rWalk) source(off int64) uint32 {
	if off < 0 || off >= int64(len(w.old)) {
		return 0
	}
	return uint32(w.old[off])
}

// back is the data byte n before the present one.
func (w *rWalk) back(n int) uint32 {
	if int64(len(w.out)-n) < w.start {
		return 0
	}
	return uint32(w.out[len(w.out)-n])
}

func (w *rWalk) walk() {
	beside, before := int64(0), w.start
	for _, r := range append(w.runs, rRun{data: w.end}) {
		w.literal(r.data, beside)
		switch {
		case r.self:
			for i := range r.n {
				w.out = append(w.out, w.out[r.old+i])
			}
			beside += r.data + r.n - before
		default:
			w.run(r)
			beside = r.old + r.n
		}
		before = int64(len(w.out))
	}
}

func (w *rWalk) run(r rRun) {
	class := uint32(0)
	for _, n := range []int64{32, 128, 1024} {
		if r.n >= n {
			class++
		}
	}
	o := r.old
	for i := range w.refs {
		ref := &w.refs[i]
		at := ref.Off - r.old + r.data
		if ref.Off < o || ref.Off+ref.Width > r.old+r.n || len(w.elements) == 0 || at < w.elements[0].base {
			continue
		}
		w.plain(o, ref.Off-o, class)
		w.refer(ref, class)
		o = ref.Off + ref.Width
	}
	w.plain(o, r.old+r.n-o, class)
}

// plain decodes n plain bytes at source offset o.
func (w *rWalk) plain(o, n int64, class uint32) {
	for ; n > 0; o, n = o+1, n-1 {
		old, next := w.source(o), w.source(o+1)
		c1, c2, c3 := w.back(1), w.back(2), w.back(3)
		differs := false
		if w.quiet >= w.s.watch {
			if w.gap < 0 {
				w.readGap()
			}
			if differs = w.gap == 0; differs {
				w.gap = -1
			} else {
				w.gap--
			}
		} else {
			t := uint32(w.quiet)
			if w.quiet >= 16 {
				l := bits.Len64(uint64(w.quiet))
				t = uint32(min(16+4*int64(l-5)+w.quiet>>(l-3)&3, 40))
			}
			like := uint32(0)
			if old == w.o1 {
				like = 1
			}
			if c1 == w.p1 {
				like += 2
			}
			differs = w.asked.code(w.c, int(41*(like&1+like>>1)+t),
				t|uint32(w.far)<<8|like<<16|3<<24, c1|c2<<8|1<<24, old|w.d1<<8|like<<16|4<<24, c1|old<<8|2<<24,
				c1|c2<<8|c3<<16|5<<27, old|next<<8|c1<<16|6<<27, like|t>>2<<2|class<<8|w.d1<<16|7<<24) == 1
			if !differs {
				w.quiet++
			}
		}
		if !differs {
			w.out = append(w.out, byte(old))
			continue
		}
		q := uint32(min(w.quiet, 7))
		by := w.differences.code(w.c, int(q),
			old|c1<<8|2<<24, w.d1|q<<8|4<<24, old|w.o1<<8|w.d1<<16|8<<24, old|c1<<8|c2<<16|3<<24, old|1<<24,
			old|next<<8|c1<<16|5<<24, w.d1|w.d2<<8|q<<16|6<<24, c1|c2<<8|c3<<16|7<<24)
		w.out = append(w.out, byte(old)+by)
		w.far, w.quiet, w.o1, w.p1, w.d2, w.d1 = min(w.quiet, 255), 0, old, c1, w.d1, uint32(by)
	}
}

func (w *rWalk) readGap() {
	k := min(bl(w.g1)>>1, 3)
	v := int64(w.gaps.code(w.c, int(k), k+7777, uint32(min(w.g1, 255))|1<<16, bl(w.g1)|bl(w.g2)<<8|1<<20, w.d1|uint32(min(w.g2, 255))<<8|1<<24))
	if v == 255 {
		v += w.longGaps[k].code(w.c)
	}
	w.g2, w.g1, w.gap = w.g1, v, v
}

// literal decodes the literals before an offset of the data.
func (w *rWalk) literal(to, beside int64) {
	if w.s.packed > 0 {
		n := to - int64(len(w.out))
		w.out, w.packed = append(w.out, w.packed[:n]...), w.packed[n:]
		return
	}
	type repetition struct {
		in     []byte
		at     int
		length int
		ring   bool
	}
	var rep *repetition
	shared := func(b []byte, at, oldest int) int {
		for i := range 32 {
			if at-1-i < max(oldest, 0) || uint32(b[at-1-i]) != w.back(i+1) {
				return i
			}
		}
		return 32
	}
	for from := int64(len(w.out)); int64(len(w.out)) < to; {
		p := int64(len(w.out))
		six := uint64(0)
		for i := range 6 {
			six |= uint64(w.back(6-i)) << (8 * i)
		}
		h := six * 0x9E3779B97F4A7C15 >> (64 - min(w.s.b, 18))
		if rep == nil {
			best := 4
			if at := w.seen[h]; at > 0 {
				if n := shared(w.ring, at-1, len(w.ring)-1<<20); n > best && n >= 5 {
					rep, best = &repetition{w.ring, at - 1, n, true}, n
				}
			}
			if w.s.primed {
				at := w.old6[six*0x9E3779B97F4A7C15>>(64-w.m)]
				if n := shared(w.old, at, 0); n > best {
					rep = &repetition{w.old, at, n, false}
				}
			}
		}
		e, r, selector := uint32(256), uint32(0), 0
		if rep != nil {
			if rep.ring {
				rep.in = w.ring
			}
			if rep.at < len(rep.in) && (!rep.ring || len(rep.in)-rep.at <= 1<<20) {
				n := uint32(rep.length)
				e = uint32(rep.in[rep.at])
				switch {
				case n < 16:
					r = n / 2
				case n < 32:
					r = n/4 + 4
				default:
					r = min(12+(n-32)/32, 15)
				}
				selector = 1 + int(r/4)
			} else {
				rep = nil
			}
		}
		c1, c2, c3 := w.back(1), w.back(2), w.back(3)
		f := c1 | c2<<8 | c3<<16 | w.back(4)<<24
		v := w.lit.code(w.c, selector, e|r<<9|7<<24, c1|c2<<8|3<<24, c1|c2<<8|c3<<16|4<<24, w.source(beside+p-from)|c1<<8|12<<24, c1|2<<24,
			f*0x2F0B4C47+5, (f*0x2F0B4C47+w.back(5))*0x3D4D51CB+w.back(6)+6, c2|c3<<8|8<<24, e|c1<<9|9<<24,
			uint32(p&7)|c1<<3|w.back(8)<<11|10<<24, w.back(24)|w.back(8)<<8|11<<24, 1)
		w.out = append(w.out, v)
		if rep != nil && e == uint32(v) {
			rep.at++
			rep.length++
		} else {
			rep = nil
		}
		w.seen[h] = len(w.ring) + 1
		w.ring = append(w.ring, v)
	}
}

// base is where a place that fields count from has gone.
func (w *rWalk) base(p int64) int64 {
	if to, ok := w.fixes[p]; ok {
		return to
	}
	to, _ := w.predict(p)
	return to
}

func (w *rWalk) predict(p int64) (int64, int) {
	if to, ok := w.learned[p]; ok {
		return to, 2
	}
	if p < unbackedPlace {
		to, covered := w.at(p)
		if covered {
			return to, 0
		}
		if shift, ok := w.near[[2]int64{5, p >> 5}]; ok {
			return p + shift, 1
		}
		return to, 1
	}
	for _, n := range []int64{4, 8, 12, 20} {
		if shift, ok := w.near[[2]int64{n, p >> n}]; ok {
			return p + shift, 3
		}
	}
	for i, e := range w.elements {
		if e.old == int(p>>44&0xffff) {
			return p&^(0xffff<<44) | int64(i)<<44, 3
		}
	}
	return p, 3
}

// refer decodes the field of a reference.
func (w *rWalk) refer(r *elfref.Ref, class uint32) {
	at := int64(len(w.out))
	if r.Kind == elfref.HexID {
		id := make([]byte, 19)
		if from, _ := w.at(r.Target); from >= w.start && from+19 <= at {
			copy(id, w.out[from:])
		}
		other := w.hexFlag.code(w.c)
		for _, v := range hexOf(id) {
			if other == 1 {
				v = w.misses.code(w.c, 0, 1, 2, 3)
			}
			w.out = append(w.out, v)
		}
		return
	}
	index := 0
	for i := range w.elements {
		if w.elements[i].base <= at {
			index = i
		}
	}
	e := &w.elements[index]
	w.load(e, w.start)
	field := make([]byte, 8)
	copy(field, w.old[r.Off:r.Off+r.Width])
	to, state := w.predict(r.Target)
	v, ok := w.field(e, r, field, at, to)
	if !ok {
		v, state = binary.LittleEndian.Uint64(field), 4
	}
	k := int(r.Class)
	flag := [4]int{k, state, w.history[k] & 7, int(class)}
	if w.flags[flag] == nil {
		w.flags[flag] = &rFlag{}
	}
	miss := w.flags[flag].code(w.c)
	w.history[k] = w.history[k]<<1 | miss
	if miss == 1 {
		c := uint32(k)
		n := min(uint32(w.misses.code(w.c, 0, c+1000, 8*c+uint32(state)+2000, 256*c+3000+w.lastN)), 8)
		u := uint64(0)
		for i := int(n) - 1; i >= 0; i-- {
			x := 16*n + uint32(i)
			u = u<<8 | uint64(w.misses.code(w.c, 1, c<<8+x+1<<20, 0x3779*uint32(u)+x+1<<21, c<<16+77*uint32(u)+x+1<<22))
		}
		w.lastN = n
		v += u>>1 ^ -(u & 1)
	}
	if r.Width == 4 {
		v = uint64(uint32(v))
	}
	field = binary.LittleEndian.AppendUint64(nil, v)
	w.out = append(w.out, field[:r.Width]...)
	if state == 4 {
		return
	}
	real, ok := w.target(e, index, r, at, v)
	if !ok {
		return
	}
	w.prev = real
	if real == to && state != 1 && state != 3 {
		return
	}
	w.learned[r.Target] = real
	sizes := []int64{5}
	if r.Target >= unbackedPlace {
		sizes = []int64{4, 8, 12, 20}
	}
	for _, n := range sizes {
		w.near[[2]int64{n, r.Target >> n}] = real - r.Target
	}
}

func sectionOf(b []byte) *bytes.Reader { return bytes.NewReader(b) }

// hasELF says whether a patch has the transform elf.
func hasELF(p []byte) bool {
	h, err := Inspect(bytes.NewReader(p))
	return err == nil && h.has(elfTransform)
}
