// Package report takes the counts that people agreed to share, and shows them
// so that nobody stands out.
//
// A report says nothing about who sends it (package internal/report is the
// format). The server keeps sums only: per improvement, OS build, architecture,
// arm, day and app, how many reports said "at risk" and "first crash". It does
// not keep the sender's address, the time of day, or the report. What a person
// is shown has no count of fewer than ten devices.
//
// Reports prove nothing: whoever wants can send forged ones. So they never
// remove a fix by themselves; they can make an operator look.
package report

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/store"
)

// Why a report is not counted.
var (
	// ErrMeaningless: the report is well formed, but about nothing that this
	// server published, or about a day that can't be reported any more.
	ErrMeaningless = errors.New("the report is about nothing that is counted")
	// ErrFull: there are more different cells than a real fleet can have.
	ErrFull = errors.New("too many different apps are reported")
)

// Limits of what is counted.
const (
	oldest   = 15 * 24 * time.Hour // a device may have been offline for two weeks
	maxCells = 20_000              // for one improvement and day
)

// Desk takes reports.
type Desk struct {
	DB     *store.DB
	Source *catalog.Source
	Now    func() time.Time

	mu    sync.Mutex
	cells map[cellDay]filled
}

type cellDay struct{ release, day string }

// filled remembers how many cells a day has, for a minute.
type filled struct {
	cells int64
	at    time.Time
}

// Take counts one report, and spends its token, which was verified; nil where
// the server asks for none. fresh is false if it was counted before. An error is
// ErrMeaningless, ErrFull, store.ErrSpent, the format's, or the database's.
func (d *Desk) Take(ctx context.Context, data []byte, spent *store.Spent) (fresh bool, err error) {
	daily, recommendation, err := report.Parse(data)
	if err != nil {
		return false, err
	}
	view, err := d.Source.View(ctx)
	if err != nil {
		return false, err
	}
	var name string
	c := store.Counts{Spent: spent}
	now := d.Now()
	if daily != nil {
		name = daily.Name
		if err := d.meaningful(ctx, view, daily, now); err != nil {
			return false, err
		}
		for _, a := range daily.Apps {
			c.Cells = append(c.Cells, store.Cell{
				Release: daily.Improvement, OSBuild: daily.OSBuild, Arch: daily.Arch, Arm: daily.Arm, Day: daily.Day, App: a.App,
				AtRisk: bit(a.AtRisk), Crashed: bit(a.FirstCrash),
			})
		}
	} else {
		name = recommendation.Name
		// Only what the vendor listed can have been recommended.
		if _, listed := view.Advice.Find(recommendation.Improvement, recommendation.App); !listed {
			return false, fmt.Errorf("%w: %s is not listed for %s", ErrMeaningless, recommendation.App, recommendation.Improvement)
		}
		c.Recommendations = []store.Recommendation{{
			Release: recommendation.Improvement, App: recommendation.App, Outcome: recommendation.Outcome, Count: 1,
		}}
	}
	id, err := hex.DecodeString(name)
	if err != nil {
		return false, err
	}
	return d.DB.AddCounts(ctx, id, c, now)
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// meaningful bounds what strangers can fill the tables with.
func (d *Desk) meaningful(ctx context.Context, view *catalog.View, r *report.Daily, now time.Time) error {
	m, ok := view.Release(r.Improvement)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s is not published", ErrMeaningless, r.Improvement)
	case r.OSBuild != m.OSVersion:
		return fmt.Errorf("%w: %s is not for %s", ErrMeaningless, r.Improvement, r.OSBuild)
	}
	day, err := time.Parse(time.DateOnly, r.Day)
	if err != nil {
		return err
	}
	// Days are UTC everywhere; a device's clock may be a little ahead.
	if age := now.Sub(day); age > oldest || age < -time.Hour {
		return fmt.Errorf("%w: the day %s", ErrMeaningless, r.Day)
	}
	return d.room(ctx, r.Improvement, r.Day, now)
}

// room fails if a day has all the cells it may have.
func (d *Desk) room(ctx context.Context, release, day string, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := cellDay{release, day}
	f, known := d.cells[key]
	if age := now.Sub(f.at); !known || age > time.Minute || age < 0 {
		n, err := d.DB.CountCells(ctx, release, day)
		if err != nil {
			return err
		}
		if d.cells == nil || len(d.cells) > 1000 {
			d.cells = map[cellDay]filled{}
		}
		f = filled{cells: n, at: now}
		d.cells[key] = f
	}
	if f.cells >= maxCells {
		return ErrFull
	}
	return nil
}

