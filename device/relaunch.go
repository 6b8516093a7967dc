package device

import (
	"context"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/units"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/fault"
)

// RelaunchOptions name a service: by the id that apps.d gives it, or as systemd
// calls it.
type RelaunchOptions struct {
	App string `json:"app"`
}

// Relaunched is what became of the service, or of each instance of a template.
type Relaunched struct {
	App  string          `json:"app"` // id in apps.d, or the unit
	Unit string          `json:"unit"`
	Done []units.Outcome `json:"done"`
}

// Relaunch restarts one service on what is staged. Everything else stays as it
// is: apps that a person runs are relaunched by that person.
func (d *Device) Relaunch(ctx context.Context, o RelaunchOptions, actor Actor, report Report) (Relaunched, error) {
	app, err := ServiceOf(d.Config.Apps, o.App)
	if err != nil {
		return Relaunched{}, err
	}
	res := Relaunched{App: app.ID, Unit: app.Unit, Done: []units.Outcome{}}
	if err := d.attached(app.Name); err != nil {
		return res, err
	}
	done, err := units.Relaunch(ctx, d.Store, d.Config.Apps, app.Unit)
	for _, u := range done {
		report.done("relaunch", "%s", u.Text)
	}
	res.Done = append(res.Done, done...)
	restarted := slices.ContainsFunc(done, func(u units.Outcome) bool { return u.State == units.Restarted })
	if err != nil {
		d.note(ctx, store.Record{Event: "relaunch-failed", App: app.ID, Reason: fault.KindOf(err).String(), Actor: string(actor), Text: upstream.Clean(err.Error())}, report)
	} else if restarted {
		d.note(ctx, store.Record{Event: "relaunched", App: app.ID, Reason: "asked", Actor: string(actor)}, report)
	}
	return res, err
}

// attached refuses a relaunch that would bring nothing: something is installed, but
// could not be attached for launches.
func (d *Device) attached(name string) error {
	st, err := d.state()
	if err != nil || st.next == nil || st.inert(st.next) {
		return err
	}
	staged, err := present.Staged(d.Store)
	if err != nil || staged == st.next.ID {
		return err
	}
	return fault.New(fault.Restart, "cannot relaunch %s onto %s: that could not be attached while the system runs", name, setName(*st.next)).
		Hint("sealant doctor; sealant restart brings it about")
}

// ServiceOf finds the service that a name stands for: an app of apps.d, a unit
// of one, or any unit. "nginx" is nginx.service where nothing else has the name.
func ServiceOf(apps []policy.App, name string) (policy.App, error) {
	for _, a := range apps {
		if a.ID == name && a.Unit == "" {
			return a, fault.New(fault.Usage, "cannot restart %s: it is no service; its processes belong to whoever started them", name).Hint("sealant relaunch %s, as that person", name)
		}
		if a.ID == name || a.Unit != "" && (a.Unit == name || a.Unit == name+".service") {
			return a, nil
		}
	}
	unit := name
	if !strings.Contains(unit, ".") {
		unit += ".service"
	}
	if err := policy.CheckUnit(unit); err != nil {
		return policy.App{}, fault.New(fault.Usage, "cannot relaunch: %w", err).Hint("sealant ps names apps and services")
	}
	for _, a := range apps {
		if a.OwnsUnit(unit) {
			a.Unit = unit // one instance of a template
			return a, nil
		}
	}
	return policy.App{ID: unit, Name: unit, Unit: unit}, nil
}

// follow brings services in line with what launches get: none is restarted.
func (d *Device) follow(ctx context.Context) func() error {
	return func() error { return units.Follow(ctx, d.Store, d.Config.Apps) }
}

// unstage makes launches and services' next starts get the booted set again.
func (d *Device) unstage(ctx context.Context) error {
	return activate.Unstage(d.Store, d.follow(context.WithoutCancel(ctx)))
}
