package pack

import (
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/entropy"
)

// Encode packs data for a window of 2^window bytes.
func Encode(data []byte, window uint) []byte {
	w := &writer{
		data: data, c: entropy.NewEncoder(), m: newModels(), state: newState(),
		finder: newFinder(data, window), nodes: make([]node, blockSize+1), shadow: newShadow(),
	}
	for at := 0; at < len(data); at += blockSize {
		w.block(at, min(at+blockSize, len(data)))
	}
	return w.c.Finish()
}

// WindowFor is the smallest window that sees all of n bytes, at most largest.
func WindowFor(n int64, largest uint) uint {
	return min(max(uint(bits.Len64(uint64(max(n-1, 0)))), MinWindow), largest)
}

// writer packs.
type writer struct {
	data   []byte
	c      *entropy.Coder
	m      *models
	state  state
	finder *finder
	nodes  []node
	found  []found
	tokens []token
	prices prices
	shadow *shadow
}

// node is the cheapest way known to a place in a block.
type node struct {
	price  uint32
	length uint32 // of the token that leads here
	choice int32  // its kind: -1 literal, 0 to 3 a remembered distance, else the distance plus 3
	before token  // if it has a length: this token and a literal came before
	state  state  // after it
}

const literally = -1

type token struct {
	length uint32
	choice int32
}

// block parses and codes one block.
func (w *writer) block(from, to int) {
	w.prices.from(w.m)
	w.shadow.weigh(w.data, from, to)
	price := w.parse(from, to)
	raw := uint32(to-from) * 8 * unit
	if price > raw-raw/256 || w.m.tokens+int64(len(w.tokens)) > Tokens(int64(w.c.Len())) {
		w.m.raw.Code(w.c, 1)
		for _, v := range w.data[from:to] {
			rawByte(w.c, v)
		}
		return
	}
	w.m.raw.Code(w.c, 0)
	at := from
	guessed, real := int64(0), int64(0)
	for _, t := range w.tokens {
		s := &w.state
		var last uint64
		for i := range min(6, at) {
			last |= uint64(w.data[at-1-i]) << (8 * i)
		}
		if t.choice == literally {
			w.m.copies[s.history][at&3].Code(w.c, 0)
			beside := byte(0)
			if d := int(s.reps[0]); d <= at {
				beside = w.data[at-d]
			}
			before := w.c.Spent()
			w.m.byteAt(w.c, s, last, beside, w.data[at])
			real += w.c.Spent() - before
			guessed += int64(w.shadow.cost[at-from])
			s.after(literal)
			at++
			continue
		}
		w.m.tokens++
		w.m.copies[s.history][at&3].Code(w.c, 1)
		if t.choice < reps {
			w.m.again[s.history].Code(w.c, 1)
			for i := range min(int(t.choice)+1, reps-1) {
				more := 0
				if i < int(t.choice) {
					more = 1
				}
				w.m.which[s.history][i].Code(w.c, more)
			}
			w.m.lengths[1][at&3].code(w.c, t.length-leastRepeat)
			s.use(int(t.choice))
			s.after(repeat)
		} else {
			d := uint32(t.choice) - reps + 1
			w.m.again[s.history].Code(w.c, 0)
			w.m.lengths[0][at&3].code(w.c, t.length-leastMatch)
			w.m.distance(w.c, t.length, d)
			s.meet(d)
			s.after(match)
		}
		at += int(t.length)
	}
	w.shadow.calibrate(guessed, real)
}

