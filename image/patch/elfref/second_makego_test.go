package elfref_test

import (
	"math/rand/v2"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

const (
	madeTypes = 0x700 // bytes of types in .rodata; funcdata are behind them
	madeNames = 0x80  // bytes of names
)

// makeGo makes a file with the tables that Go programs have.
func makeGo(r *rand.Rand, machine uint16, fixed bool) []byte {
	m := newMaker(r, machine, fixed)
	old, name := m.IntN(4) == 0, ".gopclntab"
	if m.IntN(3) == 0 {
		name = ".data.rel.ro.gopclntab"
	}
	var all []sample.Section
	add := func(name string, flags uint64, fill func()) {
		seed := r.Uint64()
		all = append(all, sample.Section{Name: name, Kind: 1, Flags: flags, Data: func(at func(string) uint64) []byte {
			m.Rand, m.b, m.at = rand.New(rand.NewPCG(seed, 0)), nil, at
			fill()
			return m.b
		}})
	}
	add(".text", 2|4, m.code)
	add(".rodata", 2, m.goTypes)
	add(".typelink", 2, func() { m.noise(22) })
	add(name, 2, func() { m.pclntab(old) })
	add(".data", 1|2, func() { m.module(old, name) })
	return m.finish(sample.ELF(machine, all), fixed)
}

// pclntab makes the tables of functions.
func (m *maker) pclntab(old bool) {
	m.u32(0xfffffff1)
	if old {
		m.b[0] = 0xf0
	}
	m.u8(0, 0, 1, byte(m.pick(8, 8, 8, 8, 8, 8, 8, 8, 8, 4)))
	const count, units, files, values, funcs = 20, 72 + madeNames, 72 + madeNames + 80, 72 + madeNames + 160, 72 + madeNames + 240
	m.u64(count)
	m.u64(3)
	m.u64([]uint64{0, m.start(".text"), m.start(".text") + 16}[m.IntN(3)])
	for _, v := range []uint64{72, units, files, values, funcs} {
		m.u64([]uint64{v + 4, 0, v}[min(m.IntN(20), 2)])
	}
	m.noise(madeNames)
	for range 40 {
		m.u32(uint32(m.pick(0, 0xffffffff, 77)))
	}
	m.noise(80)
	at := uint32(count*8 + 8)
	var functions []byte
	for range count {
		m.u32(m.near())
		m.u32(at)
		before := m.b
		m.b = functions
		for range 7 {
			m.u32(uint32(m.pick(0, 5, int(m.small()))))
		}
		n, k := m.IntN(4), m.IntN(6)
		m.u32(uint32(m.odd(n)))
		m.u32(m.Uint32N(20))
		m.noise(7)
		m.u8(byte(m.odd(k)))
		for range n + k {
			m.u32(uint32(m.pick(0, 0xffffffff, m.IntN(30)*16, m.IntN(30)*16)))
		}
		at = uint32(count*8 + 8 + len(m.b))
		functions, m.b = m.b, before
	}
	m.u32(m.near())
	m.u32(0)
	switch m.IntN(30) {
	case 0:
		m.b = m.b[:len(m.b)-m.IntN(6)]
	case 1:
		m.b = append(m.b, functions[:len(functions)-m.IntN(40)]...)
	default:
		m.b = append(m.b, functions...)
	}
}

// module makes data in which the addresses of the others stand.
func (m *maker) module(old bool, name string) {
	for range m.IntN(10) {
		m.u64(m.address())
	}
	start, to := len(m.b), 320
	if old {
		to = 304
	}
	m.u64(m.start(name))
	m.u64(m.start(name) + 72)
	for range (to-16)/8 + 3 {
		m.u64(m.address())
	}
	types := m.start(".rodata")
	for at, v := range map[int]uint64{-24: types, -16: types + madeTypes, 0: types + madeTypes} {
		le.PutUint64(m.b[start+to+at:], v)
	}
	switch m.IntN(20) {
	case 0:
		le.PutUint64(m.b[start+to-8*m.pick(0, 2, 3):], m.Uint64N(2)*m.address())
	case 1:
		le.PutUint64(m.b[start+to-16:], types+1<<31+m.Uint64N(3)-1)
	}
}

// goTypes makes descriptors of types, and trees of calls behind them.
func (m *maker) goTypes() {
	offset := func() uint32 {
		return uint32(m.pick(0, 0xffffffff, int(m.Uint32N(madeTypes)), int(m.Uint32N(madeTypes)), madeTypes))
	}
	pointer := func() uint64 { return uint64(m.pick(0, int(m.start(".text")+m.Uint64N(99)))) }
	for len(m.b) < madeTypes {
		m.u64(uint64(m.pick(8, 100, 200, 1<<40+m.IntN(2))))
		m.u64(m.Uint64N(uint64(m.pick(1, 9, 102))))
		m.u32(m.Uint32())
		m.u8(byte(m.pick(0, 1, 3, 5, 7, int(m.Uint32N(80)))), byte(m.pick(1, 8, 16, m.odd(4))), byte(m.odd(8)))
		m.u8(byte(m.pick(m.IntN(28), 17, 18, 19, 20, 21, 22, 25)) | byte(m.IntN(2)<<5))
		m.u64(pointer())
		m.u64(pointer())
		m.u32(uint32(m.odd(1 + m.IntN(madeTypes-1))))
		m.u32(offset())
		for range m.pick(0, 1, 2, 4) {
			m.u64(m.start(".rodata") + m.Uint64N(madeTypes)&^7)
			m.u64(m.Uint64N(5))
		}
		m.u32(offset())
		n := m.IntN(4)
		m.u16(uint16(n))
		m.u16(0)
		m.u32(uint32(m.pick(16, 16, 24, 8)))
		m.u32(0)
		for range n {
			for range 4 {
				m.u32(offset())
			}
		}
		if m.IntN(3) == 0 {
			m.noise(m.IntN(16))
		}
	}
	m.b = m.b[:madeTypes]
	for range 40 {
		m.u8(byte(m.IntN(9)), 0, 0, byte(m.IntN(30)/29))
		m.u32(m.Uint32N(madeNames * 11 / 10))
		m.u64(m.Uint64())
	}
}
