package device

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/release"
)

// armOf is what a set means for counting.
func armOf(s store.Set) evidence.Arm {
	return evidence.Arm{Base: s.Baseline.String(), Release: s.Release, Level: s.Level}
}

// crashed weighs a new crash: whether the person is to be asked to remove the
// improvements. It removes nothing. It returns the verdict, and the question if
// there is one.
func (d *Device) crashed(ctx context.Context, c evidence.Crash, events Report) (eprocess.Verdict, *evidence.Notice, error) {
	prompts, err := d.prompts()
	if err != nil {
		return "", nil, err
	}
	if c.Broken {
		return evidence.Repair, nil, d.damaged(ctx, prompts, c, events)
	}
	st, err := d.state()
	if err != nil {
		return "", nil, err
	}
	set := st.running()
	if set == nil || set.IsBaseline() || armOf(*set) != c.Arm {
		// It ran with the baseline, or with something that is on its way out.
		return evidence.NotActive, nil, nil
	}
	list := d.adviceList(ctx)
	listed := d.listedApps(list, c.Arm.Release)
	i := slices.IndexFunc(listed, func(e release.Advice) bool { return e.App == c.App })
	if i < 0 || !listed[i].Applies(st.baseline.OSVersion, d.appVersion(ctx, listed[i])) {
		return evidence.NotListed, nil, nil
	}
	j := d.Recorder.Judge(evidence.Question{
		App: c.App, Version: c.Version, Arm: c.Arm, Scope: listed[i].Scope, Listed: len(listed), Minimum: listed[i].MinEvidence,
	})
	asks, verdict := prompts.Asks(j, c, d.Now())
	if !asks {
		return verdict, nil, nil
	}
	// Damaged content crashes too, in ways that no signal tells apart.
	if err := activate.Verify(ctx, d.Store, *set, nil); fault.KindOf(err) == fault.Seal {
		return evidence.Repair, nil, d.damaged(ctx, prompts, c, events)
	}
	n, err := d.notice(j, st, *set)
	if err != nil {
		return verdict, nil, err
	}
	d.note(ctx, store.Record{Event: "recommended", Release: n.Release, App: n.App, Reason: "crashes", Actor: string(Auto), Text: n.Text()}, events)
	if !d.Config.Policy.RecommendShow || d.Config.Policy.UIMode == "none" {
		return verdict, nil, nil // the history and the log tell whoever runs this device
	}
	if err := prompts.Ask(n); err != nil {
		return verdict, nil, err
	}
	d.tellRecommended(n, report.Shown, events)
	return verdict, &n, nil
}

// notice puts a judgement into the person's words.
func (d *Device) notice(j evidence.Judgement, st state, set store.Set) (evidence.Notice, error) {
	m, err := d.manifest(set.Release)
	if err != nil {
		return evidence.Notice{}, err
	}
	n := evidence.NoticeOf(j, d.Now())
	n.Name, n.Label = d.appName(j.App), set.Label
	n.Back = st.baseline.Product + " " + release.DisplayVersion(st.baseline.OSVersion)
	removal := d.describeRemoval(st, set, m)
	for _, cve := range removal.Reopened {
		if slices.Contains(removal.Exploited, cve) {
			cve += evidence.Exploited
		}
		n.Opens = append(n.Opens, cve)
	}
	return n, nil
}

// damaged notes that an app's content does not have its seal.
func (d *Device) damaged(ctx context.Context, prompts *evidence.Prompts, c evidence.Crash, report Report) error {
	d.note(ctx, store.Record{
		Event: "damaged", Release: c.Arm.Release, App: c.App, Reason: "seal-mismatch", Actor: string(Auto),
		Text: c.App + " crashed on damaged content; sealant install repairs it",
	}, report)
	return prompts.Damaged(&evidence.Damage{App: c.App, Release: c.Arm.Release, Time: d.Now().UTC().Truncate(time.Second)})
}

