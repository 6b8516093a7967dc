package fold

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/sealant-os/sealant/image/patch/deflate"
)

// Found is a member that was found in a file.
type Found struct {
	Member
	likely  deflate.Recipe
	trailer Trailer
}

// leastPlain and leastFolded are the smallest members worth unfolding, in bytes.
const (
	leastPlain  = 64
	leastFolded = 40
)

// firstPlain is how much room a plain text of an unknown size gets at first, in
// bytes.
const firstPlain = 16 << 10

// Find finds members in data: gzip files, members of zip archives, zlib streams.
// None has more than most plain bytes; they are in order and don't overlap.
// Where skip says so, up to an offset, nothing is looked for.
func Find(data []byte, most int64, skip func(at int64) (to int64)) []Found {
	var out []Found
	for at := 0; at+leastFolded <= len(data); {
		if c := data[at]; c != 0x1f && c != 'P' && c != 0x78 {
			at++
			continue
		}
		start, f, ok := begin(data, at)
		if !ok {
			at++
			continue
		}
		if to := skip(int64(at)); to > int64(at) {
			at = int(to)
			continue
		}
		plain, folded, err := inflate(bytes.NewReader(data[start:]), firstPlain, most)
		if end := int64(start) + folded + f.trailer.size(); err == nil && len(plain) >= leastPlain && folded >= leastFolded && end <= int64(len(data)) &&
			bytes.Equal(f.trailer.of(plain), data[end-f.trailer.size():end]) {
			f.Member = Member{At: int64(start), Folded: end - int64(start), Plain: int64(len(plain))}
			out = append(out, f)
			at = int(end)
			continue
		}
		at++
	}
	return out
}

// begin reads what stands before a stream, of which it says where it starts.
func begin(data []byte, at int) (start int, f Found, ok bool) {
	b := data[at:]
	switch {
	case b[0] == 0x1f && b[1] == 0x8b && b[2] == 8 && b[3]&0xe0 == 0:
		start, f.trailer, f.likely.Level = 10, Gzip, 6
		switch b[8] {
		case 2:
			f.likely.Level = 9
		case 4:
			f.likely.Level = 1
		}
		if b[3]&4 != 0 {
			start += 2 + int(binary.LittleEndian.Uint16(b[start:]))
		}
		for _, flag := range []byte{8, 16} { // name, comment
			if b[3]&flag != 0 && start < len(b) {
				start += bytes.IndexByte(b[start:min(start+1024, len(b))], 0) + 1
			}
		}
		if b[3]&2 != 0 {
			start += 2
		}
	case string(b[:4]) == "PK\x03\x04" && b[8] == 8 && b[9] == 0 && b[6]&1 == 0:
		start = 30 + int(binary.LittleEndian.Uint16(b[26:])) + int(binary.LittleEndian.Uint16(b[28:]))
		f.likely = deflate.Recipe{Program: deflate.Zlib8, Level: [4]int{6, 9, 2, 1}[b[6]>>1&3]}
	case b[0] == 0x78 && binary.BigEndian.Uint16(b)%31 == 0 && b[1]&0x20 == 0:
		start, f.trailer = 2, Zlib
		f.likely = deflate.Recipe{Program: deflate.Zlib8, Level: [4]int{1, 5, 6, 9}[b[1]>>6]}
	default:
		return 0, f, false
	}
	return at + start, f, start < len(b)
}

// folded is the member's bytes in its file.
func (f Found) folded(data []byte) []byte { return data[f.At : f.At+f.Folded] }

// stream is the member's stream without its trailer.
func (f Found) stream(data []byte) []byte { return data[f.At : f.At+f.Folded-f.trailer.size()] }

// Plain inflates a member that was found in data.
func Plain(data []byte, m Member) ([]byte, error) {
	plain, _, err := inflate(bytes.NewReader(data[m.At:]), m.Plain, m.Plain)
	return plain, err
}

