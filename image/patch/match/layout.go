package match

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
)

// layout completes runs: which ELF file stems from which, and where the places
// that fields count from have gone.
func layout(old, data *File, runs []align.Run) *delta.Layout {
	l := &delta.Layout{Runs: runs}
	stems := pair(old, data, runs)
	for i, e := range data.Elements {
		l.Elements = append(l.Elements, delta.Element{Base: e.Base, Cut: e.Cut, Tail: e.Tail, Old: stems[i]})
	}
	p := align.Project(runs)
	fixed := map[elfref.Place]bool{}
	for i, e := range data.Elements {
		if stems[i] < 0 {
			continue
		}
		from := old.Elements[stems[i]]
		places := map[string]elfref.Place{}
		for k, name := range e.Names {
			if _, twice := places[name]; !twice {
				places[name] = e.Bases[k]
			}
		}
		for k, name := range from.Names {
			to, ok := places[name]
			if !ok || !counts(name) || fixed[from.Bases[k]] {
				continue
			}
			if at, _ := p.At(from.Bases[k]); at != to {
				fixed[from.Bases[k]] = true
				l.Fixes = append(l.Fixes, delta.Fix{From: from.Bases[k], To: to})
			}
		}
	}
	slices.SortFunc(l.Fixes, func(a, b delta.Fix) int { return cmp.Compare(a.From, b.From) })
	return l
}

// counts says whether fields count from the start of a section.
func counts(name string) bool {
	switch name {
	case ".eh_frame_hdr", ".dynsym", ".dynstr", ".symtab", ".strtab", ".rela.plt":
		return true
	}
	return strings.HasPrefix(name, "go ") || strings.HasPrefix(name, ".debug_")
}

// pair finds for each new ELF file the old one that most of it stems from.
func pair(old, data *File, runs []align.Run) []int {
	type edge struct{ from, to int }
	votes := map[edge]int64{}
	for _, r := range runs {
		e := elfref.At(data.Tables.Extents, r.New+r.Len/2)
		o := elfref.At(old.Tables.Extents, r.Old+r.Len/2)
		if e != nil && o != nil {
			votes[edge{o.Index, e.Index}] += r.Len
		}
		// A long run may hold several files.
		i, _ := slices.BinarySearchFunc(data.Elements, r.New, func(e *elfref.Element, at int64) int { return cmp.Compare(e.Base, at) })
		for _, e := range data.Elements[i:] {
			if e.Base+e.Size > r.New+r.Len {
				break
			}
			if o := elfref.At(old.Tables.Extents, e.Base-r.New+r.Old); o != nil {
				votes[edge{o.Index, e.Index}] += e.Size
			}
		}
	}
	out := make([]int, len(data.Elements))
	most := make([]int64, len(data.Elements))
	for i := range out {
		out[i] = -1
	}
	for k, v := range votes {
		if v > most[k.to] || v == most[k.to] && k.from < out[k.to] {
			most[k.to], out[k.to] = v, k.from
		}
	}
	return out
}
