package match

import (
	"bytes"
	"runtime"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/internal/linux"
)

// Large files are matched in two steps. Long matches, which are most of a
// point update, are found by hashing; suffixes are sorted only of what is left,
// with some bytes around it.
const (
	directLimit = 48 << 20 // bytes of old and new data that are matched in one step
	blockSize   = 32       // bytes that are hashed together
	blockStep   = 16       // and how often in the old data,
	wideStep    = 64       // or if that has more than wideLimit bytes
	wideLimit   = 1 << 30
	newMargin   = 128      // bytes around what is left of the new data
	oldMargin   = 1024     // and of the old
	joinGap     = 16       // bytes between two anchors that are not looked at
	chunk       = 96 << 20 // bytes of new data whose long matches are found in one go, and
	scanned     = 4 << 20  // of what is left
)

// Matcher finds runs between two views.
type Matcher struct {
	old, data []byte
	anchors   []align.Run
	oldPart   parts // what is left, if there are anchors
	newPart   parts
	index     *Index
}

// NewMatcher prepares to match data against old.
func NewMatcher(old, data []byte) *Matcher {
	m := &Matcher{old: old, data: data}
	if len(old)+len(data) <= directLimit {
		m.index = NewIndex(old)
		return m
	}
	m.anchors = anchors(old, data)
	m.leave()
	m.index = NewIndex(m.oldPart.of(old))
	return m
}

// Runs matches with a gain; see Index.Runs.
func (m *Matcher) Runs(gain int) []align.Run {
	if m.newPart == nil && m.anchors == nil {
		return m.index.Runs(m.data, gain)
	}
	var out []align.Run
	s := scanner{Index: m.index}
	place := func(r align.Run) {
		s.runs = out
		s.add(r)
		out = s.runs
	}
	left := m.newPart.of(m.data)
	found := piecewise(len(left), scanned, func(from, to int) []align.Run { return m.index.runs(left[:to], from, gain) })
	// Between the parts the anchors hold, within them what was found.
	next, starts := 0, m.oldPart.starts()
	anchored := func(from, to int64) {
		i := sort.Search(len(m.anchors), func(i int) bool { return m.anchors[i].New+m.anchors[i].Len > from })
		for ; i < len(m.anchors) && m.anchors[i].New < to; i++ {
			place(cut(m.anchors[i], from, to))
		}
	}
	at, start := int64(0), int64(0)
	for _, p := range m.newPart {
		anchored(at, p.from)
		for ; next < len(found) && found[next].New < start+p.to-p.from; next++ {
			r := cut(found[next], start, start+p.to-p.from)
			m.oldPart.each(r, starts, func(r align.Run) {
				r.New += p.from - start
				place(r)
			})
			if found[next].New+found[next].Len > start+p.to-p.from {
				break // it goes on in the next part
			}
		}
		start += p.to - p.from
		at = p.to
	}
	anchored(at, int64(len(m.data)))
	return out
}

// cut is the part of a run between two new offsets.
func cut(r align.Run, from, to int64) align.Run {
	if d := from - r.New; d > 0 {
		r.New, r.Old, r.Len = r.New+d, r.Old+d, r.Len-d
	}
	r.Len = min(r.Len, to-r.New)
	return r
}

// part is a stretch of bytes that is kept.
type part struct{ from, to int64 }

type parts []part

// of puts the parts of b together.
func (ps parts) of(b []byte) []byte {
	n := int64(0)
	for _, p := range ps {
		n += p.to - p.from
	}
	out := make([]byte, 0, n)
	for _, p := range ps {
		out = append(out, b[p.from:p.to]...)
	}
	return out
}

// starts are the offsets of the parts put together.
func (ps parts) starts() []int64 {
	out, at := make([]int64, len(ps)), int64(0)
	for i, p := range ps {
		out[i] = at
		at += p.to - p.from
	}
	return out
}

// each maps a run whose old offset is within the parts put together, piece by
// piece, to where the parts come from. starts are those of the parts.
func (ps parts) each(r align.Run, starts []int64, yield func(align.Run)) {
	i := max(sort.Search(len(ps), func(i int) bool { return starts[i] > r.Old })-1, 0)
	for ; i < len(ps) && starts[i] < r.Old+r.Len; i++ {
		lo, hi := max(r.Old, starts[i]), min(r.Old+r.Len, starts[i]+ps[i].to-ps[i].from)
		if lo < hi {
			yield(align.Run{New: r.New + lo - r.Old, Old: lo - starts[i] + ps[i].from, Len: hi - lo})
		}
	}
}

// join sorts parts, widens them and puts together those that touch.
func (ps parts) join(margin, size int64) parts {
	slices.SortFunc(ps, func(a, b part) int { return int(a.from - b.from) })
	out := ps[:0]
	for _, p := range ps {
		p = part{max(p.from-margin, 0), min(p.to+margin, size)}
		if k := len(out) - 1; k >= 0 && p.from <= out[k].to {
			out[k].to = max(out[k].to, p.to)
		} else if p.to > p.from {
			out = append(out, p)
		}
	}
	return out
}

