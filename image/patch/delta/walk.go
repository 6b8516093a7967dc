// Package delta codes new data as a walk along old data: runs are copied with
// sparse differences, the rest is literal.
//
// Encoder and decoder are the same walk over the same models; see package
// entropy. The decoder's input is hostile: runs are checked before the walk,
// nothing is read outside the old data, nothing is written beyond the declared
// size, and a decoder that has used up its input stops.
package delta

import (
	"fmt"
	"io"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/entropy"
	"github.com/sealant-os/sealant/image/patch/pack"
)

// Shape is what a segment's models look like; it stands in the patch.
type Shape struct {
	Bits  uint // log2 of the slots per context, 12 to 22
	Light bool // fewer contexts: decodes about three times as fast, for large patches

	// Watch is how long every byte is asked for after a difference: 0 to 3, for
	// 32 to 2048 bytes.
	Watch uint

	// Packed literals are not modelled but compressed by themselves: for much
	// new content. Window is log2 of how far they look back, 12 to 24.
	Packed bool
	Window uint

	// Primed models know the old data: for new content that is like the old.
	Primed bool
}

// Bounds of Shape.Bits.
const (
	MinBits = 12
	MaxBits = 22

	MinWindow = pack.MinWindow
	MaxWindow = largestWindow
)

// WindowFor is the window for packed literals of n bytes.
func WindowFor(n int64) uint { return pack.WindowFor(n, MaxWindow) }

func (s Shape) literals() entropy.Shape {
	m := entropy.Shape{Contexts: 12, Bits: s.Bits, Selectors: 6}
	if s.Light {
		m.Contexts = 4
	}
	return m
}

func (s Shape) differences() entropy.Shape {
	m := entropy.Shape{Contexts: 8, Bits: min(s.Bits, 16), Selectors: 8}
	if s.Light {
		m.Contexts = 3
	}
	return m
}

// asked is the number of contexts that tell whether a byte differs.
func (s Shape) asked() int {
	if s.Light {
		return 2
	}
	return 7
}

// askedBits is log2 of the slots that each of those has: this model is asked
// most often, and has to stay near the processor.
func (s Shape) askedBits() uint { return min(max(s.Bits-2, MinBits), 16) }

// Memory is what the models of a segment take for old data of a size, in bytes.
func (s Shape) Memory(old int64) int64 {
	m := s.models()
	switch {
	case s.Packed:
		m += pack.Memory(s.Window)
	case s.Primed:
		m += 4 << primedSize(old)
	}
	return m
}

// models is what the models themselves take, in bytes.
func (s Shape) models() int64 {
	m := s.differences().Memory() + entropy.Shape{Contexts: 3, Bits: min(s.Bits, 16), Selectors: 2}.Memory() +
		entropy.Shape{Contexts: s.asked(), Bits: s.askedBits(), Selectors: 1}.Memory() +
		entropy.Shape{Contexts: 4, Bits: min(s.Bits, 14), Selectors: 4}.Memory()
	if !s.Packed {
		m += s.literals().Memory() + 1<<historyBits + 4<<s.seenBits()
	}
	return m
}

// denseBody and denseData are the body whose decoding and the data whose encoding
// touch most of the models' memory, in bytes.
const (
	denseBody = 4 << 10
	denseData = 1 << 20
)

// Segment is a part of the new data that is coded by itself.
type Segment struct {
	Start, End int64 // in the new data
	Shape      Shape
	Segments   int // of the patch; 0 means 1
}

// walker is the state of a walk through one segment.
type walker struct {
	c         *entropy.Coder
	encoding  bool
	measuring bool // the encoder's first walk, which only collects gaps
	old       *Source
	view      []byte // new data from base on: all of it when encoding, the newest when decoding
	base      int64
	start     int64 // of the segment
	pos       int64
	handed    int64              // decoding: end of the data handed on
	emit      func([]byte) error // decoding: takes finished new data

	readAt func([]byte, int64) error // decoding: reads data that was handed on

	work, most  int64 // see Work
	learning    int   // see Decode
	account     Account
	packed      int64 // bytes of packed literals, of which
	packing     int64 // so many are made
	dense       bool  // most of the models' memory will be touched
	costs       Costs
	runClass    int // how long the run is, in four classes
	layout      *Layout
	tables      *Tables
	cursor      *elfref.Cursor  // of the table that was used last
	loads       []*elfref.Loads // of new elements, as far as they are known
	differences differences
	references  references
	literals    *literals // nil: packed
	raw         []byte    // encoding: literals to pack
	unpacker    *unpacker
}

// A decoder keeps the newest keep bytes in view, and hands data on when it has
// collected flush of them.
const (
	keep  = 64
	flush = 256 << 10
)

