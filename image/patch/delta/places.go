package delta

import "math/bits"

// places maps places to places, or to distances, in 16 bytes each and little
// more: a hash table with open addressing. The zero places are empty.
type places struct {
	slots []placeSlot
	n     int
	shift uint // of a hash
}

// placeSlot holds a key xored with noPlace, so that fresh memory is empty.
type placeSlot struct{ key, value int64 }

// noPlace is no place, and no key.
const noPlace = -1 << 63

// firstPlaces is how many slots a table has at first.
const firstPlaces = 64

// slot is where a key is or belongs.
func (t *places) slot(key int64) *placeSlot {
	i := uint64(key) * 0x9E3779B97F4A7C15 >> t.shift
	for {
		s := &t.slots[i]
		if s.key == key^noPlace || s.key == 0 {
			return s
		}
		i = (i + 1) & uint64(len(t.slots)-1)
	}
}

// get finds a key.
func (t *places) get(key int64) (int64, bool) {
	if t.n == 0 {
		return 0, false
	}
	s := t.slot(key)
	return s.value, s.key != 0
}

// set puts a value at a key.
func (t *places) set(key, value int64) {
	if key == noPlace {
		return // a place that cannot be
	}
	if 4*(t.n+1) > 3*len(t.slots) {
		t.grow(max(2*len(t.slots), firstPlaces))
	}
	s := t.slot(key)
	if s.key == 0 {
		t.n++
	}
	*s = placeSlot{key ^ noPlace, value}
}

// grow gives the table a number of slots that is a power of two.
func (t *places) grow(size int) {
	old := t.slots
	t.slots, t.shift = make([]placeSlot, size), uint(64-bits.TrailingZeros(uint(size)))
	for _, s := range old {
		if s.key != 0 {
			*t.slot(s.key ^ noPlace) = s
		}
	}
}

// placeMemory is what one place takes while a table grows, in bytes.
const placeMemory = 64
