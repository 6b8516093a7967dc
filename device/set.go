package device

import (
	"errors"
	"fmt"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/ticket"
)

// state is what the slots hold, read once at the start of a journey. A slot
// that is empty or can't be read is nil.
type state struct {
	base, current, next *store.Set
	baseline            release.Baseline // of the operating system that is installed now
	digest              release.Digest   // of that baseline
}

func (d *Device) state() (state, error) {
	var st state
	var err error
	if st.baseline, err = d.baseline(); err != nil {
		return st, err
	}
	st.digest = st.baseline.Digest()
	for slot, p := range map[store.Slot]**store.Set{store.Base: &st.base, store.Current: &st.current, store.Next: &st.next} {
		set, err := d.Store.Slot(slot)
		if err == nil {
			*p = &set
		} else if !errors.Is(err, store.ErrEmpty) {
			return st, err
		}
	}
	return st, nil
}

// inert says whether a set belongs to an operating system that is no longer
// installed.
func (st state) inert(s *store.Set) bool { return s != nil && release.Digest(s.Baseline) != st.digest }

// running is the release that this device has or is about to have: what is
// staged, else what is current; "" for the baseline.
func (st state) running() *store.Set {
	if st.next != nil && !st.inert(st.next) {
		return st.next
	}
	if st.current != nil && !st.inert(st.current) {
		return st.current
	}
	return nil
}

// setOf is the set of the given images, with the ticket that authorises it.
func setOf(b release.Baseline, rel string, level int, images []release.Image, der []byte) store.Set {
	set := store.Set{
		ID: store.SetID(rel, der), Product: b.Product, OSVersion: b.OSVersion, Baseline: store.Digest(b.Digest()),
		Release: rel, Label: release.Label(level), Level: level, Ticket: der,
	}
	for _, i := range images {
		set.Cryptexes = append(set.Cryptexes, store.Cryptex{
			Name: i.Name, Subtype: uint8(i.Subtype), Image: store.Digest(i.Digest), Size: i.Size,
			Seal:       store.Seal{Root: store.Sum(i.Seal.Root), Salt: store.Sum(i.Seal.Salt), DataBlocks: uint64(i.Seal.DataBlocks)},
			TrustCache: store.Digest(i.TrustCache),
		})
	}
	return set
}

// claims are what a ticket must say about those images.
func claims(images []release.Image) []ticket.Cryptex {
	list := make([]ticket.Cryptex, len(images))
	for n, i := range images {
		list[n] = ticket.Cryptex{
			Name: i.Name, Subtype: uint8(i.Subtype), Image: i.Digest, Seal: i.Seal.Digest,
			TrustCache: i.TrustCache, Root: i.Seal.Root,
		}
	}
	return list
}

// name is how eyes see a set: "42.3 (b)", or "42.3 base".
func setName(s store.Set) string {
	if s.IsBaseline() {
		return release.DisplayVersion(s.OSVersion) + " base"
	}
	return release.DisplayVersion(s.OSVersion) + " " + s.Label
}

// manifest is a release's manifest, from what was kept with its patches, so
// that it works offline.
func (d *Device) manifest(rel string) (release.Manifest, error) {
	data, err := d.Store.Manifest(rel)
	if err != nil {
		return release.Manifest{}, err
	}
	m, err := release.ParseManifest(data)
	if err == nil && m.ID != rel {
		err = fmt.Errorf("the manifest kept for %s is of %s", rel, m.ID)
	}
	return m, err
}
