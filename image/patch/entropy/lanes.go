package entropy

// lanes is what a mixer works on for one decision: up to 16 contexts side by
// side, so that a processor can look at eight at once. On x86-64 lanes_amd64.s
// does so; lanes_go.go says the same in Go, and a test holds them equal.
type lanes struct {
	at   [maxContexts]uint32 // where each context's slots begin
	mask [maxContexts]uint32 // all ones where there is a context
	slot [maxContexts]uint32 // its slot, before and then after
	in   [2 * maxContexts]int32
	used int // contexts
}

// maxContexts is how many contexts a mixer can have.
const maxContexts = 16

// newLanes are lanes for some contexts.
func newLanes(contexts int) (l lanes) {
	for j := range contexts {
		l.mask[j] = 1<<32 - 1
	}
	l.used = contexts
	return l
}

// rowLength is how many weights a set has: two for every lane that is looked at,
// and one for the constant.
func rowLength(contexts int) int { return 2*lanesOf(contexts) + 1 }

// lanesOf is the number of contexts rounded up to what is looked at together.
func lanesOf(contexts int) int { return (contexts + 7) &^ 7 }

// Weights are kept less firstWeight (twice that in bit mixers), and slots xored
// with fresh, so that fresh memory is right as it is.

// opinionsGo reads the slots l.at + nib, puts what they say into l.in, the
// first opinions and then the second, and returns the sums by two sets of
// weights, both kept less first.
func opinionsGo(l *lanes, slots []uint32, nib uint32, w1, w2 []int32, n int, first int32) (sum1, sum2 int64) {
	at, slot := l.at[:l.used], l.slot[:l.used]
	in1, in2 := l.in[:l.used], l.in[n:][:l.used]
	w11, w12, w21, w22 := w1[:l.used], w1[n:][:l.used], w2[:l.used], w2[n:][:l.used]
	for j := range at {
		s := slots[at[j]+nib] ^ fresh
		slot[j] = s
		a, b := opinion(s)
		in1[j], in2[j] = a, b
		sum1 += int64(w11[j]+first)*int64(a) + int64(w12[j]+first)*int64(b)
		sum2 += int64(w21[j]+first)*int64(a) + int64(w22[j]+first)*int64(b)
	}
	return sum1, sum2
}

// learnGo moves the weights by the errors e1 and e2, and the slots in l.slot
// towards the bit.
func learnGo(l *lanes, w1, w2 []int32, n int, e1, e2 int32, shift1, shift2 uint, bit int) {
	slot := l.slot[:l.used]
	in1, in2 := l.in[:l.used], l.in[n:][:l.used]
	w11, w12, w21, w22 := w1[:l.used], w1[n:][:l.used], w2[:l.used], w2[n:][:l.used]
	round1, round2 := int32(1)<<(shift1-1), int32(1)<<(shift2-1)
	for j := range slot {
		a, b := in1[j], in2[j]
		w11[j] += (a*e1 + round1) >> shift1
		w12[j] += (b*e1 + round1) >> shift1
		w21[j] += (a*e2 + round2) >> shift2
		w22[j] += (b*e2 + round2) >> shift2
		slot[j] = observe(slot[j], bit, slotLimit) ^ fresh
	}
}
