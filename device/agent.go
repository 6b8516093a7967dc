package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
)

// Opener opens the device anew for every call, so that a changed configuration
// counts at once.
type Opener func() (*Device, error)

// Journeys is what can be asked of a device, by name: what the agent serves,
// and what a command does itself, as root, where no agent answers.
func Journeys(open Opener) map[string]localapi.Method {
	return map[string]localapi.Method{
		"enroll":  byRoot(open, (*Device).Enroll),
		"install": byRoot(open, (*Device).Install),
		"reapply": byRoot(open, (*Device).Reapply),
		"remove":  {Allow: mayRemove(open), Handle: by(open, (*Device).Remove)},
		"restart": {Allow: root, Handle: asked(open, (*Device).Restart)},
		"confirm": {Allow: root, Handle: asked(open, func(d *Device, ctx context.Context, _ struct{}, r Report) (Confirmed, error) {
			return d.Confirm(ctx, r)
		})},
		"check":   {Handle: asked(open, (*Device).Check)},
		"status":  {Handle: plain(open, (*Device).Status)},
		"verify":  {Handle: asked(open, (*Device).Verify)},
		"history": {Handle: plain(open, (*Device).History)},
		"show":    {Handle: asked(open, (*Device).Show)},
		"cve":     {Handle: asked(open, (*Device).CVE)},
		"policy":  {Handle: plain(open, (*Device).Policy)},
		"doctor":  {Handle: plain(open, (*Device).Doctor)},
	}
}

// byRoot is a journey that only root may begin.
func byRoot[O, R any](open Opener, f func(*Device, context.Context, O, Actor, Report) (R, error)) localapi.Method {
	return localapi.Method{Allow: root, Handle: by(open, f)}
}

type handle = func(context.Context, localapi.Peer, json.RawMessage, func(any)) (any, error)

// by adapts a journey that has an actor.
func by[O, R any](open Opener, f func(*Device, context.Context, O, Actor, Report) (R, error)) handle {
	return func(ctx context.Context, peer localapi.Peer, params json.RawMessage, emit func(any)) (any, error) {
		d, o, err := prepare[O](open, params)
		if err != nil {
			return nil, err
		}
		return f(d, ctx, o, User(peer.UID), func(e Event) { emit(e) })
	}
}

// asked adapts a journey without one.
func asked[O, R any](open Opener, f func(*Device, context.Context, O, Report) (R, error)) handle {
	return func(ctx context.Context, _ localapi.Peer, params json.RawMessage, emit func(any)) (any, error) {
		d, o, err := prepare[O](open, params)
		if err != nil {
			return nil, err
		}
		return f(d, ctx, o, func(e Event) { emit(e) })
	}
}

// plain adapts a journey without options.
func plain[R any](open Opener, f func(*Device, context.Context) (R, error)) handle {
	return asked(open, func(d *Device, ctx context.Context, _ struct{}, _ Report) (R, error) { return f(d, ctx) })
}

func prepare[O any](open Opener, params json.RawMessage) (*Device, O, error) {
	var o O
	if len(params) > 0 {
		if err := json.Unmarshal(params, &o); err != nil {
			return nil, o, fault.New(fault.Usage, "cannot understand the parameters: %w", err)
		}
	}
	d, err := open()
	return d, o, err
}

// root lets only root in.
func root(p localapi.Peer) error {
	if p.Root() {
		return nil
	}
	return fault.New(fault.Failed, "cannot do that: it needs root").Hint("run it with sudo")
}

// mayRemove lets others than root in where policy says so.
func mayRemove(open Opener) func(localapi.Peer) error {
	return func(p localapi.Peer) error {
		if p.Root() {
			return nil
		}
		d, err := open()
		if err != nil {
			return err
		}
		if d.Config.Policy.RemoveAdmin {
			return root(p)
		}
		return nil
	}
}

// Ask has a journey done: by the agent of the device at root if one answers,
// else by this process itself.
func Ask(ctx context.Context, rootDir, name string, params any, report Report, result any) error {
	d, err := Open(rootDir)
	if err != nil {
		return err
	}
	client, err := localapi.Dial(d.Store.SocketPath())
	if err == nil {
		return client.Call(ctx, name, params, func(raw json.RawMessage) {
			var e Event
			if json.Unmarshal(raw, &e) == nil {
				report.send(e)
			}
		}, result)
	}
	m, ok := Journeys(func() (*Device, error) { return d, nil })[name]
	if !ok {
		return fault.New(fault.Usage, "cannot do %q: there is no such journey", name)
	}
	peer := localapi.Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}
	if m.Allow != nil {
		if err := m.Allow(peer); err != nil {
			return err
		}
	}
	body, err := json.Marshal(params)
	if err != nil {
		return err
	}
	got, err := m.Handle(ctx, peer, body, func(v any) {
		if e, ok := v.(Event); ok {
			report.send(e)
		}
	})
	if err != nil {
		return err
	}
	// The same way over JSON as through the agent, so that both give the same.
	if body, err = json.Marshal(got); err != nil {
		return err
	}
	return json.Unmarshal(body, result)
}

// Agent runs until ctx ends: it confirms the boot, then serves the local API
// and asks for news now and then, installing what policy lets it.
func Agent(ctx context.Context, rootDir string, log *slog.Logger) error {
	open := func() (*Device, error) { return Open(rootDir) }
	d, err := open()
	if err != nil {
		return err
	}
	// Before the socket exists: whoever finds it finds the boot confirmed.
	if _, err := d.Store.Enrolment(); err == nil {
		c, err := d.Confirm(ctx, logged(log, "confirm"))
		if err != nil {
			log.Error("cannot confirm the boot", "error", err)
		} else if c.State != "unchanged" {
			log.Info("boot "+c.State, "set", c.Set, "text", c.Text)
		}
	}
	l, err := localapi.Listen(d.Store.SocketPath())
	if err != nil {
		return err
	}
	defer os.Remove(d.Store.SocketPath())
	notifyReady(log)
	ctx, stop := context.WithCancel(ctx)
	polling := make(chan struct{})
	go func() {
		defer close(polling)
		poll(ctx, open, log)
	}()
	err = localapi.Serve(ctx, l, Journeys(open))
	stop()
	<-polling
	return err
}

// poll asks for news at the configured interval, give or take a quarter, so
// that a fleet that was switched on together doesn't ask together.
func poll(ctx context.Context, open Opener, log *slog.Logger) {
	interval := policy.DefaultPoll
	for {
		if d, err := open(); err == nil {
			interval = d.Config.Agent.Poll
		}
		wait := interval*3/4 + rand.N(interval/2)
		select {
		case <-ctx.Done():
			return
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
