package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
)

// Agent runs until ctx ends: it confirms the boot, then serves the local API
// and asks for news now and then, installing what policy lets it.
func Agent(ctx context.Context, rootDir string, log *slog.Logger) error {
	observer := newObserver(func() (*Device, error) { return Open(rootDir) }, log)
	open := observer.opener()
	d, err := open()
	if err != nil {
		return err
	}
	// Before the socket exists: whoever finds it finds the boot confirmed.
	if _, err := d.Store.Enrolment(); err == nil {
		c, err := d.Confirm(ctx, logged(log, "confirm"))
		if err != nil {
			log.Error("cannot confirm the boot", "error", err)
		} else {
			log.Info("boot "+c.State, "set", c.Set)
		}
	}
	observer.begin(ctx)
	defer observer.end()
	calls, err := localapi.Listen(d.Store.SocketPath())
	if err != nil {
		return err
	}
	defer os.Remove(d.Store.SocketPath())
	launches, err := launch.Listen(d.Store)
	if err != nil {
		return errors.Join(err, calls.Close())
	}
	defer os.Remove(d.Store.LaunchSocketPath())
	server := &launch.Server{Store: d.Store, Apps: func() ([]policy.App, error) {
		d, err := open()
		if err != nil {
			return nil, err
		}
		return d.Config.Apps, nil
	}}
	notifyReady(log)
	return together(ctx, []func(context.Context) error{
		func(ctx context.Context) error { return localapi.Serve(ctx, calls, Journeys(open)) },
		func(ctx context.Context) error { return server.Serve(ctx, launches) },
		func(ctx context.Context) error { return poll(ctx, open, log) },
		observer.run,
		func(ctx context.Context) error { return share(ctx, open, log) },
	})
}

// together runs the parts of the agent until the first of them fails or ctx
// ends, and returns when all have ended.
func together(ctx context.Context, parts []func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(ctx) }()
	}
	var errs []error
	for range parts {
		if err := <-ended; err != nil && ctx.Err() == nil {
			errs = append(errs, err)
		}
		stop()
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

// notifyReady tells systemd that the agent is up, where it is asked to.
func notifyReady(log *slog.Logger) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.Dial("unixgram", path)
	if err == nil {
		_, err = c.Write([]byte("READY=1"))
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		log.Warn(fmt.Sprintf("cannot notify systemd: %v", err))
	}
}
