// Package align says which stretches of new data stem from which stretches of
// old data, and projects places of the old data into the new.
package align

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
)

// Run is a stretch of new data that stems from a stretch of old data of the
// same length, though not every byte need be equal. Offsets and length are in
// bytes.
//
// A Self run stems from new data instead: Old is an offset there, before New, of
// the same segment, and every byte is equal. It may overlap itself, so that a
// short pattern goes on.
type Run struct {
	New, Old, Len int64
	Self          bool
}

// Projection maps offsets of the old data to offsets of the new.
//
// Self runs have no part in it. Runs may overlap in the old data. Where they do, the longer one wins: taken
// in the order of their old offsets, a later run that is not longer than the
// one before it keeps only what lies beyond it, and a longer one cuts the one
// before it short. Both sides compute this, so the rule is part of the format.
type Projection struct {
	runs []Run
	last int // where the previous question was answered
}

// Project computes the projection of runs; it keeps no reference to them.
func Project(runs []Run) *Projection {
	sorted := slices.DeleteFunc(slices.Clone(runs), func(r Run) bool { return r.Self })
	slices.SortStableFunc(sorted, func(a, b Run) int { return cmp.Compare(a.Old, b.Old) })
	kept := sorted[:0]
	for _, r := range sorted {
		for len(kept) > 0 {
			k := &kept[len(kept)-1]
			over := k.Old + k.Len - r.Old
			if over <= 0 {
				break
			}
			if r.Len <= k.Len {
				r.Old, r.New, r.Len = r.Old+over, r.New+over, r.Len-over
				break
			}
			k.Len -= over
			if k.Len > 0 {
				break
			}
			kept = kept[:len(kept)-1]
		}
		if r.Len > 0 {
			kept = append(kept, r)
		}
	}
	return &Projection{runs: kept}
}

// At projects one old offset. Between two runs the nearer one leads; covered
// says whether a run covers the offset itself. The offset may be anything, and
// so may the result.
func (p *Projection) At(old int64) (projected int64, covered bool) {
	if len(p.runs) == 0 {
		return old, false
	}
	i := p.last
	if !p.leads(i, old) {
		i = sort.Search(len(p.runs), func(i int) bool { return p.runs[i].Old > old }) - 1
		p.last = max(i, 0)
	}
	if i < 0 {
		return old - p.runs[0].Old + p.runs[0].New, false
	}
	r := p.runs[i]
	d := old - r.Old
	if d < r.Len {
		return r.New + d, true
	}
	if i+1 < len(p.runs) && p.runs[i+1].Old-old < d-r.Len {
		return p.runs[i+1].New - (p.runs[i+1].Old - old), false
	}
	return r.New + d, false
}

// leads says whether run i is the last that starts at or before old.
func (p *Projection) leads(i int, old int64) bool {
	return p.runs[i].Old <= old && (i+1 == len(p.runs) || p.runs[i+1].Old > old)
}

// Common is the length of the longest common prefix of a and b.
func Common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)>>3
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
