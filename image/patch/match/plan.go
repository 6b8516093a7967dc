package match

import (
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
)

// plainGains are the gains of matches in data without references. The larger
// ones are for models that know the old data anyway.
var plainGains = []int{6, 24, 64}

// firstGain is the gain of the first round's matches.
const firstGain = 12

// gains are those of the second round, and farGains those for files that have little
// in common: there telling where a short stretch stems from takes more than packing
// it anew.
var gains, farGains = []int{4, 6}, []int{24, 64}

// Plan proposes layouts for a patch from old to data, of which the caller keeps
// the one that is coded shortest: an estimate of that would choose wrongly.
func Plan(old, data *File) []*delta.Layout {
	if len(old.Elements) == 0 || len(data.Elements) == 0 {
		x := NewMatcher(old.Data, data.Data)
		out := []*delta.Layout{layout(old, data, refine(x.Runs(plainGains[0]), old.Data, data.Data, old.fields()))}
		for _, g := range plainGains {
			out = append(out, layout(old, data, x.Runs(g)))
		}
		return out
	}
	oldView, newView := Views(old, data) // first round
	first := NewMatcher(oldView, newView).Runs(firstGain)

	byLabel, byOldLabel := unique(data.labels), unique(old.labels)

	// Second round: references look like the place where the first round says
	// that their target has gone.
	q := delta.NewPredictor(layout(old, data, first))
	voted := votes(old, data, first)
	oldView, newView = both(func() []byte {
		return old.view(byLabel, func(r *elfref.Ref) uint64 {
			if r.Kind == elfref.Length {
				from, _ := q.Place(r.Base)
				to, _ := q.Place(r.Target)
				return uint64(to + 1 - from)
			}
			if h, ok := old.labels[r.Target]; ok && byOldLabel[h] > 0 {
				if to := byLabel[h]; to > 0 {
					return compact(to)
				}
			}
			if to, ok := voted[r.Target]; ok {
				return compact(to)
			}
			to, _ := q.Place(r.Target)
			return compact(to)
		})
	}, func() []byte {
		return data.view(byOldLabel, func(r *elfref.Ref) uint64 {
			if r.Kind == elfref.Length {
				return uint64(r.Target + 1 - r.Base)
			}
			return compact(r.Target)
		})
	})
	fields := old.fields()
	x := NewMatcher(oldView, newView)
	propose := func(gains []int) []*delta.Layout {
		group := errgroup.Group{}
		out := make([]*delta.Layout, len(gains))
		for i, g := range gains {
			group.Go(func() error {
				out[i] = layout(old, data, refine(x.Runs(g), oldView, newView, fields))
				return nil
			})
		}
		_ = group.Wait()
		return out
	}
	out := propose(gains)
	n := int64(len(data.Data))
	if out[0].Literals(delta.Segment{End: n}) > n/4 {
		out = append(append(out, propose(farGains)...), Rough(old, data))
	}
	return out
}

// Rough proposes a layout of long matches alone. It takes little memory, and
// files of any size.
func Rough(old, data *File) *delta.Layout {
	return layout(old, data, anchors(old.Data, data.Data))
}

// Views are copies of old and new data in which references look like their kind,
// or like the name of their target if both files have it: where two functions
// look the same, they do the same.
func Views(old, data *File) (oldView, newView []byte) {
	byLabel, byOldLabel := unique(data.labels), unique(old.labels)
	plain := func(labels map[elfref.Place]uint64, other map[uint64]elfref.Place) func(r *elfref.Ref) uint64 {
		return func(r *elfref.Ref) uint64 {
			if h, ok := labels[r.Target]; ok && r.Kind != elfref.Length && other[h] > 0 {
				return h&0xffffff<<8 | uint64(r.Class)
			}
			return uint64(r.Class)
		}
	}
	return both(
		func() []byte { return old.view(byLabel, plain(old.labels, byLabel)) },
		func() []byte { return data.view(byOldLabel, plain(data.labels, byOldLabel)) })
}

// votes asks the references of code that the first round has aligned where
// their targets have gone. The answer of more than half of them holds.
func votes(old, data *File, runs []align.Run) map[elfref.Place]elfref.Place {
	type ballot struct {
		to    elfref.Place
		count int
	}
	ballots := map[elfref.Place]ballot{}
	for _, run := range runs {
		each(old, run.Old, run.Old+run.Len, func(a *elfref.Ref) {
			if a.Class > elfref.Immediate {
				return
			}
			at := run.New + a.Off - run.Old
			e := elfref.At(data.Tables.Extents, at)
			if e == nil {
				return
			}
			t := data.Tables.Of(e.Element)
			i := t.From(at - e.From + e.Offset)
			if i >= t.Len() {
				return
			}
			b := t.At(i)
			if b.Off != at || b.Class != a.Class {
				return
			}
			v := ballots[a.Target]
			switch {
			case v.count == 0:
				v = ballot{b.Target, 1}
			case v.to == b.Target:
				v.count++
			default:
				v.count--
			}
			ballots[a.Target] = v
		})
	}
	out := map[elfref.Place]elfref.Place{}
	for from, v := range ballots {
		if v.count > 0 {
			out[from] = v.to
		}
	}
	return out
}

// each calls yield for the references between two offsets; what it points to is
// valid until yield returns.
func each(f *File, from, to int64, yield func(r *elfref.Ref)) {
	var r elfref.Ref
	es := f.Tables.Extents
	for i := sort.Search(len(es), func(i int) bool { return es[i].To > from }); i < len(es) && es[i].From < to; i++ {
		t := f.Tables.Of(es[i].Element)
		for k := t.From(max(from-es[i].From, 0) + es[i].Offset); k < t.Len(); k++ {
			r = t.At(k)
			if r.Off+r.Width > min(to, es[i].To) || r.Off < es[i].From {
				break
			}
			yield(&r)
		}
	}
}

// both does two things at once.
func both(a, b func() []byte) (x, y []byte) {
	done := make(chan struct{})
	go func() { defer close(done); y = b() }()
	x = a()
	<-done
	return x, y
}
