package trustcache

import (
	"encoding/binary"
	"errors"
	"io"
)

// Limits of what is read of an ELF file to tell its kind. Beyond them the
// answer falls back to the file's type, it never fails.
const (
	maxSegments = 128      // program headers looked at
	maxDynamic  = 64 << 10 // bytes of the dynamic section looked at
)

// KindOf tells whether a regular file belongs in the list, and as what. perm
// is the file's permission bits; any executable bit counts. The answer depends
// on nothing but perm and the file's bytes, and is part of the format: an ELF
// file of type DYN is a program if its dynamic section says so (DF_1_PIE), or
// if it names an interpreter and has no soname; else it is a library. Such a file
// needs no executable bit to be listed, unless DF_1_PIE says that it is a program
// and nothing else: then only the dynamic linker, told to run it, would get around
// the missing bit. The only errors are r's.
func KindOf(perm uint32, r io.ReaderAt, size int64) (Kind, bool, error) {
	mayRun := perm&0o111 != 0
	head := make([]byte, min(64, size))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, false, err
	}
	e, isELF := elfHeader(head)
	switch {
	case isELF && e.typ == etDyn:
		kind, pie, err := e.dynKind(r, size)
		if err != nil || pie && !mayRun {
			return 0, false, err
		}
		return kind, true, nil
	case !mayRun:
		return 0, false, nil
	case isELF:
		return Executable, true, nil
	case len(head) >= 2 && head[0] == '#' && head[1] == '!':
		return Script, true, nil
	}
	return Other, true, nil
}

// Numbers of the ELF format: System V ABI, and DF_1_PIE of the GNU linkers.
const (
	etDyn     = 3
	ptDynamic = 2
	ptInterp  = 3
	dtNull    = 0
	dtSoname  = 14
	dtFlags1  = 0x6ffffffb
	df1PIE    = 0x08000000
)

// elf is what is needed of an ELF header.
type elf struct {
	order binary.ByteOrder
	wide  bool // 64-bit
	typ   uint16
	phoff uint64
	phnum int
}

func elfHeader(b []byte) (elf, bool) {
	if len(b) < 52 || string(b[:4]) != "\x7fELF" {
		return elf{}, false
	}
	e := elf{order: binary.LittleEndian, wide: b[4] == 2}
	if b[5] == 2 {
		e.order = binary.BigEndian
	}
	e.typ = e.order.Uint16(b[16:])
	if e.wide {
		if len(b) < 64 {
			return elf{}, false
		}
		e.phoff = e.order.Uint64(b[32:])
		e.phnum = int(e.order.Uint16(b[56:]))
	} else {
		e.phoff = uint64(e.order.Uint32(b[28:]))
		e.phnum = int(e.order.Uint16(b[44:]))
	}
	return e, true
}

// word reads a class-sized number.
func (e elf) word(b []byte) uint64 {
	if e.wide {
		return e.order.Uint64(b)
	}
	return uint64(e.order.Uint32(b))
}

// dynKind tells programs from libraries among files of type DYN.
func (e elf) dynKind(r io.ReaderAt, size int64) (kind Kind, pie bool, err error) {
	entry, offsetAt, sizeAt := 32, 4, 16
	if e.wide {
		entry, offsetAt, sizeAt = 56, 8, 32
	}
	headers, err := within(r, size, e.phoff, uint64(min(e.phnum, maxSegments)*entry))
	if err != nil {
		return 0, false, err
	}
	var interp, found, soname bool
	for ; len(headers) >= entry; headers = headers[entry:] {
		switch e.order.Uint32(headers) {
		case ptInterp:
			interp = true
		case ptDynamic:
			if found {
				continue
			}
			found = true
			dyn, err := within(r, size, e.word(headers[offsetAt:]), min(e.word(headers[sizeAt:]), maxDynamic))
			if err != nil {
				return 0, false, err
			}
			soname, pie = e.dynamic(dyn)
		}
	}
	if pie || interp && !soname {
		return Executable, pie, nil
	}
	return Library, false, nil
}

// dynamic looks for the soname and DF_1_PIE in a dynamic section.
func (e elf) dynamic(b []byte) (soname, pie bool) {
	w := 4
	if e.wide {
		w = 8
	}
	for ; len(b) >= 2*w; b = b[2*w:] {
		switch e.word(b) {
		case dtNull:
			return soname, pie
		case dtSoname:
			soname = true
		case dtFlags1:
			pie = e.word(b[w:])&df1PIE != 0
		}
	}
	return soname, pie
}

// within reads n bytes at an offset, fewer where the file ends before.
func within(r io.ReaderAt, size int64, offset, n uint64) ([]byte, error) {
	if offset >= uint64(size) {
		return nil, nil
	}
	b := make([]byte, min(n, uint64(size)-offset))
	if _, err := r.ReadAt(b, int64(offset)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
