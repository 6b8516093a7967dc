package elfref_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// maker makes files at random in which everything that the page tells of occurs,
// and much that is nearly right.
type maker struct {
	*rand.Rand
	b      []byte // of the section that is made
	at     func(name string) uint64
	origin uint64 // what is added to all addresses
	arm    bool
	starts map[string][]uint64 // offsets in sections that others may refer to
	tables []debugTable
}

// newMaker makes one whose file stands in memory so that a page ends in its code,
// or at a page's start.
func newMaker(r *rand.Rand, machine uint16, fixed bool) *maker {
	m := &maker{Rand: r, arm: machine == 183, starts: map[string][]uint64{}}
	m.origin = uint64(m.pick(0, 0xd00, 0x20d00))
	if fixed {
		m.origin = 0x3ff000 + uint64(m.pick(0, 0xd00))
	}
	return m
}

// makeFile makes a file for a machine; if it is fixed, at a fixed address.
func makeFile(r *rand.Rand, machine uint16, fixed bool) []byte {
	m := newMaker(r, machine, fixed)
	var all []sample.Section
	add := func(name string, kind uint32, flags, entry uint64, fill func(m *maker)) {
		seed := r.Uint64()
		all = append(all, sample.Section{Name: name, Kind: kind, Flags: flags, Entry: entry, Data: func(at func(string) uint64) []byte {
			// It is called twice, and must give as many bytes.
			m.Rand, m.b, m.at = rand.New(rand.NewPCG(seed, 0)), nil, at
			fill(m)
			return m.b
		}})
	}
	add(".text", 1, 2|4, 0, (*maker).code)
	add(".plt", 1, 2|4, 0, (*maker).stubs)
	add(".rodata", 1, 2, 0, (*maker).jumps)
	add(".eh_frame", 1, 2, 0, (*maker).frames)
	add(".eh_frame_hdr", 1, 2, 0, (*maker).frameIndex)
	add(".data", 1, 1|2, 0, func(m *maker) { m.words(40) })
	add(".init_array", 14, 1|2, 8, func(m *maker) { m.words(3) })
	add(".dynamic", 6, 1|2, 16, func(m *maker) { m.words(20) })
	add(".relr.dyn", 19, 2, 8, (*maker).relr)
	add(".rela.dyn", 4, 2, 24, (*maker).relocations)
	add(".rela.plt", 4, 2, uint64(m.pick(24, 24, 0)), (*maker).relocations)
	add(".dynsym", 11, 2, 24, (*maker).symbols)
	add(".gnu.hash", 0x6ffffff6, 2, 0, (*maker).hash)
	add(".hash", 5, 2, 0, (*maker).hash)
	add(".note.gnu.build-id", 7, 2, 0, func(m *maker) { m.noise(36) })
	add(".gnu_debuglink", 1, 0, 0, func(m *maker) { m.noise(44) })
	add(".bss", 8, 1|2, 0, func(*maker) {})
	for _, s := range debugMakers {
		add(s.name, 1, 0, 0, s.fill)
	}
	return m.finish(sample.ELF(machine, all), fixed)
}

// memory is how much of it a file takes, in bytes, more than it has itself.
const memory = 0x8000

// finish puts in what sample.ELF leaves out: links, a fixed address, and memory
// that has no bytes. At times a section stands behind all others.
func (m *maker) finish(data []byte, fixed bool) []byte {
	start := le.Uint64(data[0x28:])
	n := (uint64(len(data)) - start) / 64
	for i := range n {
		h := data[start+64*i:]
		off, size := le.Uint64(h[24:]), le.Uint64(h[32:])
		if le.Uint32(h[4:]) == 8 {
			le.PutUint64(h[32:], memory+m.Uint64N(2)<<40)
		} else if m.IntN(int(n)*2) == 0 {
			le.PutUint64(h[24:], uint64(len(data)))
			if le.Uint64(h[16:]) != 0 {
				le.PutUint64(h[16:], uint64(len(data)))
			}
			data = append(data, data[off:off+size]...)
			h = data[start+64*i:]
		}
		if addr := le.Uint64(h[16:]); addr != 0 {
			le.PutUint64(h[16:], addr+m.origin)
		}
		le.PutUint32(h[40:], uint32(m.IntN(int(n)+1)))
		switch m.IntN(300) {
		case 0:
			le.PutUint64(h[16:], 1<<44-m.Uint64N(2))
		case 1:
			h[8] |= 1
		case 2:
			h[9] |= 8
		}
	}
	load := data[64:]
	le.PutUint64(load[16:], m.origin)
	le.PutUint64(load[32:], uint64(len(data)))
	le.PutUint64(load[40:], memory)
	if fixed {
		data[0x10] = 2
	}
	if m.IntN(2) == 0 { // another load, where code began
		data[0x38], load = byte(m.pick(2, 2, 2, 2, 64, 65)), data[64+56:]
		off := m.Uint64N(uint64(len(data)))
		filled := m.Uint64N(uint64(len(data)) - off + 1)
		le.PutUint32(load, 1)
		for i, v := range []uint64{off, m.origin + m.Uint64N(2*memory), 0, filled, filled + m.Uint64N(99)} {
			le.PutUint64(load[8+8*i:], v)
		}
	}
	return data
}

