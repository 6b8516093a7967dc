package entropy

// Counter is the probability of one decision that quickly believes what it sees
// first. The zero Counter expects both alike.
type Counter uint32 // a slot, xored with fresh

// counterLimit is where a Counter's count stops, and with it its rate of change.
const counterLimit = 60

// Code codes one decision and learns from it.
func (f *Counter) Code(c *Coder, bit int) int {
	bit = c.Bit(f.Probability(), bit)
	*f = Counter(observe(uint32(*f)^fresh, bit, counterLimit) ^ fresh)
	return bit
}

// Probability of 1, in 2^22nds.
func (f *Counter) Probability() uint32 {
	return min(max((uint32(*f)^fresh)>>10, counterEdge), whole-counterEdge)
}

const counterEdge = 64
