// Package match finds where new data stems from old data.
//
// It is a tool of the encoder only: whatever it answers makes a correct patch,
// a better answer makes a smaller one. Answers depend on nothing but the input.
package match

import (
	"bytes"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/suffix"
	"github.com/sealant-os/sealant/internal/linux"
)

// Index answers where a byte string occurs in the old data.
type Index struct {
	old    []byte
	sa     []int32
	prefix []int32 // first suffix of every 3-byte prefix
}

// NewIndex sorts the suffixes of old, which must be shorter than suffix.Limit.
// It takes 4 bytes of memory per byte of old, and 64 MiB.
func NewIndex(old []byte) *Index {
	x := &Index{old: old, sa: suffix.Array(old), prefix: linux.Huge[int32](1<<24 + 1)}
	// Counted from the data, in its order, not looked up by the sorted suffixes.
	for i := range len(old) - 2 {
		x.prefix[three(old[i:])]++
	}
	var short []int // what suffixes of one and two bytes are sorted before
	for i := max(len(old)-2, 0); i < len(old); i++ {
		short = append(short, three(append(bytes.Clone(old[i:]), 0, 0)))
	}
	k, before := 0, int32(0)
	for v := range 1 << 24 {
		n := x.prefix[v]
		if n == 0 {
			continue
		}
		first := before
		for _, s := range short {
			if s <= v {
				first++
			}
		}
		for ; k <= v; k++ {
			x.prefix[k] = first
		}
		before += n
	}
	for ; k < len(x.prefix); k++ {
		x.prefix[k] = int32(len(x.sa))
	}
	return x
}

// longest finds a longest prefix of q that occurs in the old data, if three bytes
// of it do: its length, where, and the rank of that suffix.
func (x *Index) longest(q []byte) (length, at, rank int) {
	if len(q) < 4 || len(x.sa) == 0 {
		return 0, 0, 0
	}
	v := three(q)
	lo, hi := max(int(x.prefix[v])-1, 0), min(int(x.prefix[v+1]), len(x.sa)-1)
	for hi-lo >= 2 {
		mid := (lo + hi) / 2
		if bytes.Compare(x.old[x.sa[mid]:], q) < 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	a, b := align.Common(x.old[x.sa[lo]:], q), align.Common(x.old[x.sa[hi]:], q)
	if a > b {
		return a, int(x.sa[lo]), lo
	}
	return b, int(x.sa[hi]), hi
}

// Of several places that match equally long, the one nearest to where the data
// would be expected is taken, if they are not too many to look at.
const (
	nearLongest = 48
	nearTries   = 200
)

// three are the first three bytes of b as a number that sorts as they do.
func three(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// nearest is longest, choosing the occurrence nearest to want.
func (x *Index) nearest(q []byte, want int) (length, at int) {
	length, at, rank := x.longest(q)
	if length < 6 || length > nearLongest {
		return length, at
	}
	distance := func(p int) int {
		if p < want {
			return want - p
		}
		return p - want
	}
	best := distance(at)
	for dir := -1; dir <= 1; dir += 2 {
		for k := 1; k <= nearTries; k++ {
			i := rank + dir*k
			if i < 0 || i >= len(x.sa) {
				break
			}
			p := int(x.sa[i])
			if len(x.old)-p < length || !bytes.Equal(x.old[p:p+length], q[:length]) {
				break
			}
			if d := distance(p); d < best {
				best, at = d, p
			}
		}
	}
	return length, at
}

// Runs walks through the new data as bsdiff does: it looks for the next place
// where a match beats the present alignment by more than gain bytes, then
// stretches both alignments over the bytes between as long as at least half of
// them are equal.
func (x *Index) Runs(data []byte, gain int) []align.Run { return x.runs(data, 0, gain) }

// runs are the Runs of data from an offset on.
func (x *Index) runs(data []byte, from, gain int) []align.Run {
	s := scanner{Index: x, data: data, gain: gain}
	return s.scan(from)
}

// piecewise finds runs in pieces of new data of some bytes, some at once. Runs
// end where a piece does, or go on if those on both sides fit together.
func piecewise(size, piece int, find func(from, to int) []align.Run) []align.Run {
	found := make([][]align.Run, (size+piece-1)/piece)
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range found {
		group.Go(func() error { found[i] = find(i*piece, min((i+1)*piece, size)); return nil })
	}
	_ = group.Wait()
	if len(found) == 1 {
		return found[0]
	}
	s := scanner{}
	for _, runs := range found {
		for _, r := range runs {
			s.add(r)
		}
	}
	return s.runs
}

type scanner struct {
	*Index
	data []byte
	gain int
	runs []align.Run
}

// scan scans the data from an offset on.
func (s *scanner) scan(from int) []align.Run {
	old, data := s.old, s.data
	at, length, pos := from, 0, 0
	lastAt, lastPos, shift := from, from, 0
	aligned := func(i int) bool {
		q := i + shift
		return q >= 0 && q < len(old) && old[q] == data[i]
	}
	for at < len(data) {
		score := 0
		at += length
		for scored := at; at < len(data); at++ {
			length, pos = s.nearest(data[at:], at+shift)
			if q := at + shift; q >= 0 && q < len(old) {
				if l := align.Common(old[q:], data[at:]); l >= length && l > 0 {
					length, pos = l, q
				}
			}
			for ; scored < at+length; scored++ {
				if aligned(scored) {
					score++
				}
			}
			if (length == score && length != 0) || length > score+s.gain {
				break
			}
			if aligned(at) {
				score--
			}
		}
		if length != score || at == len(data) {
			forward, back := s.stretch(lastAt, lastPos, at, pos)
			s.add(align.Run{New: int64(lastAt), Old: int64(lastPos), Len: int64(forward)})
			lastAt, lastPos, shift = at-back, pos-back, pos-at
		}
	}
	return s.runs
}

// stretch divides the bytes between two alignments: the first one goes on for
// forward bytes from (lastAt, lastPos), the second one starts back bytes before
// (at, pos).
func (s *scanner) stretch(lastAt, lastPos, at, pos int) (forward, back int) {
	old, data := s.old, s.data
	equal, best := 0, 0
	for i := 0; lastAt+i < at && lastPos+i < len(old); {
		if old[lastPos+i] == data[lastAt+i] {
			equal++
		}
		i++
		if equal*2-i > best {
			best, forward = equal*2-i, i
		}
	}
	if at < len(data) {
		equal, best = 0, 0
		for i := 1; at >= lastAt+i && pos >= i; i++ {
			if old[pos-i] == data[at-i] {
				equal++
			}
			if equal*2-i > best {
				best, back = equal*2-i, i
			}
		}
	}
	if over := lastAt + forward - (at - back); over > 0 {
		gain, bestGain, cut := 0, 0, 0
		for i := range over {
			if data[lastAt+forward-over+i] == old[lastPos+forward-over+i] {
				gain++
			}
			if data[at-back+i] == old[pos-back+i] {
				gain--
			}
			if gain > bestGain {
				bestGain, cut = gain, i+1
			}
		}
		forward += cut - over
		back -= cut
	}
	return forward, back
}

// add appends a run, joined to the one before it if it just goes on.
func (s *scanner) add(r align.Run) {
	if r.Len <= 0 {
		return
	}
	if k := len(s.runs) - 1; k >= 0 {
		if last := &s.runs[k]; last.New+last.Len == r.New && last.Old+last.Len == r.Old {
			last.Len += r.Len
			return
		}
	}
	s.runs = append(s.runs, r)
}
