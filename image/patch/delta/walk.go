// Package delta codes new data as a walk along old data: runs are copied with
// sparse differences, the rest is literal.
//
// Encoder and decoder are the same walk over the same models; see package
// entropy. The decoder's input is hostile: runs are checked before the walk,
// nothing is read outside the old data, nothing is written beyond the declared
// size, and a decoder that has used up its input stops.
package delta

import (
	"io"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// Shape is what a segment's models look like; it stands in the patch.
type Shape struct {
	Bits uint // log2 of the slots per context, 12 to 20
}

// Bounds of Shape.Bits.
const (
	MinBits = 12
	MaxBits = 20
)

// Memory is what the models of a segment take, in bytes.
func (s Shape) Memory() int64 {
	mixers := entropy.Shape{Contexts: 12, Bits: s.Bits, Selectors: 6}.Memory() +
		entropy.Shape{Contexts: 12, Bits: min(s.Bits, 16), Selectors: 16}.Memory()
	return mixers + 1<<historyBits + 4<<seenBits
}

// Segment is a part of the new data that is coded by itself.
type Segment struct {
	Start, End int64       // in the new data
	Runs       []align.Run // those within
	Shape      Shape
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

	differences differences
	literals    *literals
}

// A decoder keeps the newest keep bytes in view, and hands data on when it has
// collected flush of them.
const (
	keep  = 64
	flush = 256 << 10
)

// Encode codes one segment of data. Its runs must be sorted, lie within the
// segment and not overlap.
func Encode(old *Source, data []byte, s Segment) []byte {
	w := &walker{encoding: true, measuring: true, old: old, view: data, start: s.Start, differences: newDifferences(s.Shape)}
	if err := w.walk(s); err != nil {
		panic(err) // nothing can fail while measuring
	}
	d := &w.differences
	d.gaps = append(d.gaps, uint64(max(d.gap, 0))+1)
	d.gap = -1
	w.c, w.measuring, w.literals = entropy.NewEncoder(), false, newLiterals(s.Shape)
	if err := w.walk(s); err != nil {
		panic(err) // nor while encoding
	}
	return w.c.Finish()
}

// Decode decodes one segment from exactly size bytes of in, and hands the new
// data to emit piece by piece.
func Decode(old *Source, in io.ByteReader, size int64, s Segment, emit func([]byte) error) error {
	w := &walker{
		c: entropy.NewDecoder(in, size), old: old, base: s.Start, start: s.Start, handed: s.Start, emit: emit,
		view:        make([]byte, 0, flush+window+keep),
		differences: newDifferences(s.Shape),
		literals:    newLiterals(s.Shape),
	}
	if err := w.walk(s); err != nil {
		return err
	}
	if err := w.drain(); err != nil {
		return err
	}
	return w.c.Close()
}

// walk goes through a segment.
func (w *walker) walk(s Segment) error {
	w.pos = s.Start
	beside := int64(0)
	for _, r := range s.Runs {
		if err := w.literal(r.New, beside); err != nil {
			return err
		}
		if err := w.plain(r.Old, r.Len); err != nil {
			return err
		}
		beside = r.Old + r.Len
	}
	return w.literal(s.End, beside)
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
		w.view = append(w.view, w.old.Bytes(o, k)...)
		w.pos += k
		o, n = o+k, n-k
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
