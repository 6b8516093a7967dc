package patch

import (
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/fold"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// MakeOptions guide Make. The zero value is right for most.
type MakeOptions struct {
	// Progress is told how many of how many bytes are done. The steps of making
	// count as much as they usually take.
	Progress func(done, total int64)
	Context  context.Context // cancels between steps; nil means never

	// Memory is what making may take, in bytes; 0 means as much as it needs. Where
	// it is short only long matches are looked for, and references are not: the
	// patch is larger then, and the same for all amounts that are short.
	Memory int64
}

// Stats says what a patch consists of.
type Stats struct {
	Size     int64 `json:"size"` // bytes of the patch
	Runs     int   `json:"runs"`
	Copied   int64 `json:"copied"`   // bytes of the result that stem from the source
	Literal  int64 `json:"literal"`  // bytes of the result that do not
	MapBytes int64 `json:"map_size"` // bytes of the patch that describe the runs
	Costs    Costs `json:"costs"`
}

// Costs says what the bytes of a patch besides the map are spent on.
type Costs struct {
	Differences int64            `json:"differences"`
	Literals    int64            `json:"literals"`
	References  int64            `json:"references"`
	Missed      map[string]int64 `json:"missed,omitempty"` // wrongly predicted references by class
}

func costsOf(c delta.Costs) Costs {
	out := Costs{Differences: (c.Gaps + c.Differences) / 8, Literals: c.Literals / 8, Missed: map[string]int64{}}
	for class, bits := range c.References {
		out.References += bits
		if n := c.Missed[class]; n > 0 {
			out.Missed[elfref.Class(class).String()] = n
		}
	}
	out.References /= 8
	return out
}

// Make writes to dst the patch that turns old into data. The same input gives
// the same patch, always.
func Make(dst io.Writer, old, data Source, o MakeOptions) (Stats, error) {
	t, err := analyse(old, data, o)
	if err != nil {
		return Stats{}, err
	}
	return t.make(dst, t.old, t.data, 100)
}

// MakeBoth writes to there the patch that turns old into data, and to back the
// one that turns data into old: the same as Make makes, for less work.
func MakeBoth(there, back io.Writer, old, data Source, o MakeOptions) (Stats, Stats, error) {
	t, err := analyse(old, data, o)
	if err != nil {
		return Stats{}, Stats{}, err
	}
	a, err := t.make(there, t.old, t.data, 50)
	if err != nil {
		return Stats{}, Stats{}, err
	}
	b, err := t.make(back, t.data, t.old, 50)
	return a, b, err
}

// task is two files between which patches are made.
type task struct {
	MakeOptions
	old, data *side
	rough     bool  // only long matches are looked for
	done      int64 // percent, in 100ths
	total     int64
}

// side is one of them, with what is known about it whatever the other is.
type side struct {
	data   []byte
	digest image.Digest
	seal   *Seal
	file   *match.File
	found  []fold.Found
}

// coded is the file as far as segments code it.
func (s *side) coded() (*match.File, error) {
	if s.seal == nil {
		return s.file, nil
	}
	return s.file.Cut(s.seal.DataSize)
}

// analysis is how much of the work the analysis is, in percent.
const analysis = 15

// step counts a part of the work, in 100ths of a percent.
func (t *task) step(n int64) error {
	t.done += n
	t.Progress(t.done*t.total/10_000, t.total)
	return t.Context.Err()
}

// analyse reads both files, and finds out what patches in both directions need.
func analyse(old, data Source, o MakeOptions) (*task, error) {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	t := &task{MakeOptions: o, old: &side{}, data: &side{}, total: max(old.Size(), data.Size())}
	var err error
	if t.rough, err = o.rough(old.Size(), data.Size()); err != nil {
		return nil, err
	}
	group := errgroup.Group{}
	for s, source := range map[*side]Source{t.old: old, t.data: data} {
		group.Go(func() (err error) {
			if s.data, err = load(source); err != nil {
				return err
			}
			s.digest = sha512.Sum384(s.data)
			s.seal = sealOf(s.data)
			if t.rough {
				s.file = match.Plain(s.data)
			} else {
				s.file, err = match.Read(s.data)
				s.find()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return t, t.step(100 * analysis)
}

// make makes the patch from one side to the other, which is a share of all.
func (t *task) make(dst io.Writer, from, to *side, share int64) (Stats, error) {
	h := &Header{
		Source: from.digest, SourceSize: int64(len(from.data)),
		Result: to.digest, ResultSize: int64(len(to.data)),
		Transforms: []Transform{newTransform(walkTransform)},
	}
	if h.Seal = to.seal; h.Seal != nil {
		h.Transforms = append(h.Transforms, newTransform(sealTransform))
	}
	was := from.file
	is, err := to.coded()
	if err != nil {
		return Stats{}, err
	}
	best, err := t.choose(h, from, to, was, is, share)
	if err != nil {
		return Stats{}, err
	}
	if h.Fold != nil {
		h.Transforms = append(h.Transforms, newTransform(foldTransform))
	}
	if best.elf {
		h.Transforms = append(h.Transforms, newTransform(elfTransform))
		h.Tables = best.tables
	}
	slices.SortFunc(h.Transforms, func(a, b Transform) int { return cmp.Compare(a.ID, b.ID) })
	h.Runs, h.MapSize, h.Segments = int64(len(best.layout.Runs)), int64(len(best.parts[0])), best.segments
	h.Memory = h.memory() + best.memory
	s := Stats{Runs: len(best.layout.Runs), MapBytes: h.MapSize, Literal: h.coded()}
	for _, r := range best.layout.Runs {
		s.Copied += r.Len
	}
	s.Literal -= s.Copied
	s.Costs = costsOf(best.costs)
	s.Size, err = write(dst, h, best.parts)
	return s, err
}

// draft finds the shortest way to code data, which is a share of all work.
func (t *task) draft(was, is *match.File, share int64) (*draft, error) {
	step := func(percent int64) error { return t.step(percent * share * (100 - analysis) / 100) }
	elf := len(was.Elements) > 0 && len(is.Elements) > 0
	if !elf {
		was, is = match.Plain(was.Data), match.Plain(is.Data)
	}
	var layouts []*delta.Layout
	if t.rough {
		layouts = []*delta.Layout{match.Rough(was, is)}
	} else {
		layouts = match.Plan(was, is)
	}
	if err := step(60); err != nil {
		return nil, err
	}
	for _, l := range layouts {
		l.Runs = match.Repeats(is.Data, l.Runs, nil, leastRepeat)
	}
	drafts := make([]*draft, len(layouts))
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range layouts {
		group.Go(func() (err error) { drafts[i], err = encode(was, is, l); return err })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := step(25); err != nil {
		return nil, err
	}
	best, err := improve(was, is, slices.MinFunc(drafts, func(a, b *draft) int { return cmp.Compare(a.size, b.size) }))
	if err != nil {
		return nil, err
	}
	if best.elf = elf; elf {
		best.tables = was.Tables.Budget(best.layout)
	}
	return best, step(15)
}

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
	n := int64(len(is.Data))
	for _, r := range l.Runs {
		n -= r.Len
	}
	return n
}

// improve tries other shapes of models for the layout of a draft.
func improve(was, is *match.File, d *draft) (*draft, error) {
	if len(d.segments) == 0 {
		return d, nil
	}
	var shapes []delta.Shape
	if d.costs.Gaps+d.costs.Differences >= watchAbove {
		var err error
		if d.size < largeToWatch {
			d, err = watchful(was, is, d)
		} else {
			shapes, err = watchPart(was, is, d)
		}
		if err != nil {
			return nil, err
		}
	}
	shapes = append(shapes, larger(was, is, d, append(shapes, d.segments[0].shape())[0].Watch)...)
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
	// How long is found out with a part of a patch of at least so many bytes, and
	// with all of a smaller one.
	largeToWatch = 1 << 20
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

// write puts a patch together.
func write(dst io.Writer, h *Header, parts [][]byte) (int64, error) {
	head := h.marshal()
	crc, n := uint32(0), int64(0)
	for _, part := range append([][]byte{head}, parts...) {
		crc = crc32.Update(crc, castagnoli(), part)
		if _, err := dst.Write(part); err != nil {
			return n, fmt.Errorf("cannot write the patch: %w", err)
		}
		n += int64(len(part))
	}
	if _, err := dst.Write(binary.LittleEndian.AppendUint32(nil, crc)); err != nil {
		return n, fmt.Errorf("cannot write the patch: %w", err)
	}
	return n + 4, nil
}

// thorough is the largest file whose suffixes are sorted and whose references
// are found, in bytes. In larger ones only long matches are looked for.
const thorough = 1<<31 - 2

// Need is about how much memory it takes to make a patch between files of these
// sizes, in bytes: at best, and at least.
func Need(old, data int64) (thoroughly, roughly int64) {
	return 320<<20 + 6*(old+data), 128<<20 + 2*(old+data)
}

// rough says whether only long matches can be looked for.
func (o MakeOptions) rough(old, data int64) (bool, error) {
	thoroughly, roughly := Need(old, data)
	switch {
	case o.Memory > 0 && o.Memory < roughly:
		return false, fault.New(fault.Failed, "cannot make the patch within %d MiB of memory: it needs %d", o.Memory>>20, (roughly+1<<20-1)>>20)
	case o.Memory > 0 && o.Memory < thoroughly:
		return true, nil
	}
	return max(old, data) > thorough, nil
}

// load reads a file into memory.
func load(s Source) ([]byte, error) {
	b := linux.Huge[byte](int(s.Size()))
	if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size()), b); err != nil {
		return nil, fmt.Errorf("cannot read the files to compare: %w", err)
	}
	return b, nil
}

var _ image.File = (*memory)(nil)
