package deflate

import "math/bits"

// tree is a Huffman code, made as both programs make it.
type tree struct {
	freq  []int
	bits  []byte   // lengths of the codes
	codes []uint32 // turned around: the first bit is the lowest
	extra []uint   // extra bits of each symbol
	fixed []byte   // lengths of the fixed code, nil for none
	limit int      // bits
	top   int      // the last symbol that has a code

	cost, fixedCost int // in bits, of all symbols

	heap  []int // from 1 on
	done  []int // nodes in the order in which they left the heap, the last ones first
	depth []byte
	sums  []int // frequencies of leaves and inner nodes
	dad   []int
	size  []int // length of leaves and inner nodes
}

func newTree(n, limit int, extra []uint, fixed []byte) tree {
	return tree{
		freq: make([]int, n), bits: make([]byte, n), codes: make([]uint32, n), extra: extra, fixed: fixed, limit: limit,
		heap: make([]int, 1, n+2), depth: make([]byte, 2*n), sums: make([]int, 2*n), dad: make([]int, 2*n), size: make([]int, 2*n),
	}
}

// less orders nodes: of those that are equally frequent the shallower first.
func (t *tree) less(a, b int) bool {
	return t.sums[a] < t.sums[b] || t.sums[a] == t.sums[b] && t.depth[a] <= t.depth[b]
}

// sink restores the heap below k.
func (t *tree) sink(k int) {
	v := t.heap[k]
	for j := 2 * k; j < len(t.heap); j *= 2 {
		if j+1 < len(t.heap) && t.less(t.heap[j+1], t.heap[j]) {
			j++
		}
		if t.less(v, t.heap[j]) {
			break
		}
		t.heap[k], k = t.heap[j], j
	}
	t.heap[k] = v
}

// build makes the code for the frequencies.
func (t *tree) build() {
	t.heap, t.done, t.top, t.cost, t.fixedCost = t.heap[:1], t.done[:0], -1, 0, 0
	for i, f := range t.freq {
		t.bits[i], t.sums[i], t.depth[i] = 0, f, 0
		if f != 0 {
			t.heap, t.top = append(t.heap, i), i
		}
	}
	// At least two symbols have codes; what they cost is not counted.
	for len(t.heap) < 3 {
		i := 0
		if t.top < 2 {
			t.top++
			i = t.top
		}
		t.heap = append(t.heap, i)
		t.sums[i] = 1
		t.cost--
		if t.fixed != nil {
			t.fixedCost -= int(t.fixed[i])
		}
	}
	for k := (len(t.heap) - 1) / 2; k >= 1; k-- {
		t.sink(k)
	}
	node := len(t.freq)
	for len(t.heap) > 2 {
		a := t.heap[1]
		t.heap[1] = t.heap[len(t.heap)-1]
		t.heap = t.heap[:len(t.heap)-1]
		t.sink(1)
		b := t.heap[1]
		t.done = append(t.done, a, b)
		t.sums[node] = t.sums[a] + t.sums[b]
		t.depth[node] = max(t.depth[a], t.depth[b]) + 1
		t.dad[a], t.dad[b] = node, node
		t.heap[1] = node
		node++
		t.sink(1)
	}
	t.measure(t.heap[1])
}

// measure gives every symbol its length, none more than the limit.
func (t *tree) measure(root int) {
	var count [maxCode + 1]int
	over := 0
	t.size[root] = 0
	for i := len(t.done) - 1; i >= 0; i-- {
		n := t.done[i]
		l := t.size[t.dad[n]] + 1
		if l > t.limit {
			l = t.limit
			over++
		}
		if t.size[n] = l; n < len(t.freq) {
			count[l]++
			t.bits[n] = byte(l)
		}
	}
	if over > 0 {
		for ; over > 0; over -= 2 {
			l := t.limit - 1
			for count[l] == 0 {
				l--
			}
			count[l]--
			count[l+1] += 2
			count[t.limit]--
		}
		// The rarest get the longest codes.
		i := 0
		for l := t.limit; l > 0; l-- {
			for n := count[l]; n > 0; i++ {
				if s := t.done[i]; s < len(t.freq) {
					t.bits[s] = byte(l)
					n--
				}
			}
		}
	}
	for i := range t.freq {
		if t.bits[i] == 0 {
			continue
		}
		t.cost += t.sums[i] * (int(t.bits[i]) + int(t.extra[i]))
		if t.fixed != nil {
			t.fixedCost += t.sums[i] * (int(t.fixed[i]) + int(t.extra[i]))
		}
	}
}

// assign gives every symbol its code.
func (t *tree) assign() {
	var count, next [maxCode + 2]uint32
	for _, l := range t.bits {
		count[l]++
	}
	count[0] = 0
	code := uint32(0)
	for l := 1; l <= maxCode; l++ {
		code = (code + count[l-1]) << 1
		next[l] = code
	}
	if t.codes == nil {
		t.codes = make([]uint32, len(t.bits))
	}
	for i, l := range t.bits {
		if l > 0 {
			t.codes[i] = bits.Reverse32(next[l]) >> (32 - l)
			next[l]++
		}
	}
}

// runs calls yield for every run of equal lengths up to the top: n lengths l,
// to be written one by one if symbol is below 16.
func (t *tree) runs(yield func(symbol, n int)) {
	before := -1
	most, least := 7, 4
	if t.bits[0] == 0 {
		most, least = 138, 3
	}
	count := 0
	for i := 0; i <= t.top; i++ {
		l, next := int(t.bits[i]), -1
		if i < t.top {
			next = int(t.bits[i+1])
		}
		if count++; count < most && l == next {
			continue
		}
		switch {
		case count < least:
			yield(l, count)
		case l != 0:
			if l != before {
				yield(l, 1)
				count--
			}
			yield(16, count)
		case count <= 10:
			yield(17, count)
		default:
			yield(18, count)
		}
		count, before = 0, l
		switch {
		case next == 0:
			most, least = 138, 3
		case l == next:
			most, least = 6, 3
		default:
			most, least = 7, 4
		}
	}
}

// count counts what sending the lengths takes.
func (t *tree) count(code *tree) {
	t.runs(func(symbol, n int) {
		if symbol >= 16 {
			n = 1
		}
		code.freq[symbol] += n
	})
}

// send sends the lengths.
func (t *tree) send(w *writer, code *tree) {
	t.runs(func(symbol, n int) {
		times := 1
		if symbol < 16 {
			times = n
		}
		for range times {
			w.bits(code.codes[symbol], uint(code.bits[symbol]))
		}
		switch symbol {
		case 16:
			w.bits(uint32(n-3), 2)
		case 17:
			w.bits(uint32(n-3), 3)
		case 18:
			w.bits(uint32(n-11), 7)
		}
	})
}
