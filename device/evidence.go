package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/release"
)

// Evidence is what this device's own counts say of its improvements.
type Evidence struct {
	Release  string           `json:"release"`          // the improvement in force, "" for none
	Name     string           `json:"name"`             // "42.3 (b)", or "42.3 base"
	Counting string           `json:"counting"`         // how crashes are learned of, "" if they are not
	Apps     []AppEvidence    `json:"apps"`             // listed ones first, for the improvement in force and earlier ones
	Pending  *Question        `json:"pending"`          // what the person is asked, null if nothing
	Damage   *evidence.Damage `json:"damage,omitempty"` // content that was found damaged at a crash
}

// AppEvidence is one app under one improvement.
type AppEvidence struct {
	App     string           `json:"app"`
	Name    string           `json:"name"`
	Release string           `json:"release"`
	Label   string           `json:"label"` // "(b)"
	Listed  bool             `json:"listed"`
	Scope   string           `json:"scope"`
	X0      int64            `json:"x0"`
	T0      float64          `json:"t0_hours"`
	X1      int64            `json:"x1"`
	T1      float64          `json:"t1_hours"`
	Seen0   int64            `json:"seen0"` // with every crash of a burst
	Seen1   int64            `json:"seen1"`
	E       *float64         `json:"e"` // null where there was no use in one arm
	LogE    *float64         `json:"log_e"`
	Needed  float64          `json:"needed"`
	Verdict eprocess.Verdict `json:"verdict"`
	Text    string           `json:"text"`
}

// Question is what the person is asked.
type Question struct {
	evidence.Notice
	Text string `json:"text"`
}

// Evidence says of each app how often it crashed, with an improvement and
// without, and what follows from that. It needs no network.
func (d *Device) Evidence(ctx context.Context) (Evidence, error) {
	e := Evidence{Apps: []AppEvidence{}, Counting: d.Counting}
	st, err := d.state()
	if err != nil {
		return e, err
	}
	recorder, err := d.recorder()
	if err != nil {
		return e, err
	}
	if set := st.installedSet(); set != nil {
		e.Release, e.Name = set.Release, setName(*set)
	}
	list := d.adviceList(ctx)
	arms := recorder.Arms(st.digest.String())
	if set := st.running(); set != nil && !set.IsBaseline() {
		if arm := armOf(*set); !slices.Contains(arms, arm) {
			arms = append([]evidence.Arm{arm}, arms...)
		}
	}
	for _, arm := range arms {
		e.Apps = append(e.Apps, d.evidenceOf(recorder, list, arm)...)
	}
	prompts, err := d.prompts()
	if err != nil {
		return e, err
	}
	if n, ok := prompts.Pending(); ok && n.Release == e.Release {
		e.Pending = &Question{n, n.Text()}
	}
	e.Damage = d.crashDamage(prompts)
	return e, nil
}

// evidenceOf judges every app that is listed for an improvement or has run with it.
func (d *Device) evidenceOf(recorder *evidence.Recorder, list release.AdviceList, arm evidence.Arm) []AppEvidence {
	var all, rest []AppEvidence
	listed := d.listedApps(list, arm.Release)
	known := map[string]bool{}
	for _, entry := range listed {
		known[entry.App] = true
		all = append(all, d.appEvidence(recorder, arm, entry.App, entry, len(listed)))
	}
	for _, app := range recorder.Apps() {
		if _, ran := recorder.Version(app, arm); !ran || known[app] {
			continue
		}
		a := d.appEvidence(recorder, arm, app, release.Advice{Scope: release.ScopeMain}, max(1, len(listed)))
		a.Listed = false
		rest = append(rest, a)
	}
	return append(all, rest...)
}

func (d *Device) appEvidence(recorder *evidence.Recorder, arm evidence.Arm, app string, entry release.Advice, listed int) AppEvidence {
	version, _ := recorder.Version(app, arm)
	j := recorder.Judge(evidence.Question{
		App: app, Version: version, Arm: arm, Scope: entry.Scope, Listed: listed, Minimum: entry.MinEvidence,
	})
	a := AppEvidence{
		App: app, Name: d.appName(app), Release: arm.Release, Label: release.Label(arm.Level), Listed: true, Scope: j.Scope,
		X0: j.Counts.X0, T0: j.Counts.T0, X1: j.Counts.X1, T1: j.Counts.T1, Seen0: j.Seen0, Seen1: j.Seen1,
		Needed: j.Needed, Verdict: j.Verdict, Text: evidence.Words(j.Verdict),
	}
	if j.Judged {
		e, log := j.E.Value(), j.E.Log()
		a.E, a.LogE = &e, &log
	}
	return a
}