// parse finds the cheapest tokens for a block and what they cost.
func (w *writer) parse(from, to int) uint32 {
	n := to - from
	nodes := w.nodes[:n+1]
	for i := range nodes {
		nodes[i].price = 1 << 31
	}
	nodes[0] = node{state: w.state}
	p := &w.prices
	for i := 0; i < n; i++ {
		at, cur := from+i, &nodes[i]
		room := n - i
		w.found = w.finder.at(at, room, w.found[:0])
		h, low := cur.state.history, at&3
		if next := &nodes[i+1]; true {
			price := cur.price + p.copies[h][low][0] + w.shadow.cost[i]
			if price < next.price {
				*next = node{price: price, length: 1, choice: literally, state: cur.state}
				next.state.after(literal)
			}
		}
		base := cur.price + p.copies[h][low][1]
		// Remembered distances.
		most := 0
		for k, d := range cur.state.reps {
			if int(d) > at || int(d) > w.finder.window {
				continue
			}
			length := common(w.data[at:to], w.data[at-int(d):])
			if length == 0 {
				continue
			}
			most = max(most, length)
			b := base + p.again[h][1] + p.which[h][k]
			s := cur.state
			s.use(k)
			s.after(repeat)
			for l := length; l >= 1; l-- {
				if l < length && l > nice {
					l = nice
				}
				if price := b + p.length(1, low, uint32(l)-leastRepeat); price < nodes[i+l].price {
					nodes[i+l] = node{price: price, length: uint32(l), choice: int32(k), state: s}
				}
			}
			if length < nice {
				w.goOn(nodes, i, to, b+p.length(1, low, uint32(length)-leastRepeat), token{uint32(length), int32(k)}, &s)
			}
		}
		b := base + p.again[h][0]
		l := uint32(leastMatch)
		for j, f := range w.found {
			longest := f.length
			if j == len(w.found)-1 && longest >= nice {
				longest = uint32(common(w.data[at:to], w.data[at-int(f.distance):]))
				most = max(most, int(longest))
			}
			s := cur.state
			s.meet(f.distance)
			s.after(match)
			for ; l <= f.length; l++ {
				if price := b + p.length(0, low, l-leastMatch) + p.distance(l, f.distance); price < nodes[i+int(l)].price {
					nodes[i+int(l)] = node{price: price, length: l, choice: int32(f.distance) + reps - 1, state: s}
				}
			}
			if longest < nice {
				w.goOn(nodes, i, to, b+p.length(0, low, longest-leastMatch)+p.distance(longest, f.distance), token{longest, int32(f.distance) + reps - 1}, &s)
			}
			if longest > f.length {
				if price := b + p.length(0, low, longest-leastMatch) + p.distance(longest, f.distance); price < nodes[i+int(longest)].price {
					nodes[i+int(longest)] = node{price: price, length: longest, choice: int32(f.distance) + reps - 1, state: s}
				}
			}
		}
		// What is long enough is taken without a look at what lies within.
		if most >= nice {
			for k := 1; k < most; k++ {
				w.found = w.finder.at(at+k, min(room-k, 4), w.found[:0])
				nodes[i+k].price = 1 << 31
			}
			i += most - 1
		}
	}
	w.tokens = w.tokens[:0]
	for i := n; i > 0; {
		x := &nodes[i]
		w.tokens = append(w.tokens, token{x.length, x.choice})
		i -= int(x.length)
		if b := x.before; b.length > 0 {
			w.tokens = append(w.tokens, token{1, literally}, b)
			i -= int(b.length) + 1
		}
	}
	for a, b := 0, len(w.tokens)-1; a < b; a, b = a+1, b-1 {
		w.tokens[a], w.tokens[b] = w.tokens[b], w.tokens[a]
	}
	return nodes[n].price
}

// goOn looks at a copy from place i of the block, of a price and with the state
// after it, followed by a literal and a copy from the same distance.
func (w *writer) goOn(nodes []node, i, to int, price uint32, t token, s *state) {
	p := &w.prices
	n := i + int(t.length)
	at := to - (len(nodes) - 1) + n
	d := int(s.reps[0])
	if n+3 > len(nodes) || at+1+2 > to || w.data[at+1] != w.data[at+1-d] || w.data[at+2] != w.data[at+2-d] {
		return
	}
	length := min(common(w.data[at+1:to], w.data[at+1-d:]), nice)
	next := *s
	price += p.copies[s.history][at&3][0] + w.shadow.cost[n]
	next.after(literal)
	h := next.history
	price += p.copies[h][(at+1)&3][1] + p.again[h][1] + p.which[h][0]
	next.after(repeat)
	price += p.length(1, (at+1)&3, uint32(length)-leastRepeat)
	if x := &nodes[n+1+length]; price < x.price {
		*x = node{price: price, length: uint32(length), choice: 0, before: t, state: next}
	}
}

// common is the length of the common prefix.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
