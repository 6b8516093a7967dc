// Package pack compresses new content of which there is much: repetitions are
// copied from a window of what came before, and only what is left is modelled
// byte by byte. It decodes about ten times as fast as the models of package
// delta, and is meant to come close to them.
//
// The same tokens are coded in both directions; see package entropy. A decoder's
// input is hostile: it copies nothing from before the start or beyond the
// window, and writes exactly as many bytes as it was asked for.
package pack

import (
	"errors"
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/entropy"
)

// Bounds of a window, as powers of two.
const (
	MinWindow = 12
	MaxWindow = 26
)

// blockSize is how many bytes have one mark: packed, or raw because they cannot
// be compressed. No copy crosses the end of a block.
const blockSize = 1 << 16

const (
	reps      = 4  // distances that are remembered
	histories = 27 // of the last three tokens' kinds
	align     = 4  // low bits of long distances that are modelled
)

// The kinds of tokens.
const (
	literal = iota
	match
	repeat
)

// Least lengths of copies.
const (
	leastMatch  = 2
	leastRepeat = 1
)

// state is what came before, as far as the next token depends on it.
type state struct {
	history uint32
	reps    [reps]uint32
}

func newState() state { return state{reps: [reps]uint32{1, 1, 1, 1}} }

// after is the state after a token of a kind.
func (s *state) after(kind uint32) { s.history = (s.history*3 + kind) % histories }

// use moves remembered distance i to the front.
func (s *state) use(i int) {
	d := s.reps[i]
	copy(s.reps[1:i+1], s.reps[:i])
	s.reps[0] = d
}

// meet puts a new distance to the front.
func (s *state) meet(d uint32) {
	copy(s.reps[1:], s.reps[:reps-1])
	s.reps[0] = d
}

// models are what both directions share.
type models struct {
	raw     entropy.Counter
	copies  [histories][4]entropy.Counter
	again   [histories]entropy.Counter
	which   [histories][reps - 1]entropy.Counter
	lengths [2][4]lengthModel
	slots   [4][64]entropy.Counter
	middle  [64][64]entropy.Counter // by slot, for short distances
	low     [1 << align]entropy.Counter
	bytes   *entropy.Mixer
	ctx     [contexts]uint32
	tokens  int64 // literals and copies so far
}

// Tokens bounds the literals and copies of packed data of a size, raw bytes not
// counted: what a decoder does for it.
func Tokens(size int64) int64 { return 1<<16 + 32*min(size, 1<<50) }

const contexts = 6

// shape is that of the model of literals.
var shape = entropy.Shape{Contexts: contexts, Bits: 18, Selectors: 9}

func newModels() *models {
	return &models{bytes: entropy.NewMemory(shape.Memory()).Mixer(shape)}
}

// Memory is what a decoder with a window of 2^bits bytes takes, in bytes.
func Memory(bits uint) int64 { return 1<<bits + shape.Memory() + 128<<10 }

// lengthModel codes lengths above the least one.
type lengthModel struct {
	tree [256]entropy.Counter
	long entropy.Numbers
}

func (m *lengthModel) code(c *entropy.Coder, n uint32) uint32 {
	short := min(n, 255)
	node := uint32(1)
	for i := 7; i >= 0; i-- {
		node = node<<1 | uint32(m.tree[node].Code(c, int(short>>uint(i))&1))
	}
	if short = node & 255; short < 255 {
		return short
	}
	return 255 + uint32(min(m.long.Code(c, uint64(n)-255), blockSize))
}

// slotOf is the class of a distance less 1, and how many bits it leaves open.
func slotOf(v uint32) (slot uint32, extra uint) {
	if v < 4 {
		return v, 0
	}
	n := uint(bits.Len32(v)) - 1
	return uint32(2*n) | v>>(n-1)&1, n - 1
}

// firstOf is the least distance less 1 of a slot, and how many bits are open.
func firstOf(slot uint32) (v uint32, extra uint) {
	if slot < 4 {
		return slot, 0
	}
	extra = uint(slot>>1) - 1
	return (2 | slot&1) << extra, extra
}

// distance codes the distance of a copy of a length.
func (m *models) distance(c *entropy.Coder, length, d uint32) uint32 {
	slot, _ := slotOf(d - 1)
	tree := &m.slots[min(length-leastMatch, 3)]
	node := uint32(1)
	for i := 5; i >= 0; i-- {
		node = node<<1 | uint32(tree[node].Code(c, int(slot>>uint(i))&1))
	}
	slot = node & 63
	first, extra := firstOf(slot)
	if slot >= 64 || extra > 30 {
		return 0
	}
	open := d - 1 - first
	v := uint32(0)
	if extra <= 6 {
		node = 1
		for i := int(extra) - 1; i >= 0; i-- {
			b := uint32(m.middle[slot][node&63].Code(c, int(open>>uint(i))&1))
			v, node = v<<1|b, node<<1|b
		}
		return first + v + 1
	}
	for i := int(extra) - 1; i >= align; i-- {
		v = v<<1 | uint32(c.Bit(1<<(entropy.ProbBits-1), int(open>>uint(i))&1))
	}
	node = 1
	for i := align - 1; i >= 0; i-- {
		b := uint32(m.low[node].Code(c, int(open>>uint(i))&1))
		v, node = v<<1|b, node<<1|b
	}
	return first + v + 1
}

// byteAt codes a literal: last are the bytes before it, the nearest lowest, and
// beside is the byte at the last distance.
func (m *models) byteAt(c *entropy.Coder, s *state, last uint64, beside, v byte) byte {
	m.tokens++
	l := uint32(last)
	c1 := l & 255
	ctx := &m.ctx
	ctx[0] = c1 | 1<<24
	ctx[1] = l&0xffff | 2<<24
	ctx[2] = l&0xffffff | 3<<24
	ctx[3] = l*0x2F0B4C47 + 4
	ctx[4] = uint32(beside) | c1<<8 | (s.history%9)<<16 | 5<<24
	ctx[5] = (l*0x2F0B4C47+uint32(last>>32&255))*0x3D4D51CB + uint32(last>>40&255) + 6
	return m.bytes.Code(c, ctx[:], int(s.history%9), 0, v)
}

// rawByte codes a byte that nothing is known about.
func rawByte(c *entropy.Coder, v byte) byte {
	x := uint32(0)
	for i := 7; i >= 0; i-- {
		x = x<<1 | uint32(c.Bit(1<<(entropy.ProbBits-1), int(v>>uint(i))&1))
	}
	return byte(x)
}

var errTokens = errors.New("packed data has more pieces than its size allows")

var errDistance = errors.New("packed data copies from before its window")