func (m *maker) pick(v ...int) int        { return v[m.IntN(len(v))] }
func (m *maker) rarely() bool             { return m.IntN(20) == 0 }
func (m *maker) u8(v ...byte)             { m.b = append(m.b, v...) }
func (m *maker) u16(v uint16)             { m.b = le.AppendUint16(m.b, v) }
func (m *maker) u32(v uint32)             { m.b = le.AppendUint32(m.b, v) }
func (m *maker) u64(v uint64)             { m.b = le.AppendUint64(m.b, v) }
func (m *maker) here(name string) uint64  { return m.at(name) + m.origin + uint64(len(m.b)) }
func (m *maker) start(name string) uint64 { return m.at(name) + m.origin }
func (m *maker) mark(name string)         { m.starts[name] = append(m.starts[name], uint64(len(m.b))) }

func (m *maker) some(name string) uint64 {
	if s := m.starts[name]; len(s) > 0 && !m.rarely() {
		return s[m.IntN(len(s))]
	}
	return m.Uint64N(0x400)
}

func (m *maker) noise(n int) {
	for range n {
		m.u8(byte(m.Uint32()))
	}
}

// leb appends a LEB128 number, mostly a small one, at times a malformed one.
func (m *maker) leb(v uint64) {
	m.b = binary.AppendUvarint(m.b, v)
	if m.IntN(200) == 0 {
		m.b[len(m.b)-1] |= 128
		m.b = append(m.b, make([]byte, m.IntN(4))...)
	}
}

func (m *maker) small() uint64 { return m.Uint64() >> m.pick(60, 60, 56, 50, 0) }

// address is mostly one in memory.
func (m *maker) address() uint64 {
	switch m.IntN(12) {
	case 0:
		return 0
	case 1:
		return m.Uint64() >> m.IntN(64)
	case 2:
		return 1<<64 - 1
	case 3, 4, 5:
		return m.start(".text") + m.Uint64N(600)
	case 6:
		return m.edge()
	}
	return m.origin + m.Uint64N(0x4000)
}

// edge is where something ends, or a bit before or behind it.
func (m *maker) edge() uint64 {
	edges := []uint64{0x200, 0x10000, 0x400000, m.origin, m.origin + memory, m.start(".text"), m.start(".rodata"), m.start(".data") + 320}
	for _, end := range m.starts[".plt"] {
		edges = append(edges, m.start(".plt")+end)
	}
	return edges[m.IntN(len(edges))] + m.Uint64N(3) - 1
}

func (m *maker) words(n int) {
	for range n {
		m.u64(m.address())
	}
	m.noise(m.IntN(8))
}

// near is a distance that mostly leads to memory.
func (m *maker) near() uint32 { return uint32(m.IntN(0x3000) - 0x200) }

