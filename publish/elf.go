package publish

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"io"
)

// Limits of what is read from one ELF file.
const (
	maxELF     = 2 << 30 // bytes of the file
	maxSymbols = 1 << 20
	maxNotes   = 64 << 10 // bytes of a note section
	maxBuildID = 64       // bytes
)

// elfFacts are what others may rely on in an ELF file.
type elfFacts struct {
	buildID string          // lower-case hexadecimal, "" if none
	exports map[string]bool // defined dynamic symbols, "name@version"
}

// readELF reads an ELF file's facts. What is no ELF file, or one that the
// standard library can't read, has none: it is then compared as bytes only.
func readELF(r *io.SectionReader) (facts elfFacts, ok bool) {
	var magic [4]byte
	if r.Size() > maxELF {
		return facts, false
	}
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return facts, false
	}
	// The publisher's own files, but a broken one must not end the program.
	defer func() {
		if recover() != nil {
			facts, ok = elfFacts{}, false
		}
	}()
	f, err := elf.NewFile(r)
	if err != nil {
		return facts, false
	}
	facts.exports = map[string]bool{}
	if symbols, err := f.DynamicSymbols(); err == nil && len(symbols) <= maxSymbols {
		for _, s := range symbols {
			if exported(s) {
				name := s.Name
				if s.Version != "" {
					name += "@" + s.Version
				}
				facts.exports[name] = true
			}
		}
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOTE || s.Size > maxNotes {
			continue
		}
		if data, err := s.Data(); err == nil {
			if id := buildID(f, data); id != "" {
				facts.buildID = id
				break
			}
		}
	}
	return facts, true
}

func exported(s elf.Symbol) bool {
	bind, vis := elf.ST_BIND(s.Info), elf.ST_VISIBILITY(s.Other)
	return s.Name != "" && s.Section != elf.SHN_UNDEF && (bind == elf.STB_GLOBAL || bind == elf.STB_WEAK) &&
		(vis == elf.STV_DEFAULT || vis == elf.STV_PROTECTED)
}

// buildID finds the GNU build-id among notes: lengths of name and content, a
// type, then both, each padded to 4 bytes.
func buildID(f *elf.File, notes []byte) string {
	const gnuBuildID = 3
	for len(notes) >= 12 {
		name := int64(f.ByteOrder.Uint32(notes))
		desc := int64(f.ByteOrder.Uint32(notes[4:]))
		kind := f.ByteOrder.Uint32(notes[8:])
		start := 12 + (name+3)&^3
		end := start + (desc+3)&^3
		if name > maxNotes || desc > maxNotes || start+desc > int64(len(notes)) {
			return ""
		}
		if kind == gnuBuildID && bytes.Equal(notes[12:12+name], []byte("GNU\x00")) && desc <= maxBuildID {
			return hex.EncodeToString(notes[start : start+desc])
		}
		notes = notes[min(end, int64(len(notes))):]
	}
	return ""
}
