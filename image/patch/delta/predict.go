package delta

import (
	"sort"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/elfref"
)

// How sure a prediction is. The states are contexts of the coding.
const (
	covered   = iota // a run covers the target
	uncovered        // none does: the nearest run leads
	learned          // an earlier reference to the same target told
	unbacked         // the target has no bytes
	unknown          // nothing is predicted: the old field is
	states
)

// Predictor says where the target of an old reference is in the new data. It
// learns from every reference that it was wrong about.
type Predictor struct {
	projection *align.Projection
	fixes      []Fix // the layout's
	learned    places
	near       places      // by neighbourhood: how far places moved
	pairs      map[int]int // old element → new element
}

// NewPredictor returns a predictor that has learned nothing yet.
func NewPredictor(l *Layout) *Predictor {
	q := &Predictor{
		projection: align.Project(l.Runs),
		fixes:      l.Fixes,
		pairs:      map[int]int{},
	}
	for i, e := range l.Elements {
		if _, twice := q.pairs[e.Old]; !twice {
			q.pairs[e.Old] = i
		}
	}
	return q
}

// Base is where a place that fields count from has gone.
func (q *Predictor) Base(p elfref.Place) elfref.Place {
	// The last of those that speak of it.
	if i := sort.Search(len(q.fixes), func(i int) bool { return q.fixes[i].From > p }) - 1; i >= 0 && q.fixes[i].From == p {
		return q.fixes[i].To
	}
	to, _ := q.Place(p)
	return to
}

// neighbourhoods are the sizes, as powers of two, within which unbacked places
// are taken to move together.
var neighbourhoods = [...]uint{4, 8, 12, 20}

// nearKey is the key of a place's neighbourhood.
func nearKey(p elfref.Place, size uint) elfref.Place {
	return p>>size ^ int64(size)<<56
}

// Place predicts where a place has gone, and how sure that is.
func (q *Predictor) Place(p elfref.Place) (elfref.Place, int) {
	if to, ok := q.learned.get(p); ok {
		return to, learned
	}
	if p < elfref.Unbacked {
		to, ok := q.projection.At(p)
		if ok {
			return to, covered
		}
		if shift, ok := q.near.get(nearKey(p, 5)); ok {
			return p + shift, uncovered
		}
		return to, uncovered
	}
	for _, size := range neighbourhoods {
		if shift, ok := q.near.get(nearKey(p, size)); ok {
			return p + shift, unbacked
		}
	}
	old := elfref.Index(p)
	if i, ok := q.pairs[old]; ok {
		return elfref.WithIndex(p, i), unbacked
	}
	return p, unbacked
}

// learn takes to heart where a place really went.
func (q *Predictor) learn(p, actual, predicted elfref.Place, state int) {
	if predicted == actual && state != uncovered && state != unbacked {
		return
	}
	q.learned.set(p, actual)
	if p < elfref.Unbacked {
		q.near.set(nearKey(p, 5), actual-p)
		return
	}
	for _, size := range neighbourhoods {
		q.near.set(nearKey(p, size), actual-p)
	}
}

// Learned is how many places and neighbourhoods a predictor has learned about.
func (q *Predictor) Learned() int { return q.learned.n + q.near.n }
