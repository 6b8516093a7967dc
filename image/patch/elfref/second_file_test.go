// Package elfref_test holds package elfref against a second reader of references,
// which was written from spec/patch-elf.md. It is slow and plain: all of a file is
// in memory, references are collected in a list, and it is sorted; nothing is
// shared with the package but the names of kinds and classes. So it checks the
// package, and the page: where the two readers differ, one of them is wrong, or the
// page does not say which.
package elfref_test

import (
	"bytes"
	"encoding/binary"
	"slices"
)

var le = binary.LittleEndian

const (
	unbacked = 1 << 62
	most44   = 1 << 44
)

// file is an element.
type file struct {
	source          []byte
	b               []byte // of the file
	base, cut, tail int64
	index           int
	fixed, arm      bool
	loads           []load
	sections        []section
	bases           []int64 // places
	lo, hi          int64   // where code is
	found           []field
	tables          []int64 // addresses that may be jump tables
	debug           debug
}

type load struct{ off, addr, filled, size int64 }

type section struct {
	counts            bool
	kind              uint32
	name              string
	flags             uint64
	addr, off, size   int64
	link              int64
	entry             uint64
	number, headerOff int64
}

// field is a reference before it is known where it leads.
type field struct{ off, class, extra int64 }

// stub is a file of an EROFS image in two pieces.
type stub struct{ size, tail int64 }

// find looks for all elements, without their references.
func find(source []byte) []*file {
	var files []*file
	tails := findTails(source)
	for at := int64(0); at+64 <= int64(len(source)) && len(files) < 65536; {
		f := open(source, at, tails[at], len(files))
		if f == nil {
			at += 512
			continue
		}
		files = append(files, f)
		end := at + int64(len(f.b))
		if f.tail != 0 {
			end = at + f.cut
		}
		at = (end + 511) / 512 * 512
	}
	return files
}

func known(head []byte) bool {
	machine := le.Uint16(head[0x12:])
	return bytes.HasPrefix(head, []byte("\x7fELF\x02\x01")) && (machine == 62 || machine == 183)
}

func findTails(source []byte) map[int64]stub {
	found := map[int64]stub{}
	total := uint64(len(source))
	if total < 8192 || le.Uint32(source[1024:]) != 0xe0f5e1e2 || source[1036] != 12 {
		return found
	}
	for at := uint64(0); at+32 <= total; at += 32 {
		inode := source[at:]
		if inode[0] != 4 && inode[0] != 5 || inode[1] != 0 || inode[5]>>4 != 8 {
			continue
		}
		size, tail := uint64(le.Uint32(inode[8:])), at+32
		if inode[0] == 5 {
			size, tail = le.Uint64(inode[8:]), at+64
		}
		if n := uint64(le.Uint16(inode[2:])); n != 0 {
			tail += 12 + 4*(n-1)
		}
		base, cut := 4096*uint64(le.Uint32(inode[16:])), size/4096*4096
		end := tail + size - cut
		if base == 0 || size < 4096 || size == cut || size > 1<<32-1 || base+cut > total || end > total || tail/4096 != (end-1)/4096 {
			continue
		}
		head := source[base:]
		shoff, n := le.Uint64(head[0x28:]), uint64(le.Uint16(head[0x3c:]))
		if !known(head) || shoff > size || shoff+64*n > size {
			continue
		}
		if _, ok := found[int64(base)]; !ok {
			found[int64(base)] = stub{int64(size), int64(tail)}
		}
	}
	return found
}

// open reads what stands at an offset, nil if that is no element.
func open(source []byte, base int64, two stub, index int) *file {
	head := source[base:]
	limit := int64(len(head))
	progs, sects := int64(le.Uint16(head[0x38:])), int64(le.Uint16(head[0x3c:]))
	shoff := le.Uint64(head[0x28:])
	if !known(head) || le.Uint64(head[0x20:]) != 64 || le.Uint16(head[0x36:]) != 56 || progs < 1 || progs > 64 || 64+56*progs > limit {
		return nil
	}
	f := &file{source: source, base: base, index: index, fixed: le.Uint16(head[0x10:]) != 3, arm: le.Uint16(head[0x12:]) == 183}
	if two.tail != 0 {
		f.cut, f.tail, limit = two.size/4096*4096, two.tail, two.size
	}
	if le.Uint16(head[0x3a:]) != 64 || shoff == 0 || shoff > 1<<32-1-4096*64 || sects < 1 || sects > 4096 || int64(shoff)+64*sects > limit {
		return nil
	}
	if f.tail != 0 {
		f.b = slices.Concat(source[base:base+f.cut], source[f.tail:f.tail+limit-f.cut])
	} else {
		f.b = source[base:]
	}
	f.readLoads(progs)
	f.readSections(int64(shoff), sects)
	if f.tail == 0 {
		size := int64(shoff) + 64*sects
		for _, s := range f.sections {
			if s.counts && s.kind != 8 {
				size = max(size, s.off+s.size)
			}
		}
		if size > 1<<32-1 {
			return nil
		}
		f.b = f.b[:size]
	}
	f.findDebug()
	if f.work() > int64(len(f.b)) {
		return nil
	}
	return f
}

