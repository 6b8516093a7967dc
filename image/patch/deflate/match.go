package deflate

import (
	"encoding/binary"
	"math/bits"
)

// Constants of the format and of both programs, in bytes.
const (
	minMatch = 3
	maxMatch = 258

	windowSize   = 32 << 10
	minLookahead = maxMatch + minMatch + 1
	maxDistance  = windowSize - minLookahead
	tooFar       = 4096 // a match of three bytes farther away is not worth it
)

// effort is how hard a level looks for matches.
type effort struct {
	good  int // a match so long: look at a quarter of the candidates for a better one
	lazy  int // at least so long: don't look for a better one; fast levels: insert no strings of longer ones
	nice  int // so long: good enough
	chain int // candidates
}

var efforts = [10]effort{
	1: {4, 4, 8, 4}, 2: {4, 5, 16, 8}, 3: {4, 6, 32, 32},
	4: {4, 4, 16, 16}, 5: {8, 16, 32, 32}, 6: {8, 16, 128, 128},
	7: {8, 32, 128, 256}, 8: {32, 128, 258, 1024}, 9: {32, 258, 258, 4096},
}

// fastLevels is the last level that takes each match as it comes.
const fastLevels = 3

// matcher goes through plain data as the programs do. Places are offsets in the
// data; none is below 0.
type matcher struct {
	effort
	gzip  bool
	level int
	data  []byte // the plain data and Slack bytes
	size  int    // of the plain data

	// The programs' window of 64 KiB: base is the offset of its start, filled of the
	// end of what was read into it.
	base, filled int
	ended        bool   // gzip: nothing is left to read
	window       []byte // gzip: its bytes, for what it sees behind the end

	shift uint
	head  []int32 // by hash, the last place plus 1; 0 is none
	prev  []int32 // by place modulo windowSize, the one before it in its chain

	pos        int
	matchStart int
	prevLength int
	blockStart int
	steps      *int64
	blocks     *blocks
}

func deflate(plain []byte, r Recipe, w *writer, steps *int64) error {
	prepare()
	if cap(plain)-len(plain) < Slack {
		plain = append(make([]byte, 0, len(plain)+Slack), plain...)
	}
	m := &matcher{effort: efforts[r.Level], gzip: r.Program == Gzip, level: r.Level, data: plain[:len(plain)+Slack], size: len(plain), steps: steps}
	clear(m.data[m.size:])
	hashBits, symbols := uint(15), 16<<10
	switch r.Program {
	case Gzip:
		symbols = 32 << 10
		m.window = make([]byte, 2*windowSize+Slack)
	case Zlib9:
		hashBits, symbols = 16, 32<<10
	}
	m.shift = (hashBits + 2) / 3
	m.head, m.prev = make([]int32, 1<<hashBits), make([]int32, windowSize)
	m.blocks = newBlocks(w, symbols-1)
	m.fill()
	if m.level <= fastLevels {
		m.fast()
	} else {
		m.lazily()
	}
	m.flush(true)
	if *steps < 0 {
		return ErrSteps
	}
	return w.err
}

// stopped says whether going on is in vain.
func (m *matcher) stopped() bool { return *m.steps < 0 || m.blocks.w.err != nil }

// fill reads into the window, which slides when it must.
func (m *matcher) fill() {
	for {
		room := 2*windowSize - (m.filled - m.base)
		if m.pos-m.base >= windowSize+maxDistance {
			m.base += windowSize
			room += windowSize
			if m.gzip {
				copy(m.window[:windowSize], m.window[windowSize:])
			}
		}
		n := min(room, m.size-m.filled)
		if m.gzip {
			at := m.filled - m.base
			copy(m.window[at:], m.data[m.filled:m.filled+n])
			if n == 0 {
				// What gzip sees behind the end: two zeros, then what the window had there.
				m.ended = true
				clear(m.window[at : at+minMatch-1])
				copy(m.data[m.size:], m.window[at:min(at+Slack, 2*windowSize)])
			}
		}
		m.filled += n
		if m.filled-m.pos >= minLookahead || n == 0 {
			return
		}
	}
}

// next gets on with reading, and says whether anything is left. zlib looks for
// more before each step, gzip until nothing is left.
func (m *matcher) next() bool {
	if m.filled-m.pos < minLookahead && !m.ended {
		m.fill()
	}
	return m.pos < m.size && !m.stopped()
}

