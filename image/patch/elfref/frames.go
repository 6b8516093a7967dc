package elfref

import "encoding/binary"

// cie is what a common information entry says about its FDEs' pointers.
type cie struct {
	code, data byte // DWARF encodings
	augmented  bool
}

// pcrel4 is the DWARF pointer encoding that linkers write: relative, 4 bytes.
const pcrel4 = 0x1b

// frames finds the pointers of .eh_frame.
func (c *collector) frames(s *section, d []byte) {
	cies := map[int64]cie{}
	spilled := int64(0)
	for i := int64(0); i+8 <= int64(len(d)); {
		if i-spilled >= pieceSize {
			c.spill(false)
			spilled = i
		}
		n := int64(le.Uint32(d[i:]))
		end := i + 4 + n
		if n < 4 || end > int64(len(d)) {
			return
		}
		entry := d[i:end]
		if id := int64(le.Uint32(entry[4:])); id == 0 {
			cies[i] = c.cie(s.off+i, entry)
		} else if from, ok := cies[i+4-id]; ok && from.code == pcrel4 && len(entry) >= 16 {
			c.fde(s, i, entry, from)
		}
		i = end
	}
}

// uleb skips a LEB128 number; at the end of b it stays there.
func uleb(b []byte) []byte {
	_, n := binary.Uvarint(b)
	if n <= 0 {
		return nil
	}
	return b[n:]
}

// cie reads a common information entry that stands at an offset of the file.
func (c *collector) cie(at int64, entry []byte) cie {
	out := cie{data: 0xff}
	b := entry[8:]
	if len(b) == 0 {
		return out
	}
	aug := text(b, 1)
	b = b[min(2+len(aug), len(b)):]
	b = uleb(uleb(uleb(b))) // alignments and return register
	if aug == "" || aug[0] != 'z' {
		return out
	}
	out.augmented = true
	b = uleb(b)
	for _, ch := range aug[1:] {
		if len(b) == 0 {
			return out
		}
		switch ch {
		case 'R':
			out.code, b = b[0], b[1:]
		case 'L':
			out.data, b = b[0], b[1:]
		case 'P':
			enc := b[0]
			b = b[1:]
			if enc&0xf != 0xb { // not 4 bytes
				b = b[min(8, len(b)):]
				break
			}
			if len(b) < 4 {
				return out
			}
			c.add(at+int64(len(entry)-len(b)), FrameCode, 0)
			b = b[4:]
		}
	}
	return out
}

// fde reads a frame description entry at offset i of the section.
func (c *collector) fde(s *section, i int64, entry []byte, from cie) {
	at := s.off + i
	c.add(at+4, FrameCIE, 0)
	start := s.addr + i + 8 + int64(int32(le.Uint32(entry[8:])))
	if c.in(start) {
		c.add(at+8, FrameCode, 0)
		if le.Uint32(entry[12:]) != 0 {
			c.add(at+12, FrameLength, 0)
		}
	}
	if b := entry[16:]; from.augmented && from.data == pcrel4 {
		if b = uleb(b); len(b) >= 4 && le.Uint32(b) != 0 {
			c.add(at+int64(len(entry)-len(b)), FrameData, 0)
		}
	}
}

// frameIndex finds the pointers of .eh_frame_hdr.
func (c *collector) frameIndex(s *section) {
	if s.size < 12 || s.off+s.size > c.Size {
		return
	}
	if d := c.near(s.off, 12); d[1] != pcrel4 || d[2] != 3 || d[3] != 0x3b {
		return
	}
	c.add(s.off+4, FrameCode, 0)
	for i := int64(12); i+8 <= s.size; i += 8 {
		if i%pieceSize < 8 {
			c.spill(false)
		}
		c.add(s.off+i, FrameIndex, int64(s.index))
		c.add(s.off+i+4, FrameEntry, int64(s.index))
	}
}
