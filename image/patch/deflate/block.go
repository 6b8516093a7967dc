package deflate

import (
	"bytes"
	"sync"
)

// writer takes bits, lowest first.
type writer struct {
	out  []byte
	want []byte // if not nil, what out must be, piece by piece
	done int64  // of want
	most int64  // bytes
	acc  uint64
	n    uint
	err  error
}

func (w *writer) bits(v uint32, n uint) {
	w.acc |= uint64(v) << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
}

// align fills up the last byte.
func (w *writer) align() {
	if w.n > 0 {
		w.bits(0, 8-w.n)
	}
}

// check is called when a block is done.
func (w *writer) check() {
	switch {
	case w.err != nil:
	case w.done+int64(len(w.out)) > w.most:
		w.err = ErrSize
	case w.want != nil:
		if !bytes.HasPrefix(w.want[w.done:], w.out) {
			w.err = errOther
		}
		w.done += int64(len(w.out))
		w.out = w.out[:0]
	}
}

// Alphabets of RFC 1951.
const (
	literals   = 256
	endOfBlock = 256
	lengthCode = 29
	literalTop = literals + 1 + lengthCode
	distances  = 30
	lengths    = 19 // of code lengths

	maxCode       = 15 // bits
	maxLengthCode = 7  // bits of a code for lengths
)

// codeOrder is the order of the code lengths of lengths.
var codeOrder = [lengths]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// The codes of lengths less minMatch, and of distances less 1, with the first
// value and the extra bits of each.
var (
	codeOfLength     [maxMatch - minMatch + 1]byte
	lengthBase       [lengthCode]int
	lengthExtra      = make([]uint, lengthCode)
	distanceBase     [distances]int
	distanceExtra    = make([]uint, distances)
	codeOfNear       [256]byte // distances less 1 below 256
	codeOfFar        [256]byte // by their bits above the lowest 7
	literalExtra     = make([]uint, literalTop)
	codeExtra        = make([]uint, lengths)
	fixedLiterals    tree
	fixedDistances   tree
	fixedLiteralBits [288]byte
)

// prepare fills them, once: most programs that link this package never do.
var prepare = sync.OnceFunc(func() {
	at := 0
	for c := range lengthCode - 1 {
		if c >= 8 {
			lengthExtra[c] = uint(c/4 - 1)
		}
		lengthBase[c] = at
		for range 1 << lengthExtra[c] {
			if at < len(codeOfLength) {
				codeOfLength[at] = byte(c)
				at++
			}
		}
	}
	codeOfLength[maxMatch-minMatch], lengthBase[lengthCode-1] = lengthCode-1, maxMatch-minMatch
	at = 0
	for c := range distances {
		if c >= 4 {
			distanceExtra[c] = uint(c/2 - 1)
		}
		distanceBase[c] = at
		for range 1 << distanceExtra[c] {
			if at < 256 {
				codeOfNear[at] = byte(c)
			} else {
				codeOfFar[at>>7] = byte(c)
			}
			at++
		}
	}
	copy(literalExtra[literals+1:], lengthExtra)
	codeExtra[16], codeExtra[17], codeExtra[18] = 2, 3, 7
	for i := range fixedLiteralBits {
		switch {
		case i < 144:
			fixedLiteralBits[i] = 8
		case i < 256:
			fixedLiteralBits[i] = 9
		case i < 280:
			fixedLiteralBits[i] = 7
		default:
			fixedLiteralBits[i] = 8
		}
	}
	fixedLiterals = tree{bits: fixedLiteralBits[:]}
	fixedLiterals.assign()
	fixedDistances = tree{bits: bytes.Repeat([]byte{5}, distances)}
	fixedDistances.assign()
})

// distanceCode is the code of a distance.
func distanceCode(d int) int {
	if d--; d < 256 {
		return int(codeOfNear[d])
	}
	return int(codeOfFar[d>>7])
}

// symbol is a literal, or a match if it has a distance.
type symbol struct {
	distance uint16
	value    uint8 // a literal, or a length less minMatch
}

// blocks collects symbols and writes them block by block.
type blocks struct {
	w       *writer
	most    int // symbols of a block
	symbols []symbol
	matches int
	lit     tree
	dist    tree
	code    tree
}