// Limits of Choose.
type Limits struct {
	Memory  int64 // bytes of plain texts of both files, and of the largest compressed member
	Steps   int64 // of deflaters
	Members int   // of each file
}

// Choice is what Choose picks.
type Choice struct {
	From, To []Member

	// Differs is about what a patch costs at least that takes no member apart, in
	// bytes: members are as good as noise where they differ.
	Differs int64
}

// Choose picks the members of old and data whose plain texts are worth having:
// those that changed, are like one of the other file, and can be made again.
// What gains most comes first.
func Choose(old, data []byte, was, is []Found, most Limits) (c Choice, err error) {
	was, is = changed(old, data, was, is)
	if len(was) == 0 || len(is) == 0 {
		return c, nil
	}
	index := map[uint64]int{} // samples of old plain texts
	for i, f := range was {
		plain, err := Plain(old, f.Member)
		if err != nil {
			return c, err
		}
		samples(plain, func(h uint64) { index[h] = i })
	}
	slices.SortStableFunc(is, func(a, b Found) int { return cmp.Compare(b.Folded, a.Folded) })
	taken, seed, seen := map[int]bool{}, maphash.MakeSeed(), map[uint64]bool{}
	for _, f := range is {
		plain, err := Plain(data, f.Member)
		if err != nil {
			return c, err
		}
		like, ok := partner(plain, index)
		need := f.Plain + f.Folded
		if ok && !taken[like] {
			need += was[like].Plain
		}
		if !ok || need > most.Memory || len(c.To) == most.Members {
			continue
		}
		r, steps, ok := deflate.Recognise(f.stream(data), plain, f.likely, most.Steps)
		if !ok {
			continue
		}
		most.Memory, most.Steps = most.Memory-need, most.Steps-steps
		f.Recipe = recipe(r, f.trailer)
		c.To, taken[like] = append(c.To, f.Member), true
		if h := maphash.Bytes(seed, f.folded(data)); !seen[h] {
			seen[h] = true
			c.Differs += differs(was[like].stream(old), f.stream(data))
		}
	}
	for i, f := range was {
		if taken[i] {
			c.From = append(c.From, Member{At: f.At, Plain: f.Plain})
		}
	}
	slices.SortFunc(c.To, func(a, b Member) int { return cmp.Compare(a.At, b.At) })
	return c, nil
}

// differs is how many bytes of b are not at the beginning or the end of a too.
func differs(a, b []byte) int64 {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return int64(len(b))
}

// changed leaves out members that both files have.
func changed(old, data []byte, was, is []Found) (a, b []Found) {
	seed := maphash.MakeSeed()
	set := func(data []byte, list []Found) map[uint64]bool {
		m := map[uint64]bool{}
		for _, f := range list {
			m[maphash.Bytes(seed, f.folded(data))] = true
		}
		return m
	}
	only := func(data []byte, list []Found, other map[uint64]bool) (out []Found) {
		for _, f := range list {
			if !other[maphash.Bytes(seed, f.folded(data))] {
				out = append(out, f)
			}
		}
		return out
	}
	return only(old, was, set(data, is)), only(data, is, set(old, was))
}

// samples calls yield with a hash of some places of a text: of fewer in a long
// one.
func samples(text []byte, yield func(h uint64)) {
	mask := uint64(15)
	if len(text) > 64<<10 {
		mask = 255
	}
	for i := 0; i+8 <= len(text); i++ {
		h := binary.LittleEndian.Uint64(text[i:]) * 0x9E3779B97F4A7C15
		if h>>32&mask == 0 {
			yield(h)
		}
	}
}

// partner is the old text that most samples of a text are from.
func partner(text []byte, index map[uint64]int) (best int, ok bool) {
	votes := map[int]int{}
	samples(text, func(h uint64) {
		if i, ok := index[h]; ok {
			votes[i]++
		}
	})
	most := 0
	for i, n := range votes {
		if n > most || n == most && i < best {
			best, most = i, n
		}
	}
	return best, most > 0
}
