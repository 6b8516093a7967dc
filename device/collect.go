package device

import (
	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
)

// tidy throws away what no slot and no hold needs: sets, images, patches and
// finished downloads. What a process still uses stays (activate.InUse). Journal
// and history are not touched.
func (d *Device) tidy() error {
	if err := d.Store.RemoveDownloads(); err != nil {
		return err
	}
	keepSet, keepImage, keepPatch := map[string]bool{}, map[store.Digest]bool{}, map[string]bool{}
	for _, slot := range store.Slots {
		set, err := d.Store.Slot(slot)
		if err != nil {
			continue
		}
		keepSet[set.ID] = true
		if slot == store.Previous {
			continue // kept for eyes; its ticket is dead, its images may go
		}
		for _, c := range set.Cryptexes {
			keepImage[c.Image] = true
		}
		if set.Release == "" {
			continue
		}
		keepPatch[set.Release] = true
		// A recall leads back to the improvement before: its patches stay.
		if m, err := d.manifest(set.Release); err == nil && m.Previous != "" {
			keepPatch[m.Previous] = true
		}
	}
	holds, err := d.Holds()
	if err != nil {
		return err
	}
	if b, err := d.baseline(); err == nil {
		for _, h := range holds {
			if h.Reason == "removed" && h.Baseline == b.Digest() {
				keepPatch[h.Release] = true // reapplying needs no download
			}
		}
	}
	used, err := activate.InUse(d.Store)
	if err != nil {
		return err
	}
	mounted := d.usedSets()
	sets, err := d.Store.Sets()
	if err != nil {
		return err
	}
	for _, id := range sets {
		if !keepSet[id] && !mounted[id] {
			if err := d.Store.RemoveSet(id); err != nil {
				return err
			}
		}
	}
	images, err := d.Store.Images()
	if err != nil {
		return err
	}
	for _, i := range images {
		if !keepImage[i] && !used[i] {
			if err := d.Store.RemoveImage(i); err != nil {
				return err
			}
		}
	}
	patches, err := d.Store.Patches()
	if err != nil {
		return err
	}
	for _, rel := range patches {
		if !keepPatch[rel] {
			if err := d.Store.RemovePatches(rel); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeUnused deletes an image unless a slot's set or a process has it.
func (d *Device) removeUnused(digest store.Digest) error {
	for _, slot := range store.Slots {
		set, err := d.Store.Slot(slot)
		if err != nil || slot == store.Previous {
			continue
		}
		for _, c := range set.Cryptexes {
			if c.Image == digest {
				return nil
			}
		}
	}
	used, err := activate.InUse(d.Store)
	if err != nil || used[digest] {
		return err
	}
	return d.Store.RemoveImage(digest)
}

// usedSets are the sets whose mounts launches and the running system get.
func (d *Device) usedSets() map[string]bool {
	used := map[string]bool{}
	for _, id := range []func(*store.Store) (string, error){present.Staged, present.Booted} {
		if set, err := id(d.Store); err == nil && set != "" {
			used[set] = true
		}
	}
	return used
}
