package device

import (
	"context"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// Recalled is what a recall did to this device.
type Recalled struct {
	Release  string   `json:"release"` // what was taken back
	Name     string   `json:"name"`    // "42.3 (b)"
	To       string   `json:"to"`      // the improvement before, "" for the baseline
	ToName   string   `json:"to_name"`
	Reason   string   `json:"reason"`
	State    string   `json:"state"` // taken-back: it never booted; staged: a restart completes it; declined: policy keeps it
	Reopened []string `json:"reopened"`
	Relaunch []string `json:"relaunch"`
	Message  string   `json:"message"` // for the person
}

// followRecall takes the most recent improvement back if the vendor recalled
// it: to the one before it, or to the baseline. It asks nobody, tells the
// person, and holds what was recalled. nil means that there was nothing to do.
func (d *Device) followRecall(ctx context.Context, cat *catalog.Client, report Report) (*Recalled, error) {
	recalls, err := cat.RecallList(ctx)
	if err != nil {
		return nil, err
	}
	var last *Recalled
	// Twice, because what was staged and what is current may both be recalled.
	for range 2 {
		st, err := d.state()
		if err != nil {
			return last, err
		}
		set := st.running()
		if set == nil || set.IsBaseline() {
			return last, nil
		}
		entry, recalled := recalls.Find(set.Release)
		if !recalled {
			return last, nil
		}
		r := &Recalled{
			Release: set.Release, Name: setName(*set), Reason: entry.Reason, Reopened: []string{}, Relaunch: []string{},
		}
		if !d.Config.Policy.RecallAccept {
			r.State = "declined"
			r.Message = fmt.Sprintf("The vendor took back improvement %s (%s). Policy keeps it on this device.", r.Name, r.Reason)
			return r, nil
		}
		if st.next != nil && st.next.ID == set.ID {
			err = d.unstageRecalled(ctx, st, r, report)
		} else {
			r.To = recalls.Landing(set.Release)
			err = d.takeBack(ctx, cat, st, *set, r, report)
		}
		if err != nil {
			return last, fmt.Errorf("cannot take %s back: %w", r.Name, err)
		}
		last = r
	}
	return last, nil
}

// unstageRecalled drops a recalled improvement that was staged and never
// booted. The device goes on with what it booted.
func (d *Device) unstageRecalled(ctx context.Context, st state, r *Recalled, report Report) error {
	set := *st.next
	c := newChange("recall", ByRecall, "recalled", set.Release,
		holdTask(set, scopeOnly, "recalled"),
		final(task(taskUnstage, "was", set.ID)), task(taskDiscard),
		task(taskRecord, "event", "recalled", "text", r.Reason), task(taskTidy))
	if err := d.run(ctx, c, nil, report); err != nil {
		return err
	}
	if err := d.unstage(ctx); err != nil {
		report.warn("relaunch", "apps launched before the restart may still get it: %v", err)
	}
	if st.current != nil {
		r.To, r.ToName = st.current.Release, setName(*st.current)
	}
	r.State = "taken-back"
	r.Message = fmt.Sprintf("The vendor took back improvement %s: %s. A corrected version will follow.", r.Name, sentence(r.Reason))
	return nil
}

// takeBack stages what a recall leads to: the improvement before, by its
// patch, with a fresh ticket, or the baseline.
func (d *Device) takeBack(ctx context.Context, cat *catalog.Client, st state, set store.Set, r *Recalled, report Report) error {
	m, err := d.manifest(set.Release)
	if err != nil {
		if m, err = cat.Manifest(ctx, set.Release); err != nil {
			return err
		}
	}
	var landing release.Manifest
	var c *change.Change
	hold := holdTask(set, scopeOnly, "recalled")
	if r.To == "" {
		r.ToName = release.DisplayVersion(st.baseline.OSVersion) + " base"
		tasks := append(d.restoreTasks(m), task(taskPreroll), hold,
			final(task(taskStage, "set", st.base.ID, "was", d.Store.SlotID(store.Next))),
			task(taskRecord, "event", "recalled", "text", r.Reason+"; back to "+r.ToName), task(taskTidy))
		c = newChange("recall", ByRecall, "recalled", set.Release, tasks...)
	} else {
		if landing, err = cat.Manifest(ctx, r.To); err != nil {
			return err
		}
		r.ToName = landing.Name()
		c = newChange("recall", ByRecall, "recalled", set.Release, append([]change.Task{hold}, d.installTasks(landing, "recalled", r.Reason+"; back to "+r.ToName)...)...)
	}
	if err := d.run(ctx, c, cat, report); err != nil {
		return err
	}
	r.Reopened = reopened(m, landing)
	r.Relaunch = d.attach(ctx, report)
	r.State = StateStaged
	r.Message = fmt.Sprintf("The vendor took back improvement %s: %s. Restart to finish. A corrected version will follow.", r.Name, sentence(r.Reason))
	return nil
}

// recalled says, offline, whether the vendor took a release back: by the recall
// list as it was last verified, or by what this device noted when it obeyed.
func (d *Device) recalled(ctx context.Context, rel string) (reason string, yes bool) {
	if cat, err := d.catalog(); err == nil {
		if l, err := cat.RecallList(ctx); err == nil {
			if r, ok := l.Find(rel); ok {
				return r.Reason, true
			}
		}
	}
	all, err := d.Holds()
	if err != nil {
		return "", false
	}
	for _, h := range all {
		if h.Release == rel && h.Reason == "recalled" {
			return "recalled", true
		}
	}
	return "", false
}

// holdTask holds what a set brought.
func holdTask(set store.Set, scope, why string) change.Task {
	return task(taskHold, "release", set.Release, "level", fmt.Sprint(set.Level), "scope", scope, "why", why)
}

// sentence is a vendor's line of text without the full stop.
func sentence(s string) string { return strings.TrimRight(s, ". ") }

// reopened lists the flaws that going from one improvement to another (or to
// the baseline, the zero manifest) opens again.
func reopened(from, to release.Manifest) []string {
	fixed := map[string]bool{}
	for _, c := range to.CVEs {
		fixed[c.ID] = true
	}
	open := []string{}
	for _, c := range from.CVEs {
		if !fixed[c.ID] {
			open = append(open, c.ID)
		}
	}
	return open
}
