package device

import (
	"context"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/gate"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/amount"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// InstallOptions say what to install.
type InstallOptions struct {
	Release string `json:"release"` // id, "" for the newest
	DryRun  bool   `json:"dry_run"`
}

// Installed is what came of it.
type Installed struct {
	Release   string        `json:"release"`
	Name      string        `json:"name"` // "42.3 (b)"
	Title     string        `json:"title"`
	CVEs      int           `json:"cves"`
	Exploited int           `json:"exploited"`
	Download  int64         `json:"download_bytes"`
	Images    int64         `json:"image_bytes"`
	State     string        `json:"state"`    // staged, active, available (a dry run)
	Repaired  []string      `json:"repaired"` // cryptexes whose damaged images were made anew
	Relaunch  []string      `json:"relaunch"` // apps that get it when they are relaunched
	Restart   bool          `json:"restart"`  // everything else gets it at the next restart
	Gates     []gate.Result `json:"gates"`
	Seconds   float64       `json:"seconds"`
}

// Install brings an improvement onto the device up to the point where the next
// launch of an app, and the next boot, use it. Nothing that runs is changed.
func (d *Device) Install(ctx context.Context, o InstallOptions, actor Actor, report Report) (Installed, error) {
	if o.Release != "" {
		if err := release.CheckID(o.Release); err != nil {
			return Installed{}, fault.New(fault.Usage, "cannot install %q: %w", o.Release, err).Hint("sealant check names the newest; an id looks like SI-2026-0007")
		}
	}
	done, err := d.begin(ctx, report)
	if err != nil {
		return Installed{}, err
	}
	defer done()
	return d.install(ctx, o, actor, report)
}

func (d *Device) install(ctx context.Context, o InstallOptions, actor Actor, report Report) (Installed, error) {
	began := d.Now()
	cat, err := d.refreshed(ctx)
	if err != nil {
		return Installed{}, err
	}
	if err := d.followBaseline(ctx, report); err != nil {
		return Installed{}, err
	}
	if !o.DryRun {
		r, err := d.followRecall(ctx, cat, report)
		if err != nil {
			return Installed{}, err
		}
		if r != nil {
			report.note("recall", "%s", r.Message)
		}
	}
	st, err := d.state()
	if err != nil {
		return Installed{}, err
	}
	off, err := d.wanted(ctx, cat, st, o.Release, asking{person: actor.Person()})
	if err != nil {
		return Installed{}, err
	}
	res := installed(off)
	if s := st.running(); already(s, off.manifest) {
		if s.Level > off.manifest.Level {
			return res, fault.New(fault.NotEligible, "cannot install %s: %s is installed, which contains it", off.manifest.ID, s.Release)
		}
		res.State, res.Restart = StateStaged, st.next != nil
		if st.next == nil {
			res.State = StateActive
		}
		if !o.DryRun {
			err = d.repair(ctx, cat, *s, off.manifest, &res, actor, report)
		}
		return res, err
	}
	if err := off.err(); err != nil {
		return res, err
	}
	report.note("release", "%s", headline(off))
	report.done("eligible", "%s", eligibility(off.gates))
	report.done("catalog", "%s", d.catalogText(cat))
	res.State = StateAvailable
	if o.DryRun {
		return res, nil
	}
	c := newChange("install", actor, reasonOf(actor), off.manifest.ID, d.installTasks(off.manifest, "staged", off.manifest.Title)...)
	if err := d.run(ctx, c, cat, report); err != nil {
		return res, err
	}
	report.done("sealed", "seals equal the ticket")
	report.done("antipatch", "antipatch kept and checked")
	res.State, res.Restart = StateStaged, true
	res.Relaunch = d.attach(ctx, report)
	res.Seconds = d.Now().Sub(began).Seconds()
	return res, nil
}

// wanted finds the improvement that was asked for and asks its gates.
func (d *Device) wanted(ctx context.Context, cat *catalog.Client, st state, id string, by asking) (*offer, error) {
	if id == "" {
		off, err := d.newestOffer(ctx, cat, st, by)
		if err == nil && off == nil {
			err = errNothing(st)
		}
		return off, err
	}
	m, err := cat.Manifest(ctx, id)
	if err != nil {
		if isNoTarget(err) {
			return nil, fault.New(fault.NotEligible, "cannot install %s: the catalog does not have it", id).Hint("sealant check names the newest")
		}
		return nil, err
	}
	off, err := d.consider(ctx, cat, st, m, by)
	return &off, err
}

// installTasks are the tasks that lead to a release being staged, and to a
// record of that.
func (d *Device) installTasks(m release.Manifest, event, text string) []change.Task {
	kept := ""
	if _, err := d.manifest(m.ID); err == nil {
		kept = "yes"
	}
	tasks := []change.Task{task(taskManifest, "release", m.ID, "kept", kept)}
	each := func(kind string, pairs ...string) {
		for _, c := range m.Cryptexes {
			tasks = append(tasks, task(kind, append([]string{"release", m.ID, "cryptex", c.Name}, pairs...)...))
		}
	}
	each(taskFetch, "kind", string(store.Patch))
	each(taskFetch, "kind", string(store.Antipatch))
	each(taskBuild)
	each(taskProve)
	return append(tasks,
		task(taskTicket, "release", m.ID),
		task(taskKeep, "release", m.ID),
		final(task(taskStage, "was", d.Store.SlotID(store.Next))),
		task(taskRelease, "release", m.ID),
		task(taskRecord, "event", event, "text", text),
		task(taskTidy),
	)
}

// run carries out a change. What a failed one left behind is tidied away; what
// was downloaded stays for the next attempt.
func (d *Device) run(ctx context.Context, c *change.Change, cat *catalog.Client, report Report) error {
	d.began = d.Now()
	err := change.Run(ctx, d.Store, d.tasks(cat, report), c)
	if err == nil {
		return nil
	}
	if store.NoSpace(err) {
		_, where, _ := d.Store.Free()
		err = fault.New(fault.Failed, "%w (the file system of %s is full)", err, where).Hint("free some room there; nothing was changed")
	}
	if c.Undoing { // nothing came of it, but that it was tried is told
		rerr := d.Store.Append(store.Record{
			Time: d.Now(), Event: c.Journey + "-failed", Release: c.Release, Reason: fault.KindOf(err).String(),
			Actor: c.Actor, Text: upstream.Clean(err.Error()), Change: c.ID,
		})
		if rerr != nil && !store.NoSpace(rerr) {
			return fmt.Errorf("%w (and %w)", err, rerr)
		}
	}
	return err
}

// attach mounts what is staged, so that apps get it when they are relaunched,
// and names those apps. A machine that can't mount here (a container, another
// root) gets it at the next restart all the same, so this is a warning.
func (d *Device) attach(ctx context.Context, report Report) []string {
	set, err := d.Store.Slot(store.Next)
	if err != nil {
		return []string{}
	}
	admit, done, err := d.admitter()
	if err == nil {
		err = activate.StageAdmitted(ctx, d.Store, set, admit, report.progress("verify"), d.follow(context.WithoutCancel(ctx)))
		done()
	}
	if err != nil {
		report.warn("relaunch", "apps can't get it before the restart: %v", err)
		return []string{}
	}
	return d.affected(set)
}

// affected names the apps that use a cryptex in which a set differs from what
// was booted.
func (d *Device) affected(set store.Set) []string {
	booted := d.bootedSet()
	apps := []string{}
	for _, app := range d.Config.Apps {
		for _, name := range app.Cryptexes {
			now, _ := set.Cryptex(name)
			was, _ := booted.Cryptex(name)
			if now.Image != was.Image {
				apps = append(apps, app.ID)
				break
			}
		}
	}
	return apps
}

// bootedSet is the set that everything runs on that was not relaunched.
func (d *Device) bootedSet() store.Set {
	id, err := present.Booted(d.Store)
	if err != nil || id == "" { // this machine was not booted by sealant-boot
		set, _ := d.Store.Slot(store.Current)
		return set
	}
	if set, err := d.Store.SetByID(id); err == nil {
		return set
	}
	// The operating system's own images, attached without a set.
	b, err := d.baseline()
	if err != nil {
		return store.Set{}
	}
	return setOf(b, "", 0, b.Cryptexes, nil)
}

func installed(o *offer) Installed {
	m := o.manifest
	r := Installed{
		Release: m.ID, Name: m.Name(), Title: m.Title, CVEs: len(m.CVEs), Download: o.download, Images: o.images,
		Repaired: []string{}, Relaunch: []string{}, Gates: o.gates,
	}
	for _, c := range m.CVEs {
		if c.Exploited {
			r.Exploited++
		}
	}
	return r
}

// headline is the first line of an installation:
// "SI-2026-0007 · 2 CVEs, 1 exploited · 4.1 MB patch, 212 MB images".
func headline(o *offer) string {
	r := installed(o)
	parts := []string{r.Release, plural(r.CVEs, "CVE")}
	if r.Exploited > 0 {
		parts[1] += fmt.Sprintf(", %d exploited", r.Exploited)
	}
	return strings.Join(append(parts, fmt.Sprintf("%s patch, %s images", amount.Bytes(r.Download), amount.Bytes(r.Images))), " · ")
}

// eligibility sums up the open gates that depend on this machine.
func eligibility(all []gate.Result) string {
	var parts []string
	for _, g := range all {
		switch g.Gate {
		case "base", "battery", "metered":
			parts = append(parts, g.Text)
		}
	}
	return strings.Join(parts, " · ")
}

// catalogText is "v118, 2 of 3 signatures, expires in 6 d".
func (d *Device) catalogText(cat *catalog.Client) string {
	text := fmt.Sprintf("v%d", cat.Version())
	if s, err := cat.Signed("targets"); err == nil {
		text += ", " + signedText(s.Valid, s.Keys) + " signatures"
	}
	return text + ", expires in " + amount.Span(cat.Expires().Sub(cat.Clock()))
}

func reasonOf(a Actor) string {
	if a == Auto {
		return "automatic"
	}
	return "asked"
}
