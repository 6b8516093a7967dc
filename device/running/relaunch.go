package running

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Plan is what a relaunch of one app means: which of its processes are on old
// content and must end.
type Plan struct {
	App     policy.App
	Old     []Use // one for each process
	Foreign []Use // of other users, who alone can start them again as they were
	Hidden  int   // processes that this user may not look into
}

// NewPlan finds an app's processes on old content.
func NewPlan(st *store.Store, apps []policy.App, id string) (*Plan, error) {
	app, err := launch.FindApp(apps, id)
	if err != nil {
		return nil, err
	}
	found, err := Processes(st, apps)
	if err != nil {
		return nil, err
	}
	return planOf(app, found), nil
}

// Pick is NewPlan from a scan that somebody else made, for a service whether
// apps.d has it or not.
func (s *Scan) Pick(service policy.App) []Use {
	var old []Use
	for _, u := range s.Uses {
		ours := service.OwnsUnit(u.Unit) || u.App != "" && u.App == service.ID && service.Unit == ""
		if ours && u.State != Active && !slices.ContainsFunc(old, func(x Use) bool { return x.PID == u.PID }) {
			old = append(old, u)
		}
	}
	return old
}

func planOf(app policy.App, found *Scan) *Plan {
	plan := &Plan{App: app, Hidden: found.Hidden}
	uid := os.Getuid()
	for _, u := range found.Uses {
		if u.App != app.ID || u.State == Active || !app.Uses(u.Cryptex) || u.PID == os.Getpid() {
			continue
		}
		list := &plan.Old
		if u.UID != uid && app.Unit == "" {
			list = &plan.Foreign
		}
		if !slices.ContainsFunc(*list, func(x Use) bool { return x.PID == u.PID }) {
			*list = append(*list, u)
		}
	}
	return plan
}

// Names lists processes for people: "2211 (browser), 2240 (browser)".
func Names(uses []Use) string {
	names := make([]string, len(uses))
	for i, u := range uses {
		names[i] = fmt.Sprintf("%d (%s)", u.PID, u.Command)
	}
	return strings.Join(names, ", ")
}

// End asks the plan's old processes to end and waits until they have, or until
// the timeout. They are never killed unless force is set, and then only after
// the timeout: a program may have something to save.
func (p *Plan) End(ctx context.Context, timeout time.Duration, force bool) error {
	var open []*target
	defer func() {
		for _, t := range open {
			t.handle.Close()
		}
	}()
	for _, u := range p.Old {
		t, err := aim(u)
		if err != nil {
			return err
		}
		if t != nil {
			open = append(open, t)
		}
	}
	for _, t := range open {
		if err := t.handle.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("cannot ask process %d (%s) to end: %w", t.use.PID, t.use.Command, err)
		}
	}
	left := waitFor(ctx, open, timeout)
	if len(left) > 0 && force {
		for _, t := range left {
			_ = t.handle.Signal(syscall.SIGKILL)
		}
		left = waitFor(ctx, left, timeout)
	}
	if len(left) == 0 {
		return ctx.Err()
	}
	var names []Use
	for _, t := range left {
		names = append(names, t.use)
	}
	return fault.New(fault.Relaunch, "cannot relaunch %s: still running after %v: %s", p.App.Name, timeout, Names(names)).
		Hint("save your work and close it, then again: sealant relaunch %s; or end it now: --force", p.App.ID)
}

// target is a process that is to end, held so that its number can't come to
// mean another one.
type target struct {
	use    Use
	handle linux.Pidfd
}

// aim takes hold of a process and makes sure that it still is the one that was
// found. It returns nil if that has ended.
func aim(u Use) (*target, error) {
	handle, err := linux.OpenPidfd(u.PID)
	if errors.Is(err, syscall.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := linux.OpenProcess(u.PID)
	if err == nil {
		defer p.Close()
		var st linux.Stat
		if st, err = p.Stat(); err == nil && st.Start == u.start && !handle.Ended() {
			return &target{u, handle}, nil
		}
	}
	handle.Close()
	if err != nil && !linux.Gone(err) {
		return nil, err
	}
	return nil, nil
}

func waitFor(ctx context.Context, list []*target, timeout time.Duration) (left []*target) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, t := range list {
		if t.handle.Wait(ctx) != nil && !t.handle.Ended() {
			left = append(left, t)
		}
	}
	return left
}
