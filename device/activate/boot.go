package activate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Delivered is the slot of a boot that used the OS update's own images,
// trusting base.json instead of a ticket: before enrolment, after an OS
// update, and when nothing in the state could be used.
const Delivered store.Slot = "delivered"

// Boot attaches the first of these that is valid and whole, and writes down
// why it passed over the ones before:
//
//	next       a staged set; one of its tries is taken before it is looked at
//	current    the set of the last confirmed boot
//	base       the baseline, by its ticket
//	delivered  the OS update's own images, each for itself
//
// A set is whole or not used. Only of the delivered images those that are good
// are attached even if others are not: the device must come up.
//
// root is the folder that the device's file system starts at. Boot never looks
// at the clock for a decision, takes no lock, and changes nothing in the state
// but the tries. The error says what is wrong if the wanted set could not be
// used; what could be attached is attached all the same.
func Boot(ctx context.Context, root string) (Record, error) {
	return BootStore(ctx, store.Below(root))
}

// BootStore is Boot with the state of st. In an initrd, st is the future root's,
// with the initrd's own /run (store.WithRun).
func BootStore(ctx context.Context, st *store.Store) (Record, error) {
	b := &boot{st: st, guard: newGuard(st)}
	b.guard.booting = true
	b.record = newRecord(b.guard)
	err := b.run(ctx)
	b.record.Error = text(err)
	return b.record, errors.Join(err, b.record.write(b.st))
}

// boot is one run of Boot.
type boot struct {
	st     *store.Store
	guard  guard
	record Record
}

func (b *boot) run(ctx context.Context) error {
	if err := b.guard.sweep(); err != nil {
		// What an earlier start of this program left behind harms nothing.
		b.record.Enforcing = append(b.record.Enforcing, err.Error())
	}
	baseline, err := ReadBaseline(b.st)
	if err != nil {
		// Without it there is nothing to compare anything with.
		return b.refuse("", store.Set{}, err)
	}
	b.record.Baseline = store.Digest(baseline.Digest())
	b.record.OSVersion = baseline.OSVersion

	failure := b.useState(ctx, baseline)
	if b.record.Slot != "" {
		return failure
	}
	return errors.Join(failure, b.deliver(ctx, baseline))
}

// useState tries the sets of the state, in order. The error is the first
// refusal that a person must know of; record.Slot says whether one was used.
func (b *boot) useState(ctx context.Context, baseline release.Baseline) error {
	// Open refuses state that is newer than this program.
	if _, err := store.Open(b.st.Root()); err != nil {
		return b.refuse("", store.Set{}, err)
	}
	a, err := readAuthority(b.st, baseline)
	if err != nil {
		if empty(err) && b.vacant() {
			return nil // not enrolled yet: the delivered images are what is wanted
		}
		return b.refuse("", store.Set{}, err)
	}
	var failure error
	for _, slot := range []store.Slot{store.Next, store.Current, store.Base} {
		set, err := b.st.Slot(slot)
		if empty(err) && b.st.SlotID(slot) == "" {
			continue
		}
		if err == nil {
			err = b.use(ctx, a, slot, set)
		}
		if err == nil {
			return failure
		}
		err = b.refuse(slot, set, err)
		// That a set became inert by an OS update is as it should be.
		if failure == nil && fault.KindOf(err) != fault.NotEligible {
			failure = err
		}
	}
	return failure
}

// vacant says that no slot holds anything, as before enrolment.
func (b *boot) vacant() bool {
	for _, slot := range store.Slots {
		if _, err := b.st.Slot(slot); !empty(err) {
			return false
		}
	}
	return true
}

