package entropy

// Shape is the size of a Mixer. It is part of the format.
type Shape struct {
	Contexts   int  // hashed contexts per byte
	Bits       uint // log2 of the slots per context
	Selectors  int  // first selector: weight sets chosen together with the bits so far
	Selectors2 int  // second selector: weight sets chosen alone; 0 means 1
}

// Memory is what a Mixer of this shape takes, in bytes.
func (s Shape) Memory() int64 {
	n := int64(s.Contexts)
	return 4*n<<s.Bits + 4*int64(rowLength(s.Contexts))*int64(s.Selectors*256+max(s.Selectors2, 1)) + 2*33*256*int64(max(s.Selectors2, 1))
}

// Mixer predicts bytes bit by bit. Every context gives a table slot that
// remembers how the bit fell before; the slots' opinions are weighed by two
// small learning networks, and a last table corrects the sum by experience.
type Mixer struct {
	shape   Shape
	slots   []uint32 // 22 bits of probability, 10 bits of count, contexts × 2^Bits
	weights []int32  // 16.16, [Selectors*256][rowLength], less firstWeight
	second  []int32  // 16.16, [Selectors2][rowLength], less firstWeight
	lanes   lanes
	touched uint32   // of no meaning
	apm     []uint16 // [Selectors2*256][33], each xored with firstCorrection
}

// fresh is a slot that knows nothing. Slots are kept xored with it, so that
// memory fresh from the kernel is right as it is, and what is never used is never
// touched.
const fresh = 1 << 31

// slotLimit is where a slot's count stops, and with it its rate of change.
const slotLimit = 255

// NewMixer returns a fresh model.
func NewMixer(s Shape) *Mixer { return (*Memory)(nil).Mixer(s) }

// Mixer returns a fresh model whose slots are in the memory.
func (m *Memory) Mixer(s Shape) *Mixer {
	if s.Selectors2 == 0 {
		s.Selectors2 = 1
	}
	n := rowLength(s.Contexts)
	return &Mixer{
		shape:   s,
		slots:   Take[uint32](m, s.Contexts<<s.Bits),
		weights: Take[int32](m, s.Selectors*256*n),
		second:  Take[int32](m, s.Selectors2*n),
		lanes:   newLanes(s.Contexts),
		apm:     Take[uint16](m, s.Selectors2*256*33),
	}
}

// firstWeight is 0.16 in 16.16.
const firstWeight = 10486

// firstCorrection is what the last table says at first.
var firstCorrection = func() (t [33]uint16) {
	for i := range t {
		t[i] = uint16(squash(int32(i-16)*128) >> 6)
	}
	return t
}()

// Code codes one byte under hashed contexts. a and b choose weight sets and
// must be below Selectors and Selectors2.
func (m *Mixer) Code(c *Coder, ctx []uint32, a, b int, v byte) byte {
	ctx = ctx[:m.shape.Contexts]
	l, n := &m.lanes, lanesOf(len(ctx))
	row := 2*n + 1
	second := m.second[b*row:][:row]
	slots, bits := m.slots, m.shape.Bits
	mask := (uint32(1)<<bits - 1) &^ 15
	c0, touched := uint32(1), uint32(0)
	for half := 0; half < 2; half++ {
		for j, x := range ctx {
			h := (x + c0*0x9E3779B1) * 0x85EBCA6B
			h ^= h >> 15
			h *= 0x2C1B3C6D
			h ^= h >> 13
			at := uint32(j)<<bits + h&mask
			l.at[j&(maxContexts-1)] = at
			touched ^= slots[at] // brings it near, all of them at once
		}
		nib := uint32(1)
		for i := 3; i >= 0; i-- {
			bit := int(v>>uint(4*(1-half)+i)) & 1
			w := m.weights[(a*256+int(c0))*row:][:row]
			dot1, dot2 := opinions(l, slots, nib, w, second, n, firstWeight)
			dot1 += int64(w[2*n]+firstWeight) * 256
			dot2 += int64(second[2*n]+firstWeight) * 256
			x1, x2 := clampStretch(dot1>>16), clampStretch(dot2>>16)
			p1, p2 := squash(x1), squash(x2)
			mixed := (x1 + x2) >> 1
			pm := squash(mixed)
			// The last table: 33 points over the mixed opinion, by selector and bits so far.
			pos := (max(min(mixed, 2047), -2047) + 2048) * 32
			k, frac := int(pos>>12), pos&4095
			apm := m.apm[(b*256+int(c0))*33:][:33]
			pa := (int64(apm[k]^firstCorrection[k])*int64(4096-frac) + int64(apm[k+1]^firstCorrection[k+1])*int64(frac)) >> 6 // 22 bits
			p := min(max((3*int64(pm)+pa)>>2, minBit), whole-minBit)
			bit = c.Bit(uint32(p), bit)
			e1 := int32(bit<<16) - p1>>6
			e2 := int32(bit<<16) - p2>>6
			learn(l, w, second, n, e1, e2, 15, 16, bit)
			w[2*n] += (256*e1 + 1<<14) >> 15
			second[2*n] += (256*e2 + 1<<15) >> 16
			if frac >= 2048 {
				k++
			}
			near := apm[k] ^ firstCorrection[k]
			near += uint16((int32(bit*65535) - int32(near)) >> 6)
			apm[k] = near ^ firstCorrection[k]
			for j, base := range l.at[:len(ctx)] {
				slots[base+nib] = l.slot[j]
			}
			nib = nib<<1 | uint32(bit)
			c0 = c0<<1 | uint32(bit)
		}
	}
	m.touched = touched
	return byte(c0)
}

// opinion is what a slot says: by its probability, and by that weighed with how
// often it was asked. A slot that knows nothing says nothing.
func opinion(s uint32) (int32, int32) {
	count := int32(s & 1023)
	if count == 0 {
		return 0, 0
	}
	return stretchTable[s>>20], (int32(s>>16) - 32768) * (min(count, 30) + 2) >> 9
}

// observe is a slot after a bit.
func observe(s uint32, bit int, limit uint32) uint32 {
	count := s & 1023
	pr := int64(s >> 10)
	pr += (int64(bit)*(whole-1) - pr) * int64(rates[count]) >> 16
	if count < limit {
		count++
	}
	return uint32(pr)<<10 | count
}

// minBit keeps a mixed probability away from certainty, so that every coded bit
// costs something and short hostile input cannot code endless output.
const minBit = 96

func clampStretch(x int64) int32 { return int32(max(min(x, 3071), -3071)) }
