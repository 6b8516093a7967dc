package device

import (
	"context"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// ReapplyOptions say what to put back.
type ReapplyOptions struct {
	Release string `json:"release"` // id, "" for what was removed last
	DryRun  bool   `json:"dry_run"`
}

// Reapply puts a removed improvement back. Its patches were kept, so nothing
// is downloaded; what it needs is a fresh ticket, because the old one ended
// with the removal. The device's own hold on it ends; a recall by the vendor
// does not.
func (d *Device) Reapply(ctx context.Context, o ReapplyOptions, actor Actor, report Report) (Installed, error) {
	if o.Release != "" {
		if err := release.CheckID(o.Release); err != nil {
			return Installed{}, fault.New(fault.Usage, "cannot reapply %q: %w", o.Release, err)
		}
	}
	done, err := d.begin(ctx, report)
	if err != nil {
		return Installed{}, err
	}
	defer done()
	began := d.Now()
	st, err := d.state()
	if err != nil {
		return Installed{}, err
	}
	// A removal that waits for its restart is simply cancelled.
	if st.next != nil && st.next.IsBaseline() && st.current != nil && !st.current.IsBaseline() && !st.inert(st.current) &&
		(o.Release == "" || o.Release == st.current.Release) {
		return d.reapplyByCancel(ctx, st, o, actor, report)
	}
	m, err := d.removed(st, o.Release)
	if err != nil {
		return Installed{}, err
	}
	cat, err := d.refreshed(ctx)
	if err != nil {
		// The catalog as it was last verified is enough, if it is not too old
		// for the policy: the signing service has the last word anyway.
		if fault.KindOf(err) != fault.Unreachable && fault.KindOf(err) != fault.Busy {
			return Installed{}, err
		}
		if cat, err = d.catalog(); err != nil {
			return Installed{}, err
		}
	}
	off, err := d.consider(ctx, cat, st, m, asking{person: actor.Person(), again: true})
	if err != nil {
		return Installed{}, err
	}
	res := installed(&off)
	if err := off.err(); err != nil {
		return res, err
	}
	res.State = StateAvailable
	if o.DryRun {
		return res, nil
	}
	report.note("release", "%s", headline(&off))
	if off.download == 0 {
		report.done("patches", "kept on this device: no download")
	}
	return d.reapply(ctx, cat, st, m, res, began, actor, report)
}

func (d *Device) reapplyByCancel(ctx context.Context, st state, o ReapplyOptions, actor Actor, report Report) (Installed, error) {
	m, err := d.manifest(st.current.Release)
	if err != nil {
		return Installed{}, err
	}
	res := installed(&offer{manifest: m})
	res.State = StateActive
	_, err = d.cancelRemoval(ctx, st, RemoveOptions{Cancel: true, DryRun: o.DryRun}, actor, report)
	return res, err
}

// removed finds what is to be reapplied.
func (d *Device) removed(st state, id string) (release.Manifest, error) {
	if id == "" {
		all, err := d.Holds()
		if err != nil {
			return release.Manifest{}, err
		}
		for i := len(all) - 1; i >= 0 && id == ""; i-- {
			if all[i].Baseline == st.digest && all[i].Reason != "recalled" {
				id = all[i].Release
			}
		}
	}
	if id == "" {
		return release.Manifest{}, fault.New(fault.Failed, "cannot reapply: nothing was removed from this system").Hint("sealant install installs the newest improvement")
	}
	m, err := d.manifest(id)
	if err != nil {
		return m, fault.New(fault.Failed, "cannot reapply %s: its patches are not on this device", id).Hint("sealant install %s downloads it", id)
	}
	if s := st.running(); already(s, m) {
		return m, fault.New(fault.Failed, "cannot reapply %s: %s is installed", id, s.Release)
	}
	return m, nil
}

func (d *Device) reapply(ctx context.Context, cat *catalog.Client, st state, m release.Manifest, res Installed, began time.Time, actor Actor, report Report) (Installed, error) {
	c := newChange("reapply", actor, "reapplied", m.ID, d.installTasks(m, "reapplied", m.Title)...)
	if err := d.run(ctx, c, cat, report); err != nil {
		return res, err
	}
	report.done("sealed", "seals equal the ticket")
	res.State, res.Restart = StateStaged, true
	res.Relaunch = d.attach(ctx, report)
	res.Seconds = d.Now().Sub(began).Seconds()
	return res, nil
}
