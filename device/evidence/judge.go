package evidence

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
)

// Question is one app under one improvement.
type Question struct {
	App     string
	Version string // of the app itself, as stamped on its launches
	Arm     Arm    // the improvement, exactly
	Scope   string // ScopeMain or ScopeAny
	Listed  int    // how many apps on this device the vendor lists for the improvement, at least 1
	Minimum int    // the evidence that the list's entry asks for
}

// Judgement is the answer, with all that a person needs to check it.
type Judgement struct {
	Question
	Verdict eprocess.Verdict
	Counts  eprocess.Counts
	E       eprocess.E // good only if Judged
	Judged  bool       // there was use in both arms
	Needed  float64    // E at which removal is recommended
	Seen0   int64      // crashes without, each one of a burst counted
	Seen1   int64      // crashes with
	Days0   int        // days from the first to the last use without
	Days1   int        // days from the first to the last use with
}

// Judge compares an app with its own past: use of the same version of the app,
// on the same baseline, with the improvement, and with anything older than it in
// the Baseline before it first ran with it and ever since.
func (r *Recorder) Judge(q Question) Judgement {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := Judgement{Question: q, Verdict: NotActive, Needed: eprocess.Needed(q.Listed, float64(q.Minimum))}
	d := r.apps[q.App]
	if d == nil {
		return j
	}
	first := d.first(q)
	if first == "" {
		return j
	}
	from := addDays(first, -int(Baseline/(24*time.Hour)))
	var with, without, other tally
	for i := range d.Series {
		s := &d.Series[i]
		switch {
		case s.Base != q.Arm.Base || s.Scope != q.Scope:
		case s.Arm == q.Arm && s.Version == q.Version:
			with.add(s.Days, "")
		case s.Level < q.Arm.Level && s.Version == q.Version:
			without.add(s.Days, from)
		case s.Level < q.Arm.Level:
			other.add(s.Days, from)
		}
	}
	j.Counts = eprocess.Counts{X0: without.crashes, T0: without.hours(), X1: with.crashes, T1: with.hours()}
	j.Seen0, j.Days0, j.Seen1, j.Days1 = without.seen, without.span(), with.seen, with.span()
	if j.Counts.T0 < eprocess.MinHours && other.hours() >= eprocess.MinHours {
		j.Verdict = Confounded
		return j
	}
	verdict, e, err := j.Counts.Judge(q.Listed, float64(q.Minimum))
	if err != nil {
		j.Verdict = eprocess.NotEnoughData // no use at all in one arm
		return j
	}
	j.Verdict, j.E, j.Judged = verdict, e, true
	return j
}

// first is the first day on which the app ran with the improvement.
func (d *document) first(q Question) (day string) {
	for i := range d.Series {
		if s := &d.Series[i]; s.Arm == q.Arm && len(s.Days) > 0 && (day == "" || s.Days[0].Day < day) {
			day = s.Days[0].Day
		}
	}
	return day
}

// tally sums days.
type tally struct {
	crashes, seen, ms int64
	first, last       string
}

func (t *tally) add(days []dayCounts, from string) {
	for _, c := range days {
		if c.Day < from {
			continue
		}
		t.crashes, t.seen, t.ms = t.crashes+c.Crashes, t.seen+c.Seen, t.ms+c.Used
		if t.first == "" || c.Day < t.first {
			t.first = c.Day
		}
		t.last = max(t.last, c.Day)
	}
}

func (t *tally) hours() float64 { return (time.Duration(t.ms) * time.Millisecond).Hours() }

func (t *tally) span() int {
	if t.first == "" {
		return 0
	}
	a, err1 := time.Parse(dayLayout, t.first)
	b, err2 := time.Parse(dayLayout, t.last)
	if err1 != nil || err2 != nil {
		return 0 // never: days were checked
	}
	return int(b.Sub(a)/(24*time.Hour)) + 1
}

// Day tells of an app on one UTC day: whether it was used, whether it crashed, and
// whether it crashed before, on or after the day began. It looks at every content.
func (r *Recorder) Day(app, day, began string) (used, crashed, before bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.apps[app]
	if d == nil {
		return false, false, false
	}
	for i := range d.Series {
		s := &d.Series[i]
		if s.Scope != ScopeAny {
			continue
		}
		for _, c := range s.Days {
			switch {
			case c.Day == day:
				used, crashed = used || c.Used > 0, crashed || c.Crashes > 0
			case c.Day >= began && c.Day < day:
				before = before || c.Crashes > 0
			}
		}
	}
	return used, crashed, before
}

// Apps lists the apps that were ever counted, sorted.
func (r *Recorder) Apps() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	apps := make([]string, 0, len(r.apps))
	for app := range r.apps {
		apps = append(apps, app)
	}
	sort.Strings(apps)
	return apps
}

// Arms lists the improvements of a baseline that any app ran with, the newest
// first.
func (r *Recorder) Arms(base string) []Arm {
	r.mu.Lock()
	defer r.mu.Unlock()
	var arms []Arm
	for _, d := range r.apps {
		for i := range d.Series {
			if s := &d.Series[i]; s.Base == base && s.Release != "" && !slices.Contains(arms, s.Arm) {
				arms = append(arms, s.Arm)
			}
		}
	}
	slices.SortFunc(arms, func(a, b Arm) int { return cmp.Or(b.Level-a.Level, strings.Compare(a.Release, b.Release)) })
	return arms
}

// Version is the version of the app that ran last in an arm; ok is false if none
// ever did.
func (r *Recorder) Version(app string, arm Arm) (version string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.apps[app]
	if d == nil {
		return "", false
	}
	var newest string
	for i := range d.Series {
		if s := &d.Series[i]; s.Arm == arm && s.newest() >= newest && len(s.Days) > 0 {
			newest, version, ok = s.newest(), s.Version, true
		}
	}
	return version, ok
}