// leave finds what the anchors leave.
func (m *Matcher) leave() {
	var left, oldLeft parts
	end := int64(0)
	for _, a := range m.anchors {
		if a.New > end {
			left = append(left, part{end, a.New})
		}
		// What lies beside the margins must be found again.
		oldLeft = append(oldLeft, part{a.Old, a.Old + min(a.Len, newMargin)}, part{a.Old + max(a.Len-newMargin, 0), a.Old + a.Len})
		end = a.New + a.Len
	}
	if end < int64(len(m.data)) {
		left = append(left, part{end, int64(len(m.data))})
	}
	m.newPart = left.join(newMargin, int64(len(m.data)))
	byOld := slices.Clone(m.anchors)
	slices.SortFunc(byOld, func(a, b align.Run) int { return int(a.Old - b.Old) })
	end = 0
	for _, a := range byOld {
		if a.Old > end {
			oldLeft = append(oldLeft, part{end, a.Old})
		}
		end = max(end, a.Old+a.Len)
	}
	if end < int64(len(m.old)) {
		oldLeft = append(oldLeft, part{end, int64(len(m.old))})
	}
	m.oldPart = oldLeft.join(oldMargin, int64(len(m.old)))
}

// multiplier of the rolling hash.
const multiplier = 0x9E3779B97F4A7C15

// hash is the rolling hash of b.
func hash(b []byte) (h uint64) {
	for _, c := range b {
		h = h*multiplier + uint64(c) + 1
	}
	return h
}

// power is the multiplier to the power of n: what bytes count in the hash that n
// others follow.
func power(n int) uint64 {
	p := uint64(1)
	for range n {
		p *= multiplier
	}
	return p
}

// leaving is what a byte that leaves the block counts in its hash, and half what
// the first half of a block does.
var leaving, half = power(blockSize), power(blockSize / 2)

// blocks are the blocks that occur once in the old data.
type blocks struct {
	old   []byte
	step  int
	shift uint
	table []int32 // by hash: the block's number plus 1, or one of these
}

const absent, twice = 0, -1

func newBlocks(old []byte) *blocks {
	b := &blocks{old: old, step: blockStep}
	if len(old) > wideLimit {
		b.step = wideStep
	}
	size := uint(16)
	for 1<<size < len(old)/b.step*2 && size < 28 {
		size++
	}
	b.table, b.shift = linux.Huge[int32](1<<size), 64-size
	workers := runtime.GOMAXPROCS(0)
	group := errgroup.Group{}
	for i := range workers {
		from, to := uint64(len(b.table)*i/workers), uint64(len(b.table)*(i+1)/workers)
		group.Go(func() error { b.fill(from, to); return nil })
	}
	_ = group.Wait()
	return b
}

// fill fills the table's slots from one up to another. What takes long is to
// reach them, not to hash.
func (b *blocks) fill(from, to uint64) {
	old := b.old
	for i, second := 0, hash(old[:min(blockSize/2, len(old))]); i+blockSize <= len(old); i += b.step {
		first := second
		if b.step != blockSize/2 {
			first = hash(old[i : i+blockSize/2])
		}
		second = hash(old[i+blockSize/2 : i+blockSize])
		k := b.slot(first*half + second)
		if k < from || k >= to {
			continue
		}
		switch at := b.table[k]; {
		case at == absent:
			b.table[k] = int32(i/b.step) + 1
		case at == twice || bytes.Equal(old[(int(at)-1)*b.step:][:blockSize], old[i:i+blockSize]):
			b.table[k] = twice
		}
	}
}

func (b *blocks) slot(h uint64) uint64 { return (h ^ h>>29) * 0xBF58476D1CE4E5B9 >> b.shift }

// anchors finds long matches: of blocks that occur once in the old data, and of
// what goes on where the match before ended.
func anchors(old, data []byte) []align.Run {
	b := newBlocks(old)
	return piecewise(len(data), chunk, func(from, to int) []align.Run { return b.find(data[:to], from) })
}

// find finds the anchors of data from an offset on.
func (b *blocks) find(data []byte, from int) []align.Run {
	old := b.old
	var out []align.Run
	end, course := from, 0 // of the last anchor: where it ends, and old − new
	take := func(i, j int) int {
		n := align.Common(data[i:], old[j:])
		for i > end && j > 0 && data[i-1] == old[j-1] {
			i, j, n = i-1, j-1, n+1
		}
		if k := len(out) - 1; k >= 0 && j-i == course && alike(data[end:i], old[end+course:j]) {
			out[k].Len += int64(i + n - end)
		} else {
			out = append(out, align.Run{New: int64(i), Old: int64(j), Len: int64(n)})
		}
		end, course = i+n, j-i
		return end
	}
	var h uint64
	fresh := true
	for i := from; i+blockSize <= len(data); {
		if j := i + course; j >= 0 && j+blockSize <= len(old) && data[i] == old[j] && bytes.Equal(data[i:i+blockSize], old[j:j+blockSize]) {
			i, fresh = take(i, j), true
			continue
		}
		if fresh {
			h, fresh = hash(data[i:i+blockSize]), false
		}
		if at := b.table[b.slot(h)]; at > 0 {
			if j := (int(at) - 1) * b.step; bytes.Equal(data[i:i+blockSize], old[j:j+blockSize]) {
				i, fresh = take(i, j), true
				continue
			}
		}
		if i+blockSize < len(data) {
			h = h*multiplier + uint64(data[i+blockSize]) + 1 - leaving*(uint64(data[i])+1)
		}
		i++
	}
	return out
}

// alike says whether the bytes between two anchors of one course belong to it.
func alike(a, b []byte) bool {
	if len(a) <= joinGap {
		return true
	}
	equal := 0
	for i := range a {
		if a[i] == b[i] {
			equal++
		}
	}
	return equal*2 >= len(a)
}
