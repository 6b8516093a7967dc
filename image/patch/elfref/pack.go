package elfref

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/sealant-os/sealant/internal/linux"
)

// packLength is how many references are packed together at least, but for the
// last.
const packLength = 1 << 15

// blockLength is how many packed references are unpacked together.
const blockLength = 64

// packed is a sorted list of records in about two bytes each. Which bytes is no
// part of the format, but how many.
type packed struct {
	bytes  []byte
	blocks []block // every blockLength records one
	n      int
	last   uint64
	extras [classes]uint32 // of the last record of each class in this block, plus one
}

// block is where a block begins.
type block struct {
	first uint64
	at    uint32 // in bytes, after the first record
}

// Marks beside a record's class.
const (
	usualExtra = 0x40 // extra follows from the last one of the class
	shortStep  = 0x80 // the distance to the record before has one byte
)

// usual is the extra that is expected after another of a class.
func usual(class Class, last uint32) uint32 {
	switch {
	case class == Jump:
		return last // plus one, as last is kept
	case last > 0:
		return last - 1
	case class == Call, class == Operand:
		return 4
	}
	return 0
}

// add appends a record, which must not be smaller than the one before.
func (p *packed) add(rec uint64) {
	class, extra := Class(rec>>24&255), uint32(rec&extraMask)
	if p.n%blockLength == 0 {
		p.blocks = append(p.blocks, block{rec, uint32(len(p.bytes))})
		p.extras = [classes]uint32{}
	} else {
		step, head := rec>>32-p.last>>32, byte(class)
		if step < 256 {
			head |= shortStep
		}
		if extra == usual(class, p.extras[class]) {
			head |= usualExtra
		}
		p.bytes = append(p.bytes, head)
		if step < 256 {
			p.bytes = append(p.bytes, byte(step))
		} else {
			p.bytes = binary.AppendUvarint(p.bytes, step)
		}
		if head&usualExtra == 0 {
			p.bytes = binary.AppendUvarint(p.bytes, uint64(extra))
		}
	}
	p.extras[class] = extra + 1
	p.last = rec
	p.n++
}

// unpack unpacks a block into out and returns how many records it has.
func (p *packed) unpack(i int, out *[blockLength]uint64) int {
	n := min(p.n-i*blockLength, blockLength)
	rec, b := p.blocks[i].first, p.bytes[p.blocks[i].at:]
	var extras [classes]uint32
	extras[rec>>24&255] = uint32(rec&extraMask) + 1
	out[0] = rec
	for k := 1; k < n; k++ {
		head := b[0]
		class := Class(head & 0x3f)
		step := uint64(b[1])
		if head&shortStep != 0 {
			b = b[2:]
		} else {
			var size int
			step, size = binary.Uvarint(b[1:])
			b = b[1+size:]
		}
		extra := usual(class, extras[class])
		if head&usualExtra == 0 {
			v, size := binary.Uvarint(b)
			extra, b = uint32(v), b[size:]
		}
		extras[class] = extra + 1
		rec = (rec>>32+step)<<32 | uint64(class)<<24 | uint64(extra)
		out[k] = rec
	}
	return n
}

// memory is what the list takes, in bytes: what spec/patch.md counts, whatever
// room it has besides.
func (p *packed) memory() int64 { return int64(len(p.bytes) + 16*len(p.blocks)) }

// newPacked is an empty list that has room for about n records.
func newPacked(n int) *packed {
	return &packed{bytes: linux.Huge[byte](2*n + n/8)[:0], blocks: make([]block, 0, n/blockLength+1)}
}

// pack makes a list of sorted records.
func pack(recs []uint64) *packed {
	p := newPacked(len(recs))
	for _, rec := range recs {
		p.add(rec)
	}
	return p.clip()
}

// clip gives back what the list does not need, if it is much.
func (p *packed) clip() *packed {
	if len(p.bytes) < cap(p.bytes)/8*7 {
		p.bytes = slices.Clone(p.bytes)
	}
	if len(p.blocks) < cap(p.blocks)/8*7 {
		p.blocks = slices.Clone(p.blocks)
	}
	return p
}

// strand is a sorted list of records on its way into another.
type strand struct {
	raw    []uint64 // all records or, if they are packed, some
	packed *packed
	next   int // record
	n      int
}

// head is the next record; there is one.
func (s *strand) head() uint64 {
	if s.packed == nil {
		return s.raw[s.next]
	}
	if s.next%blockLength == 0 {
		if s.raw == nil {
			s.raw = make([]uint64, blockLength)
		}
		s.packed.unpack(s.next/blockLength, (*[blockLength]uint64)(s.raw))
	}
	return s.raw[s.next%blockLength]
}

// first is the first record.
func (s *strand) first() uint64 {
	if s.packed == nil {
		return s.raw[0]
	}
	return s.packed.blocks[0].first
}

// merge calls yield for the records of strands, all in order. It empties the
// strands.
func merge(strands []*strand, yield func(rec uint64)) {
	slices.SortStableFunc(strands, func(a, b *strand) int { return cmp.Compare(a.first(), b.first()) })
	var live []*strand // by head
	for len(strands) > 0 || len(live) > 0 {
		// Strands come in as soon as their first record may be the next.
		for len(strands) > 0 && (len(live) == 0 || strands[0].first()>>32 <= live[0].head()>>32) {
			s := strands[0]
			strands[0], strands = nil, strands[1:]
			live = insert(live, s)
		}
		s := live[0]
		limit := ^uint64(0)
		if len(live) > 1 {
			limit = live[1].head()
		}
		if len(strands) > 0 {
			limit = min(limit, strands[0].first()&^(1<<32-1))
		}
		first := true
		for s.next < s.n {
			rec := s.head()
			if !first && rec >= limit {
				break
			}
			first = false
			yield(rec)
			s.next++
		}
		live = live[1:]
		if s.next < s.n {
			live = insert(live, s)
		}
	}
}

// insert puts a strand at its place by its head.
func insert(live []*strand, s *strand) []*strand {
	h := s.head()
	i, _ := slices.BinarySearchFunc(live, h, func(a *strand, h uint64) int {
		if a.head() < h {
			return -1
		}
		return 1
	})
	return slices.Insert(live, i, s)
}