func (m *maker) code() {
	if m.arm {
		m.armCode()
		return
	}
	for range 120 {
		if m.IntN(3) == 0 {
			m.u8([]byte{0x66, 0xf2, 0xf3, 0x2e, 0x64, 0x67, 0xf0}[m.IntN(7)])
		}
		if m.IntN(2) == 0 {
			m.u8(0x40 | byte(m.IntN(16)))
		}
		switch op := byte(m.Uint32()); m.IntN(10) {
		case 0:
			m.u8(0xe8)
		case 1:
			m.u8(0x0f, op)
		case 2:
			m.u8(0x0f, byte(m.pick(0x38, 0x3a)), op)
		case 3:
			m.u8(0xc5, 0xf8, byte(m.pick(0x77, int(op))))
		case 4:
			m.u8(0xc4, 0xe0|byte(m.IntN(8)), 0x78, byte(m.pick(0x77, int(op))))
		case 5:
			m.u8(0x62, 0xf0|byte(m.IntN(8)), 0x7c, 0x48, op)
		case 6: // lea
			at := uint64(m.IntN(64)) * 4
			m.u8(0x48, 0x8d, 0x05)
			m.u32(uint32(m.start(".rodata") + at - m.here(".text") - 4))
			continue
		case 7:
			m.u8(byte(m.pick(0xf6, 0xf7, 0xc7, 0x81, 0x83, 0x69, 0x8b, 0xff)))
		default:
			m.u8(op)
		}
		m.u8([]byte{0x05, 0x0d, 0x3d, 0x04, 0x44, 0x80, 0xc0, byte(m.Uint32())}[m.IntN(8)])
		if m.IntN(4) == 0 {
			m.u8([]byte{0x25, 0x24, byte(m.Uint32())}[m.IntN(3)])
		}
		for range m.IntN(3) {
			m.u32(uint32(m.pick(int(m.near()), int(m.address()), int(m.edge()-m.here(".text")-4))))
		}
		m.noise(m.IntN(2))
	}
}

func (m *maker) armCode() {
	for i := range uint32(300) {
		r, n := uint32(m.pick(0, 1, 2, 19)), uint32(m.pick(0, 1, 2, 19))
		low := m.Uint32N(4096)
		m.u32([]uint32{
			0x94000000 | m.near()>>2&0x3ffffff, 0x14000000 | m.Uint32()&0x3ffffff, 0xd63f0000 | r<<5,
			0x54000000 | m.Uint32()&0xffffff, 0x34000000 | m.near()&0xfffff<<5 | m.Uint32()&0x81000000, 0x18000000 | m.near()<<3&0xffffff | m.Uint32()&0x40000000,
			0x36000000 | m.Uint32()&0x8107ffff, 0x90000000 | m.Uint32N(4)<<29 | r, 0x90000000 | m.Uint32()&0x60ffffe0 | r,
			0x91000000 | low<<10 | n<<5 | r, 0x39000000 | m.Uint32()&0xc4c00000 | low<<10 | n<<5 | r,
			0x0a000000 | m.Uint32()&^0x1f | r, 0x10000000 | m.Uint32()&^0x1f | r, 0xd503201f, m.Uint32(), i,
		}[m.IntN(16)])
	}
	m.noise(m.IntN(4))
}

func (m *maker) stubs() {
	for range 8 {
		stub := [][]byte{{0xff, 0x25, 0, 1, 0, 0, 0x68}, {0xf3, 0x0f, 0x1e, 0xfa, 0x68}, {0xff, 0x35, 0, 1, 0, 0, 0xff}}[m.IntN(3)]
		m.b = append(append(m.b, stub...), make([]byte, 16-len(stub))...)
	}
	m.noise(m.IntN(16))
	m.starts[".plt"] = []uint64{uint64(len(m.b))}
}

// jumps are tables of distances to code.
func (m *maker) jumps() {
	for i := range uint64(80) {
		to := m.start(".text") + m.Uint64N(500)
		switch m.IntN(24) {
		case 0:
			to = m.address()
		case 1:
			to = m.edge()
		}
		m.u32(uint32(to - (m.start(".rodata") + i/8*32)))
	}
}

func (m *maker) frames() {
	var cies []int
	for range 24 {
		at := len(m.b)
		m.u32(0)
		if len(cies) == 0 || m.IntN(4) == 0 {
			cies = append(cies, at)
			m.u32(0)
			m.u8(1)
			m.b = append(m.b, []string{"zR\x00", "zPLR\x00", "zLR\x00", "zRSB\x00", "R\x00", "\x00", "zP", "zRLPPP\x00"}[m.IntN(8)]...)
			for range 4 {
				m.leb(m.small() & 0xffff)
			}
			for range 3 {
				m.u8(byte(m.pick(0x1b, 0x1b, 0x9b, 0, 3, 0x0b)))
				if m.IntN(3) == 0 {
					m.noise(m.pick(4, 8))
				}
			}
		} else {
			m.u32(uint32(at + 4 - cies[m.IntN(len(cies))]))
			m.u32(uint32(m.pick(int(m.near()), int(m.Uint32()), int(m.edge()-m.here(".eh_frame")))))
			m.u32(m.Uint32N(3) * 16)
			if m.IntN(4) > 0 {
				m.leb(uint64(m.pick(4, 0, 200)))
				m.u32(uint32(m.pick(0, int(m.near()))))
			}
		}
		m.noise(m.IntN(5))
		le.PutUint32(m.b[at:], uint32(len(m.b)-at-4-m.IntN(50)/49))
	}
}

