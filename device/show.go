package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// ShowOptions say what to show.
type ShowOptions struct {
	Release string `json:"release"`
}

// Shown is an improvement with what this device thinks of it.
type Shown struct {
	Manifest release.Manifest `json:"manifest"`
	Name     string           `json:"name"`
	State    string           `json:"state"` // available, staged, active, none
	Held     string           `json:"held"`
	Recalled string           `json:"recalled"`
}

// Show tells what an improvement is and changes. It uses what is on the
// device; only what isn't there is asked for.
func (d *Device) Show(ctx context.Context, o ShowOptions, report Report) (Shown, error) {
	if err := release.CheckID(o.Release); err != nil {
		return Shown{}, fault.New(fault.Usage, "cannot show %q: %w", o.Release, err)
	}
	m, err := d.find(ctx, o.Release)
	if err != nil {
		return Shown{}, err
	}
	s := Shown{Manifest: m, Name: m.Name(), State: StateNone}
	st, err := d.state()
	if err != nil {
		return s, err
	}
	switch {
	case st.next != nil && st.next.Release == m.ID:
		s.State = StateStaged
	case st.current != nil && st.current.Release == m.ID && !st.inert(st.current):
		s.State = StateActive
	case m.Baseline == st.digest:
		s.State = StateAvailable
	}
	all, err := d.Holds()
	if err != nil {
		return s, err
	}
	s.Held = held(all, m)
	if cat, err := d.catalog(); err == nil {
		if l, err := cat.RecallList(ctx); err == nil {
			if r, ok := l.Find(m.ID); ok {
				s.Recalled = r.Reason
			}
		}
	}
	return s, nil
}

// find looks for a manifest on the device, then in the catalog.
func (d *Device) find(ctx context.Context, id string) (release.Manifest, error) {
	m, err := d.manifest(id)
	if err == nil || !errors.Is(err, store.ErrEmpty) {
		return m, err
	}
	cat, err := d.catalog()
	if err != nil {
		return m, err
	}
	m, err = cat.Manifest(ctx, id)
	if isNoTarget(err) {
		return m, fault.New(fault.NotEligible, "cannot show %s: neither this device nor its catalog has it", id).Hint("sealant check brings the catalog up to date")
	}
	return m, err
}

// CVEOptions name a flaw.
type CVEOptions struct {
	ID string `json:"id"`
}

// Protection says whether this device is protected from a flaw.
type Protection struct {
	ID        string   `json:"id"`
	State     string   `json:"state"` // active, partly, staged, available, unknown
	Text      string   `json:"text"`
	Release   string   `json:"release"` // the improvement that fixes it
	Exploited bool     `json:"exploited"`
	Active    []string `json:"active_in"`     // apps, or everywhere
	Waiting   []string `json:"not_active_in"` // apps, or everywhere
}

// CVE answers "am I protected from this?".
func (d *Device) CVE(ctx context.Context, o CVEOptions, report Report) (Protection, error) {
	id := strings.ToUpper(o.ID)
	p := Protection{ID: id, State: "unknown", Active: []string{}, Waiting: []string{}}
	if err := release.CheckCVE(id); err != nil {
		return p, fault.New(fault.Usage, "cannot look for %q: %w", o.ID, err).Hint("such as CVE-2026-1101")
	}
	if _, err := d.enrolled(); err != nil {
		return p, err
	}
	s, err := d.Status(ctx)
	if err != nil {
		return p, err
	}
	for _, f := range s.Fixed {
		if f.CVE == id {
			p.Active, p.Exploited = append(p.Active, f.In), f.Exploited
		}
	}
	for _, f := range s.Waiting {
		if f.CVE == id {
			p.Waiting, p.Exploited = append(p.Waiting, f.In), f.Exploited
		}
	}
	p.Release = s.Release
	switch {
	case len(p.Active) > 0 && len(p.Waiting) == 0:
		p.State, p.Text = "active", "fixed: active in "+strings.Join(p.Active, ", ")
	case len(p.Active) > 0:
		p.State = "partly"
		p.Text = fmt.Sprintf("active in %s; installed, but not active in %s", strings.Join(p.Active, ", "), strings.Join(p.Waiting, ", "))
	case len(p.Waiting) > 0:
		p.State, p.Text = "staged", "installed, but not active: "+strings.Join(p.Waiting, ", ")
	default:
		return p, d.lookForCVE(ctx, &p)
	}
	return p, nil
}

// lookForCVE looks whether an improvement that isn't installed fixes it.
func (d *Device) lookForCVE(ctx context.Context, p *Protection) error {
	p.Release = ""
	p.Text = "not known to the catalog: not affected, or a flaw that needs an OS update"
	cat, err := d.catalog()
	if err != nil {
		return err
	}
	if cat.Version() == 0 {
		p.Text = "not enough information: the catalog was never asked (sealant check)"
		return nil
	}
	b, err := d.baseline()
	if err != nil {
		return err
	}
	all, err := cat.Manifests(ctx, b.Digest())
	if err != nil {
		return err
	}
	for _, m := range all {
		for _, c := range m.CVEs {
			if c.ID == p.ID {
				p.State, p.Release, p.Exploited = StateAvailable, m.ID, c.Exploited
				p.Text = fmt.Sprintf("not fixed here: %s (%s) fixes it", m.Name(), m.ID)
				return nil
			}
		}
	}
	return nil
}
