package sample

import "fmt"

// Functions is how many functions Debug's programs have.
const Functions = 8

// Debug is a program with debugging information of DWARF 4 and 5, and a table of
// relative relocations; more makes one function longer by so many instructions,
// and adds a name.
func Debug(machine uint16, more int) []byte {
	p := program{more: more, offsets: map[string]uint32{}}
	section := func(name string, fill func(b *bytes, text uint64)) Section {
		return Section{Name: name, Kind: 1, Data: func(at func(string) uint64) []byte {
			var b bytes
			fill(&b, at(".text"))
			return b
		}}
	}
	text, pointers := section(".text", p.text), section(".data.rel.ro", p.pointers)
	text.Flags, pointers.Flags = 2|4, 1|2
	return ELF(machine, []Section{
		text, pointers,
		{Name: ".relr.dyn", Kind: 19, Flags: 2, Entry: 8, Data: func(at func(string) uint64) []byte {
			var b bytes
			b.u64(at(".data.rel.ro"), 1<<Functions-1)
			return b
		}},
		// Sections come before those that have offsets in them, to know these.
		section(".debug_str", p.names), section(".debug_abbrev", p.abbreviations), section(".debug_loc", p.oldLists),
		section(".debug_ranges", p.oldRanges), section(".debug_loclists", p.lists), section(".debug_rnglists", p.ranges),
		section(".debug_line", p.lines), section(".debug_info", p.info), section(".debug_aranges", p.table),
		section(".debug_addr", p.addresses), section(".debug_str_offsets", p.stringOffsets), section(".debug_frame", p.frames),
	})
}

type program struct {
	more    int
	offsets map[string]uint32 // of what others refer to
}

// function is where a function is, and its length in bytes.
func (p *program) function(i int, text uint64) (addr, size uint64) {
	addr, size = text+uint64(i)*32, 32
	if i > 3 {
		addr += uint64(p.more) * 4
	} else if i == 3 {
		size += uint64(p.more) * 4
	}
	return addr, size
}

func (p *program) text(b *bytes, text uint64) {
	for i := range Functions {
		_, size := p.function(i, text)
		for k := range size / 4 {
			b.u32(uint32(i*i)<<5 | 0x52800000 | uint32(k)) // mov wK, #i²
		}
	}
}

func (p *program) pointers(b *bytes, text uint64) {
	for i := range Functions {
		addr, _ := p.function(i*5%Functions, text)
		b.u64(addr)
	}
}

func (p *program) names(b *bytes, _ uint64) {
	b.u8(0)
	if p.more > 0 {
		b.text("added")
	}
	for i := range Functions {
		name := fmt.Sprint("function", i)
		p.offsets[name] = uint32(len(*b))
		b.text(name)
	}
}

func (p *program) abbreviations(b *bytes, _ uint64) {
	for version := range 2 { // of DWARF 4, of DWARF 5
		p.offsets[fmt.Sprint("abbreviations", 4+version)] = uint32(len(*b))
		b.leb(1, 0x11, 1, 0x10, 0x17, 0x11, 0x01, 0x55, 0x17, 0x3e, 0x0b, 0, 0) // unit: stmt_list, low_pc, ranges, data1
		b.leb(2, 0x2e, 0, 0x03, 0x0e, 0x11, 0x01, 0x12, uint64(6+version))      // function: name, low_pc, high_pc (4 or 8)
		b.leb(0x49, 0x13, 0x3f, 0x19, 0x02, 0x17, 0x40, 0x18, 0, 0)             // type, flag, location, frame_base
		b.leb(3, 0x24, 0, 0x03, 0x08, 0x0b, 0x21, 4, 0, 0)                      // type: text, implicit 4
		b.leb(4, 0x34, 0, 0x02, 0x18, 0x49, 0x10, 0x1c, 0x0a, 0x0b, 0x0d, 0, 0) // variable: location, ref_addr, block1, sdata
		b.leb(0)
	}
}

func (p *program) info(b *bytes, text uint64) {
	for version := uint16(4); version <= 5; version++ {
		start := len(*b)
		b.unit(func(b *bytes) {
			b.u16(version)
			if version == 5 {
				b.u8(1, 8)
			}
			b.u32(p.offsets[fmt.Sprint("abbreviations", version)])
			if version == 4 {
				b.u8(8)
			}
			b.leb(1)
			b.u32(p.offsets[fmt.Sprint("lines", version)])
			b.u64(0)
			b.u32(p.offsets[fmt.Sprint("ranges", version)])
			b.u8(9)
			kind := len(*b)
			p.offsets[fmt.Sprint("type", version)] = uint32(kind)
			b.leb(3)
			b.text("int")
			for i := range Functions {
				addr, size := p.function(i, text)
				b.leb(2)
				b.u32(p.offsets[fmt.Sprint("function", i)])
				b.u64(addr)
				if version == 4 {
					b.u32(uint32(size))
				} else {
					b.u64(size)
				}
				b.u32(uint32(kind-start), p.offsets[fmt.Sprint("list", version, i)])
				b.u8(1, 0x9c) // call_frame_cfa
				b.leb(4, 9, 3)
				b.u64(addr)
				b.u32(uint32(kind))
				b.u8(2, 7, 7)
				b.leb(uint64(i))
			}
			b.leb(0)
		})
	}
}

