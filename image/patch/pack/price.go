package pack

import "github.com/sealant-os/sealant/image/patch/entropy"

// unit is a bit, in which prices are counted.
const unit = 16

// costs are the prices of decisions by their probability, in 2^12ths.
var costs = func() (t [1 << 12]uint16) {
	for i := range t {
		// log2 by squaring, four binary digits of it.
		w, n := uint64(2*i+1), uint32(0) // probability in 2^13ths
		for range 4 {
			w *= w
			n *= 2
			for w >= 1<<16 {
				w >>= 1
				n++
			}
		}
		t[i] = uint16(max(13*unit-15-int(n), 1))
	}
	return t
}()

// price of a decision that is 1 with probability p in 2^22nds.
func price(p uint32, bit int) uint32 {
	if bit == 0 {
		p = 1<<entropy.ProbBits - p
	}
	return uint32(costs[min(p>>(entropy.ProbBits-12), 1<<12-1)])
}

// prices are those of the models as they are at the start of a block.
type prices struct {
	copies  [histories][4][2]uint32
	again   [histories][2]uint32
	which   [histories][reps]uint32
	lengths [2][4][256]uint32
	slots   [4][64]uint32
	middle  [64][64]uint32
	low     [1 << align]uint32
}

func (p *prices) from(m *models) {
	for h := range histories {
		for k := range 4 {
			p.copies[h][k] = both(&m.copies[h][k])
		}
		p.again[h] = both(&m.again[h])
		sum := uint32(0)
		for k := range reps - 1 {
			c := both(&m.which[h][k])
			p.which[h][k] = sum + c[0]
			sum += c[1]
		}
		p.which[h][reps-1] = sum
	}
	for k := range p.lengths {
		for l := range p.lengths[k] {
			tree(m.lengths[k][l].tree[:], p.lengths[k][l][:])
		}
	}
	for k := range p.slots {
		tree(m.slots[k][:], p.slots[k][:])
	}
	for slot := uint32(4); slot < 64; slot++ {
		if _, extra := firstOf(slot); extra <= 6 {
			tree(m.middle[slot][:1<<extra], p.middle[slot][:1<<extra])
		}
	}
	tree(m.low[:], p.low[:])
}

func both(f *entropy.Counter) [2]uint32 {
	p := f.Probability()
	return [2]uint32{price(p, 0), price(p, 1)}
}

// tree fills in what each value of a tree of flags costs.
func tree(flags []entropy.Counter, out []uint32) {
	var node [512]uint32
	for i := 1; i < len(flags); i++ {
		c := both(&flags[i])
		node[2*i], node[2*i+1] = node[i]+c[0], node[i]+c[1]
	}
	for i := range out {
		out[i] = node[len(flags)+i]
	}
}

func (p *prices) length(kind, low int, n uint32) uint32 {
	if n < 255 {
		return p.lengths[kind][low][n]
	}
	return p.lengths[kind][low][255] + 16*unit
}

func (p *prices) distance(length, d uint32) uint32 {
	v := d - 1
	slot, extra := slotOf(v)
	c := p.slots[min(length-leastMatch, 3)][slot]
	if extra <= 6 {
		if extra > 0 {
			c += p.middle[slot][v&(1<<extra-1)]
		}
		return c
	}
	return c + uint32(extra-align)*unit + p.low[v&(1<<align-1)]
}

// shadow guesses what literals cost, by simple models of one and two bytes
// before that see every byte.
type shadow struct {
	one   []uint16
	two   []uint16
	cost  []uint32 // of the bytes of a block
	scale int64    // of 256: what literals really cost, of what was guessed
}

const shadowBits = 22

func newShadow() *shadow {
	s := &shadow{one: make([]uint16, 1<<16), two: make([]uint16, 1<<shadowBits), cost: make([]uint32, blockSize), scale: 256}
	for _, t := range [][]uint16{s.one, s.two} {
		for i := range t {
			t[i] = 1 << 15
		}
	}
	return s
}

func (s *shadow) weigh(data []byte, from, to int) {
	for at := from; at < to; at++ {
		c1, c2 := uint32(0), uint32(0)
		if at > 1 {
			c1, c2 = uint32(data[at-1]), uint32(data[at-2])
		}
		two := (c1<<8 | c2) * 0x9E3779B1 >> (32 - shadowBits + 8) << 8
		sum, node := uint32(0), uint32(1)
		for i := 7; i >= 0; i-- {
			bit := uint32(data[at]) >> uint(i) & 1
			a, b := &s.one[c1<<8|node], &s.two[two|node]
			p := (uint32(*a) + 3*uint32(*b)) << (entropy.ProbBits - 18)
			sum += price(p, int(bit))
			if bit != 0 {
				*a += (65535 - *a) >> 4
				*b += (65535 - *b) >> 4
			} else {
				*a -= *a >> 4
				*b -= *b >> 4
			}
			node = node<<1 | bit
		}
		s.cost[at-from] = max(uint32(int64(sum)*s.scale>>8), 1)
	}
}

// calibrate learns how wrong guesses were: guessed is in units, real in bits.
func (s *shadow) calibrate(guessed, real int64) {
	if guessed < 4096*unit {
		return
	}
	unscaled := guessed * 256 / s.scale
	now := min(max(real*unit*256/unscaled, 64), 512)
	s.scale = (s.scale*3 + now) / 4
}
