package device

import (
	"context"

	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// RemoveOptions say what to remove: everything, or, with Cancel, nothing after
// all.
type RemoveOptions struct {
	Cancel bool `json:"cancel"`
	DryRun bool `json:"dry_run"`
}

// Removed is what a removal does, or did.
type Removed struct {
	Release   string   `json:"release"` // the newest improvement that goes
	Labels    string   `json:"labels"`  // all that go: "(a),(b)"
	From      string   `json:"from"`    // "42.3 (b)"
	To        string   `json:"to"`      // "ExampleOS 42.3.0"
	Reopened  []string `json:"reopened"`
	Exploited []string `json:"exploited"` // those of them with known attacks
	State     string   `json:"state"`     // staged: a restart completes it; removed: nothing had booted it; cancelled; pending (a dry run)
	Relaunch  []string `json:"relaunch"`
	Restart   bool     `json:"restart"`
}

// Remove takes all improvements off the device: every cryptex goes back to the
// baseline, by its antipatch, checked against the baseline's digest; a restart
// completes it. It needs no network and no free space.
func (d *Device) Remove(ctx context.Context, o RemoveOptions, actor Actor, report Report) (Removed, error) {
	if err := d.mayRemove(actor); err != nil {
		return Removed{}, err
	}
	if _, err := d.enrolled(); err != nil {
		return Removed{}, err
	}
	if o.DryRun {
		return d.removal(ctx, o, actor, report)
	}
	// The room that was set aside is for the journal, the slots and the
	// history of this very journey. Its last task takes it again.
	done, err := d.beginWith(ctx, d.Store.ReleaseReserve, report)
	if err != nil {
		return Removed{}, err
	}
	defer done()
	res, err := d.removal(ctx, o, actor, report)
	if err != nil {
		_ = d.Store.Reserve() // best effort: the journey's own failure is what counts
	}
	return res, err
}

// mayRemove asks the policy.
func (d *Device) mayRemove(actor Actor) error {
	if actor.Person() && !d.Config.Policy.RemoveAllowUser {
		owner, _ := d.Config.Managed("remove.allow_user")
		if owner == "" {
			owner = "policy"
		}
		return fault.New(fault.Policy, "cannot remove improvements: %s forbids it", owner).Hint("sealant policy --effective names the file")
	}
	return nil
}

func (d *Device) removal(ctx context.Context, o RemoveOptions, actor Actor, report Report) (Removed, error) {
	st, err := d.state()
	if err != nil {
		return Removed{}, err
	}
	if o.Cancel {
		return d.cancelRemoval(ctx, st, o, actor, report)
	}
	set := st.running()
	if set == nil || st.base == nil || st.inert(st.base) {
		return Removed{}, fault.New(fault.Failed, "cannot remove improvements: there are none for the installed system")
	}
	if set.IsBaseline() {
		if st.next != nil {
			return Removed{}, fault.New(fault.Restart, "the removal is staged already").Hint("sealant restart completes it, sealant remove --cancel undoes it")
		}
		return Removed{}, fault.New(fault.Failed, "cannot remove improvements: there are none on this device")
	}
	m, err := d.manifest(set.Release)
	if err != nil {
		return Removed{}, err
	}
	res := d.describeRemoval(st, *set, m)
	booted := st.current != nil && !st.inert(st.current) && !st.current.IsBaseline()
	if o.DryRun {
		res.State, res.Restart = "pending", booted
		return res, nil
	}
	was := d.Store.SlotID(store.Next)
	tasks := append(d.restoreTasks(m), task(taskPreroll), holdTask(*set, scopeBelow, "removed"))
	if booted {
		tasks = append(tasks, final(task(taskStage, "set", st.base.ID, "was", was)))
	} else {
		// Nothing of it was ever booted: the device simply goes on as it is.
		tasks = append(tasks, final(task(taskUnstage, "was", was)), task(taskDiscard))
	}
	tasks = append(tasks, task(taskRecord, "event", "removed", "text", res.From+" to "+res.To), task(taskTidy))
	if err := d.run(ctx, newChange("remove", actor, "removed", set.Release, tasks...), nil, report); err != nil {
		return res, err
	}
	report.done("antipatch", "antipatch: seals equal the %s base", st.baseline.OSVersion)
	if booted {
		res.State, res.Restart = StateStaged, true
		res.Relaunch = d.attach(ctx, report)
		return res, nil
	}
	res.State = "removed"
	if err := d.unstage(ctx); err != nil {
		report.warn("relaunch", "apps launched before the restart may still get it: %v", err)
	}
	res.Relaunch = d.affected(*set)
	return res, nil
}

func (d *Device) describeRemoval(st state, set store.Set, m release.Manifest) Removed {
	res := Removed{
		Release: set.Release, From: setName(set), To: st.baseline.Product + " " + st.baseline.OSVersion,
		Reopened: reopened(m, release.Manifest{}), Exploited: []string{}, Relaunch: []string{},
	}
	for level := 1; level <= set.Level; level++ {
		if level > 1 {
			res.Labels += ","
		}
		res.Labels += release.Label(level)
	}
	for _, c := range m.CVEs {
		if c.Exploited {
			res.Exploited = append(res.Exploited, c.ID)
		}
	}
	return res
}

// restoreTasks bring every changed cryptex's baseline image about.
func (d *Device) restoreTasks(m release.Manifest) []change.Task {
	var tasks []change.Task
	for _, c := range m.Cryptexes {
		tasks = append(tasks, task(taskRestore, "release", m.ID, "cryptex", c.Name))
	}
	return tasks
}

// cancelRemoval takes a staged removal back, as long as nothing was restarted.
func (d *Device) cancelRemoval(ctx context.Context, st state, o RemoveOptions, actor Actor, report Report) (Removed, error) {
	if st.next == nil || !st.next.IsBaseline() || st.current == nil || st.current.IsBaseline() {
		return Removed{}, fault.New(fault.Failed, "cannot cancel: no removal is waiting for a restart").Hint("sealant reapply puts removed improvements back")
	}
	set := *st.current
	if reason, recalled := d.recalled(ctx, set.Release); recalled {
		return Removed{}, fault.New(fault.Recalled, "cannot keep %s: the vendor took it back: %s", setName(set), reason).
			Hint("restart to finish; a corrected improvement will follow")
	}
	m, err := d.manifest(set.Release)
	if err != nil {
		return Removed{}, err
	}
	res := d.describeRemoval(st, set, m)
	res.State, res.To = "cancelled", setName(set)
	if o.DryRun {
		return res, nil
	}
	c := newChange("cancel", actor, "asked", set.Release,
		task(taskRelease, "release", set.Release),
		final(task(taskUnstage, "was", st.next.ID)), task(taskDiscard),
		task(taskRecord, "event", "remove-cancelled"), task(taskTidy))
	if err := d.run(ctx, c, nil, report); err != nil {
		return res, err
	}
	if err := d.unstage(ctx); err != nil {
		report.warn("relaunch", "%v", err)
	}
	return res, nil
}
