package entropy

import "math/bits"

// Flag is the probability of one yes-or-no decision, as the mean of a fast and
// a slow estimate, precise enough for decisions that nearly always fall the
// same way. The zero Flag expects both alike.
type Flag struct{ fast, slow uint32 }

const (
	half    = 1 << (ProbBits - 1)
	whole   = 1 << ProbBits
	minimum = 2
)

// Code codes one decision and learns from it.
func (f *Flag) Code(c *Coder, bit int) int {
	if f.fast|f.slow == 0 {
		f.fast, f.slow = half, half
	}
	p := min(max((f.fast+f.slow)>>1, minimum), whole-minimum)
	bit = c.Bit(p, bit)
	if bit != 0 {
		f.fast += (whole - f.fast) >> 4
		f.slow += (whole - f.slow) >> 7
	} else {
		f.fast -= f.fast >> 4
		f.slow -= f.slow >> 7
	}
	return bit
}

// Numbers codes non-negative numbers below 2^63: the bit length in unary, then
// the bits below the top one, the first four of them modelled by those above.
type Numbers struct {
	length [64]Flag
	bits   mantissa
}

// Code codes one number.
func (m *Numbers) Code(c *Coder, v uint64) uint64 {
	n := bits.Len64(v+1) - 1
	k := 0
	for k < 63 {
		more := 0
		if k < n {
			more = 1
		}
		if m.length[k].Code(c, more) == 0 {
			break
		}
		k++
	}
	return m.bits.code(c, k, v+1) - 1
}

// mantissa models the bits below a number's top bit: the first four by what is
// above them, the others by where they are, as numbers are often multiples.
type mantissa struct {
	top [64][16]Flag
	low [64]Counter
}

// code codes the n bits below the top bit of v and returns all n+1 bits.
func (m *mantissa) code(c *Coder, n int, v uint64) uint64 {
	r, ctx := uint64(1), 1
	for i := n - 1; i >= 0; i-- {
		b := int(v>>uint(i)) & 1
		if ctx < 16 {
			b = m.top[n][ctx].Code(c, b)
			ctx = ctx<<1 | b
		} else {
			b = m.low[i].Code(c, b)
		}
		r = r<<1 | uint64(b)
	}
	return r
}

// ContextNumbers codes numbers as Numbers does, but mixes several contexts'
// opinions about the length.
type ContextNumbers struct {
	length *Mixer
	bits   mantissa
}

// NewContextNumbers returns a model for the given number of contexts.
func NewContextNumbers(contexts int) *ContextNumbers {
	return &ContextNumbers{length: NewMixer(Shape{Contexts: contexts, Bits: 11, Selectors: 1})}
}

// Code codes one number below 2^63 under hashed contexts.
func (m *ContextNumbers) Code(c *Coder, ctx []uint32, v uint64) uint64 {
	n := bits.Len64(v+1) - 1
	n = int(m.length.Code(c, ctx, 0, 0, byte(n))) & 63
	return m.bits.code(c, n, v+1) - 1
}

// Zigzag maps small negative and positive numbers to small non-negative ones.
func Zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

// Unzigzag undoes Zigzag.
func Unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// Probability of 1, in 2^22nds, for the prices of an encoder.
func (f *Flag) Probability() uint32 {
	if f.fast|f.slow == 0 {
		return half
	}
	return min(max((f.fast+f.slow)>>1, minimum), whole-minimum)
}