// Days are an app's counts in the form that the fleet's test takes (package
// internal/eprocess), in the order of days and strata. They are for the test,
// not for eyes: nothing is suppressed.
func Days(cells []store.Cell, app string) []eprocess.Day {
	type key struct{ day, stratum string }
	at := map[key]int{}
	var days []eprocess.Day
	for _, c := range cells {
		if c.App != app {
			continue
		}
		k := key{c.Day, c.OSBuild + " " + c.Arch}
		i, ok := at[k]
		if !ok {
			i = len(days)
			at[k] = i
			days = append(days, eprocess.Day{Stratum: k.stratum})
		}
		if c.Arm == report.Offered {
			days[i].F1, days[i].R1 = days[i].F1+c.Crashed, days[i].R1+c.AtRisk
		} else {
			days[i].F0, days[i].R0 = days[i].F0+c.Crashed, days[i].R0+c.AtRisk
		}
	}
	return days
}

// Line is what people are shown of one app under one improvement. A count that
// is nil is one of fewer than ten devices.
type Line struct {
	Release        string `json:"release"`
	App            string `json:"app"`
	Days           int    `json:"days"`            // with at least one report
	OfferedAtRisk  *int64 `json:"offered_at_risk"` // device-days
	OfferedCrashed *int64 `json:"offered_crashed"` // first crashes
	ControlAtRisk  *int64 `json:"control_at_risk"`
	ControlCrashed *int64 `json:"control_crashed"`
	Suppressed     int    `json:"suppressed"` // cells of fewer than ten devices, left out
}

// Lines sums the cells per improvement and app. Cells of fewer than ten
// devices are left out of the sums, so that no sum minus another gives them.
func Lines(cells []store.Cell) []Line {
	type key struct{ release, app string }
	type sums struct {
		line           int
		r1, f1, r0, f0 int64
		days           map[string]bool
	}
	all := map[key]*sums{}
	lines := []Line{}
	for _, c := range cells {
		k := key{c.Release, c.App}
		s, ok := all[k]
		if !ok {
			s = &sums{line: len(lines), days: map[string]bool{}}
			all[k] = s
			lines = append(lines, Line{Release: c.Release, App: c.App})
		}
		s.days[c.Day] = true
		if c.AtRisk < report.Suppress {
			lines[s.line].Suppressed++
			continue
		}
		if c.Arm == report.Offered {
			s.r1, s.f1 = s.r1+c.AtRisk, s.f1+c.Crashed
		} else {
			s.r0, s.f0 = s.r0+c.AtRisk, s.f0+c.Crashed
		}
	}
	for _, s := range all {
		l := &lines[s.line]
		l.Days = len(s.days)
		l.OfferedAtRisk, l.OfferedCrashed = shown(s.r1), shown(s.f1)
		l.ControlAtRisk, l.ControlCrashed = shown(s.r0), shown(s.f0)
	}
	return lines
}

// shown is a count for people: nil if it is of fewer than ten devices.
func shown(n int64) *int64 {
	if n < report.Suppress {
		return nil
	}
	return &n
}

// Outcomes are what people did with recommendations, as people are shown it.
type Outcomes struct {
	Release   string `json:"release"`
	App       string `json:"app"`
	Shown     *int64 `json:"shown"`
	Accepted  *int64 `json:"accepted"`
	Dismissed *int64 `json:"dismissed"`
}

// Sum combines the counts of recommendations per improvement and app.
func Sum(list []store.Recommendation) []Outcomes {
	out := []Outcomes{}
	for _, r := range list {
		if n := len(out); n == 0 || out[n-1].Release != r.Release || out[n-1].App != r.App {
			out = append(out, Outcomes{Release: r.Release, App: r.App})
		}
		o := &out[len(out)-1]
		switch r.Outcome {
		case report.Shown:
			o.Shown = shown(r.Count)
		case report.Accepted:
			o.Accepted = shown(r.Count)
		case report.Dismissed:
			o.Dismissed = shown(r.Count)
		}
	}
	return out
}
