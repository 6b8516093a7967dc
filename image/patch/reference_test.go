package patch

import (
	"encoding/binary"
	"math/bits"
)

// The reference decoder: slow and simple, written from spec/patch.md and not
// from package entropy, delta or pack, to find out whether these and the page say
// the same. References are found by package elfref; what is predicted about them
// is done here anew.

// rc is the spec's coder.
type rc struct {
	in               []byte
	low, high, value uint64
}

func newRC(in []byte) *rc {
	c := &rc{in: in, high: 1<<64 - 1}
	for range 8 {
		c.value = c.value<<8 | uint64(c.next())
	}
	return c
}

func (c *rc) next() byte {
	if len(c.in) == 0 {
		return 0
	}
	b := c.in[0]
	c.in = c.in[1:]
	return b
}

func (c *rc) bit(p int64) int {
	mid := c.low + ((c.high-c.low)>>22)*uint64(p)
	b := 0
	if c.value <= mid {
		b, c.high = 1, mid
	} else {
		c.low = mid + 1
	}
	for c.low>>56 == c.high>>56 {
		c.low, c.high, c.value = c.low<<8, c.high<<8|255, c.value<<8|uint64(c.next())
	}
	return b
}

func bound(x, lo, hi int64) int64 { return max(lo, min(x, hi)) }

// rFlag and rCounter are a flag and a counter; nil maps' zero values are fresh.
type rFlag struct {
	used       bool
	fast, slow int64
}

func (f *rFlag) code(c *rc) int {
	if !f.used {
		*f = rFlag{true, 1 << 21, 1 << 21}
	}
	b := c.bit(bound((f.fast+f.slow)>>1, 2, 1<<22-2))
	if b == 1 {
		f.fast += (1<<22 - f.fast) >> 4
		f.slow += (1<<22 - f.slow) >> 7
	} else {
		f.fast -= f.fast >> 4
		f.slow -= f.slow >> 7
	}
	return b
}

// rSlot is a slot: less 2^21, so that a zero is fresh.
type rSlot struct{ q, n int64 }

func (s *rSlot) learn(b int, most int64) {
	q := s.q + 1<<21
	q += ((int64(b)*(1<<22-1) - q) * (655360 / (10*s.n + 16))) >> 16
	s.q, s.n = q-1<<21, min(s.n+1, most)
}

func (s *rSlot) code(c *rc) int { // as a counter
	b := c.bit(bound(s.q+1<<21, 64, 1<<22-64))
	s.learn(b, 60)
	return b
}

// K is the spec's table, computed from a few of its numbers would need analysis:
// it stands in the spec's code, and here again.
var rK = [97]int64{26, 33, 42, 55, 70, 90, 115, 148, 190, 244, 314, 403, 518, 665, 853, 1096, 1407, 1806, 2319, 2977, 3821, 4905, 6296, 8081, 10371, 13307, 17071, 21895, 28072, 35977, 46083, 58987, 75440, 96374, 122944, 156560, 198919, 252022, 318172, 399925, 499973, 620955, 765148, 934072, 1128022, 1345622, 1583520, 1836365, 2097152, 2357939, 2610784, 2848682, 3066282, 3260232, 3429156, 3573349, 3694331, 3794379, 3876132, 3942282, 3995385, 4037744, 4071360, 4097930, 4118864, 4135317, 4148221, 4158327, 4166232, 4172409, 4177233, 4180997, 4183933, 4186223, 4188008, 4189399, 4190483, 4191327, 4191985, 4192498, 4192897, 4193208, 4193451, 4193639, 4193786, 4193901, 4193990, 4194060, 4194114, 4194156, 4194189, 4194214, 4194234, 4194249, 4194262, 4194271, 4194278}

func rSquash(x int64) int64 {
	y := x + 3072
	return (rK[y>>6]*(64-y&63) + rK[y>>6+1]*(y&63)) >> 6
}

var rStretchTable = func() (t [4096]int64) {
	for i := range t {
		x := int64(-2047)
		if i > 0 {
			x = t[i-1] // it only grows
		}
		for x < 2047 && rSquash(x) < 1024*int64(i)+512 {
			x++
		}
		t[i] = x
	}
	return t
}()

func (s rSlot) inputs() (int64, int64) {
	if s.n == 0 {
		return 0, 0
	}
	q := s.q + 1<<21
	return rStretchTable[q>>10], ((q>>6 - 32768) * (min(s.n, 30) + 2)) >> 9
}

func rHash(x uint32) uint32 {
	h := x * 0x85EBCA6B
	h ^= h >> 15
	h *= 0x2C1B3C6D
	return h ^ h>>13
}

// rMixer is the spec's mixer.
type rMixer struct {
	contexts int
	b        uint
	slots    map[[2]uint32]*rSlot
	w1       map[[2]int][]int64
	w2       []int64
	a        map[int][]int64
}

func newRMixer(contexts int, b uint) *rMixer {
	return &rMixer{contexts: contexts, b: b, slots: map[[2]uint32]*rSlot{}, w1: map[[2]int][]int64{}, w2: fill(2*contexts+1, 10486), a: map[int][]int64{}}
}