// oldLists are lists of locations, each behind a pair of numbers of its own.
func (p *program) oldLists(b *bytes, text uint64) {
	for i := range Functions {
		addr, size := p.function(i, text)
		b.leb(1, 2)
		p.offsets[fmt.Sprint("list", 4, i)] = uint32(len(*b))
		b.u64(addr, addr+size/2)
		b.u16(1)
		b.u8(0x50) // reg0
		b.u64(addr+size/2, addr+size)
		b.u16(9)
		b.u8(3)
		b.u64(addr)
		b.u64(0, 0)
	}
}

func (p *program) oldRanges(b *bytes, text uint64) {
	p.offsets["ranges4"] = 0
	for i := range Functions {
		addr, size := p.function(i, text)
		b.u64(addr, addr+size)
	}
	b.u64(0, 0)
}

func (p *program) lists(b *bytes, text uint64) {
	b.unit(func(b *bytes) {
		b.u16(5)
		b.u8(8, 0)
		b.u32(0)
		for i := range Functions {
			addr, size := p.function(i, text)
			b.leb(1, 2)
			p.offsets[fmt.Sprint("list", 5, i)] = uint32(len(*b))
			b.u8(6) // base_address
			b.u64(addr)
			b.u8(4) // offset_pair
			b.leb(2, 9, 1, 0x50)
			b.u8(7) // start_end
			b.u64(addr, addr+size)
			b.leb(1, 0x51)
			b.u8(8) // start_length
			b.u64(addr)
			b.leb(size, 9, 3)
			b.u64(addr)
			b.u8(0)
		}
	})
}

func (p *program) ranges(b *bytes, text uint64) {
	b.unit(func(b *bytes) {
		b.u16(5)
		b.u8(8, 0)
		b.u32(1, 4)
		p.offsets["ranges5"] = uint32(len(*b))
		for i := range Functions {
			addr, size := p.function(i, text)
			b.u8(byte(5 + i%3)) // base_address, start_end, start_length
			b.u64(addr)
			if i%3 == 1 {
				b.u64(addr + size)
			} else if i%3 == 2 {
				b.leb(size)
			}
		}
		b.u8(0)
	})
}

func (p *program) lines(b *bytes, text uint64) {
	for version := uint16(4); version <= 5; version++ {
		p.offsets[fmt.Sprint("lines", version)] = uint32(len(*b))
		b.unit(func(b *bytes) {
			b.u16(version)
			if version == 5 {
				b.u8(8, 0)
			}
			b.unit(func(b *bytes) {
				b.u8(1, 1, 1, 0xfb, 14, 13)
				b.u8(0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1)
				if version == 4 {
					b.text("folder")
					b.u8(0)
					b.text("file.c")
					b.u8(0, 0, 0, 0)
					return
				}
				for range 2 { // folders and files: by strp, and a number
					b.u8(2)
					b.leb(1, 0x0e, 2, 0x0b, 1)
					b.u32(p.offsets["function2"])
					b.u8(0)
				}
			})
			for i := range Functions {
				addr, _ := p.function(i, text)
				b.u8(0, 9, 2)
				b.u64(addr)
				b.u8(3, 7, 1, 20, 9, 4, 0, 5, 3, 0x41, 2, 0x90, 1, 0, 1, 1)
			}
		})
	}
}

// table is .debug_aranges.
func (p *program) table(b *bytes, text uint64) {
	b.unit(func(b *bytes) {
		b.u16(2)
		b.u32(0)
		b.u8(8, 0, 0, 0, 0, 0)
		for i := range Functions {
			b.u64(p.pair(i, text)...)
		}
		b.u64(0, 0)
	})
}

func (p *program) pair(i int, text uint64) []uint64 {
	addr, size := p.function(i, text)
	return []uint64{addr, size}
}

func (p *program) addresses(b *bytes, text uint64) {
	b.unit(func(b *bytes) {
		b.u16(5)
		b.u8(8, 0)
		for i := range Functions {
			b.u64(p.pair(i, text)[0])
		}
	})
}

func (p *program) stringOffsets(b *bytes, _ uint64) {
	b.unit(func(b *bytes) {
		b.u16(5)
		b.u16(0)
		for i := range Functions {
			b.u32(p.offsets[fmt.Sprint("function", i)])
		}
	})
}

func (p *program) frames(b *bytes, text uint64) {
	b.unit(func(b *bytes) {
		b.u32(0xffffffff)
		b.u8(4, 0, 8, 0, 1, 0x78, 16, 0)
	})
	for i := range Functions {
		b.unit(func(b *bytes) {
			b.u32(0)
			b.u64(p.pair(i, text)...)
			b.u64(0)
		})
	}
}