// settle takes a question back whose improvement is no longer in force.
func (d *Device) settle(ctx context.Context) error {
	prompts, err := d.prompts()
	if err != nil {
		return err
	}
	st, err := d.state()
	if err != nil {
		return err
	}
	set := st.running()
	if n, ok := prompts.Pending(); ok && (set == nil || set.Release != n.Release) {
		if err := prompts.Withdraw(); err != nil {
			return err
		}
	}
	if damage := prompts.Damage(); damage != nil && (set == nil || set.Release != damage.Release || activate.Verify(ctx, d.Store, *set, nil) == nil) {
		return prompts.Damaged(nil)
	}
	return nil
}

// crashDamage is what was found damaged at a crash and was not repaired since.
func (d *Device) crashDamage(prompts *evidence.Prompts) *evidence.Damage {
	found := prompts.Damage()
	if found == nil {
		return nil
	}
	records, _ := d.Store.History() // what comes before a break counts
	for _, r := range slices.Backward(records) {
		if r.Time.Before(found.Time) {
			break
		}
		if r.Event == "repaired" {
			return nil
		}
	}
	return found
}

// mendedFor is how long ago content may have been mended that an app mapped when it
// crashed: it keeps the damaged one until it is relaunched.
const mendedFor = 10 * time.Minute

// knownDamage says whether the kernel has refused to read a block: it tells at once,
// and what tells it may be mended before anybody weighs the crash.
func (d *Device) knownDamage() bool {
	if list, err := activate.Damaged(d.Store); err == nil && len(list) > 0 {
		return true
	}
	records, _ := d.Store.History()
	for _, r := range slices.Backward(records) {
		if d.Now().Sub(r.Time) > mendedFor {
			return false
		}
		if r.Event == "damaged" && r.Reason == fault.Seal.String() {
			return true
		}
	}
	return false
}

// damagedArm says whether an arm's content fails its seal: as the kernel knows it,
// else every byte is read.
func (d *Device) damagedArm(ctx context.Context, arm evidence.Arm) (bool, error) {
	if d.knownDamage() {
		return true, nil
	}
	for _, linked := range []func(*store.Store) (string, error){present.Booted, present.Staged} {
		id, err := linked(d.Store)
		if err != nil || id == "" {
			continue
		}
		set, err := d.Store.SetByID(id)
		if err != nil || armOf(set) != arm {
			continue
		}
		err = activate.Verify(ctx, d.Store, set, nil)
		if err != nil && fault.KindOf(err) != fault.Seal {
			return false, err
		}
		return err != nil, nil
	}
	return false, fmt.Errorf("the set of %q is no longer here", arm.Release)
}

// appVersion asks the app for its version, if the entry is about some versions
// only. One that can't be asked is of no such version.
func (d *Device) appVersion(ctx context.Context, e release.Advice) string {
	if len(e.AppVersions) == 0 {
		return ""
	}
	for _, a := range d.Config.Apps {
		if a.ID != e.App || len(a.Version) == 0 {
			continue
		}
		ctx, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		cmd := exec.CommandContext(ctx, a.Version[0], a.Version[1:]...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
		out, err := cmd.Output()
		if err != nil || len(out) > 1000 {
			return ""
		}
		// "Mail 3.1.4": the first word that begins with a digit.
		for _, word := range strings.Fields(string(out)) {
			if word[0] >= '0' && word[0] <= '9' {
				return word
			}
		}
	}
	return ""
}

// note writes into the history, if nothing else is under way; what is noted here
// is told elsewhere too. Time and set are filled in.
func (d *Device) note(ctx context.Context, r store.Record, report Report) {
	done, err := d.begin(ctx, report)
	if err != nil {
		report.warn(r.Event, "not in the history: %v", err)
		return
	}
	defer done()
	r.Time, r.Set = d.Now(), d.Store.SlotID(store.Current)
	if err := d.Store.Append(r); err != nil {
		report.warn(r.Event, "%v", err)
	}
}