// appName is what people call an app.
func (d *Device) appName(id string) string {
	for _, a := range d.Config.Apps {
		if a.ID == id {
			return a.Name
		}
	}
	return id
}

// adviceList is the vendor's list as this device last verified it; an empty one
// where there is none.
func (d *Device) adviceList(ctx context.Context) release.AdviceList {
	cat, err := d.catalog()
	if err != nil {
		return release.AdviceList{}
	}
	list, err := cat.AdviceList(ctx)
	if err != nil {
		return release.AdviceList{}
	}
	return list
}

// listedApps are the list's entries about an improvement that are about this device:
// its OS, and apps that it has.
func (d *Device) listedApps(list release.AdviceList, rel string) []release.Advice {
	b, err := d.baseline()
	if err != nil {
		return nil
	}
	var entries []release.Advice
	for _, e := range list.For(rel) {
		if len(e.OSVersions) > 0 && !slices.Contains(e.OSVersions, b.OSVersion) {
			continue
		}
		for _, a := range d.Config.Apps {
			if a.ID == e.App {
				entries = append(entries, e)
			}
		}
	}
	return entries
}

// recorder is the agent's, or one that reads what the agent left.
func (d *Device) recorder() (*evidence.Recorder, error) {
	if d.Recorder != nil {
		return d.Recorder, nil
	}
	s, err := d.evidenceStore()
	if err != nil {
		return nil, err
	}
	r, _ := evidence.NewRecorder(s) // what does not read counts as nothing
	return r, nil
}

func (d *Device) evidenceStore() (*evidence.Store, error) {
	s, err := evidence.Open(d.Store.EvidenceDir())
	if err == nil {
		_, err = os.ReadDir(d.Store.EvidenceDir())
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, fault.New(fault.Failed, "cannot read what was counted: it needs root where no agent answers").Hint("run it with sudo")
	}
	return s, err
}

func (d *Device) prompts() (*evidence.Prompts, error) {
	s, err := d.evidenceStore()
	if err != nil {
		return nil, err
	}
	p, err := s.Prompts()
	if p == nil {
		return nil, err
	}
	return p, nil // what does not read counts as nothing
}

// statusOfAdvice is the question that waits, in a word for status.
func (d *Device) statusOfAdvice() string {
	p, err := d.prompts()
	if err != nil {
		return ""
	}
	st, err := d.state()
	if n, ok := p.Pending(); ok && err == nil {
		if set := st.running(); set != nil && set.Release == n.Release {
			return n.App
		}
	}
	return "none"
}

// noneWanted says whether the improvements are removed, or wait for a restart to be.
func (d *Device) noneWanted() bool {
	st, err := d.state()
	if err != nil {
		return false
	}
	set := st.running()
	return set == nil || set.IsBaseline()
}

// AnswerOptions are what a person says to the question.
type AnswerOptions struct {
	Answer evidence.Answer `json:"answer"`
}

// Answer takes the person's answer to the question that waits. "remove" only
// notes it, for whom may remove: the removal itself is the normal one. Anybody may
// say "keep": that opens nothing.
func (d *Device) Answer(ctx context.Context, o AnswerOptions, actor Actor, events Report) (Question, error) {
	if o.Answer == evidence.Remove && actor.Person() {
		var uid uint32
		if _, err := fmt.Sscanf(string(actor), "user:%d", &uid); err != nil {
			return Question{}, err
		}
		// Whoever may has removed them already: then it is only said why.
		if err := d.mayRemoveAsUser(uid); err != nil && !d.noneWanted() {
			return Question{}, err
		}
	}
	p, err := d.prompts()
	if err != nil {
		return Question{}, err
	}
	n, err := p.Answer(o.Answer)
	if err != nil {
		return Question{}, err
	}
	outcome := report.Dismissed
	if o.Answer == evidence.Remove {
		outcome = report.Accepted
	}
	d.tellRecommended(n, outcome, events)
	d.note(ctx, store.Record{Event: "recommendation-answered", Release: n.Release, App: n.App, Reason: string(o.Answer), Actor: string(actor), Text: n.App}, events)
	return Question{n, n.Text()}, nil
}