// use verifies one set and attaches it.
func (b *boot) use(ctx context.Context, a *authority, slot store.Slot, set store.Set) error {
	nonce := a.nonces.Current()
	if slot == store.Next {
		var err error
		if nonce, err = b.take(a, set); err != nil {
			return err
		}
	}
	want, err := a.authorise(set, nonce)
	if err != nil {
		return err
	}
	list, err := b.guard.attachSet(ctx, b.st, set, want, nil)
	if err != nil {
		return err
	}
	defer closeAll(list)
	if err := b.attach(set.ID, list); err != nil {
		return err
	}
	b.record.use(slot, set, list)
	return nil
}

// take counts the try before anything of the set is looked at, and says which
// nonce its ticket must bear. Without a try left only a set that has been
// confirmed already may be used: the power failed before that was finished.
func (b *boot) take(a *authority, set store.Set) (nonce [48]byte, err error) {
	left, ok, err := b.st.TakeTry()
	switch {
	case err != nil:
		return nonce, err
	case ok:
		b.record.TriesLeft = &left
		return a.stagedNonce(set)
	case a.confirmed(set):
		return a.nonces.Current(), nil
	}
	return nonce, &exhausted{set.ID}
}

// exhausted is the refusal of a set that did not come up in its tries.
type exhausted struct{ set string }

func (e *exhausted) Error() string {
	return fmt.Sprintf("cannot use the set %s: it was tried %d times and never came up", e.set, store.FirstTries)
}

// attach mounts a verified set and shows it to everybody.
func (b *boot) attach(id string, list []attached) error {
	if err := placeSet(b.st, id, list); err != nil {
		return err
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.want.Name
	}
	if err := exposeSet(b.st, id, names); err != nil {
		return errors.Join(err, unmountSet(b.st, id))
	}
	if err := pointTo(b.st.BootedPath(), "sets/"+id); err != nil {
		return err
	}
	return stage(b.st, id, nil)
}

// deliver attaches what the OS update delivered, each image for itself: from
// its own file, else from a copy in the state with the same digest. What is damaged
// in a few blocks only is better than nothing.
func (b *boot) deliver(ctx context.Context, baseline release.Baseline) error {
	want := baselineContents(baseline)
	list, errs := b.guard.attachAll(ctx, want, b.delivered, nil)
	retry(ctx, b.guard, want, list, errs, stored(b.st))
	damaged := slices.Clone(errs)
	retry(ctx, b.guard.desperate(), want, list, errs, b.delivered)
	var good []attached
	var failure error
	for i, err := range errs {
		if err == nil {
			good = append(good, list[i])
		}
		if damaged[i] == nil {
			continue
		}
		if err := b.refuse(Delivered, store.Set{}, damaged[i]); failure == nil {
			failure = err
		}
	}
	defer closeAll(good)
	set := store.Set{
		ID: deliveredID(baseline), OSVersion: baseline.OSVersion,
		Product: baseline.Product, Baseline: store.Digest(baseline.Digest()),
	}
	if len(good) == 0 {
		return failure
	}
	if err := b.attach(set.ID, good); err != nil {
		return errors.Join(failure, b.refuse(Delivered, set, err))
	}
	b.record.use(Delivered, set, good)
	return failure
}

// deliveredID names the set of what the OS update delivered.
func deliveredID(baseline release.Baseline) string {
	return deliveredPrefix + baseline.Digest().String()[:12]
}

func (b *boot) delivered(want ticket.Cryptex) (*os.File, error) {
	return os.Open(b.st.BaseImagePath(want.Name))
}

// retry gives each image that is bad another chance.
func retry(ctx context.Context, g guard, want []ticket.Cryptex, list []attached, errs []error, open opener) {
	for i := range want {
		if errs[i] == nil {
			continue
		}
		again, err := g.attachAll(ctx, want[i:i+1], open, nil)
		if err[0] == nil {
			list[i], errs[i] = again[0], nil
		}
	}
}

// refuse writes a refusal down and gives it back.
func (b *boot) refuse(slot store.Slot, set store.Set, err error) error {
	b.record.Refused = append(b.record.Refused, refusal(slot, set, err))
	return err
}
