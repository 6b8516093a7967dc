package patch

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
)

// Spent is what bytes of a patch are spent on.
type Spent struct {
	Bytes       int64 `json:"bytes"`       // in all
	Map         int64 `json:"map"`         // where the data stems from
	Differences int64 `json:"differences"` // bytes that differ there, and where
	Literals    int64 `json:"literals"`    // new content
	References  int64 `json:"references"`  // addresses, and what follows from them
}

// SpentOn is what is spent on one file of the result.
type SpentOn struct {
	Path string `json:"path"` // empty for what is no file of an image
	Spent
	Sections []SpentIn `json:"sections,omitempty"` // of an ELF file
}

// SpentIn is what is spent on one section.
type SpentIn struct {
	Name string `json:"name"`
	Spent
}

// cell is how precisely Explain remembers where bits are spent, in bytes.
const cell = 64

// Explain applies a patch as Apply does, and tells what its bytes are spent on,
// by files and their sections: those that cost most come first. What is small
// is rounded to whole bytes only in the end.
func Explain(dst image.File, old Source, p io.Reader, o ApplyOptions) ([]SpentOn, error) {
	var mu sync.Mutex
	cells := map[int64][4]int64{}
	o.account = func(off int64, what delta.What, bits int64) {
		mu.Lock()
		defer mu.Unlock()
		c := cells[off/cell]
		c[what] += bits
		cells[off/cell] = c
	}
	r, err := Apply(dst, old, p, o)
	if err != nil {
		return nil, err
	}
	spans, err := spansOf(dst, r.Size)
	if err != nil {
		return nil, err
	}
	bits := map[*span][4]int64{}
	for at, c := range cells {
		s := find(spans, at*cell)
		sum := bits[s]
		for i := range sum {
			sum[i] += c[i]
		}
		bits[s] = sum
	}
	files := map[string]*SpentOn{}
	totals := map[string][4]int64{}
	for s, b := range bits {
		f := files[s.path]
		if f == nil {
			f = &SpentOn{Path: s.path}
			files[s.path] = f
		}
		sum := totals[s.path]
		for i := range sum {
			sum[i] += b[i]
		}
		totals[s.path] = sum
		if s.section != "" {
			f.Sections = append(f.Sections, SpentIn{s.section, spent(b)})
		}
	}
	var out []SpentOn
	for path, f := range files {
		f.Spent = spent(totals[path])
		slices.SortFunc(f.Sections, func(a, b SpentIn) int {
			return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
		})
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b SpentOn) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path))
	})
	return out, nil
}

// spent turns bits into bytes.
func spent(bits [4]int64) Spent {
	b := func(i delta.What) int64 { return (bits[i] + 4) / 8 }
	return Spent{
		Bytes: (bits[0] + bits[1] + bits[2] + bits[3] + 4) / 8,
		Map:   b(delta.Map), Differences: b(delta.Differences), Literals: b(delta.Literals), References: b(delta.References),
	}
}

// span is a stretch of the result that belongs to a file, or to a section.
type span struct {
	from, to      int64
	path, section string
}

var nowhere = &span{}

// find finds the narrowest span that holds an offset.
func find(spans []*span, off int64) *span {
	// They are sorted by from, the wider ones first.
	i := sort.Search(len(spans), func(i int) bool { return spans[i].from >= off+cell })
	for i--; i >= 0; i-- {
		if s := spans[i]; off < s.to && off+cell > s.from {
			return s
		}
		if spans[i].section == "" && spans[i].to <= off {
			break // files do not overlap
		}
	}
	return nowhere
}

// spansOf finds the files of an image, and the sections of the ELF files.
func spansOf(r io.ReaderAt, size int64) ([]*span, error) {
	var out []*span
	data := size
	if c, err := image.Open(r, size); err == nil {
		data = c.DataSize
	}
	if img, err := erofs.Open(io.NewSectionReader(r, 0, data), data); err == nil {
		if err := img.Walk(func(path string, n *erofs.Inode) error {
			if n.IsRegular() && n.Size > 0 {
				out = append(out, &span{n.Offset, n.Offset + n.Size, path, ""})
			}
			return nil
		}); err != nil {
			out = nil // another's image, in parts
		}
	}
	by := func(a, b *span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) }
	slices.SortFunc(out, by)
	elements, err := elfref.Find(r, size)
	if err != nil {
		return nil, err
	}
	files := len(out)
	for _, e := range elements {
		path := fmt.Sprintf("ELF file at %#x", e.Base)
		if size == e.Size {
			path = ""
		}
		if f := find(out[:files], e.Base); f != nowhere {
			path = f.path
		}
		e.Sections(func(name string, off, n int64) {
			out = append(out, &span{off, off + n, path, name})
		})
	}
	slices.SortFunc(out, by)
	return out, nil
}
