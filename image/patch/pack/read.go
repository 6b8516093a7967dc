package pack

import (
	"fmt"
	"io"

	"github.com/sealant-os/sealant/image/patch/entropy"
)

// Reader unpacks.
type Reader struct {
	c     *entropy.Coder
	m     *models
	state state
	ring  []byte
	pos   int64 // bytes unpacked
	last  uint64
	left  uint32 // of the copy under way
	raw   bool   // the block is
	most  int64  // see Tokens
	err   error
}

// NewReader unpacks exactly size bytes of in, with a window of 2^bits bytes.
func NewReader(in io.ByteReader, size int64, bits uint) (*Reader, error) {
	if bits < MinWindow || bits > MaxWindow {
		return nil, fmt.Errorf("window of 2^%d bytes is out of range", bits)
	}
	return &Reader{c: entropy.NewDecoder(in, size), m: newModels(), state: newState(), ring: make([]byte, 1<<bits), most: Tokens(size)}, nil
}

// Read fills b.
func (r *Reader) Read(b []byte) (int, error) {
	for n := range b {
		if r.err != nil {
			return n, r.err
		}
		b[n] = r.next()
	}
	return len(b), r.err
}

// Close is an error if packed data is left over or was missing.
func (r *Reader) Close() error {
	switch {
	case r.err != nil:
		return r.err
	case r.left != 0:
		return fmt.Errorf("packed data goes on after its end")
	}
	return r.c.Close()
}

// next unpacks one byte.
func (r *Reader) next() byte {
	mask := int64(len(r.ring) - 1)
	if r.left == 0 {
		if r.pos&(blockSize-1) == 0 {
			r.raw = r.m.raw.Code(r.c, 0) != 0
		}
		if r.pos&255 == 0 {
			if r.err = r.c.Err(); r.err == nil && r.m.tokens > r.most {
				r.err = errTokens
			}
		}
		if r.raw {
			return r.put(rawByte(r.c, 0))
		}
		if r.m.copies[r.state.history][r.pos&3].Code(r.c, 0) == 0 {
			v := r.m.byteAt(r.c, &r.state, r.last, r.ring[(r.pos-int64(r.state.reps[0]))&mask], 0)
			r.state.after(literal)
			return r.put(v)
		}
		r.copy()
		if r.err != nil {
			return 0
		}
	}
	r.left--
	return r.put(r.ring[(r.pos-int64(r.state.reps[0]))&mask])
}

// copy decodes where a copy stems from and how long it is.
func (r *Reader) copy() {
	m, s := r.m, &r.state
	m.tokens++
	if m.again[s.history].Code(r.c, 0) != 0 {
		i := 0
		for i < reps-1 && m.which[s.history][i].Code(r.c, 0) != 0 {
			i++
		}
		r.left = m.lengths[1][r.pos&3].code(r.c, 0) + leastRepeat
		s.use(i)
		s.after(repeat)
	} else {
		r.left = m.lengths[0][r.pos&3].code(r.c, 0) + leastMatch
		s.meet(m.distance(r.c, r.left, 1))
		s.after(match)
	}
	d := int64(s.reps[0])
	if err := r.c.Err(); err != nil {
		r.err = err
	} else if d == 0 || d > r.pos || d > int64(len(r.ring)) || int64(r.left) > blockSize-r.pos&(blockSize-1) {
		r.err = errDistance
	}
}

func (r *Reader) put(v byte) byte {
	r.ring[r.pos&int64(len(r.ring)-1)] = v
	r.pos++
	r.last = r.last<<8 | uint64(v)
	return v
}
