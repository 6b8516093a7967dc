package patch

import (
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/match"
)

// draft is one way to code a patch.
type draft struct {
	elf      bool // references are predicted
	layout   *delta.Layout
	parts    [][]byte
	segments []Segment
	size     int
	memory   int64 // to learn, and to look into a program
	tables   int64
	work     int64 // see delta.Segment.Work
	costs    delta.Costs
}

// A byte of a patch is worth so many decisions of its decoder: about 25 µs.
const decisionsPerByte = 400

// price is the draft's size, in bytes, and what its decoder does counted as
// bytes.
func (d *draft) price() int { return d.size + int(d.work/decisionsPerByte) }

// A segment with more literals, in bytes, is coded for speed.
const lightAbove = 4 << 20

// Repetitions of at least this many bytes of new content are copied.
const leastRepeat = 400

// A patch of at least so many bytes is tried with larger models too, and a smaller
// one whose models learn from much.
const (
	largerModels = 48 << 10
	muchLearnt   = 768 << 10
	muchToSay    = 8 << 10 // smaller patches aren't worth the time
)

// encode codes a patch with one layout, to compare it with others.
func encode(was, is *match.File, l *delta.Layout) (*draft, error) {
	much := literals(is, l) > lightAbove
	shape := delta.Shape{Bits: 16, Light: much, Packed: much}
	if much {
		shape.Window = delta.WindowFor(literals(is, l))
	}
	if len(was.Elements) == 0 && !much && len(was.Data) <= delta.MaxPrimed {
		shape.Primed = true
	}
	return encodeAs(was, is, l, shape)
}

// literals is how much new content a layout leaves, in bytes.
func literals(is *match.File, l *delta.Layout) int64 {
	return l.Literals(delta.Segment{End: int64(len(is.Data))})
}

// improve tries other shapes of models for the layout of a draft.
func improve(was, is *match.File, d *draft) (*draft, error) {
	if len(d.segments) == 0 {
		return d, nil
	}
	var shapes []delta.Shape
	if d.costs.Gaps+d.costs.Differences >= watchAbove {
		var err error
		if d.size < largeToWatch || len(d.layout.Runs) < runsToWatch {
			d, err = watchful(was, is, d)
		} else {
			shapes, err = watchPart(was, is, d)
		}
		if err != nil {
			return nil, err
		}
	}
	watch := d.segments[0].shape().Watch
	if len(shapes) > 0 {
		watch = shapes[0].Watch
	}
	shapes = append(shapes, larger(was, is, d, watch)...)
	tries, err := encodeAll(was, is, d.layout, shapes)
	if err != nil {
		return nil, err
	}
	for _, other := range tries {
		if other.size < d.size-d.size/200 {
			d = other
		}
	}
	return d, nil
}

// larger are the shapes with larger models that are worth a try.
func larger(was, is *match.File, d *draft, watch uint) (shapes []delta.Shape) {
	if d.segments[0].Packed > 0 {
		return nil
	}
	n := literals(is, d.layout)
	learnt := n
	if d.segments[0].Primed {
		learnt += int64(len(was.Data))
	}
	if d.size < largerModels && (learnt < muchLearnt || d.size < muchToSay) {
		return nil
	}
	big := delta.Shape{Bits: 18, Watch: watch}
	if learnt > 256<<10 {
		big.Bits = 20
	}
	shapes = append(shapes, big)
	if len(was.Data) <= delta.MaxPrimed {
		big.Primed = true
		shapes = append(shapes, big)
	}
	if n > 1<<20 {
		shapes = append(shapes, delta.Shape{Bits: 16, Packed: true, Window: delta.WindowFor(n), Watch: watch})
	}
	return shapes
}

const (
	// Differences that cost at least so many bits are watched for longer, if that
	// helps.
	watchAbove = 3000
	// How long is found out with a part of a patch of at least so many bytes and
	// runs, and with all of a smaller one.
	largeToWatch = 1 << 20
	runsToWatch  = 1 << 10
)

