// Package match finds where new data stems from old data.
//
// It is a tool of the encoder only: whatever it answers makes a correct patch,
// a better answer makes a smaller one. Answers depend on nothing but the input.
package match

import (
	"bytes"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/suffix"
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
	x := &Index{old: old, sa: suffix.Array(old), prefix: make([]int32, 1<<24+1)}
	k := int32(0)
	for i, p := range x.sa {
		if int(p)+3 > len(old) {
			continue
		}
		v := int32(old[p])<<16 | int32(old[p+1])<<8 | int32(old[p+2])
		for ; k <= v; k++ {
			x.prefix[k] = int32(i)
		}
	}
	for ; int(k) < len(x.prefix); k++ {
		x.prefix[k] = int32(len(x.sa))
	}
	return x
}

// longest finds a longest prefix of q that occurs in the old data: its length,
// where, and the rank of that suffix.
func (x *Index) longest(q []byte) (length, at, rank int) {
	if len(q) < 4 || len(x.sa) == 0 {
		return 0, 0, 0
	}
	v := int(q[0])<<16 | int(q[1])<<8 | int(q[2])
	lo, hi := max(int(x.prefix[v])-1, 0), min(int(x.prefix[v+1]), len(x.sa)-1)
	for hi-lo >= 2 {
		mid := (lo + hi) / 2
		p := int(x.sa[mid])
		n := min(len(x.old)-p, len(q))
		if bytes.Compare(x.old[p:p+n], q[:n]) < 0 {
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
func (x *Index) Runs(data []byte, gain int) []align.Run {
	s := scanner{Index: x, data: data, gain: gain}
	return s.scan()
}

type scanner struct {
	*Index
	data []byte
	gain int
	runs []align.Run
}

func (s *scanner) scan() []align.Run {
	old, data := s.old, s.data
	at, length, pos := 0, 0, 0
	lastAt, lastPos, shift := 0, 0, 0
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
