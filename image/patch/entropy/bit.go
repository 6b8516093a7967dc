package entropy

// BitMixer predicts single decisions, as Mixer predicts the bits of bytes, but
// with one network and no last table.
type BitMixer struct {
	contexts int
	bits     uint
	slots    []uint32
	weights  []int32 // [selectors][rowLength], less bitWeight
	none     []int32 // a second set that stays as it is
	lanes    lanes
	touched  uint32 // of no meaning
}

// bitWeight is a bit mixer's firstWeight.
const bitWeight = 2 * firstWeight

// NewBitMixer returns a fresh model with 2^bits slots per context and that many
// weight sets.
func NewBitMixer(contexts int, bits uint, selectors int) *BitMixer {
	return (*Memory)(nil).BitMixer(contexts, bits, selectors)
}

// BitMixer is NewBitMixer with the slots in the memory.
func (m *Memory) BitMixer(contexts int, bits uint, selectors int) *BitMixer {
	n := rowLength(contexts)
	return &BitMixer{
		contexts: contexts, bits: bits,
		slots: Take[uint32](m, contexts<<bits), weights: Take[int32](m, selectors*n),
		none: make([]int32, n), lanes: newLanes(contexts),
	}
}

// Code codes one decision under hashed contexts, with weight set a.
func (m *BitMixer) Code(c *Coder, ctx []uint32, a, bit int) int {
	ctx = ctx[:m.contexts]
	l, n, touched := &m.lanes, lanesOf(len(ctx)), uint32(0)
	for j, x := range ctx {
		h := x * 0x85EBCA6B
		h ^= h >> 15
		h *= 0x2C1B3C6D
		h ^= h >> 13
		at := uint32(j)<<m.bits + h>>(32-m.bits)
		l.at[j&(maxContexts-1)] = at
		touched ^= m.slots[at] // brings it near, all of them at once
	}
	m.touched = touched
	w := m.weights[a*(2*n+1):][:2*n+1]
	dot, _ := opinions(l, m.slots, 0, w, m.none, n, bitWeight)
	dot += int64(w[2*n]+bitWeight) * 256
	p := squash(clampStretch(dot >> 16))
	bit = c.Bit(uint32(min(max(p, minBit), whole-minBit)), bit)
	e := int32(bit<<16) - p>>6
	learn(l, w, m.none, n, e, 0, 14, 16, bit)
	w[2*n] += (256*e + 1<<13) >> 14
	for j, at := range l.at[:len(ctx)] {
		m.slots[at] = l.slot[j]
	}
	return bit
}

// Memory is what the model takes, in bytes.
func (m *BitMixer) Memory() int64 { return int64(4*len(m.slots) + 4*len(m.weights)) }
