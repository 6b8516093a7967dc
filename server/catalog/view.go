package catalog

import (
	"crypto/sha512"
	"fmt"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/ticket"
)

// View is one verified state of the catalog, ready for questions. It never
// changes; a new state is a new View.
type View struct {
	Version int64     // of the timestamp metadata: rises with every state
	Expires time.Time // when the state's freshest signature ends

	Recall  release.RecallList
	Advice  release.AdviceList
	Rollout release.Rollout

	releases  []release.Manifest // by id
	baselines map[release.Digest]release.Baseline
	sets      map[setKey]*Set
}

type setKey struct {
	product  string
	baseline release.Digest
	release  string
}

// Set is one set that may be authorised: a baseline, or an improvement on it.
type Set struct {
	Product   string
	Baseline  release.Digest
	Release   string // "" for the baseline itself
	Cryptexes []ticket.Cryptex
	Content   [48]byte // digest of Text
}

// Text is the set as the public log keeps it.
func (s *Set) Text() []byte {
	return setlog.Text(ticket.Claims{Product: s.Product, Baseline: s.Baseline, Release: s.Release, Cryptexes: s.Cryptexes})
}

// NewView combines verified documents into a View. An improvement whose
// baseline is not among the baselines, or doesn't fit it, is left out and
// named in the returned list: it can't be signed, and the rest must go on.
func NewView(baselines []release.Baseline, releases []release.Manifest) (*View, []error) {
	v := &View{
		releases:  releases,
		baselines: map[release.Digest]release.Baseline{},
		sets:      map[setKey]*Set{},
	}
	var bad []error
	for _, b := range baselines {
		d := b.Digest()
		v.baselines[d] = b
		v.add(b.Product, d, "", b.Cryptexes)
	}
	for _, m := range releases {
		b, ok := v.baselines[m.Baseline]
		if !ok {
			bad = append(bad, fmt.Errorf("cannot authorise %s: its baseline %.12s… is not in the catalog", m.ID, m.Baseline))
			continue
		}
		images, err := m.Set(b)
		if err != nil {
			bad = append(bad, fmt.Errorf("cannot authorise %s: %w", m.ID, err))
			continue
		}
		v.add(m.Product, m.Baseline, m.ID, images)
	}
	return v, bad
}

func (v *View) add(product string, baseline release.Digest, id string, images []release.Image) {
	s := &Set{Product: product, Baseline: baseline, Release: id}
	for _, c := range images {
		s.Cryptexes = append(s.Cryptexes, ticket.Cryptex{
			Name: c.Name, Subtype: uint8(c.Subtype), Image: c.Digest, Seal: c.Seal.Digest, TrustCache: c.TrustCache, Root: c.Seal.Root,
		})
	}
	s.Content = sha512.Sum384(s.Text())
	v.sets[setKey{product, baseline, id}] = s
}

// Set finds what a ticket for a release ("" for the baseline itself) on a
// baseline contains.
func (v *View) Set(product string, baseline release.Digest, id string) (*Set, bool) {
	s, ok := v.sets[setKey{product, baseline, id}]
	return s, ok
}

// Sets calls do for every set that may be authorised, in no order.
func (v *View) Sets(do func(*Set)) {
	for _, s := range v.sets {
		do(s)
	}
}

// Releases are the published improvements by id, recalled ones among them.
func (v *View) Releases() []release.Manifest { return v.releases }

// Release finds a published improvement.
func (v *View) Release(id string) (release.Manifest, bool) {
	for _, m := range v.releases {
		if m.ID == id {
			return m, true
		}
	}
	return release.Manifest{}, false
}

// Baseline finds a published baseline.
func (v *View) Baseline(d release.Digest) (release.Baseline, bool) {
	b, ok := v.baselines[d]
	return b, ok
}

// Takes reports whether a recall leads devices from one release to another:
// whoever lost the first may have the second, whatever its ring says.
func (v *View) Takes(from, to string) bool {
	return from != to && v.Recall.Landing(from) == to
}
