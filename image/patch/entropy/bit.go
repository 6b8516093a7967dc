package entropy

// BitMixer predicts single decisions, as Mixer predicts the bits of bytes, but
// with one network and no last table.
type BitMixer struct {
	contexts int
	bits     uint
	slots    []uint32
	weights  []int32
	inputs   []int32
	index    []uint32
}

// NewBitMixer returns a fresh model with 2^bits slots per context and that many
// weight sets.
func NewBitMixer(contexts int, bits uint, selectors int) *BitMixer {
	n := 2*contexts + 1
	m := &BitMixer{
		contexts: contexts, bits: bits,
		slots: make([]uint32, contexts<<bits), weights: make([]int32, selectors*n),
		inputs: make([]int32, n), index: make([]uint32, contexts),
	}
	for i := range m.weights {
		m.weights[i] = firstWeight * 2
	}
	return m
}

// Code codes one decision under hashed contexts, with weight set a.
func (m *BitMixer) Code(c *Coder, ctx []uint32, a, bit int) int {
	ctx = ctx[:m.contexts]
	in, index := m.inputs[:2*len(ctx)+1], m.index[:len(ctx)]
	for j, x := range ctx {
		h := x * 0x85EBCA6B
		h ^= h >> 15
		h *= 0x2C1B3C6D
		h ^= h >> 13
		ix := uint32(j)<<m.bits + h>>(32-m.bits)
		index[j] = ix
		in[2*j], in[2*j+1] = opinion(m.slots[ix] ^ fresh)
	}
	in[len(in)-1] = 256
	w := m.weights[a*len(in):][:len(in)]
	var dot int64
	for j, x := range in {
		dot += int64(w[j]) * int64(x)
	}
	p := squash(clampStretch(dot >> 16))
	bit = c.Bit(uint32(min(max(p, minBit), whole-minBit)), bit)
	e := int64(bit<<16) - int64(p>>6)
	for j, x := range in {
		w[j] += int32((int64(x)*e + 1<<13) >> 14)
	}
	for _, ix := range index {
		m.slots[ix] = observe(m.slots[ix]^fresh, bit, slotLimit) ^ fresh
	}
	return bit
}

// Memory is what the model takes, in bytes.
func (m *BitMixer) Memory() int64 { return int64(4*len(m.slots) + 4*len(m.weights)) }
