package pack

import "github.com/sealant-os/sealant/internal/linux"

// finder finds earlier occurrences of what comes, by binary trees of the
// positions whose first four bytes have one hash: the shortest distance for each
// length.
type finder struct {
	data   []byte
	window int
	depth  int      // how many positions are looked at
	heads  []int32  // by hash of four bytes: position plus 1
	heads3 []int32  // by hash of three
	heads2 []int32  // by two bytes
	sons   []uint32 // two for each position: smaller, larger; position plus 1
	bits   uint
}

// found is an earlier occurrence.
type found struct{ length, distance uint32 }

// nice is a length that is good enough: nothing longer is looked for.
const nice = 192

func newFinder(data []byte, window uint) *finder {
	f := &finder{data: data, window: 1 << window, depth: 64, bits: 16}
	for f.bits < 22 && 1<<f.bits < len(data) {
		f.bits++
	}
	if len(data) > 24<<20 {
		f.depth = 24
	}
	f.heads, f.heads3, f.heads2 = linux.Huge[int32](1<<f.bits), make([]int32, 1<<16), make([]int32, 1<<16)
	f.sons = linux.Huge[uint32](2 * len(data))
	return f
}

// at puts position p into the trees and appends what is found, of growing length
// and distance. Nothing is longer than limit.
func (f *finder) at(p, limit int, out []found) []found {
	d := f.data
	limit = min(limit, len(d)-p)
	if len(d)-p < 4 {
		return out
	}
	first := uint32(d[p]) | uint32(d[p+1])<<8 | uint32(d[p+2])<<16 | uint32(d[p+3])<<24
	h2 := first & 0xffff
	h3 := (first & 0xffffff) * 0x9E3779B1 >> 16
	h4 := first * 0x85EBCA6B >> (32 - f.bits)
	longest := 1
	short := func(q int, least int) {
		if q >= 0 && p-q <= f.window {
			n := 0
			for n < limit && n < nice && d[q+n] == d[p+n] {
				n++
			}
			if n >= least && n > longest {
				longest = n
				out = append(out, found{uint32(n), uint32(p - q)})
			}
		}
	}
	short(int(f.heads2[h2])-1, 2)
	short(int(f.heads3[h3])-1, 3)
	f.heads2[h2], f.heads3[h3] = int32(p)+1, int32(p)+1

	// Walk down the tree, taking it apart into what is smaller and larger than p.
	node := int(f.heads[h4])
	f.heads[h4] = int32(p) + 1
	smaller, larger := &f.sons[2*p], &f.sons[2*p+1]
	nSmaller, nLarger := 0, 0
	reach := min(len(d)-p, nice)
	for depth := f.depth; node != 0 && depth > 0; depth-- {
		q := node - 1
		if p-q > f.window {
			break
		}
		n := min(nSmaller, nLarger)
		for n < reach && d[q+n] == d[p+n] {
			n++
		}
		if k := min(n, limit); k > longest {
			longest = k
			out = append(out, found{uint32(k), uint32(p - q)})
		}
		if n == reach {
			*smaller, *larger = f.sons[2*q], f.sons[2*q+1]
			return out
		}
		if d[q+n] < d[p+n] {
			*smaller = uint32(node)
			smaller = &f.sons[2*q+1]
			node, nSmaller = int(*smaller), n
		} else {
			*larger = uint32(node)
			larger = &f.sons[2*q]
			node, nLarger = int(*larger), n
		}
	}
	*smaller, *larger = 0, 0
	return out
}