// Coded is a segment as it stands in the patch.
type Coded struct {
	Packed []byte // literals, if the shape says so
	Body   []byte

	Learned int   // places that its walk learns about
	Work    int64 // what its decoder does, see Work
	Toil    bool  // it asks for more work than a decoder does
}

// Encode codes one segment of data, over which no run of the layout crosses.
func Encode(old *Source, tables *Tables, data []byte, l *Layout, s Segment) (Coded, Costs, error) {
	w := &walker{encoding: true, measuring: true, old: old, view: data, start: s.Start, dense: s.End-s.Start >= denseData}
	w.prepare(l, tables, s)
	if err := w.walk(s); err != nil {
		return Coded{}, Costs{}, err
	}
	d := &w.differences
	d.gaps = append(d.gaps, uint64(max(d.gap, 0))+1)
	d.gap, d.quiet = -1, d.watch
	w.c, w.measuring = entropy.NewEncoder(), false
	if err := w.walk(s); err != nil {
		return Coded{}, Costs{}, err
	}
	out := Coded{Body: w.c.Finish(), Learned: w.references.predictor.Learned()}
	out.Work = w.work
	out.Toil = w.work > s.Work(int64(len(out.Body)))
	if s.Shape.Packed {
		out.Packed = pack.Encode(w.raw, s.Shape.Window)
		w.costs.Literals = int64(len(out.Packed)) * 8
	}
	return out, w.costs, nil
}

// Literals is how many bytes of a segment no run covers.
func (l *Layout) Literals(s Segment) int64 {
	n := s.End - s.Start
	for _, r := range l.Runs {
		if r.New >= s.Start && r.New < s.End {
			n -= r.Len
		}
	}
	return n
}

// Sink takes the new data of a decoder.
type Sink struct {
	Write  func([]byte) error        // the next piece
	ReadAt func([]byte, int64) error // reads what was written

	Account Account // is told what bits are spent on; may be nil
}

// Decode decodes one segment, of which packed is the literals and the body
// exactly size bytes of in. It may learn about that many places, 0 for as many
// as it likes.
func Decode(old *Source, tables *Tables, packed []byte, in io.ByteReader, size int64, l *Layout, s Segment, sink Sink, learning int) error {
	w := &walker{
		c: entropy.NewDecoder(in, size), old: old, base: s.Start, start: s.Start, handed: s.Start,
		emit: sink.Write, readAt: sink.ReadAt, account: sink.Account,
		view: make([]byte, 0, flush+window+keep),
		most: s.Work(size), learning: learning, dense: size >= denseBody,
	}
	w.prepare(l, tables, s)
	if s.Shape.Packed {
		w.packed, w.packing = int64(len(packed)), l.Literals(s)
		var err error
		if w.unpacker, err = newUnpacker(packed, s.Shape.Window); err != nil {
			return err
		}
	} else if n := l.Literals(s); n > s.MaxLiterals(size) {
		return fmt.Errorf("%d literal bytes cannot be coded in %d", n, size)
	}
	if err := w.walk(s); err != nil {
		return err
	}
	if err := w.drain(); err != nil {
		return err
	}
	if s.Shape.Packed {
		if err := w.unpacker.r.Close(); err != nil {
			return err
		}
	}
	return w.c.Close()
}

func (w *walker) prepare(l *Layout, tables *Tables, s Segment) {
	w.layout, w.tables = l, tables
	w.loads = make([]*elfref.Loads, len(l.Elements))
	var m *entropy.Memory
	if w.dense {
		m = entropy.NewMemory(s.Shape.models())
	}
	w.differences, w.references = newDifferences(s.Shape, m), newReferences(l, s.Shape, m)
	if !s.Shape.Packed {
		w.literals = newLiterals(s.Shape, w.old, m)
	}
}

// walk goes through a segment.
func (w *walker) walk(s Segment) error {
	w.pos = s.Start
	runs, err := w.layout.Within(s.Start, s.End)
	if err != nil {
		return err
	}
	beside := int64(0)
	for _, r := range runs {
		before := w.pos
		if err := w.literal(r.New, beside); err != nil {
			return err
		}
		if r.Self {
			if err := w.again(r); err != nil {
				return err
			}
			beside += w.pos - before
			continue
		}
		if err := w.run(r); err != nil {
			return err
		}
		beside = r.Old + r.Len
	}
	return w.literal(s.End, beside)
}

