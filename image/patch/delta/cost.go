package delta

import (
	"errors"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// Costs says what a segment's bits are spent on.
type Costs struct {
	Gaps, Differences, Literals int64
	References                  [elfref.Classes]int64 // by class
	Missed                      [elfref.Classes]int64 // references that were predicted wrongly
}

// Account is told that so many bits of the patch were spent on the data around
// an offset.
type Account func(off int64, what What, bits int64)

// What bits are spent on.
type What int

// The kinds of things that bits are spent on.
const (
	Map What = iota
	Differences
	Literals
	References
)

// charge counts what was spent since before.
func (w *walker) charge(total *int64, what What, off, before int64) {
	n := w.c.Spent() - before
	*total += n
	if w.account != nil && n != 0 {
		w.account(off, what, n)
	}
}

// Work bounds the decisions by mixers that a decoder takes for a segment with a
// body of a size in bytes: one for asking whether a byte differs, eight for
// a byte or a number. More is refused, as it would let a small patch keep a
// device busy for hours.
func (s Segment) Work(size int64) int64 {
	n := min(s.End-s.Start, maxOffset/4)
	return s.part(1<<19) + n + min(n, s.part(1<<22)) + 256*min(size, maxOffset/512)
}

// PlaceMemory is what a place that is learned about takes, in bytes.
const PlaceMemory = placeMemory

// Errors of a decoder.
var (
	errWork    = errors.New("it asks for more work than its size allows")
	errLearned = errors.New("it takes more memory than it declares")
)

// MaxLiterals bounds the literals that a segment with a body of a size may model,
// both in bytes: more of them are packed. It bounds the time that a small body takes.
func (s Segment) MaxLiterals(size int64) int64 {
	return s.part(32<<10) + 32*min(size, maxOffset/512)
}

// part is the segment's part of what is granted to all of them, however little
// they have for it.
func (s Segment) part(n int64) int64 { return n / int64(max(s.Segments, 1)) }
