// Package entropy codes the decisions of a patch into bits and back: an
// adaptive binary range coder and the models that feed it probabilities.
//
// The same code runs in both directions. A model is asked for a decision and
// handed the true one when encoding; when decoding it ignores what it is handed
// and returns what the coder read. So encoder and decoder cannot drift apart.
//
// Everything is integer arithmetic without overflow that depends on the
// machine's word size; spec/patch.md gives each formula.
//
// The input of a decoder is hostile. A Coder never fails while it decodes: past
// the end of its input it reads zeros, and Err reports it. Whoever decodes must
// ask Err in every loop whose length the input chose.
package entropy

import (
	"errors"
	"io"
	"math/bits"
)

// ProbBits is the precision of a probability.
const ProbBits = 22

// padding is how many bytes a decoder may read past the end of its input: the
// encoder leaves out the zeros that the last state needs.
const padding = 8

// Errors of a decoder. Either means that the input was not made by an encoder.
var (
	ErrShort = errors.New("coded data ends too early")
	ErrLong  = errors.New("coded data goes on after its end")
)

// Coder is a binary range coder with 64-bit bounds, in one direction.
type Coder struct {
	low, high uint64
	value     uint64 // decoding: the window of the input that low and high bound
	decoding  bool
	out       []byte
	in        io.ByteReader
	left      int64 // decoding: bytes of input not yet read
	over      int   // decoding: zeros read past the end
	readErr   error
	shifted   int64 // bytes settled so far
}

// NewEncoder returns a coder that collects its output; Finish returns it.
func NewEncoder() *Coder { return &Coder{high: 1<<64 - 1} }

// NewDecoder returns a coder over exactly size bytes of in.
func NewDecoder(in io.ByteReader, size int64) *Coder {
	c := &Coder{high: 1<<64 - 1, decoding: true, in: in, left: size}
	for range 8 {
		c.value = c.value<<8 | uint64(c.next())
	}
	return c
}

// Decoding says in which direction the coder runs.
func (c *Coder) Decoding() bool { return c.decoding }

// Len is the number of bytes that an encoder has put out so far.
func (c *Coder) Len() int { return len(c.out) }

// Spent is about how many bits the decisions so far have cost. Differences of
// it tell what a part of them costs.
func (c *Coder) Spent() int64 {
	return c.shifted*8 + int64(bits.LeadingZeros64(c.high-c.low))
}

// next reads one byte of input, or a zero after its end.
func (c *Coder) next() byte {
	if c.left == 0 {
		c.over++
		return 0
	}
	b, err := c.in.ReadByte()
	if err != nil {
		if err == io.EOF {
			err = ErrShort
		}
		c.readErr = err
		c.left, c.over = 0, padding+1
		return 0
	}
	c.left--
	return b
}

// Err tells a decoder's caller to stop: the input ended before what it coded.
func (c *Coder) Err() error {
	if c.over <= padding {
		return nil
	}
	if c.readErr != nil {
		return c.readErr
	}
	return ErrShort
}

// Close ends a decoder: it is an error if input is left over or was missing.
func (c *Coder) Close() error {
	if err := c.Err(); err != nil {
		return err
	}
	if c.left != 0 {
		return ErrLong
	}
	return nil
}

// Bit codes one decision of which 1 has the probability p in 2^22nds, with
// 0 < p < 2^22.
func (c *Coder) Bit(p uint32, bit int) int {
	mid := c.low + (c.high-c.low)>>ProbBits*uint64(p)
	if c.decoding {
		bit = 0
		if c.value <= mid {
			bit = 1
		}
	}
	if bit != 0 {
		c.high = mid
	} else {
		c.low = mid + 1
	}
	for (c.low^c.high)>>56 == 0 {
		if c.decoding {
			c.value = c.value<<8 | uint64(c.next())
		} else {
			c.out = append(c.out, byte(c.high>>56))
		}
		c.shifted++
		c.low <<= 8
		c.high = c.high<<8 | 255
	}
	return bit
}

// Finish ends an encoder and returns all it put out. Trailing zeros of the last
// state are left out: a decoder reads zeros after the end.
func (c *Coder) Finish() []byte {
	if c.low == 0 {
		return c.out
	}
	for k := uint(8); k <= 64; k += 8 {
		mask := uint64(1)<<(64-k) - 1
		v := (c.low + mask) &^ mask
		if v >= c.low && v <= c.high {
			for s := uint(56); ; s -= 8 {
				c.out = append(c.out, byte(v>>s))
				if 64-s == k {
					return c.out
				}
			}
		}
	}
	return c.out
}
