package device

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
)

// Confirmed is what the device made of its last boot.
type Confirmed struct {
	Set     string `json:"set"`
	Release string `json:"release"`
	Name    string `json:"name"`
	State   string `json:"state"` // confirmed, unchanged, failed, nothing
	Text    string `json:"text"`
}

// Confirm is called once after boot, when the system has come up. If what was
// staged is what booted, it becomes current: the nonce rolls, so that the set
// before can't come back, and what nobody uses any more is collected. If it
// was passed over for good, it is held and the device stays where it is.
func (d *Device) Confirm(ctx context.Context, report Report) (Confirmed, error) {
	done, err := d.beginWith(ctx, d.makeRoom, report)
	if err != nil {
		return Confirmed{}, err
	}
	defer done()
	defer d.Store.Reserve() // as much as there is; a journey's last task says what is missing
	st, err := d.state()
	if err != nil {
		return Confirmed{}, err
	}
	boot, err := activate.ReadRecord(d.Store)
	if errors.Is(err, os.ErrNotExist) {
		return Confirmed{State: "nothing", Text: "sealant-boot has not run"}, nil
	}
	if err != nil {
		return Confirmed{}, err
	}
	res := Confirmed{Set: boot.Set, Release: boot.Release, Name: bootName(boot), State: "unchanged"}
	if st.next == nil || st.inert(st.next) {
		return res, nil
	}
	if boot.Set == st.next.ID {
		res.State = "confirmed"
		return res, d.confirm(ctx, *st.next, report)
	}
	for _, r := range boot.Refused {
		if r.Slot == store.Next && r.Set == st.next.ID && r.Reason != activate.ReasonBaseline {
			res.State, res.Text = "failed", r.Text
			return res, d.giveUp(ctx, *st.next, r, report)
		}
	}
	return res, nil // staged after the boot
}

// makeRoom gives the room that was set aside to a confirmation, without which what
// was staged, be it a removal, would be taken back in the end.
func (d *Device) makeRoom() error {
	if d.Store.SlotID(store.Next) == "" {
		return nil
	}
	return d.Store.ReleaseReserve()
}

// bootName is how eyes see what booted.
func bootName(r activate.Record) string {
	return setName(store.Set{Release: r.Release, Label: r.Label, OSVersion: r.OSVersion})
}

func (d *Device) confirm(ctx context.Context, next store.Set, report Report) error {
	n, err := d.Store.Nonces()
	if err != nil {
		return err
	}
	reason, text := "booted", setName(next)+" is active everywhere"
	// Rolling is the point of no return: from then on only the new set boots.
	roll := task(taskRoll, "step", fmt.Sprint(n.Step()))
	if _, prepared := n.Prerolled(); !prepared {
		roll = task(taskRoll, "step", "") // it rolled before a crash
	}
	c := newChange("confirm", Auto, reason, next.Release,
		final(roll), task(taskPromote, "set", next.ID), task(taskRecord, "event", "confirmed", "text", text), task(taskTidy))
	if err := d.run(ctx, c, nil, report); err != nil {
		return err
	}
	report.done("confirmed", "%s", text)
	return nil
}

// giveUp drops a staged set that sealant-boot refused, and holds it, so that
// it isn't staged again at the next check, for ever.
func (d *Device) giveUp(ctx context.Context, next store.Set, r activate.Refusal, report Report) error {
	report.warn("boot", "%s was not used: %s", setName(next), r.Text)
	// One bad boot is no verdict while tries are left, unless the content or
	// the ticket itself is wrong, which no further boot would heal.
	if left, err := d.Store.Tries(); err == nil && left > 0 && (r.Reason == activate.ReasonMissing || r.Reason == activate.ReasonCounter) {
		return nil
	}
	c := newChange("give-up", Auto, "boot-failed", next.Release,
		final(task(taskUnstage, "was", next.ID)), task(taskDiscard),
		task(taskRecord, "event", "boot-failed", "text", upstream.Clean(r.Text)), task(taskTidy))
	if !next.IsBaseline() {
		c.Tasks = append(c.Tasks[:1:1], append([]change.Task{holdTask(next, scopeOnly, "boot-failed")}, c.Tasks[1:]...)...)
	}
	if err := d.run(ctx, c, nil, report); err != nil {
		return err
	}
	return d.unstage(ctx)
}
