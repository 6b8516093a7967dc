package patch

import (
	"bytes"
	"io"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/fold"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/linux"
)

// foldMemory is what members of both files may take when a patch is applied, in
// bytes: with what else it takes, patches of libraries and their documentation
// stay below 64 MiB, all others below 256.
func foldMemory(old, data int64) int64 { return min(12<<20+old+data, 80<<20) }

// largestMember is the largest member that is looked into, in plain bytes.
const largestMember = 64 << 20

// mostMembers of each file are taken apart: so many fit into a header.
const mostMembers = 3000

// find finds the compressed members of a side, but for those in ELF files.
func (s *side) find() {
	data := s.data
	if s.seal != nil {
		data = data[:s.seal.DataSize]
	}
	s.found = fold.Find(data, largestMember, func(at int64) int64 {
		if x := elfref.At(s.file.Tables.Extents, at); x != nil {
			return x.To
		}
		return 0
	})
}

// foldable are two sides with members taken apart.
type foldable struct {
	Fold
	was, is *match.File
	differs int64 // see fold.Choice
}

// foldable chooses the members that a patch from one side to the other takes
// apart, nil if none is worth it; is is what is coded of to.
func (h *Header) foldable(from, to *side, is *match.File) (*foldable, error) {
	c, err := fold.Choose(from.data, to.data, from.found, to.found, fold.Limits{
		Memory: foldMemory(h.SourceSize, h.ResultSize), Steps: h.steps(), Members: mostMembers,
	})
	if err != nil || len(c.To) == 0 {
		return nil, err
	}
	source, err := fold.Unfold(bytes.NewReader(from.data), h.SourceSize, c.From)
	if err != nil {
		return nil, err
	}
	b := linux.Huge[byte](int(source.Size()))
	if _, err := source.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	x := &foldable{Fold: Fold{From: c.From, To: c.To}, differs: c.Differs}
	if x.was, err = match.Read(b); err != nil {
		return nil, err
	}
	x.is, err = unfolded(is, c.To)
	return x, err
}

// choose measures which way is shorter. Where nobody can doubt it, it does not
// measure the other one.
func (t *task) choose(h *Header, from, to *side, was, is *match.File, share int64) (*draft, error) {
	x, err := h.foldable(from, to, is)
	if err != nil {
		return nil, err
	}
	if x == nil {
		return t.draft(was, is, share)
	}
	folded, err := t.draft(x.was, x.is, share/2)
	if err != nil {
		return nil, err
	}
	folded.size += len(x.marshal(nil))
	if int64(folded.size) > x.differs/2 {
		plain, err := t.draft(was, is, share/2)
		if err != nil || plain.size <= folded.size {
			return plain, err
		}
	} else if err := t.step(share / 2 * (100 - analysis)); err != nil {
		return nil, err
	}
	h.Fold = &x.Fold
	return folded, nil
}

// unfolded is data with plain texts in their members' places. ELF files in it
// need not be where they are looked for elsewhere.
func unfolded(is *match.File, members []fold.Member) (*match.File, error) {
	places := fold.NewData(members)
	var plains [][]byte
	b, err := places.Unfolded(is.Data, func(m fold.Member) ([]byte, error) {
		p, err := fold.Plain(is.Data, m)
		plains = append(plains, p)
		return p, err
	})
	if err != nil {
		return nil, err
	}
	var elements []*elfref.Element
	add := func(e *elfref.Element, move func(int64) int64) error {
		moved, err := e.Moved(bytes.NewReader(b), move(e.Base), move(e.Tail), int64(len(b)), len(elements))
		if moved != nil {
			elements = append(elements, moved)
		}
		return err
	}
	i := 0
	inside := func(to int64) error { // in the plain texts before an offset of the file
		for ; i < len(members) && members[i].At < to; i++ {
			in, err := elfref.Find(bytes.NewReader(plains[i]), int64(len(plains[i])))
			if err != nil {
				return err
			}
			for _, e := range in {
				if err := add(e, func(off int64) int64 { return places.Start(i) + off }); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, e := range is.Elements {
		if err := inside(e.Base); err != nil {
			return nil, err
		}
		if err := add(e, places.From); err != nil {
			return nil, err
		}
	}
	if err := inside(int64(len(is.Data))); err != nil {
		return nil, err
	}
	return match.Known(b, elements), nil
}
