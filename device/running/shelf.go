package running

import (
	"errors"
	"fmt"
	"os"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// shelf knows the sets that images belong to.
type shelf struct {
	staged map[string]store.Digest // per cryptex, what a launch gets
	base   map[string]store.Digest
	target store.Set   // the staged one; empty if the state doesn't know it
	sets   []store.Set // every set in the state
}

// newShelf reads them. Sets that can't be read are left out: what runs is told
// all the same.
func newShelf(st *store.Store) (*shelf, error) {
	s := &shelf{staged: map[string]store.Digest{}, base: map[string]store.Digest{}}
	if b, err := activate.ReadBaseline(st); err == nil {
		for _, c := range b.Cryptexes {
			s.base[c.Name] = store.Digest(c.Digest)
		}
	}
	ids, err := st.Sets()
	if err != nil {
		return nil, fmt.Errorf("cannot list the sets: %w", err)
	}
	for _, id := range ids {
		if set, err := st.SetByID(id); err == nil {
			s.sets = append(s.sets, set)
		}
	}
	staged, err := present.Staged(st)
	if err != nil || staged == "" {
		return s, err
	}
	s.target, _ = st.SetByID(staged)
	return s, s.readStaged(st, staged)
}

// readStaged finds what is really mounted for launches, whatever the state
// says of it.
func (s *shelf) readStaged(st *store.Store, id string) error {
	devices, err := present.Devices(st)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(st.SetMounts(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the staged set: %w", err)
	}
	for _, name := range names {
		d, err := linux.DeviceAt(st.SetMount(id, name.Name()))
		if err != nil {
			return err
		}
		if c, ok := devices[d]; ok {
			s.staged[c.Name] = c.Image
		}
	}
	return nil
}

// judge says which improvement brought an image and how it stands to what a
// launch gets.
func (s *shelf) judge(c present.Content) (release, label string, state State) {
	active := s.staged[c.Name] == c.Image
	set, known := s.find(c, active)
	switch {
	case active:
		state = Active
	case s.base[c.Name] == c.Image:
		state = Base
	default:
		state = Older
	}
	switch {
	case !known:
		label = "unknown"
	case set.IsBaseline():
		label = "base"
	default:
		release, label = set.Release, set.Label
	}
	return release, label, state
}

// find picks the set that an image is best called after: what a launch gets,
// if it is that; the baseline, if it is that; else the newest that has it.
func (s *shelf) find(c present.Content, active bool) (store.Set, bool) {
	if active && s.target.ID != "" {
		return s.target, true
	}
	if s.base[c.Name] == c.Image {
		return store.Set{}, true
	}
	var best store.Set
	for _, set := range s.sets {
		if x, ok := set.Cryptex(c.Name); ok && x.Image == c.Image && (best.ID == "" || set.Level > best.Level) {
			best = set
		}
	}
	return best, best.ID != ""
}
