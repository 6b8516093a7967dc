package device

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/notify"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/witness"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/journal"
)

// observer is the part of the agent that counts crashes and asks.
type observer struct {
	open     Opener
	log      *slog.Logger
	recorder *evidence.Recorder // nil if there is no room for counts
	notifier notify.Notifier
	watch    *witness.Watch // nil until begin, and where this machine can't tell of crashes

	asking sync.WaitGroup // questions on screens

	mu       sync.Mutex
	counting string // how crashes are learned of, "" while they are not
}

// newObserver opens the counts. A machine on which that fails is told so and
// works without: evidence is no part of protection.
func newObserver(open Opener, log *slog.Logger) *observer {
	o := &observer{open: open, log: log}
	d, err := open()
	if err != nil {
		return o // whoever opens it next tells why
	}
	s, err := evidence.Open(d.Store.EvidenceDir())
	if err != nil {
		log.Warn("crashes are not counted", "error", err)
		return o
	}
	if o.recorder, err = evidence.NewRecorder(s); err != nil {
		log.Warn("some counts were lost", "error", err)
	}
	return o
}

// opener gives every device that is opened the agent's counts.
func (o *observer) opener() Opener {
	return func() (*Device, error) {
		d, err := o.open()
		if err == nil {
			o.mu.Lock()
			d.Agent, d.Recorder, d.Counting = true, o.recorder, o.counting
			o.mu.Unlock()
		}
		return d, err
	}
}

func (o *observer) count(by string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counting = by
}

// begin starts to look, so that nothing is missed from now on. A machine on
// which that fails is told so once.
func (o *observer) begin(ctx context.Context) {
	if o.recorder == nil {
		return
	}
	if err := o.look(ctx); err != nil {
		o.log.Warn("crashes are not counted", "error", err)
	}
}

func (o *observer) look(ctx context.Context) error {
	d, err := o.open()
	if err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		o.log.Warn("cannot tidy what was asked", "error", err)
	}
	source, reason, err := exits.Open()
	if err != nil {
		return err
	}
	apps, err := witness.OpenMachine(d.Store, o.apps)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	if reason != nil {
		o.log.Warn("crashes are counted without BPF", "error", reason)
	}
	o.count(witness.Describe(source.Name(), reason))
	o.watch = &witness.Watch{
		Recorder: o.recorder, Source: source, Apps: apps, Log: o.log,
		Damaged: func(arm evidence.Arm) (bool, error) {
			d, err := o.open()
			if err != nil {
				return false, err
			}
			return d.damagedArm(ctx, arm)
		},
		OnCrash: func(c evidence.Crash) { o.crashed(ctx, c) },
	}
	return nil
}

// end lets go of what begin holds.
func (o *observer) end() {
	if o.watch != nil {
		o.watch.Source.Close()
		o.watch.Apps.Close()
	}
}

// run counts until ctx ends.
func (o *observer) run(ctx context.Context) error {
	o.asking.Go(func() { o.watchNotices(ctx) })
	if o.watch != nil {
		if err := o.watch.Run(ctx); err != nil {
			o.log.Warn("crashes are no longer counted", "error", err)
		}
		o.count("")
	}
	<-ctx.Done()
	o.asking.Wait()
	return nil
}

func (o *observer) apps() ([]policy.App, error) {
	d, err := o.open()
	if err != nil {
		return nil, err
	}
	return d.Config.Apps, nil
}

func (o *observer) crashed(ctx context.Context, c evidence.Crash) {
	d, err := o.opener()()
	if err != nil {
		o.log.Warn("cannot weigh a crash", "app", c.App, "error", err)
		return
	}
	verdict, question, err := d.crashed(ctx, c, logged(o.log, "evidence"))
	attrs := []any{"app", c.App, "release", c.Arm.Release, "signal", c.Signal.String(), "verdict", string(verdict)}
	if err != nil {
		o.log.Warn("cannot weigh a crash", append(attrs, "error", err, "reason", fault.KindOf(err).String())...)
		return
	}
	o.log.Info("app crashed", attrs...)
	_ = d.journal().Send(journal.Entry{
		Event: journal.Crashed, App: c.App, Release: c.Arm.Release, Reason: string(verdict), Actor: string(Auto),
		Text: c.App + " crashed (" + c.Signal.String() + "): " + evidence.Words(verdict),
	})
	if question != nil {
		o.log.Warn(question.Text(), "app", c.App, "release", c.Arm.Release)
		o.asking.Go(func() { o.ask(ctx, *question) })
	}
}
