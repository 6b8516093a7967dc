package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sealant-os/sealant/device/login"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/device/units"
	"github.com/sealant-os/sealant/internal/journal"
)

// forceEvery is how often the agent looks whether policy forces something.
const forceEvery = 30 * time.Second

// moment is what policy decides on.
type moment struct {
	now     time.Time
	waits   bool          // something is staged that was not booted
	plan    *restartPlan  // the restart that was announced, nil for none
	old     []running.Use // processes on old content
	restart bool          // only a restart brings all of it about
	held    []string      // units that failed on what is staged
	blocked string        // who wants no restart now, "" for nobody
}

// demand is what policy forces at a moment.
type demand struct {
	relaunch []policy.App // services, to be restarted now
	announce bool         // a restart, in a quarter of an hour
	cancel   string       // why an announced restart does not happen, "" if it stands
	restart  bool         // now: it was announced
	wait     string       // why nothing is forced though policy wants it: a stable code
}

// decide is what policy forces. It never forces anything outside activate.window,
// restarts nothing that was not announced a quarter of an hour before, never ends
// an app that a person runs, and gives way to whoever holds a restart back.
func decide(p policy.Policy, apps []policy.App, m moment) demand {
	var want demand
	if !m.waits {
		if m.plan != nil {
			want.cancel = "nothing-staged"
		}
		return want
	}
	inside := p.ActivateWindow.Contain(m.now)
	if p.ActivateRelaunch == "force" && inside {
		want.relaunch = forced(apps, m)
	}
	due := m.now.Add(Notice)
	if m.plan != nil {
		due = m.plan.At
	}
	why := ""
	switch {
	case p.ActivateRestart != "window":
		why = "policy"
	case !m.restart:
		why = "not-needed"
	case !inside || !p.ActivateWindow.Contain(due) && m.plan == nil:
		why = "window"
	case m.blocked != "":
		why = "inhibited"
	}
	switch {
	case why != "" && m.plan != nil:
		want.cancel = why
	case why != "":
		if why != "policy" && why != "not-needed" {
			want.wait = why
		}
	case m.plan == nil:
		want.announce = true
	default:
		want.restart = !m.now.Before(m.plan.At)
	}
	return want
}

// forced are the services on old content that did not fail on the new.
func forced(apps []policy.App, m moment) []policy.App {
	var list []policy.App
	for _, a := range apps {
		if a.Unit == "" || slices.Contains(m.held, a.Unit) {
			continue
		}
		if slices.ContainsFunc(m.old, func(u running.Use) bool { return a.OwnsUnit(u.Unit) && u.State != running.Active }) {
			list = append(list, a)
		}
	}
	return list
}

// force does what policy forces, until ctx ends.
func force(ctx context.Context, open Opener, log *slog.Logger) error {
	tick := time.NewTicker(forceEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d, err := open()
		if err != nil {
			continue // the other parts of the agent tell
		}
		wait, err := d.Force(ctx, logged(log, "policy"))
		switch {
		case err != nil && ctx.Err() == nil:
			log.Warn("cannot do what policy forces", "error", err)
		case wait != said:
			if said = wait; wait != "" {
				log.Info("policy waits", "reason", wait)
			}
		}
	}
}

// Force does what policy forces at this moment. It returns why it waits, if policy
// wants something that can't be now.
func (d *Device) Force(ctx context.Context, report Report) (string, error) {
	p := d.Config.Policy
	plan, planned := d.plannedRestart()
	if p.ActivateRelaunch != "force" && p.ActivateRestart != "window" && !planned {
		return "", nil // by far the most devices: nothing is looked at
	}
	m, err := d.moment(ctx)
	if err != nil {
		return "", err
	}
	if planned {
		m.plan = &plan
	}
	want := decide(p, d.Config.Apps, m)
	for _, a := range want.relaunch {
		// One that fails is held on what was booted, and not tried again.
		if _, err := d.Relaunch(ctx, RelaunchOptions{App: a.Unit}, ByPolicy, report); err != nil {
			report.warn("relaunch", "%v", err)
		}
	}
	return want.wait, d.forceRestart(ctx, want, m, report)
}

func (d *Device) forceRestart(ctx context.Context, want demand, m moment, report Report) error {
	switch {
	case want.cancel != "":
		report.note("restart", "the restart that was announced does not happen: %s %s", want.cancel, m.blocked)
		return d.cancelRestart()
	case want.announce:
		p, err := d.planRestart()
		if err == nil {
			report.note("restart", "policy restarts this device at %s", p.At.Local().Format("15:04"))
		}
		return err
	case want.restart:
		_ = d.journal().Send(journal.Entry{Event: journal.Restarting, Actor: string(ByPolicy), Reason: "policy", Text: "policy restarts this device now, as announced"})
		err := d.reboot(ctx)
		return errors.Join(err, d.cancelRestart())
	}
	return nil
}

// moment gathers what decide needs; all of it is there only if something is
// staged.
func (d *Device) moment(ctx context.Context) (moment, error) {
	m := moment{now: d.Now()}
	st, err := d.state()
	if err != nil || st.next == nil || st.inert(st.next) {
		return m, err
	}
	m.waits, m.restart = true, d.bootedSet().ID != st.next.ID
	scan, err := running.Processes(d.Store, d.Config.Apps)
	if err != nil {
		return m, err
	}
	m.old = scan.Uses
	s, err := units.Examine(d.Store)
	if err != nil {
		return m, err
	}
	m.held = s.Held
	m.blocked, err = d.inhibited(ctx)
	return m, err
}

// inhibited names who wants no restart now.
func (d *Device) inhibited(ctx context.Context) (string, error) {
	list, err := login.Inhibitors(ctx, d.Store.Root())
	if errors.Is(err, login.ErrNone) || err == nil && len(list) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%q holds it back: %q", list[0].Who, list[0].Why), nil
}
