package device

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/polkit"
	"github.com/sealant-os/sealant/internal/fault"
)

// Opener opens the device anew for every call, so that a changed configuration
// counts at once.
type Opener func() (*Device, error)

// Journeys is what can be asked of a device, by name: what the agent serves,
// and what a command does itself, as root, where no agent answers.
func Journeys(open Opener) map[string]localapi.Method {
	return map[string]localapi.Method{
		"enroll":    byRoot(open, (*Device).Enroll),
		"install":   {Allow: may(open, polkit.Install), Handle: by(open, (*Device).Install)},
		"reapply":   {Allow: may(open, polkit.Install), Handle: by(open, (*Device).Reapply)},
		"automatic": {Allow: may(open, polkit.SetPolicy), Handle: by(open, (*Device).Automatic)},
		"remove":    {Allow: mayRemove(open), Handle: by(open, (*Device).Remove)},
		"relaunch":  {Allow: may(open, polkit.Relaunch), Handle: by(open, (*Device).Relaunch)},
		"restart":   {Allow: may(open, polkit.Restart), Handle: asked(open, (*Device).Restart)},
		"confirm": {Allow: root, Handle: asked(open, func(d *Device, ctx context.Context, _ struct{}, r Report) (Confirmed, error) {
			return d.Confirm(ctx, r)
		})},
		"check":   {Allow: mayCheck(open), Handle: asked(open, (*Device).Check)},
		"status":  {Handle: plain(open, (*Device).Status)},
		"verify":  {Handle: asked(open, (*Device).Verify)},
		"history": {Handle: plain(open, (*Device).History)},
		"show":    {Handle: asked(open, (*Device).Show)},
		"cve":     {Handle: asked(open, (*Device).CVE)},
		"policy":  {Handle: plain(open, (*Device).Policy)},
		"doctor":  {Handle: plain(open, (*Device).Doctor)},
		"ps":      {Handle: plain(open, (*Device).Running)},

		"evidence": {Handle: plain(open, (*Device).Evidence)},
		"answer":   {Handle: by(open, (*Device).Answer)},

		"analytics": {Handle: plain(open, (*Device).Analytics)},
		"metrics":   {Handle: plain(open, (*Device).Metrics)},
		"settings":  {Handle: plain(open, (*Device).Settings)},
		"flaws":     {Handle: plain(open, (*Device).Flaws)},
		"share":     {Allow: may(open, polkit.Share), Handle: by(open, (*Device).Share)},
		"relay":     {Allow: root, Handle: asked(open, (*Device).Relay)},
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
func root(_ context.Context, p localapi.Peer) error { return onlyRoot(p.UID) }

func onlyRoot(uid uint32) error {
	if uid == 0 {
		return nil
	}
	return fault.New(fault.Failed, "cannot do that: it needs root").Hint("run it with sudo")
}

// may lets root in, and whom polkit lets do it.
func may(open Opener, a polkit.Action) func(context.Context, localapi.Peer) error {
	return func(ctx context.Context, p localapi.Peer) error {
		if p.Root() {
			return nil
		}
		d, err := open()
		if err != nil {
			return err
		}
		return d.authorised(ctx, p, a)
	}
}

func (d *Device) authorised(ctx context.Context, p localapi.Peer, a polkit.Action) error {
	return polkit.Allow(ctx, d.Store.Root(), polkit.Who{UID: p.UID, PID: p.PID, Name: p.Bus, Interactive: !p.Silent}, a)
}

// mayCheck lets everybody ask for news now and then, unless an administrator's
// polkit rules say otherwise: asking changes nothing.
func mayCheck(open Opener) func(context.Context, localapi.Peer) error {
	allow := may(open, polkit.Check)
	var left ration
	return func(ctx context.Context, p localapi.Peer) error {
		if !p.Root() && !left.take(time.Now()) {
			return fault.New(fault.Busy, "cannot check: the vendor was just asked several times").Hint("try again in half a minute")
		}
		if err := allow(ctx, p); fault.KindOf(err) == fault.Policy {
			return err
		}
		return nil // allowed, or no polkit is there to say no
	}
}

// mayRemove lets others than root in where policy says so, or polkit.
func mayRemove(open Opener) func(context.Context, localapi.Peer) error {
	return func(ctx context.Context, p localapi.Peer) error {
		if p.Root() {
			return nil
		}
		d, err := open()
		if err != nil {
			return err
		}
		if d.mayRemoveAsUser(p.UID) == nil {
			return nil
		}
		return d.authorised(ctx, p, polkit.Remove)
	}
}

// mayRemoveAsUser lets root remove improvements, and others where policy says so.
func (d *Device) mayRemoveAsUser(uid uint32) error {
	if d.Config.Policy.RemoveAdmin {
		return onlyRoot(uid)
	}
	return nil
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
		if err := m.Allow(ctx, peer); err != nil {
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
