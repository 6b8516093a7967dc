package device

import (
	"context"

	"github.com/sealant-os/sealant/device/build"
	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// repair makes those images of an installed improvement anew that are missing
// or damaged: from the baseline's and the kept patch, else from the vendor.
// The set and its ticket stay what they are.
func (d *Device) repair(ctx context.Context, cat *catalog.Client, set store.Set, m release.Manifest, res *Installed, actor Actor, report Report) error {
	var tasks []change.Task
	for _, c := range m.Cryptexes {
		if build.Intact(ctx, d.Store, c.To.Digest) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		res.Repaired = append(res.Repaired, c.Name)
		tasks = append(tasks,
			task(taskFetch, "release", m.ID, "cryptex", c.Name, "kind", string(store.Patch)),
			task(taskBuild, "release", m.ID, "cryptex", c.Name))
	}
	if len(tasks) == 0 {
		return nil
	}
	tasks = append([]change.Task{task(taskManifest, "release", m.ID, "kept", "yes")}, tasks...)
	tasks = append(tasks, final(task(taskKeep, "release", m.ID)), task(taskRecord, "event", "repaired", "text", m.Title), task(taskTidy))
	if err := d.run(ctx, newChange("repair", actor, "damaged", m.ID, tasks...), cat, report); err != nil {
		return err
	}
	d.again(ctx, report)
	if id, err := present.Booted(d.Store); err == nil && id != set.ID {
		res.Restart = true // the boot had to do without it
	}
	for _, name := range res.Repaired {
		report.done("repaired", "%s: its image was damaged and was made anew", name)
	}
	return nil
}

// again has what is attached read the repaired files.
func (d *Device) again(ctx context.Context, report Report) {
	if err := d.attachAgain(ctx, report); err != nil {
		report.warn("attach", "what is mounted stays damaged until the restart: %v", err)
	}
}