// run goes through one run: its references, where it is part of an ELF file in
// the old data and in the new, and the plain bytes between them.
func (w *walker) run(r align.Run) error {
	o, end := r.Old, r.Old+r.Len
	switch {
	case r.Len < 32:
		w.runClass = 0
	case r.Len < 128:
		w.runClass = 1
	case r.Len < 1024:
		w.runClass = 2
	default:
		w.runClass = 3
	}
	for _, e := range w.tables.between(r.Old, end) {
		t, err := w.tables.get(e.Element)
		if err != nil {
			return err
		}
		if w.cursor == nil || w.cursor.Table() != t {
			w.cursor = t.Cursor(w.old)
		}
		c := w.cursor
		for i := c.From(max(o-e.From, 0) + e.Offset); i < c.Len(); i++ {
			ref := c.At(i)
			if ref.Off+ref.Width > min(end, e.To) || ref.Off < e.From {
				break
			}
			at := w.layout.elementAt(r.New + ref.Off - r.Old)
			if at < 0 {
				continue
			}
			if err := w.plain(o, ref.Off-o); err != nil {
				return err
			}
			if err := w.reference(&ref, c.Field(&ref), at); err != nil {
				return err
			}
			o = ref.Off + ref.Width
		}
	}
	return w.plain(o, end-o)
}

// loadsOf are the loads of a new element, none before its headers are done.
func (w *walker) loadsOf(i int) *elfref.Loads {
	if l := w.loads[i]; l != nil {
		return l
	}
	base := w.layout.Elements[i].Base
	none := &elfref.Loads{Index: i, Base: base}
	if base < w.start || w.pos < base+64 {
		return none
	}
	head := make([]byte, min(elfref.HeaderSize, w.pos-base))
	if err := w.readBack(head, base); err != nil {
		return none // the error comes up again when more is written
	}
	n := elfref.LoadsLength(head)
	if n == 0 {
		w.loads[i] = none
		return none
	}
	if n > int64(len(head)) {
		return none
	}
	l := elfref.ParseLoads(head[:n], base, w.layout.Elements[i].Cut, w.layout.Elements[i].Tail, maxOffset, i)
	w.loads[i] = &l
	return &l
}

// readBack reads new data before the present place.
func (w *walker) readBack(b []byte, off int64) error {
	if rel := off - w.base; rel >= 0 {
		copy(b, w.view[rel:])
		return nil
	}
	if err := w.drain(); err != nil {
		return err
	}
	return w.readAt(b, off)
}

// put appends one byte of new data.
func (w *walker) put(v byte) {
	if !w.encoding {
		w.view = append(w.view, v)
	}
	w.pos++
}

// back returns the new byte n before the present place, 0 before the segment.
func (w *walker) back(n int64) byte {
	if w.pos-n < w.start {
		return 0
	}
	return w.view[w.pos-n-w.base]
}

// copy appends n bytes of old data that are the same in the new.
func (w *walker) copy(o, n int64) error {
	if w.encoding {
		w.pos += n
		return nil
	}
	for n > 0 {
		k := min(n, window)
		w.view = w.old.AppendTo(w.view, o, k)
		w.pos += k
		o, n = o+k, n-k
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}

// again copies new data from before the present place.
func (w *walker) again(r align.Run) error {
	if w.encoding {
		w.pos += r.Len
		return nil
	}
	distance := r.New - r.Old
	for n := r.Len; n > 0; {
		// As much as is in view already, in whole distances.
		seen := min(w.pos-w.base, w.pos-r.Old)
		if near := seen / distance * distance; near > 0 {
			k := min(n, near, window)
			from := w.pos - near - w.base
			w.view = append(w.view, w.view[from:from+k]...)
			w.pos, n = w.pos+k, n-k
		} else {
			k := min(n, window, w.base-(w.pos-distance))
			at := len(w.view)
			w.view = append(w.view, make([]byte, k)...)
			if err := w.readAt(w.view[at:], w.pos-distance); err != nil {
				return err
			}
			w.pos, n = w.pos+k, n-k
		}
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}

// stop ends a decoder's walk whose input or source has failed, and hands on the
// data when enough has come together.
func (w *walker) stop() error {
	if w.encoding {
		return nil
	}
	if w.work > w.most {
		return errWork
	}
	if w.learning > 0 && w.references.predictor.Learned() > w.learning {
		return errLearned
	}
	if len(w.view) < flush {
		return w.c.Err()
	}
	return w.drain()
}

// drain hands finished data on.
func (w *walker) drain() error {
	if err := w.c.Err(); err != nil {
		return err
	}
	if err := w.old.Err(); err != nil {
		return &SourceError{err}
	}
	if fresh := w.view[w.handed-w.base:]; len(fresh) > 0 {
		if err := w.emit(fresh); err != nil {
			return err
		}
	}
	w.handed = w.pos
	cut := max(len(w.view)-keep, 0)
	w.base += int64(cut)
	w.view = w.view[:copy(w.view, w.view[cut:])]
	return nil
}
