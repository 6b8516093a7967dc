package activate

import (
	"context"
	"errors"
	"os"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Stage verifies a set and mounts it, so that apps launched from now on get
// it. Nothing that runs is touched. The ticket must be for the nonce that was
// prepared for the next set (or, once confirmed, the current one). progress
// may be nil; it hears the bytes verified. The caller holds the state's lock.
//
// If anything is refused the set staged before stays. Staging a set again
// verifies it again. Undo is Unstage.
//
// What then does is done when launches get the new set and the one before is
// still mounted: whoever names its mounts is told to name others.
func Stage(ctx context.Context, st *store.Store, set store.Set, progress func(done, total int64), then ...func() error) error {
	return newGuard(st).stage(ctx, st, set, progress, then)
}

func (g guard) stage(ctx context.Context, st *store.Store, set store.Set, progress func(done, total int64), then []func() error) error {
	want, err := authorised(st, set)
	if err != nil {
		return err
	}
	if err := g.sweep(); err != nil {
		return err
	}
	list, err := g.attachSet(ctx, st, set, want, progress)
	if err != nil {
		return err
	}
	defer closeAll(list)
	if err := placeSet(st, set.ID, list); err != nil {
		return err
	}
	return stage(st, set.ID, then)
}

// Unstage makes launches get the booted set again and takes the staged one's
// mounts away. Apps that were launched with it keep it. It is idempotent. then
// is as in Stage.
func Unstage(st *store.Store, then ...func() error) error {
	booted, err := present.Booted(st)
	if err != nil {
		return err
	}
	return stage(st, booted, then)
}

// stage switches the link for launches, then removes what neither a launch nor
// the running system gets any more. A launch that has just read the old link
// notices and reads it again.
func stage(st *store.Store, id string, then []func() error) error {
	booted, err := present.Booted(st)
	if err != nil {
		return err
	}
	if id == "" {
		err = os.Remove(st.StagedPath())
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	} else {
		err = pointTo(st.StagedPath(), "sets/"+id)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range then {
		errs = append(errs, f())
	}
	return errors.Join(append(errs, sweep(st, id, booted))...)
}

// authorised verifies the ticket of a set that is staged or in force.
func authorised(st *store.Store, set store.Set) ([]ticket.Cryptex, error) {
	baseline, err := ReadBaseline(st)
	if err != nil {
		return nil, err
	}
	a, err := readAuthority(st, baseline)
	if err != nil {
		return nil, err
	}
	nonce, err := a.stagedNonce(set)
	if err != nil {
		return nil, err
	}
	return a.authorise(set, nonce)
}

// Verify checks a set as staging it would, without mounting anything: its
// ticket for the nonces in force, and every byte of its images.
func Verify(ctx context.Context, st *store.Store, set store.Set, progress func(done, total int64)) error {
	want, err := authorised(st, set)
	if err != nil {
		return err
	}
	for _, w := range want {
		f, err := st.OpenImage(w.Image)
		if err != nil {
			return &imageError{w.Name, "", err}
		}
		err = verify(ctx, f, w, progress)
		f.Close()
		if err != nil {
			return &imageError{w.Name, f.Name(), err}
		}
	}
	return nil
}