func newBlocks(w *writer, most int) *blocks {
	b := &blocks{
		w: w, most: most, symbols: make([]symbol, 0, most),
		lit:  newTree(literalTop, maxCode, literalExtra, fixedLiteralBits[:]),
		dist: newTree(distances, maxCode, distanceExtra, fixedDistances.bits),
		code: newTree(lengths, maxLengthCode, codeExtra, nil),
	}
	b.lit.freq[endOfBlock] = 1
	return b
}

func (b *blocks) add(distance, v int) {
	if distance == 0 {
		b.symbols = append(b.symbols, symbol{0, uint8(v)})
		b.lit.freq[v]++
		return
	}
	b.matches++
	v -= minMatch
	b.symbols = append(b.symbols, symbol{uint16(distance), uint8(v)})
	b.lit.freq[literals+1+int(codeOfLength[v])]++
	b.dist.freq[distanceCode(distance)]++
}

// pays is gzip's guess that so many bytes are coded well enough in this block.
func (b *blocks) pays(in int) bool {
	out := len(b.symbols) * 8
	for c, n := range b.dist.freq {
		out += n * (5 + int(distanceExtra[c]))
	}
	return b.matches < len(b.symbols)/2 && out>>3 < in/2
}

// flush writes a block of size bytes; stored is nil if the window has them no
// longer.
func (b *blocks) flush(stored []byte, size int, last bool) {
	b.lit.build()
	b.dist.build()
	b.lit.count(&b.code)
	b.dist.count(&b.code)
	b.code.build()
	top := lengths - 1
	for top >= 3 && b.code.bits[codeOrder[top]] == 0 {
		top--
	}
	best := (b.lit.cost + b.dist.cost + b.code.cost + 3*(top+1) + 5 + 5 + 4 + 3 + 7) >> 3
	fixed := (b.lit.fixedCost + b.dist.fixedCost + 3 + 7) >> 3
	best = min(best, fixed)
	end := uint32(0)
	if last {
		end = 1
	}
	w := b.w
	switch {
	case size+4 <= best && stored != nil:
		w.bits(end, 3)
		w.align()
		w.bits(uint32(size), 16)
		w.bits(^uint32(size)&0xffff, 16)
		w.out = append(w.out, stored...)
		if size > 1<<16-1 {
			w.err = ErrSize // never worse than any code
		}
	case fixed == best:
		w.bits(1<<1|end, 3)
		b.write(&fixedLiterals, &fixedDistances)
	default:
		w.bits(2<<1|end, 3)
		w.bits(uint32(b.lit.top-256), 5)
		w.bits(uint32(b.dist.top), 5)
		w.bits(uint32(top-3), 4)
		for _, c := range codeOrder[:top+1] {
			w.bits(uint32(b.code.bits[c]), 3)
		}
		b.code.assign()
		b.lit.send(w, &b.code)
		b.dist.send(w, &b.code)
		b.lit.assign()
		b.dist.assign()
		b.write(&b.lit, &b.dist)
	}
	if last {
		w.align()
	}
	w.check()
	b.symbols, b.matches = b.symbols[:0], 0
	clear(b.lit.freq)
	clear(b.dist.freq)
	clear(b.code.freq)
	b.lit.freq[endOfBlock] = 1
}

// write writes the symbols.
func (b *blocks) write(lit, dist *tree) {
	w := b.w
	for _, s := range b.symbols {
		if s.distance == 0 {
			w.bits(lit.codes[s.value], uint(lit.bits[s.value]))
			continue
		}
		c := int(codeOfLength[s.value])
		w.bits(lit.codes[literals+1+c], uint(lit.bits[literals+1+c]))
		w.bits(uint32(int(s.value)-lengthBase[c]), lengthExtra[c])
		c = distanceCode(int(s.distance))
		w.bits(dist.codes[c], uint(dist.bits[c]))
		w.bits(uint32(int(s.distance)-1-distanceBase[c]), distanceExtra[c])
	}
	w.bits(lit.codes[endOfBlock], uint(lit.bits[endOfBlock]))
}