func fill(n int, v int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func slotAt(m map[[2]uint32]*rSlot, k [2]uint32) *rSlot {
	if m[k] == nil {
		m[k] = &rSlot{}
	}
	return m[k]
}

func (m *rMixer) code(c *rc, selector int, x ...uint32) byte {
	x = x[:m.contexts]
	c0, start, t := 1, 1, uint32(1)
	for i := range 8 {
		if i == 0 || i == 4 {
			start, t = c0, 1
		}
		var slots []*rSlot
		var in []int64
		for j, v := range x {
			h := rHash(v + uint32(start)*0x9E3779B1)
			s := slotAt(m.slots, [2]uint32{uint32(j), h&(1<<m.b-1)&^15 + t})
			p, q := s.inputs()
			slots, in = append(slots, s), append(in, p, q)
		}
		in = append(in, 256)
		w1 := m.w1[[2]int{selector, c0}]
		if w1 == nil {
			w1 = fill(len(in), 10486)
			m.w1[[2]int{selector, c0}] = w1
		}
		m1, m2 := int64(0), int64(0)
		for k, v := range in {
			m1 += w1[k] * v
			m2 += m.w2[k] * v
		}
		m1, m2 = bound(m1>>16, -3071, 3071), bound(m2>>16, -3071, 3071)
		mixed := (m1 + m2) >> 1
		a := m.a[c0]
		if a == nil {
			for k := range 33 {
				a = append(a, rSquash(int64(128*(k-16)))>>6)
			}
			m.a[c0] = a
		}
		pos := (bound(mixed, -2047, 2047) + 2048) * 32
		k, f := pos>>12, pos&4095
		pa := (a[k]*(4096-f) + a[k+1]*f) >> 6
		b := c.bit(bound((3*rSquash(mixed)+pa)>>2, 96, 1<<22-96))
		e1, e2 := int64(65536*b)-rSquash(m1)>>6, int64(65536*b)-rSquash(m2)>>6
		for k, v := range in {
			w1[k] += (v*e1 + 1<<14) >> 15
			m.w2[k] += (v*e2 + 1<<15) >> 16
		}
		if f >= 2048 {
			k++
		}
		a[k] += (int64(65535*b) - a[k]) >> 6
		for _, s := range slots {
			s.learn(b, 255)
		}
		c0, t = 2*c0+b, 2*t+uint32(b)
	}
	return byte(c0)
}

// rBitMixer is the spec's bit mixer.
type rBitMixer struct {
	contexts int
	b        uint
	slots    map[[2]uint32]*rSlot
	w        map[int][]int64
}

func (m *rBitMixer) code(c *rc, selector int, x ...uint32) int {
	if m.w[selector] == nil {
		m.w[selector] = fill(2*m.contexts+1, 20972)
	}
	var slots []*rSlot
	var in []int64
	for j, v := range x[:m.contexts] {
		s := slotAt(m.slots, [2]uint32{uint32(j), rHash(v) >> (32 - m.b)})
		p, q := s.inputs()
		slots, in = append(slots, s), append(in, p, q)
	}
	in = append(in, 256)
	sum := int64(0)
	for k, v := range in {
		sum += m.w[selector][k] * v
	}
	p := rSquash(bound(sum>>16, -3071, 3071))
	b := c.bit(bound(p, 96, 1<<22-96))
	e := int64(65536*b) - p>>6
	for k, v := range in {
		m.w[selector][k] += (v*e + 1<<13) >> 14
	}
	for _, s := range slots {
		s.learn(b, 255)
	}
	return b
}

// rNumber is a number, and with a mixer a context number.
type rNumber struct {
	unary map[int]*rFlag
	top   map[[2]int]*rFlag
	low   map[int]*rSlot
	mixer *rMixer
}

func newRNumber(contexts int) *rNumber {
	n := &rNumber{unary: map[int]*rFlag{}, top: map[[2]int]*rFlag{}, low: map[int]*rSlot{}}
	if contexts > 0 {
		n.mixer = newRMixer(contexts, 11)
	}
	return n
}

func (m *rNumber) code(c *rc, x ...uint32) int64 {
	n := 0
	if m.mixer != nil {
		n = int(m.mixer.code(c, 0, x...)) & 63
	} else {
		for n < 63 {
			if m.unary[n] == nil {
				m.unary[n] = &rFlag{}
			}
			if m.unary[n].code(c) == 0 {
				break
			}
			n++
		}
	}
	v, k := uint64(1), 1
	for i := n - 1; i >= 0; i-- {
		b := 0
		if k < 16 {
			if m.top[[2]int{n, k}] == nil {
				m.top[[2]int{n, k}] = &rFlag{}
			}
			b = m.top[[2]int{n, k}].code(c)
			k = 2*k + b
		} else {
			if m.low[i] == nil {
				m.low[i] = &rSlot{}
			}
			b = m.low[i].code(c)
		}
		v = v<<1 | uint64(b)
	}
	return int64(v - 1)
}

func (m *rNumber) signed(c *rc, x ...uint32) int64 { return unzigzag(m.code(c, x...)) }

func unzigzag(u int64) int64 {
	if u&1 == 1 {
		return -(u + 1) / 2
	}
	return u / 2
}

func bl(v int64) uint32 { return uint32(min(bits.Len64(uint64(v)), 20)) }

// rUnpack decodes packed literals: n of them.
func rUnpack(in []byte, n int) []byte {
	c := newRC(in)
	counters := map[[4]int]*rSlot{}
	decide := func(k ...int) int {
		var key [4]int
		copy(key[:], k)
		if counters[key] == nil {
			counters[key] = &rSlot{}
		}
		return counters[key].code(c)
	}
	tree := func(depth int, k ...int) int {
		node := 1
		for range depth {
			node = 2*node + decide(append(k, node)...)
		}
		return node - 1<<depth
	}
	long := map[[2]int]*rNumber{}
	length := func(kind, low int) int {
		v := tree(8, 4, 4*kind+low)
		if v == 255 {
			if long[[2]int{kind, low}] == nil {
				long[[2]int{kind, low}] = newRNumber(0)
			}
			v += int(long[[2]int{kind, low}].code(c))
		}
		return v
	}
	literals := newRMixer(6, 18)
	h, distances := 0, [4]int{1, 1, 1, 1}
	var out []byte
	back := func(k int) uint32 {
		if k > len(out) {
			return 0
		}
		return uint32(out[len(out)-k])
	}
	raw := 0
	for len(out) < n {
		u := len(out)
		if u%65536 == 0 {
			raw = decide(0)
		}
		if raw == 1 {
			v := 0
			for range 8 {
				v = 2*v + c.bit(1<<21)
			}
			out = append(out, byte(v))
			continue
		}
		if decide(1, h, u&3) == 0 {
			f := back(1) | back(2)<<8 | back(3)<<16 | back(4)<<24
			v := literals.code(c, h%9, back(1)|1<<24, f&0xffff|2<<24, f&0xffffff|3<<24, f*0x2F0B4C47+4,
				back(distances[0])|back(1)<<8|uint32(h%9)<<16|5<<24, (f*0x2F0B4C47+back(5))*0x3D4D51CB+back(6)+6)
			out, h = append(out, v), 3*h%27
			continue
		}
		var count int
		if decide(2, h) == 1 {
			i := 0
			for i < 3 && decide(3, h, i) == 1 {
				i++
			}
			d := distances[i]
			copy(distances[1:i+1], distances[:i])
			distances[0] = d
			count, h = length(1, u&3)+1, (3*h+2)%27
		} else {
			count = length(0, u&3) + 2
			slot := tree(6, 5, min(count-2, 3))
			v := slot
			if slot >= 4 {
				e := slot>>1 - 1
				v = (2 | slot&1) << e
				if e <= 6 {
					v |= tree(e, 6, slot)
				} else {
					for i := e - 1; i >= 4; i-- {
						v |= c.bit(1<<21) << i
					}
					v |= tree(4, 7)
				}
			}
			copy(distances[1:], distances[:3])
			distances[0], h = v+1, (3*h+1)%27
		}
		for range count {
			out = append(out, out[len(out)-distances[0]])
		}
	}
	return out
}

// rHeader are the fields of a header that decoding needs.
type rHeader struct {
	source, result, runs, mapSize int64
	data                          int64
	from, to                      []rMember
	segments                      []rSegment
	rest                          []byte // of the patch, after the header
}

type rSegment struct {
	size, body, packed int64
	b                  uint
	light, primed      bool
	watch              int64
}

func rReadHeader(p []byte) (h rHeader) {
	n := int(binary.LittleEndian.Uint32(p[10:]))
	b := p[14 : 14+n]
	h.rest = p[14+n+4:]
	num := func() int64 {
		v, k := binary.Uvarint(b)
		b = b[k:]
		return int64(v)
	}
	h.source, b = num(), b[48:]
	h.result, b = num(), b[48:]
	num() // memory
	h.data = h.result
	for range num() {
		id := num()
		num() // version
		switch id {
		case 2:
			num() // memory
		case 3:
			h.data = num()
			b = b[1+int(b[0])+1+32:]
		case 4:
			at := int64(0)
			for range num() {
				at += num()
				h.from = append(h.from, rMember{at: at, plain: num()})
				at++
			}
			at = 0
			for range num() {
				m := rMember{at: at + num(), folded: num(), plain: num(), recipe: b[0]}
				b, at = b[1:], m.at+m.folded
				h.to = append(h.to, m)
			}
		}
	}
	h.runs, h.mapSize = num(), num()
	for range num() {
		s := rSegment{size: num(), body: num(), b: uint(b[0])}
		mode := b[1]
		b = b[2:]
		s.light, s.primed, s.watch = mode&2 != 0, mode&4 != 0, 32<<(2*(mode>>3&3))
		if mode&1 != 0 {
			b = b[1:]
			s.packed = num()
		}
		h.segments = append(h.segments, s)
	}
	return h
}
