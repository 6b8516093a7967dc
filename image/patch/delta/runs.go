package delta

import (
	"fmt"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// runCoder codes the runs in the order of the new data: the gap before each,
// where in the old data it goes on, and its length.
//
// The old data is read mostly forwards, with excursions: a few bytes from
// somewhere else, then back to about where it was. So there are two anchors
// from which the old offset is told: the end of the last run, and the end of
// the last run of the main course.
type runCoder struct {
	gap, course, length, jump, shift, back *entropy.ContextNumbers

	end           int64 // of the run before, in the new data
	last, main    anchor
	distance      int64    // of the last self run
	jumps         [2]int64 // the last distances from the end of the last run
	excursion     bool     // last is not main
	l1, l2, how   uint32
	jumped, moved uint32 // bit lengths of the last jump and shift
}

// anchor is where a run ends.
type anchor struct{ new, old int64 }

// How the old offset of a run is told.
const (
	onLast       = iota // straight on from the last run
	fromLast            // by the distance from the end of the last run
	onMain              // straight on from the main course
	fromMain            // by the distance from where the main course would be
	fromSelf            // from new data, by the distance back
	asBefore            // by the distance of the last fromLast
	asBeforeThat        // by the one before that
)

// A run of at least mainLength bytes, or one no further than mainDistance from
// the main course, belongs to it.
const (
	mainLength   = 256
	mainDistance = 4096
)

func newRunCoder() *runCoder {
	return &runCoder{
		gap: entropy.NewContextNumbers(4), course: entropy.NewContextNumbers(5), length: entropy.NewContextNumbers(5),
		jump: entropy.NewContextNumbers(4), shift: entropy.NewContextNumbers(4), back: entropy.NewContextNumbers(3),
	}
}

// bitLen is the length of v in bits, at most 20.
func bitLen(v uint64) uint32 { return uint32(min(bits.Len64(v), 20)) }

func magnitude(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}

// code codes one run. When decoding the result may be any numbers that do not
// overflow: check them.
func (k *runCoder) code(c *entropy.Coder, r align.Run) (align.Run, error) {
	away := uint32(0)
	if k.excursion {
		away = 1
	}
	state := k.how<<1 | away
	gap := k.gap.Code(c, []uint32{1, 100 + k.l1<<4 + state, 1000 + k.l1*32 + k.l2*1024, 200000 + state}, uint64(r.New-k.end))
	if gap > maxOffset {
		return r, fmt.Errorf("gap of %d is out of range", gap)
	}
	at := k.end + int64(gap)
	straightLast := k.last.old + at - k.last.new
	straightMain := k.main.old + at - k.main.new
	how := uint64(fromLast)
	switch {
	case c.Decoding():
	case r.Self:
		how = fromSelf
	case r.Old == straightLast:
		how = onLast
	case r.Old-k.last.old == k.jumps[0] && magnitude(k.jumps[0]) > mainDistance:
		how = asBefore
	case r.Old-k.last.old == k.jumps[1] && magnitude(k.jumps[1]) > mainDistance:
		how = asBeforeThat
	case !k.excursion:
	case r.Old == straightMain:
		how = onMain
	case magnitude(r.Old-straightMain) < magnitude(r.Old-k.last.old):
		how = fromMain
	}
	lg := bitLen(gap)
	how = k.course.Code(c, []uint32{state, 100 + lg<<4 + state, 1000 + k.l1<<4 + state, 2000 + k.l1<<9 + lg<<4 + state, 100000 + k.l2<<9 + k.l1<<4 + state}, how)
	far := false
	old := int64(0)
	switch how {
	case onLast:
		old = straightLast
	case fromLast:
		u := k.jump.Code(c, []uint32{1, 100 + lg, 200 + k.jumped<<1 + away, 300 + k.l1}, entropy.Zigzag(r.Old-k.last.old))
		d := entropy.Unzigzag(u)
		k.jumped, far = bitLen(u), magnitude(d) > mainDistance
		old = add(k.last.old, d)
		k.jumps = [2]int64{d, k.jumps[0]}
	case asBefore, asBeforeThat:
		if how == asBeforeThat {
			k.jumps[0], k.jumps[1] = k.jumps[1], k.jumps[0]
		}
		far = magnitude(k.jumps[0]) > mainDistance
		old = add(k.last.old, k.jumps[0])
	case onMain:
		old = straightMain
	case fromMain:
		u := k.shift.Code(c, []uint32{1, 100 + lg, 200 + k.moved, 300 + k.l1}, entropy.Zigzag(r.Old-straightMain))
		k.moved = bitLen(u)
		old = add(straightMain, entropy.Unzigzag(u))
	case fromSelf:
		u := uint64(r.New - r.Old)
		if int64(u) == k.distance {
			u = 0
		}
		u = k.back.Code(c, []uint32{1, 100 + lg, 200 + bitLen(uint64(k.distance))}, u)
		if u > maxOffset {
			return r, fmt.Errorf("distance of %d is out of range", u)
		}
		if u != 0 {
			k.distance = int64(u)
		}
		old = at - k.distance
	default:
		return r, fmt.Errorf("course %d is unknown", how)
	}
	length := k.length.Code(c, []uint32{uint32(how), 100 + lg<<3 + uint32(how), 300 + k.l1<<3 + uint32(how), 500 + lg<<9 + k.l1<<14 + uint32(how), 1000000 + uint32(how)<<10 + k.jumped<<5 + lg}, uint64(r.Len))
	if length > maxOffset || magnitude(old) > maxOffset || at > maxOffset {
		return r, fmt.Errorf("run is out of range")
	}
	k.end = at + int64(length)
	k.l2, k.l1, k.how = k.l1, bitLen(length), uint32(how)
	if how == fromSelf {
		return align.Run{New: at, Old: old, Len: int64(length), Self: true}, nil
	}
	k.last = anchor{k.end, old + int64(length)}
	k.excursion = (how < onMain || how > fromSelf) && length < mainLength && (k.excursion || far)
	if !k.excursion {
		k.main = k.last
	}
	return align.Run{New: at, Old: old, Len: int64(length)}, nil
}

// add adds numbers that a decoder must not believe.
func add(a, b int64) int64 {
	if magnitude(a) > maxOffset || b > maxOffset || b < -maxOffset {
		return maxOffset + 1
	}
	return a + b
}

// check refuses a run that does not lie within both data, after the run before.
func check(r align.Run, newEnd, newSize, oldSize int64) error {
	if r.Self {
		if r.Old < 0 || r.Old >= r.New {
			return fmt.Errorf("run of %d bytes at %d does not stem from before", r.Len, r.New)
		}
		r.Old, oldSize = 0, newSize
	}
	if r.Len <= 0 || r.New < newEnd || r.Len > newSize || r.New > newSize-r.Len ||
		r.Old < 0 || r.Len > oldSize || r.Old > oldSize-r.Len {
		return fmt.Errorf("run of %d bytes from %d to %d is out of bounds", r.Len, r.Old, r.New)
	}
	return nil
}
