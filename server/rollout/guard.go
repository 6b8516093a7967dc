package rollout

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealant-os/sealant/server/evidence"
	"github.com/sealant-os/sealant/server/report"
	"github.com/sealant-os/sealant/server/store"
)

// GuardActor acts when the fleet's own crashes pause a rollout.
const GuardActor = "evidence"

// guardEvery is how often the counts are looked at. The test allows any number of
// looks.
const guardEvery = 10 * time.Minute

// Strata are a release's counts in the form that the fleet's test takes.
func Strata(cells []store.Cell) evidence.Strata {
	s := make(evidence.Strata)
	for _, c := range cells {
		if _, done := s[c.App]; !done {
			s[c.App] = report.Days(cells, c.App)
		}
	}
	return s
}

// Guard looks at the counts of every rollout under way and pauses those whose
// evidence says so (spec/evidence.md). It returns the releases that it paused.
// Nobody loses what they have, and a person can resume.
func (d *Desk) Guard(ctx context.Context) ([]string, error) {
	view, err := d.Source.View(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot look at the rollouts: %w", err)
	}
	var paused []string
	for _, ring := range view.Rollout.Entries {
		if ring.Halted || ring.Percent == 0 {
			continue
		}
		if since, err := d.DB.Paused(ctx, ring.Release); err != nil || !since.IsZero() {
			if err != nil {
				return paused, err
			}
			continue
		}
		cells, err := d.DB.Cells(ctx, ring.Release)
		if err != nil {
			return paused, err
		}
		j, err := Strata(cells).Judge()
		if err != nil {
			return paused, fmt.Errorf("cannot judge %s: %w", ring.Release, err)
		}
		if !j.Pause {
			continue
		}
		if before, err := d.guarded(ctx, ring.Release); err != nil || before {
			if err != nil {
				return paused, err
			}
			continue
		}
		guard := *d
		guard.Actor = GuardActor
		if _, err := guard.Pause(ctx, ring.Release); err != nil {
			return paused, err
		}
		paused = append(paused, ring.Release)
	}
	return paused, nil
}

// guarded says whether a rollout was paused by itself before: then a person has
// seen the evidence and resumed it, and it is not paused again.
func (d *Desk) guarded(ctx context.Context, id string) (bool, error) {
	events, err := d.DB.Events(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range events {
		if e.Actor == GuardActor && e.Action == "rollout.pause" && e.Target == id {
			return true, nil
		}
	}
	return false, nil
}

// Watch guards the rollouts until ctx ends.
func (d *Desk) Watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		paused, err := d.Guard(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("cannot guard the rollouts", "error", err)
		}
		for _, id := range paused {
			log.Warn("the rollout is paused: more first crashes where it is offered (sealsrv evidence show)", "release", id)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