func (m *maker) frameIndex() {
	m.u8(1, byte(m.pick(0x1b, 0x1b, 0x1b, 0x0b)), 3, 0x3b)
	for range 25 {
		m.u32(m.near())
	}
}

func (m *maker) relr() {
	at := m.start(".data")
	for range 12 {
		switch m.IntN(4) {
		case 0:
			m.u64(m.Uint64() | 1)
		case 1:
			m.u64(m.address())
		default:
			at += uint64(m.IntN(4)) * 8
			m.u64(at)
		}
	}
}

func (m *maker) relocations() {
	for range 10 {
		m.u64(m.address())
		m.u32(uint32(m.pick(8, 37, 1027, 1032, 6, 0)))
		m.u32(m.Uint32N(3))
		m.u64(m.address())
	}
}

func (m *maker) symbols() {
	for range 12 {
		m.u32(m.Uint32N(3))
		m.u16(uint16(m.Uint32()))
		m.u16(uint16(m.pick(0, 1, 0xfeff, 0xff00, 0xfff1)))
		m.u64(m.address())
		m.u64(m.small() >> m.pick(0, 0, 63))
	}
}

func (m *maker) hash() {
	m.u32(m.Uint32N(40))
	m.u32(1)
	m.u32(m.Uint32N(4))
	for range m.pick(1, 40) {
		m.u32(m.Uint32N(3))
	}
}

// makeImage makes an EROFS image of files in two pieces: what is behind their last
// whole block stands behind an inode.
func makeImage(r *rand.Rand, files ...[]byte) []byte {
	const block = 4096
	image := make([]byte, block)
	le.PutUint32(image[1024:], 0xe0f5e1e2)
	image[1036] = 12
	for i, f := range files {
		cut := len(f) / block * block
		inode := make([]byte, 32<<(i&1))
		attributes := r.IntN(3)
		inode[0] = byte(4 + i&1)
		le.PutUint16(inode[2:], uint16(attributes))
		le.PutUint16(inode[4:], 0o100644)
		le.PutUint32(inode[8:], uint32(len(f)))
		le.PutUint32(inode[16:], uint32(len(image)/block+1))
		if attributes > 0 {
			inode = append(inode, make([]byte, 12+4*(attributes-1))...)
		}
		tail := append(inode, f[cut:]...)
		if len(tail) > block {
			tail = tail[:block]
		}
		image = append(image, tail...)
		image = append(image, make([]byte, -len(image)&(block-1))...)
		image = append(image, f[:cut]...)
	}
	return image
}

// damage changes a few bytes: in headers, and wherever the file is looked into.
func damage(r *rand.Rand, data []byte, f *file) {
	s := f.sections[r.IntN(len(f.sections))]
	at := f.base
	switch r.IntN(6) {
	case 0:
		at += r.Int64N(64)
	case 1:
		at += 64 + r.Int64N(56*8)
	case 2:
		at += s.headerOff + 4*r.Int64N(16)
	default:
		if !s.counts || s.kind == 8 || s.size == 0 {
			return
		}
		at = f.at(s.off + r.Int64N(min(s.size, []int64{64, s.size}[r.IntN(2)])))
	}
	n := min(int64(1)<<r.IntN(4), int64(len(data))-at)
	if n <= 0 {
		return
	}
	b := data[at:][:n]
	switch r.IntN(4) {
	case 0:
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	case 1:
		b[0] ^= 1 << r.IntN(8)
	case 2: // around a power of two, mostly where a number stands
		if back := (at - f.base) % n; r.IntN(4) > 0 && at-back >= 0 {
			b = data[at-back:][:n]
		}
		v := uint64(1)<<r.IntN(64) + r.Uint64N(4) - 2
		if r.IntN(4) == 0 {
			v = ^v
		}
		copy(b, le.AppendUint64(nil, v))
	case 3: // what stands elsewhere
		copy(b, slices.Clone(data[r.Int64N(int64(len(data))-n):]))
	}
}
