package activate

import (
	"context"
	"fmt"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// Damaged tells which cryptexes of what launches and the running system get
// have blocks that the kernel refused to read. It needs root.
func Damaged(st *store.Store) ([]Content, error) {
	guards, err := Guards(st)
	if err != nil {
		return nil, err
	}
	corrupted := map[linux.Device]bool{}
	for _, g := range guards {
		corrupted[g.Device] = g.Corrupted
	}
	var list []Content
	seen := map[Content]bool{}
	for _, id := range attachedSets(st) {
		set, err := st.SetByID(id)
		if err != nil {
			continue // what was delivered is in no set: its device is named below
		}
		for _, c := range set.Cryptexes {
			device, err := linux.DeviceAt(st.SetMount(id, c.Name))
			if content := (Content{c.Name, c.Image}); err == nil && corrupted[device] && !seen[content] {
				seen[content] = true
				list = append(list, content)
			}
		}
	}
	return list, nil
}

// attachedSets are the sets whose mounts launches and the running system get,
// each once.
func attachedSets(st *store.Store) []string {
	var ids []string
	for _, which := range []func(*store.Store) (string, error){Booted, Staged} {
		if id, err := which(st); err == nil && id != "" && (len(ids) == 0 || ids[0] != id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Again attaches what is attached anew, from files that were repaired: the
// same content by the same tickets, verified whole. Launches and whoever opens a
// file from then on get it; who has a file open keeps what he has. The caller
// holds the state's lock. admit is as in StageAdmitted, nil for nobody.
func Again(ctx context.Context, st *store.Store, admit Admit, progress func(done, total int64)) error {
	booted, err := Booted(st)
	if err != nil {
		return err
	}
	for _, id := range attachedSets(st) {
		if err := again(ctx, st, id, id == booted, admit, progress); err != nil {
			return fmt.Errorf("cannot attach the set %s anew: %w", id, err)
		}
	}
	return nil
}

func again(ctx context.Context, st *store.Store, id string, booted bool, admit Admit, progress progressFunc) error {
	set, err := st.SetByID(id)
	if err != nil {
		return err
	}
	want, err := authorised(st, set)
	if err != nil {
		return err
	}
	g := newGuard(st)
	g.admit = admit
	list, err := g.attachSet(ctx, st, set, want, progress)
	if err != nil {
		return err
	}
	defer closeAll(list)
	if err := placeSet(st, id, list); err != nil {
		return err
	}
	if !booted {
		return nil
	}
	var names []string
	for _, c := range set.Cryptexes {
		names = append(names, c.Name)
	}
	return exposeSet(st, id, names)
}