// watches are the draft's shape with each way to watch for differences but its own.
func watches(d *draft) (shapes []delta.Shape) {
	for watch := range uint(3) {
		shape := d.segments[0].shape()
		shape.Watch = watch + 1
		shapes = append(shapes, shape)
	}
	return shapes
}

// watchful tries how long to watch for differences.
func watchful(was, is *match.File, d *draft) (*draft, error) {
	tries, err := encodeAll(was, is, d.layout, watches(d))
	if err != nil {
		return nil, err
	}
	for _, other := range tries {
		if other.price() < d.price() {
			d = other
		}
	}
	return d, nil
}

// watchPart tries with a part of the data how long to watch for differences, and
// returns the shape to do it with, if it is not the draft's.
func watchPart(was, is *match.File, d *draft) ([]delta.Shape, error) {
	runs := d.layout.Runs
	from, to := len(runs)/2, len(runs)/2+len(runs)/32
	part := delta.Segment{Start: runs[from].New, End: runs[to].New}
	shapes := append(watches(d), d.segments[0].shape())
	prices := make([]int, len(shapes))
	err := eachOf(shapes, func(i int, shape delta.Shape) error {
		seg := part
		seg.Shape = shape
		coded, _, err := delta.Encode(delta.MemorySource(was.Data), was.Tables, is.Data, d.layout, seg)
		prices[i] = (&draft{size: len(coded.Packed) + len(coded.Body), work: coded.Work}).price()
		return err
	})
	best := slices.Index(prices, slices.Min(prices))
	if best == len(shapes)-1 {
		return nil, err
	}
	return shapes[best : best+1], err
}

// encodeAll codes a patch with one layout and several shapes of models.
func encodeAll(was, is *match.File, l *delta.Layout, shapes []delta.Shape) ([]*draft, error) {
	drafts := make([]*draft, len(shapes))
	return drafts, eachOf(shapes, func(i int, shape delta.Shape) (err error) {
		drafts[i], err = encodeAs(was, is, l, shape)
		return err
	})
}

// eachOf does something with each of several shapes, some at once.
func eachOf(shapes []delta.Shape, do func(i int, shape delta.Shape) error) error {
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, shape := range shapes {
		group.Go(func() error { return do(i, shape) })
	}
	return group.Wait()
}

// encodeAs codes a patch with one layout and one shape of models.
func encodeAs(was, is *match.File, l *delta.Layout, shape delta.Shape) (*draft, error) {
	d := &draft{layout: l, parts: [][]byte{delta.EncodeLayout(l, was.Elements)}}
	if n := int64(len(is.Data)); n > 0 {
		seg := delta.Segment{End: n, Shape: shape}
		coded, costs, err := delta.Encode(delta.MemorySource(was.Data), was.Tables, is.Data, l, seg)
		if err != nil {
			return nil, err
		}
		if !shape.Packed && literals(is, l) > seg.MaxLiterals(int64(len(coded.Body))) {
			return encodeAs(was, is, l, delta.Shape{Bits: shape.Bits, Light: shape.Light, Packed: true, Window: delta.WindowFor(literals(is, l)), Watch: shape.Watch})
		}
		if len(l.Runs) > 0 && (coded.Toil || int64(len(l.Runs)) > maxRuns(int64(len(d.parts[0])), n)) {
			// Regular beyond what a decoder goes through for so few bytes.
			return encodeAs(was, is, &delta.Layout{}, delta.Shape{Bits: shape.Bits, Packed: true, Window: delta.WindowFor(n)})
		}
		d.memory, d.work = int64(coded.Learned)*delta.PlaceMemory, coded.Work
		d.parts = append(d.parts, coded.Packed, coded.Body)
		d.costs = costs
		d.segments = []Segment{{Size: n, Coded: int64(len(coded.Body)), Packed: int64(len(coded.Packed)), Window: int(shape.Window), Watch: int(shape.Watch), Bits: int(shape.Bits), Light: shape.Light, Primed: shape.Primed}}
	}
	largest := int64(0)
	for _, e := range was.Elements {
		largest = max(largest, e.Scratch())
	}
	d.memory += largest
	for _, p := range d.parts {
		d.size += len(p)
	}
	return d, nil
}