func (f *file) readLoads(progs int64) {
	for i := range progs {
		h := f.b[64+56*i:]
		off, addr, filled, size := le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[32:]), le.Uint64(h[40:])
		limit := uint64(int64(len(f.source)) - f.base)
		if le.Uint32(h) != 1 || addr >= most44 || size >= most44 || addr+size >= most44 || filled > size || off > limit || off+filled > limit {
			continue
		}
		l := load{int64(off), int64(addr), int64(filled), int64(size)}
		if f.tail != 0 && l.off < f.cut && l.off+l.filled > f.cut {
			n := f.cut - l.off
			f.loads = append(f.loads, load{l.off, l.addr, n, n})
			l = load{f.cut, l.addr + n, l.filled - n, l.size - n}
		}
		f.loads = append(f.loads, l)
	}
}

func (f *file) readSections(shoff, n int64) {
	limit := uint64(len(f.b)) // of the source from base on, or of the file
	for i := range n {
		at := shoff + 64*i
		h := f.b[at:]
		off, size, addr := le.Uint64(h[24:]), le.Uint64(h[32:]), le.Uint64(h[16:])
		s := section{kind: le.Uint32(h[4:]), flags: le.Uint64(h[8:]), link: int64(le.Uint32(h[40:])), entry: le.Uint64(h[56:]), number: i, headerOff: at}
		s.counts = s.kind != 0 && addr < most44 && off <= limit && (s.kind == 8 || size <= limit && off+size <= limit)
		if s.counts {
			s.addr, s.off, s.size = int64(addr), int64(off), int64(min(size, most44))
		}
		f.sections = append(f.sections, s)
		f.bases = append(f.bases, f.at(s.off))
	}
	k := int(le.Uint16(f.b[0x3e:]))
	if k < len(f.sections) && f.sections[k].counts && f.sections[k].kind == 3 && f.sections[k].size <= 65536 {
		names := f.b[f.sections[k].off:][:f.sections[k].size]
		for i := range f.sections {
			if at := int64(le.Uint32(f.b[f.sections[i].headerOff:])); at < int64(len(names)) {
				if name, _, ended := bytes.Cut(names[at:], []byte{0}); ended {
					f.sections[i].name = string(name)
				}
			}
		}
	}
	f.lo = most44
	for _, s := range f.sections {
		if s.counts && s.flags&4 != 0 {
			f.lo, f.hi = min(f.lo, s.addr), max(f.hi, s.addr+s.size)
		}
	}
}

// work is how much there is to look at.
func (f *file) work() int64 {
	sum := int64(0)
	for _, s := range f.sections {
		if !s.counts || s.kind == 8 {
			continue
		}
		looked := s.flags&4 != 0 || debugKind(&s) && slices.Contains(debugNames, s.name) || s.flags&2 != 0 && (s.flags&1 != 0 || f.fixed) ||
			slices.Contains([]uint32{2, 4, 5, 6, 11, 14, 15, 19, 0x6ffffff6}, s.kind) ||
			slices.Contains([]string{".eh_frame", ".eh_frame_hdr", ".gopclntab", ".data.rel.ro.gopclntab"}, s.name)
		if looked {
			sum += s.size
		}
	}
	return sum
}

// named is the first section that counts of a name, nil if there is none.
func (f *file) named(name string) *section {
	for i := range f.sections {
		if s := &f.sections[i]; s.counts && s.name == name {
			return s
		}
	}
	return nil
}

// content is a section's bytes, nil if it is not looked into.
func (f *file) content(s *section) []byte {
	if s == nil || !s.counts || s.kind == 8 || s.off+s.size > int64(len(f.b)) {
		return nil
	}
	return f.b[s.off:][:s.size]
}

// at is the place of an offset of the file.
func (f *file) at(off int64) int64 {
	if f.tail != 0 && off >= f.cut {
		return f.tail + off - f.cut
	}
	return f.base + off
}

// loaded is the load that an address is in, nil if none is.
func (f *file) loaded(addr int64) *load {
	for i := range f.loads {
		if l := &f.loads[i]; l.addr <= addr && addr < l.addr+l.size {
			return l
		}
	}
	return nil
}

func (f *file) inMemory(addr int64) bool { return f.loaded(addr) != nil }

// place is where an address lies, 0 if it is not in memory.
func (f *file) place(addr int64) int64 {
	l := f.loaded(addr)
	if l == nil {
		return 0
	}
	if addr-l.addr < l.filled {
		return f.at(l.off) + addr - l.addr
	}
	return unbacked | int64(f.index)<<44 | addr
}

// address is the address of a place.
func (f *file) address(place int64) (int64, bool) {
	if place >= unbacked {
		return place & (most44 - 1), true
	}
	for _, l := range f.loads {
		if at := f.at(l.off); at <= place && place < at+l.filled {
			return l.addr + place - at, true
		}
	}
	return 0, false
}

// offset is where in the file n bytes at an address are.
func (f *file) offset(addr, n int64) (int64, bool) {
	if l := f.loaded(addr); l == nil || addr-l.addr >= l.filled {
		return 0, false
	}
	p := f.place(addr)
	off := p - f.base
	if f.tail != 0 && p >= f.tail && p < f.tail+4096 {
		off = p - f.tail + f.cut
	}
	return off, off >= 0 && off+n <= int64(len(f.b))
}
