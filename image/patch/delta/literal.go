package delta

import (
	"encoding/binary"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/entropy"
	"github.com/sealant-os/sealant/internal/linux"
)

// literals codes bytes that stem from nowhere in particular. It remembers the
// literals before, and if it is primed the old data too, to see repetitions.
type literals struct {
	mixer   *entropy.Mixer
	ctx     [12]uint32 // the best first
	used    int        // how many of them the shape uses
	history []byte     // ring of the literals so far
	written int        // bytes ever written to the ring
	seen    []uint32   // by hash of six bytes: the ring position after them, plus 1
	old     *Source    // a window of its own
	primed  []uint32   // by hash of six bytes: the old offset after them; nil if not primed
	recent  uint       // shift of a hash for seen
	shift   uint       // of a hash for primed
}

// Sizes of the memory of literals.
const (
	historyBits = 20
	seenBits    = 18 // at most
	primedBits  = 22 // at most
)

// seenBits is log2 of the places among the literals that are remembered.
func (s Shape) seenBits() uint { return min(s.Bits, seenBits) }

// MaxPrimed is the largest old data that models can be primed with, in bytes.
const MaxPrimed = 1 << 27

// primedSize is log2 of the places in old data that are remembered.
func primedSize(old int64) uint { return uint(min(max(bits.Len64(uint64(old)), 12), primedBits)) }

// prime remembers where in the old data which bytes are.
func (l *literals) prime(old *Source) {
	n := primedSize(old.Size())
	l.primed, l.shift = linux.Huge[uint32](1<<n), 64-n
	const step = 64 << 10
	for at := int64(0); at < old.Size(); at += step {
		from := max(at-6, 0)
		b := old.Bytes(from, min(at+step, old.Size())-from)
		for i := 0; i+6 <= len(b); i++ {
			v := uint64(binary.LittleEndian.Uint32(b[i:])) | uint64(binary.LittleEndian.Uint16(b[i+4:]))<<32
			l.primed[v*0x9E3779B97F4A7C15>>l.shift] = uint32(from) + uint32(i) + 6
		}
	}
}

// source is where a repetition is read from.
type source uint8

const (
	fromNowhere source = iota
	fromHistory
	fromOld
)

// next reads the byte at a position of a source.
func (l *literals) next(s source, pos int) (byte, bool) {
	switch s {
	case fromHistory:
		return l.at(pos)
	case fromOld:
		return l.old.At(int64(pos)), int64(pos) < l.old.Size()
	}
	return 0, false
}

// shared is how many bytes before a position are as the last ones, at most 32.
func (l *literals) shared(s source, pos int, last *[32]byte) int {
	for i, v := range last {
		if b, ok := l.next(s, pos-1-i); !ok || b != v || pos-1-i < 0 {
			return i
		}
	}
	return len(last)
}

// find looks for the last bytes in the history and in the old data, and takes
// the one that shares more.
func (l *literals) find(last *[32]byte, h uint32, six uint64) (s source, pos, length int) {
	if p := int(l.seen[h]) - 1; p >= 0 {
		if n := l.shared(fromHistory, p, last); n >= leastShared {
			s, pos, length = fromHistory, p, n
		}
	}
	if l.primed != nil {
		p := int(l.primed[six*0x9E3779B97F4A7C15>>l.shift])
		if n := l.shared(fromOld, p, last); n >= leastShared && n > length {
			s, pos, length = fromOld, p, n
		}
	}
	return s, pos, length
}

// leastShared is how many bytes make a repetition.
const leastShared = 5

// at returns the byte of the history at a position, and whether it is there.
func (l *literals) at(pos int) (byte, bool) {
	if pos < 0 || pos >= l.written || l.written-pos > len(l.history) {
		return 0, false
	}
	return l.history[pos&(len(l.history)-1)], true
}

// confidence puts the length of a repetition into 16 classes.
func confidence(length int) uint32 {
	switch {
	case length < 16:
		return uint32(length) / 2
	case length < 32:
		return uint32(length)/4 + 4
	}
	return uint32(min(12+(length-32)/32, 15))
}

// literal codes the new bytes up to to; beside is the old offset that would
// continue the run before them.
func (w *walker) literal(to, beside int64) error {
	if w.literals == nil {
		return w.packedLiteral(to)
	}
	from, l := w.pos, w.literals
	if w.measuring || from == to {
		w.pos = to
		return nil
	}
	before := w.c.Spent()
	defer func() { w.charge(&w.costs.Literals, Literals, from, before) }()
	match, at, length := fromNowhere, 0, 0
	var last [32]byte // the bytes before, nearest first
	for i := range last {
		last[i] = w.back(int64(i) + 1)
	}
	for p := from; p < to; p++ {
		if p&255 == 0 {
			if err := w.stop(); err != nil {
				return err
			}
		}
		six := uint64(last[5]) | uint64(last[4])<<8 | uint64(last[3])<<16 | uint64(last[2])<<24 | uint64(last[1])<<32 | uint64(last[0])<<40
		h := uint32(six * 0x9E3779B97F4A7C15 >> l.recent)
		if match == fromNowhere {
			match, at, length = l.find(&last, h, six)
		}
		expected, run := uint32(256), uint32(0)
		if b, ok := l.next(match, at); ok {
			expected, run = uint32(b), confidence(length)
		} else {
			match = fromNowhere
		}
		selector := 0
		if expected < 256 {
			selector = 1 + int(run/4)
		}
		c1, c2, c3, c4 := uint32(last[0]), uint32(last[1]), uint32(last[2]), uint32(last[3])
		four := c1 | c2<<8 | c3<<16 | c4<<24
		old := uint32(w.old.At(beside + p - from))
		ctx := &l.ctx
		ctx[0] = expected | run<<9 | 7<<24
		ctx[1] = c1 | c2<<8 | 3<<24
		ctx[2] = c1 | c2<<8 | c3<<16 | 4<<24
		ctx[3] = old | c1<<8 | 12<<24
		ctx[4] = c1 | 2<<24
		ctx[5] = four*0x2F0B4C47 + 5
		ctx[6] = (four*0x2F0B4C47+uint32(last[4]))*0x3D4D51CB + uint32(last[5]) + 6
		ctx[7] = c2 | c3<<8 | 8<<24
		ctx[8] = expected | c1<<9 | 9<<24
		ctx[9] = uint32(p&7) | c1<<3 | uint32(last[7])<<11 | 10<<24
		ctx[10] = uint32(last[23]) | uint32(last[7])<<8 | 11<<24
		ctx[11] = 1
		v := byte(0)
		if w.encoding {
			v = w.view[p-w.base]
		}
		w.work += 8
		v = l.mixer.Code(w.c, ctx[:l.used], selector, 0, v)
		w.put(v)

		if match != fromNowhere && expected == uint32(v) {
			at++
			length++
		} else {
			match = fromNowhere
		}
		l.history[l.written&(len(l.history)-1)] = v
		l.seen[h] = uint32(l.written) + 1
		l.written++
		copy(last[1:], last[:31])
		last[0] = v
	}
	return nil
}

func newLiterals(s Shape, old *Source, m *entropy.Memory) *literals {
	l := &literals{
		mixer:   m.Mixer(s.literals()),
		used:    s.literals().Contexts,
		history: entropy.Take[byte](m, 1<<historyBits),
		seen:    entropy.Take[uint32](m, 1<<s.seenBits()),
		recent:  64 - s.seenBits(),
		old:     old.another(),
	}
	if s.Primed {
		l.prime(old)
	}
	return l
}
