package match

import (
	"bytes"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/internal/linux"
)

// Repeats adds to runs those of new data that is there before, at least as many
// bytes as said. cuts are the offsets, ascending, where segments start.
func Repeats(data []byte, runs []align.Run, cuts []int64, least int) []align.Run {
	total := int64(len(data))
	for _, r := range runs {
		total -= r.Len
	}
	if total < int64(least) {
		return runs
	}
	r := repeater{data: data, least: least, bits: uint(min(max(bits.Len64(uint64(total/repeatStep)), 8), 24))}
	r.table = linux.Huge[int32](1 << r.bits)
	at := int64(0)
	for _, run := range runs {
		cuts = r.gap(at, run.New, cuts)
		r.out = append(r.out, run)
		at = run.New + run.Len
	}
	r.gap(at, int64(len(data)), cuts)
	return r.out
}

// Blocks of which repetitions are found, in bytes, and how often they are
// remembered.
const (
	repeatBlock = 32
	repeatStep  = 16
)

type repeater struct {
	data  []byte
	least int
	bits  uint
	table []int32 // by hash: offset of a block seen, plus 1
	start int64   // of the segment
	out   []align.Run
}

// gap looks at what no run covers, and returns the cuts that lie behind it.
func (r *repeater) gap(from, to int64, cuts []int64) []int64 {
	for len(cuts) > 0 && cuts[0] <= to {
		r.within(int(from), int(max(from, cuts[0])))
		from, r.start, cuts = max(from, cuts[0]), cuts[0], cuts[1:]
	}
	r.within(int(from), int(to))
	return cuts
}

// within looks at a gap without a cut.
func (r *repeater) within(from, to int) {
	leaving := uint64(1)
	for range repeatBlock {
		leaving *= multiplier
	}
	d := r.data
	var h uint64
	fresh := true
	for i := from; i+repeatBlock <= to; i++ {
		if fresh {
			h, fresh = 0, false
			for _, c := range d[i : i+repeatBlock] {
				h = h*multiplier + uint64(c) + 1
			}
		}
		slot := (h ^ h>>29) * 0xBF58476D1CE4E5B9 >> (64 - r.bits)
		if j := int(r.table[slot]) - 1; j >= int(r.start) && j < i && bytes.Equal(d[j:j+repeatBlock], d[i:i+repeatBlock]) {
			back := 0
			for i-back > from && j-back > int(r.start) && d[i-back-1] == d[j-back-1] {
				back++
			}
			if n := align.Common(d[i:to], d[j:]) + back; n >= r.least {
				i, j = i-back, j-back
				r.out = append(r.out, align.Run{New: int64(i), Old: int64(j), Len: int64(n), Self: true})
				from = i + n
				i, fresh = from-1, true
				continue
			}
		}
		if i%repeatStep == 0 {
			r.table[slot] = int32(i) + 1
		}
		if i+repeatBlock < to {
			h = h*multiplier + uint64(d[i+repeatBlock]) + 1 - leaving*(uint64(d[i])+1)
		}
	}
}
