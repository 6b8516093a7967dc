package device

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"time"

	"github.com/sealant-os/sealant/device/bus"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

// AgentOptions say what else runs on the machine.
type AgentOptions struct {
	// Service is set where systemd's units do what only they can do well: start
	// programs apart from the agent's sandbox (sealant-launch.service), and
	// confirm the boot when it is complete (sealant-confirm.service).
	Service bool
}

// Agent runs until ctx ends: it confirms the boot, then serves the local API
// and asks for news now and then, installing what policy lets it.
func Agent(ctx context.Context, rootDir string, o AgentOptions, log *slog.Logger) error {
	observer := newObserver(func() (*Device, error) { return Open(rootDir) }, log)
	open := observer.opener()
	d, err := open()
	if err != nil {
		return err
	}
	if !o.Service {
		// Before the socket exists: whoever finds it finds the boot confirmed.
		confirmBoot(ctx, d, log)
	}
	// What a crash left, or apps.d says since.
	if err := d.follow(ctx)(); err != nil {
		log.Warn("services can't get what is staged", "error", err)
	}
	executor := &executor{open: open, log: log}
	_, _ = executor.load(ctx) // it says itself what is wrong, and tries again
	observer.begin(ctx)
	defer observer.end()
	calls, err := localapi.Listen(d.Store.SocketPath())
	if err != nil {
		return err
	}
	defer os.Remove(d.Store.SocketPath())
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return localapi.Serve(ctx, calls, Journeys(open)) },
		func(ctx context.Context) error { return poll(ctx, open, log) },
		func(ctx context.Context) error { return force(ctx, open, log) },
		observer.run,
		func(ctx context.Context) error { return share(ctx, open, log) },
		executor.keep,
		func(ctx context.Context) error { return keepWhole(ctx, open, log) },
		func(ctx context.Context) error { return watchdog(ctx, d.Store.SocketPath()) },
	}
	if rootDir == "/" || rootDir == "" {
		parts = append(parts, func(ctx context.Context) error { return onBus(ctx, d.Store.Root(), Journeys(open), log) })
	}
	if !o.Service {
		launches, err := launch.Listen(d.Store)
		if err != nil {
			return errors.Join(err, calls.Close())
		}
		defer os.Remove(d.Store.LaunchSocketPath())
		server := launchServer(d.Store)
		parts = append(parts, func(ctx context.Context) error { return server.Serve(ctx, launches) })
	}
	if err := tellSystemd("READY=1"); err != nil {
		log.Warn("cannot tell systemd that the agent is up", "error", err)
	}
	debug.FreeOSMemory()
	return together(ctx, parts)
}

// onBus serves on the system's bus for as long as there is one; a bus that is
// restarted is found again. A machine without one works without.
func onBus(ctx context.Context, root string, methods map[string]localapi.Method, log *slog.Logger) error {
	pause := time.Second
	for said := false; ctx.Err() == nil; said = true {
		err := bus.Serve(ctx, root, methods)
		if err != nil && ctx.Err() == nil && (!said || !errors.Is(err, bus.ErrNone)) {
			log.Info("not on the system's bus", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, busPause)
	}
	return nil
}

// busPause is how long to wait at most before the bus is looked for again.
const busPause = time.Minute

func launchServer(st *store.Store) *launch.Server {
	return &launch.Server{Store: st, Self: launchProgram(st), Confine: Confine(st), Apps: func() ([]policy.App, error) {
		c, err := policy.Load(st.ConfigDir())
		if err != nil {
			return nil, err
		}
		return c.Apps, nil
	}}
}

// launchProgram is the small program that becomes what is launched, nil where it is
// not installed: then this program does it, in some more milliseconds.
func launchProgram(st *store.Store) []string {
	path := "/usr/lib/sealant/sealant-launch"
	if st.Root() != "/" {
		return nil
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode()&0o111 == 0 {
		return nil
	}
	return []string{path, launch.ChildCommand}
}

// idleTime is how long the launcher stays when nothing that it started runs.
const idleTime = 2 * time.Minute

// Launcher starts programs for people on the socket that systemd hands over,
// until nothing that it started runs any more and nobody has asked for a while.
func Launcher(ctx context.Context, rootDir string) error {
	st, err := store.Open(rootDir)
	if err != nil {
		return err
	}
	l, err := launch.Inherited()
	if err != nil {
		return err
	}
	server := launchServer(st)
	server.Idle = idleTime
	return server.Serve(ctx, l)
}

func confirmBoot(ctx context.Context, d *Device, log *slog.Logger) {
	if _, err := d.Store.Enrolment(); err != nil {
		return
	}
	c, err := d.Confirm(ctx, logged(log, "confirm"))
	if err != nil {
		log.Error("cannot confirm the boot", "error", err)
		return
	}
	log.Info("boot "+c.State, "set", c.Set)
}

// together runs the parts of the agent until one of them fails or ctx ends, and
// returns when all have ended. A part that has nothing to do on this machine may
// end before.
func together(ctx context.Context, parts []func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	var errs []error
	for range parts {
		if err := <-ended; err != nil {
			if ctx.Err() == nil {
				errs = append(errs, err)
			}
			stop()
		}
	}
	return errors.Join(errs...)
}

// poll asks for news at the configured interval, give or take a quarter, so
// that a fleet that was switched on together doesn't ask together.
func poll(ctx context.Context, open Opener, log *slog.Logger) error {
	interval := policy.DefaultPoll
	for {
		if d, err := open(); err == nil {
			interval = d.Config.Agent.Poll
		}
		wait := interval*3/4 + rand.N(interval/2)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := pollOnce(ctx, open, log); err != nil && ctx.Err() == nil {
			log.Warn("cannot check for improvements", "error", err, "reason", fault.KindOf(err).String())
		}
		debug.FreeOSMemory() // what that took isn't needed for a quarter of an hour
	}
}

func pollOnce(ctx context.Context, open Opener, log *slog.Logger) error {
	d, err := open()
	if err != nil {
		return err
	}
	if _, err := d.Store.Enrolment(); err != nil {
		return nil // nobody to ask yet
	}
	found, err := d.Check(ctx, CheckOptions{}, logged(log, "check"))
	if err != nil {
		return err
	}
	if found.Recall != nil {
		log.Warn(found.Recall.Message, "release", found.Recall.Release)
	}
	if found.State != StateAvailable {
		return nil
	}
	log.Info("improvement available", "release", found.Release, "name", found.Name)
	done, err := d.Install(ctx, InstallOptions{}, Auto, logged(log, "install"))
	switch kind := fault.KindOf(err); {
	case err == nil:
		log.Info("installed", "release", done.Release, "state", done.State, "relaunch", done.Relaunch)
	case kind == fault.Policy, kind == fault.Waiting:
		log.Info("not installed now", "release", found.Release, "reason", err.Error())
		return nil
	}
	return err
}

// logged turns events into log lines, without progress.
func logged(log *slog.Logger, journey string) Report {
	return func(e Event) {
		switch e.Kind {
		case Finished, Note:
			log.Info(e.Text, "journey", journey, "step", e.Step)
		case Warning:
			log.Warn(e.Text, "journey", journey, "step", e.Step)
		}
	}
}