// insert puts the string at a place into its chain, and returns the last place
// with the same hash plus 1.
func (m *matcher) insert(at int) int32 {
	d := m.data[at : at+3 : at+3]
	h := (uint(d[0])<<(2*m.shift) ^ uint(d[1])<<m.shift ^ uint(d[2])) & uint(len(m.head)-1)
	before := m.head[h]
	m.prev[at&(windowSize-1)] = before
	m.head[h] = int32(at + 1)
	return before
}

// start inserts the string at the present place. The result is a candidate for
// a match there plus 1, or 0.
func (m *matcher) start() int {
	if !m.gzip && m.size-m.pos < minMatch {
		return 0
	}
	first := int(m.insert(m.pos))
	if first-1 <= m.base || m.pos-(first-1) > maxDistance {
		return 0
	}
	if m.gzip && m.pos-m.base > 2*windowSize-minLookahead {
		return 0
	}
	return first
}

// longest looks for a match longer than prevLength along the chain from a
// place on.
func (m *matcher) longest(at int) int {
	chain, best, nice := m.chain, m.prevLength, m.nice
	if best >= m.good {
		chain >>= 2
	}
	ahead := m.size - m.pos
	if !m.gzip {
		if nice = min(nice, ahead); best >= ahead {
			return ahead
		}
	}
	scan := m.data[m.pos : m.pos+maxMatch]
	limit := max(m.base, m.pos-maxDistance)
	first, last := scan[0], scan[best]
	looked := 0
	for {
		looked++
		if c := m.data[at:]; c[best] == last && c[0] == first && c[best-1] == scan[best-1] {
			if n := common(c, scan); n > best {
				m.matchStart, best = at, n
				if n >= nice {
					break
				}
				last = scan[best]
			}
		}
		if at = int(m.prev[at&(windowSize-1)]) - 1; at <= limit {
			break
		}
		if chain--; chain == 0 {
			break
		}
	}
	*m.steps -= int64(looked)
	return min(best, ahead)
}

// common is how many bytes a and scan have in common.
func common(a, scan []byte) int {
	n := 0
	for ; n+8 <= len(scan); n += 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(scan[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < len(scan) && a[n] == scan[n] {
		n++
	}
	return n
}

// fast takes each match as it comes.
func (m *matcher) fast() {
	m.prevLength = minMatch - 1
	for m.next() {
		length := 0
		if first := m.start(); first > 0 {
			length = m.longest(first - 1)
		}
		full := false
		if length >= minMatch {
			full = m.tally(m.pos-m.matchStart, length)
			end := m.pos + length
			if length <= m.lazy && (m.gzip || m.size-end >= minMatch) {
				for at := m.pos + 1; at < end; at++ {
					m.insert(at)
				}
			}
			m.pos = end
		} else {
			full = m.tally(0, int(m.data[m.pos]))
			m.pos++
		}
		if full {
			m.flush(false)
		}
	}
}

// lazily puts off each match until the next place has no longer one.
func (m *matcher) lazily() {
	length, waiting := minMatch-1, false
	for m.next() {
		before := m.matchStart
		m.prevLength, length = length, minMatch-1
		if first := m.start(); first > 0 && m.prevLength < m.lazy {
			length = m.longest(first - 1)
			if length == minMatch && m.pos-m.matchStart > tooFar {
				length--
			}
		}
		switch {
		case m.prevLength >= minMatch && length <= m.prevLength:
			full := m.tally(m.pos-1-before, m.prevLength)
			end := m.pos - 1 + m.prevLength
			for at := m.pos + 1; at < end; at++ {
				if m.gzip || at <= m.size-minMatch {
					m.insert(at)
				}
			}
			waiting, length, m.pos = false, minMatch-1, end
			if full {
				m.flush(false)
			}
		case waiting:
			if m.tally(0, int(m.data[m.pos-1])) {
				m.flush(false)
			}
			m.pos++
		default:
			waiting = true
			m.pos++
		}
	}
	if waiting && !m.stopped() {
		m.tally(0, int(m.data[m.pos-1]))
	}
}

// tally adds a match or, if distance is 0, a literal to the block, and says
// whether that is full now.
func (m *matcher) tally(distance, v int) bool {
	b := m.blocks
	b.add(distance, v)
	if m.gzip && m.level > 2 && len(b.symbols)&0xfff == 0 && b.pays(m.pos-m.blockStart) {
		return true
	}
	return len(b.symbols) == b.most
}

// flush writes the block.
func (m *matcher) flush(last bool) {
	var stored []byte
	if m.blockStart >= m.base {
		stored = m.data[m.blockStart:m.pos]
	}
	m.blocks.flush(stored, m.pos-m.blockStart, last)
	m.blockStart = m.pos
}
