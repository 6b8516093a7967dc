package device

import (
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/running"
)

// A day under policies, minute by minute, by a simulated clock.
func TestForce(t *testing.T) {
	apps := []policy.App{
		{ID: "web", Unit: "web.service", Cryptexes: []string{"web"}},
		{ID: "many", Unit: "many@.service", Cryptexes: []string{"web"}},
		{ID: "browser", Command: []string{"/usr/bin/browser"}, Cryptexes: []string{"web"}},
	}
	old := []running.Use{
		{PID: 1, Unit: "web.service", State: running.Base},
		{PID: 2, Unit: "many@1.service", State: running.Older},
		{PID: 3, App: "browser", State: running.Base},
	}
	night := policy.Windows{{Start: 2 * time.Hour, End: 5 * time.Hour}}
	midnight := time.Date(2026, 11, 24, 0, 0, 0, 0, time.Local)
	for name, tt := range map[string]struct {
		policy              policy.Policy
		blockedUntil        time.Duration // since midnight
		relaunch, announced time.Duration // when, since midnight; -1 for never
		restarted           time.Duration
		held                []string
		services            int
		nothing             bool // is staged
	}{
		"notify": {policy: policy.Policy{ActivateRelaunch: "notify", ActivateRestart: "notify"}, relaunch: -1, announced: -1, restarted: -1},
		"force at any time": {
			policy: policy.Policy{ActivateRelaunch: "force", ActivateRestart: "window"}, services: 2, announced: 0, restarted: 15 * time.Minute,
		},
		"in the window": {
			policy:   policy.Policy{ActivateRelaunch: "force", ActivateRestart: "window", ActivateWindow: night},
			relaunch: 2 * time.Hour, services: 2, announced: 2 * time.Hour, restarted: 2*time.Hour + 15*time.Minute,
		},
		"held services are left": {
			policy: policy.Policy{ActivateRelaunch: "force", ActivateRestart: "never"}, services: 1, announced: -1, restarted: -1, held: []string{"web.service"},
		},
		"inhibited for an hour of the window": {
			policy:       policy.Policy{ActivateRelaunch: "never", ActivateRestart: "window", ActivateWindow: night},
			blockedUntil: 3 * time.Hour, relaunch: -1, announced: 3 * time.Hour, restarted: 3*time.Hour + 15*time.Minute,
		},
		"inhibited too long: not this night": {
			policy:       policy.Policy{ActivateRelaunch: "never", ActivateRestart: "window", ActivateWindow: night},
			blockedUntil: 4*time.Hour + 46*time.Minute, relaunch: -1, announced: -1, restarted: -1,
		},
		"nothing staged": {
			policy: policy.Policy{ActivateRelaunch: "force", ActivateRestart: "window"}, nothing: true, relaunch: -1, announced: -1, restarted: -1,
		},
	} {
		relaunch, announced, restarted := time.Duration(-1), time.Duration(-1), time.Duration(-1)
		m := moment{waits: !tt.nothing, restart: true, old: old, held: tt.held}
		for at := time.Duration(0); at < 24*time.Hour && restarted < 0; at += time.Minute {
			m.now, m.blocked = midnight.Add(at), ""
			if at < tt.blockedUntil {
				m.blocked = "the burner"
			}
			want := decide(tt.policy, apps, m)
			if len(want.relaunch) > 0 && relaunch < 0 {
				if relaunch = at; len(want.relaunch) != tt.services {
					t.Errorf("%s: %d services", name, len(want.relaunch))
				}
			}
			for _, a := range want.relaunch {
				if a.Unit == "" {
					t.Errorf("%s: a person's app is ended", name)
				}
			}
			if want.announce {
				if announced < 0 {
					announced = at
				}
				m.plan = &restartPlan{At: m.now.Add(Notice)}
			}
			if want.cancel != "" {
				m.plan = nil
			}
			if want.restart {
				restarted = at
			}
		}
		if relaunch != tt.relaunch || announced != tt.announced || restarted != tt.restarted {
			t.Errorf("%s: relaunch %v, announced %v, restarted %v", name, relaunch, announced, restarted)
		}
	}
}

// An announced restart does not happen when what it was for is gone, policy says
// otherwise by then, or somebody began to hold it back.
func TestForceCancels(t *testing.T) {
	now := time.Date(2026, 11, 24, 2, 15, 0, 0, time.Local)
	window := policy.Policy{ActivateRestart: "window", ActivateWindow: policy.Windows{{Start: 2 * time.Hour, End: 5 * time.Hour}}}
	ready := moment{now: now, waits: true, restart: true, plan: &restartPlan{At: now}}
	for name, tt := range map[string]struct {
		change func(*policy.Policy, *moment)
		cancel string
	}{
		"stands":       {func(*policy.Policy, *moment) {}, ""},
		"unstaged":     {func(_ *policy.Policy, m *moment) { m.waits = false }, "nothing-staged"},
		"policy":       {func(p *policy.Policy, _ *moment) { p.ActivateRestart = "notify" }, "policy"},
		"inhibited":    {func(_ *policy.Policy, m *moment) { m.blocked = "x" }, "inhibited"},
		"window over":  {func(_ *policy.Policy, m *moment) { m.now = now.Add(4 * time.Hour) }, "window"},
		"no more need": {func(_ *policy.Policy, m *moment) { m.restart = false }, "not-needed"},
	} {
		p, m := window, ready
		tt.change(&p, &m)
		if want := decide(p, nil, m); want.cancel != tt.cancel || want.restart != (tt.cancel == "") {
			t.Errorf("%s: %+v", name, want)
		}
	}
}
