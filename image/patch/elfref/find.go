package elfref

import (
	"cmp"
	"io"
	"slices"
	"sort"
)

// scanStep is the alignment at which ELF files are looked for.
const scanStep = 512

// chunks calls yield for the data piece by piece, each a multiple of scanStep
// bytes unless the data ends there, until yield says that it has had enough.
func chunks(r io.ReaderAt, size int64, yield func(at int64, b []byte) (next int64, err error)) error {
	buf := make([]byte, min(64<<10, size))
	for at := int64(0); at < size; {
		b := buf[:min(int64(len(buf)), size-at)]
		if n, err := r.ReadAt(b, at); n < len(b) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		next, err := yield(at, b)
		if err != nil {
			return err
		}
		at = max(next, at+int64(len(b)))
	}
	return nil
}

// Find looks for ELF files in the first size bytes of r.
func Find(r io.ReaderAt, size int64) ([]*Element, error) {
	tails, err := findTails(r, size)
	if err != nil {
		return nil, err
	}
	var found []*Element
	err = chunks(r, size, func(start int64, b []byte) (int64, error) {
		at := start
		for at-start+headSize <= int64(len(b)) {
			head := b[at-start:][:headSize]
			if head[0] == 0x7f && known(head) && len(found) < maxIndex {
				e, err := parse(r, at, tails[at], size, len(found))
				if err != nil {
					return 0, err
				}
				if e != nil {
					found = append(found, e)
					at += (e.main() + scanStep - 1) / scanStep * scanStep
					continue
				}
			}
			at += scanStep
		}
		return at, nil
	})
	return found, err
}

// tail is where the last bytes of a file of a size are, apart from the others.
type tail struct{ at, size int64 }

// findTails finds, in an EROFS image, the inodes of ELF files whose last bytes
// lie behind the inode: by the file's place, the bytes' place. Other data may
// look like an inode, so what it says must fit the file.
func findTails(r io.ReaderAt, size int64) (map[int64]tail, error) {
	const superblock, inode = 1024, 32
	super := make([]byte, 16)
	if size < 2*blockSize {
		return nil, nil
	}
	if _, err := r.ReadAt(super, superblock); err != nil {
		return nil, err
	}
	if le.Uint32(super) != 0xe0f5e1e2 || super[12] != 12 {
		return nil, nil
	}
	tails := map[int64]tail{}
	err := chunks(r, size, func(start int64, b []byte) (int64, error) {
		for i := int64(0); i+inode <= int64(len(b)); i += inode {
			slot := b[i:]
			// Format 4 and 5: plain with the tail inline, 32 and 64 bytes of inode.
			if slot[0]&^1 != 4 || slot[1] != 0 || slot[5]&0xf0 != 0x80 {
				continue
			}
			base := int64(le.Uint32(slot[16:])) * blockSize
			whole := int64(le.Uint32(slot[8:])) // of the file
			if slot[0] == 5 {
				whole |= int64(le.Uint32(slot[12:])) << 32
			}
			if base == 0 || whole < blockSize || whole > maxElement || base > size-whole/blockSize*blockSize {
				continue
			}
			after := start + i + inode<<(slot[0]&1)
			if n := int64(le.Uint16(slot[2:])); n > 0 {
				after += 12 + 4*(n-1)
			}
			rest := whole % blockSize
			if rest == 0 || after%blockSize+rest > blockSize || after > size-rest {
				continue
			}
			var head [headSize]byte
			if _, err := r.ReadAt(head[:], base); err != nil {
				return 0, err
			}
			if _, twice := tails[base]; !twice && known(head[:]) && headersEnd(head[:]) <= uint64(whole) {
				tails[base] = tail{after, whole}
			}
		}
		return 0, nil
	})
	return tails, err
}

// headersEnd is where the section headers of a file end, by its header; more
// than any file has if that is out of range.
func headersEnd(head []byte) uint64 {
	off := le.Uint64(head[0x28:])
	if off > maxElement {
		return off
	}
	return off + uint64(le.Uint16(head[0x3c:]))*sectSize
}

// main is the size of the file's first piece.
func (e *Element) main() int64 {
	if e.Tail != 0 {
		return min(e.Cut, e.Size)
	}
	return e.Size
}

// Read reads the whole file.
func (e *Element) Read(read func(b []byte, off int64) error) ([]byte, error) {
	data := make([]byte, e.Size)
	if err := read(data[:e.main()], e.Base); err != nil {
		return nil, err
	}
	if e.Tail != 0 {
		return data, read(data[e.main():], e.Tail)
	}
	return data, nil
}

// Extent is a piece of a file: From to To in the data, from Offset in the file.
type Extent struct {
	*Element
	From, To, Offset int64
}

// Extents are the pieces of all elements, in the order of the data.
func Extents(elements []*Element) []Extent {
	var out []Extent
	for _, e := range elements {
		out = append(out, Extent{e, e.Base, e.Base + e.main(), 0})
		if e.Tail != 0 && e.Size > e.Cut {
			out = append(out, Extent{e, e.Tail, e.Tail + e.Size - e.Cut, e.Cut})
		}
	}
	slices.SortStableFunc(out, func(a, b Extent) int { return cmp.Compare(a.From, b.From) })
	// What overlaps the piece before, in a damaged image, is left out.
	kept, end := out[:0], int64(0)
	for _, x := range out {
		if x.From >= end {
			kept, end = append(kept, x), x.To
		}
	}
	return kept
}

// At finds the extent that holds an offset, nil if none does.
func At(extents []Extent, off int64) *Extent {
	i := sort.Search(len(extents), func(i int) bool { return extents[i].To > off })
	if i < len(extents) && extents[i].From <= off {
		return &extents[i]
	}
	return nil
}

// Moved is the element where its pieces stand elsewhere, with another index, in
// the first size bytes of r; nil if it can't be looked into there.
func (e *Element) Moved(r io.ReaderAt, base, tailAt, size int64, index int) (*Element, error) {
	var t tail
	if e.Tail != 0 {
		t = tail{tailAt, e.Size}
	}
	return parse(r, base, t, size, index)
}
