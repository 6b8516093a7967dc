package delta

import (
	"encoding/binary"

	"github.com/sealant-os/sealant/image/patch/entropy"
)

// literals codes bytes that stem from nowhere in the old data. It remembers the
// literals before, to see repetitions among them.
type literals struct {
	mixer   *entropy.Mixer
	ctx     [12]uint32 // the best first
	used    int        // how many of them the shape uses
	history []byte     // ring of the literals so far
	written int        // bytes ever written to the ring
	seen    []uint32   // by hash of six bytes: the ring position after them, plus 1
}

// Sizes of the memory of literals.
const (
	historyBits = 20
	seenBits    = 18
)

// at returns the byte of the history at a position, and whether it is there.
func (l *literals) at(pos int) (byte, bool) {
	if pos < 0 || pos >= l.written || l.written-pos > len(l.history) {
		return 0, false
	}
	return l.history[pos&(len(l.history)-1)], true
}

func hash6(b []byte) uint32 {
	v := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
	return uint32(v * 0x9E3779B97F4A7C15 >> (64 - seenBits))
}

// literal codes the new bytes up to to; beside is the old offset that would
// continue the run before them.
func (w *walker) literal(to, beside int64) error {
	from, l := w.pos, w.literals
	if w.measuring || from == to {
		w.pos = to
		return nil
	}
	before := w.c.Spent()
	defer func() { w.costs.Literals += w.c.Spent() - before }()
	match, length := -1, 0
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
		recent := [6]byte{last[5], last[4], last[3], last[2], last[1], last[0]}
		h := hash6(recent[:])
		if match < 0 {
			match, length = int(l.seen[h])-1, 0
		}
		expected, run := uint32(256), uint32(0)
		if b, ok := l.at(match); ok {
			expected, run = uint32(b), uint32(min(length, 15))
		} else {
			match = -1
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
		v = l.mixer.Code(w.c, ctx[:l.used], selector, 0, v)
		w.put(v)

		if match >= 0 && expected == uint32(v) {
			match++
			length++
		} else {
			match = -1
		}
		l.history[l.written&(len(l.history)-1)] = v
		l.seen[h] = uint32(l.written) + 1
		l.written++
		copy(last[1:], last[:31])
		last[0] = v
	}
	return nil
}

func newLiterals(s Shape) *literals {
	return &literals{
		mixer:   entropy.NewMixer(s.literals()),
		used:    s.literals().Contexts,
		history: make([]byte, 1<<historyBits),
		seen:    make([]uint32, 1<<seenBits),
	}
}
