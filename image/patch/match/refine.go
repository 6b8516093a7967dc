package match

import (
	"math/bits"
	"slices"

	"github.com/sealant-os/sealant/image/patch/align"
)

// Costs of coding, in 16ths of a bit, as measured over security updates. They
// only guide the choice of runs.
const (
	costLiteral  = 74  // a literal byte
	costEqual    = 1   // an equal byte of a run
	costDiffer   = 150 // a different byte of a run
	costField    = 170 // a different byte of a reference
	costRun      = 290 // gap and length of a run
	costDistance = 22  // per bit of the distance that a run jumps
)

// Bounds of refining.
const (
	anchorLength = 192     // runs that long are not questioned
	margin       = 48      // but their ends are, so far
	maxCourses   = 200     // courses that are weighed against each other
	maxZone      = 1 << 12 // bytes that are looked at together
)

// refiner chooses among the alignments that runs propose the cheapest way
// through the places where they are short: for every byte one of the courses,
// or none.
type refiner struct {
	old, data []byte   // views
	fields    []uint64 // bit set of the old bytes that belong to references
	out       []align.Run
}

// refine returns better runs than it is given.
func refine(runs []align.Run, old, data []byte, fields []uint64) []align.Run {
	r := &refiner{old: old, data: data, fields: fields}
	first, start := 0, int64(0) // of the short runs since the last anchor
	before := -1
	for i, run := range runs {
		if run.Len < anchorLength {
			continue
		}
		head := align.Run{New: run.New + margin, Old: run.Old + margin, Len: run.Len - 2*margin}
		r.stretch(start, head.New, runs, before, first, i)
		r.add(head)
		before, first, start = i, i+1, head.New+head.Len
	}
	r.stretch(start, int64(len(data)), runs, before, first, len(runs))
	return r.out
}

// stretch goes from start to end, zone by zone. Between the anchors before and
// after, which may not exist, lie the runs first to after.
func (r *refiner) stretch(start, end int64, runs []align.Run, before, first, after int) {
	var main []int64
	entry, exit := int64(none), int64(none)
	if before >= 0 {
		entry = runs[before].Old - runs[before].New
		main = append(main, entry)
	}
	if after < len(runs) {
		exit = runs[after].Old - runs[after].New
		main = append(main, exit)
	}
	for start < end {
		stop := min(start+maxZone, end)
		z := zone{start: start, end: stop, main: main, entry: entry, exit: none}
		if stop == end {
			z.exit = exit
		}
		for _, run := range runs[first:after] {
			if run.New < stop && run.New+run.Len > start {
				z.add(run.Old - run.New)
			}
		}
		for first < after && runs[first].New+runs[first].Len <= stop {
			first++
		}
		r.zone(&z)
		start, entry = stop, none
	}
}

// none is no course.
const none = -1 << 62

// zone is a part of the new data with the courses, new to old, that are
// weighed against each other in it.
type zone struct {
	start, end  int64
	entry, exit int64   // courses before and after
	main        []int64 // courses that are cheap to come to
	courses     []int64
}

func (z *zone) add(course int64) {
	if course != none && len(z.courses) < maxCourses && !slices.Contains(z.courses, course) {
		z.courses = append(z.courses, course)
	}
}

// add appends a run, joined to the one before it if it just goes on.
func (r *refiner) add(run align.Run) {
	if run.Len <= 0 {
		return
	}
	if k := len(r.out) - 1; k >= 0 {
		if last := &r.out[k]; last.New+last.Len == run.New && last.Old+last.Len == run.Old {
			last.Len += run.Len
			return
		}
	}
	r.out = append(r.out, run)
}

// zone finds the cheapest way through a zone.
func (r *refiner) zone(z *zone) {
	z.add(z.entry)
	z.add(z.exit)
	if len(z.courses) == 0 {
		return
	}
	n, states := int(z.end-z.start), len(z.courses)+1 // the first state is literal
	enter := make([]int32, states)
	for i, d := range z.courses {
		enter[i+1] = costRun + costDistance*20
		for _, m := range z.main {
			enter[i+1] = min(enter[i+1], costRun+costDistance*int32(bits.Len64(uint64(magnitude(d-m)))))
		}
	}
	cost, next := make([]int32, states), make([]int32, states)
	for s := range cost {
		cost[s] = enter[s]
	}
	if z.entry != none {
		cost[slices.Index(z.courses, z.entry)+1] = 0
	}
	from := make([]uint8, n*states)
	for i := range n {
		at := z.start + int64(i)
		cheapest := 0
		for s := range cost {
			if cost[s] < cost[cheapest] {
				cheapest = s
			}
		}
		least, back := cost[cheapest], from[i*states:][:states]
		for s := range cost {
			c, f := cost[s]-least, uint8(s)
			if enter[s] < c {
				c, f = enter[s], uint8(cheapest)
			}
			if s == 0 {
				c += costLiteral
			} else {
				c += r.byteCost(at, at+z.courses[s-1])
			}
			next[s], back[s] = c, f
		}
		cost, next = next, cost
	}
	if z.exit != none {
		for s := range cost {
			cost[s] += enter[slices.Index(z.courses, z.exit)+1]
		}
		cost[slices.Index(z.courses, z.exit)+1] -= enter[slices.Index(z.courses, z.exit)+1]
	}
	last := 0
	for s := range cost {
		if cost[s] < cost[last] {
			last = s
		}
	}
	way := make([]uint8, n)
	for i := n - 1; i >= 0; i-- {
		way[i] = uint8(last)
		last = int(from[i*states+last])
	}
	for i := 0; i < n; {
		j := i + 1
		for j < n && way[j] == way[i] {
			j++
		}
		if s := way[i]; s > 0 {
			at := z.start + int64(i)
			r.add(r.clip(align.Run{New: at, Old: at + z.courses[s-1], Len: int64(j - i)}))
		}
		i = j
	}
}

// clip cuts off what lies outside the old data.
func (r *refiner) clip(run align.Run) align.Run {
	if cut := -run.Old; cut > 0 {
		run.Old, run.New, run.Len = 0, run.New+cut, run.Len-cut
	}
	run.Len = min(run.Len, int64(len(r.old))-run.Old)
	return run
}

// byteCost is what the new byte at costs if it stems from the old byte o.
func (r *refiner) byteCost(at, o int64) int32 {
	switch {
	case o < 0 || o >= int64(len(r.old)):
		return 1 << 20
	case r.old[o] == r.data[at]:
		return costEqual
	case r.fields[o>>6]>>(o&63)&1 != 0:
		return costField
	}
	return costDiffer
}

func magnitude(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}
