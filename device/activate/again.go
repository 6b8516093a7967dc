package activate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Damaged tells which cryptexes of what launches and the running system get
// have blocks that the kernel refused to read. It needs root.
func Damaged(st *store.Store) ([]present.Content, error) {
	guards, err := Guards(st)
	if err != nil {
		return nil, err
	}
	corrupted := map[linux.Device]present.Content{}
	for _, g := range guards {
		if g.Corrupted {
			corrupted[g.Device] = g.Content
		}
	}
	var list []present.Content
	for _, id := range attachedSets(st) {
		names, err := os.ReadDir(st.SetMounts(id))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("cannot list the mounts of set %s: %w", id, err)
		}
		for _, name := range names {
			device, err := linux.DeviceAt(st.SetMount(id, name.Name()))
			if c, bad := corrupted[device]; err == nil && bad && !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list, nil
}

// attachedSets are the sets whose mounts launches and the running system get,
// each once.
func attachedSets(st *store.Store) []string {
	var ids []string
	for _, which := range []func(*store.Store) (string, error){present.Booted, present.Staged} {
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
	booted, err := present.Booted(st)
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
	g := newGuard(st)
	g.admit = admit
	list, err := g.attachAgain(ctx, st, id, progress)
	if err != nil {
		return err
	}
	defer closeAll(list)
	if err := placeSet(st, id, list); err != nil || !booted {
		return err
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.want.Name
	}
	return exposeSet(st, id, names)
}

// attachAgain attaches a set by its ticket, or what the OS update delivered by
// base.json, as the boot did.
func (g guard) attachAgain(ctx context.Context, st *store.Store, id string, progress progressFunc) ([]attached, error) {
	want, err := trusted(st, id)
	if err != nil {
		return nil, err
	}
	if set, err := st.SetByID(id); err == nil {
		return g.attachSet(ctx, st, set, want, progress)
	}
	list, errs := g.attachAll(ctx, want, storedOrDelivered(st), progress)
	if err := errors.Join(errs...); err != nil {
		closeAll(list)
		return nil, err
	}
	return list, nil
}

// storedOrDelivered opens the state's copy of a baseline's image, else the OS
// update's own file.
func storedOrDelivered(st *store.Store) opener {
	return func(want ticket.Cryptex) (*os.File, error) {
		f, err := st.OpenImage(want.Image)
		if err != nil {
			f, err = os.Open(st.BaseImagePath(want.Name))
		}
		return f, err
	}
}
