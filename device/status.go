package device

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/amount"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/identity"
)

// Status is all that a person needs at a glance.
type Status struct {
	Name      string `json:"name"` // what people call this device
	Product   string `json:"product"`
	OSVersion string `json:"os_version"`
	Device    string `json:"device"` // short id, "" if not enrolled
	DeviceID  string `json:"device_id"`

	FeedAge   int64  `json:"feed_age_seconds"` // -1: never heard
	FeedState string `json:"feed_state"`       // fresh, stale, never

	Release     string `json:"release"` // the improvement on this device, "" for none
	Improvement string `json:"improvement"`
	State       string `json:"state"` // see the State constants
	Next        string `json:"next"`  // what the next boot tries, "" for what runs
	Booted      string `json:"booted"`
	Restart     bool   `json:"restart"`
	Note        string `json:"note"` // what a person should know: a failed boot, an inert improvement

	Cryptexes []CryptexStatus `json:"cryptexes"`
	Fixed     []Fix           `json:"fixed"`      // active in a process
	Waiting   []Fix           `json:"not_active"` // installed, not active

	Enforcement string   `json:"enforcement"`
	Enforced    string   `json:"enforced_text"`
	Damaged     []string `json:"damaged"` // cryptexes of which the kernel refused to read a block
	Recall      string   `json:"recall"`
	Advice      string   `json:"advice"` // the app that the person is asked about, "none", or "" where only root may know
	Held        []Hold   `json:"held"`
}

// The further states of a device's improvement; StateNone, StateStaged and
// StateActive are those of a check.
const (
	StatePartly    = "partly"    // active in some apps
	StateRemoving  = "removing"  // a restart completes the removal
	StateReverting = "reverting" // a restart completes a recall
	StateInert     = "inert"     // made for another operating system
	StateRefused   = "refused"   // the last boot could not use it
	StateForeign   = "unenrolled"
)

// CryptexStatus is one line of the table.
type CryptexStatus struct {
	Name     string      `json:"name"`
	Base     string      `json:"base"`  // OS version of its baseline
	Level    int         `json:"level"` // of what is installed, 0 for the baseline
	Seal     string      `json:"seal"`  // verity root, hexadecimal
	Mounted  bool        `json:"mounted"`
	Verified bool        `json:"verified"` // what is mounted is what the booted set names
	Ticket   string      `json:"ticket"`   // valid,bound; INVALID; unchecked, without the right to look
	Apps     []AppStatus `json:"apps"`
	Active   int         `json:"active_processes"` // that use the installed content
	Users    int         `json:"processes"`        // that use the cryptex at all
	Changed  bool        `json:"changed"`          // installed differs from booted
}

// AppStatus is an app's state in one cryptex.
type AppStatus struct {
	App    string `json:"app"`
	Active bool   `json:"active"` // runs, all of it, on the installed content
	PIDs   []int  `json:"pids"`   // that run on other content
}

// Fix is a flaw and where it is fixed, or isn't yet.
type Fix struct {
	CVE       string `json:"cve"`
	In        string `json:"in"` // an app, or "everywhere"
	Exploited bool   `json:"exploited"`
}

// Status says what this device has, and what of it is active. It changes
// nothing and needs no network.
func (d *Device) Status(ctx context.Context) (Status, error) {
	s := Status{
		Name: d.hostName(), State: StateNone, FeedAge: -1, FeedState: "never", Recall: "none",
		Cryptexes: []CryptexStatus{}, Fixed: []Fix{}, Waiting: []Fix{}, Held: []Hold{},
		Damaged: []string{},
	}
	guard, _ := d.enforcement()
	s.Enforcement, s.Enforced = string(guard), d.enforcedText()
	st, err := d.state()
	if err != nil {
		return s, err
	}
	s.Product, s.OSVersion = st.baseline.Product, st.baseline.OSVersion
	e, err := d.Store.Enrolment()
	if errors.Is(err, store.ErrEmpty) {
		s.State = StateForeign
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Device, s.DeviceID = identity.ID(e.Device).String(), e.Device.String()
	d.statusOfFeed(ctx, st, &s)
	s.Advice = d.statusOfAdvice()
	if s.Held, err = d.Holds(); err != nil {
		return s, err
	}
	s.Held = slices.DeleteFunc(s.Held, func(h Hold) bool { return h.Baseline != st.digest })
	d.statusOfSets(ctx, st, &s)
	return s, d.statusOfContent(st, &s)
}

// hostName is what people call this device.
func (d *Device) hostName() string {
	if n := d.Config.Agent.Name; n != "" {
		return n
	}
	n, err := os.Hostname()
	if err != nil {
		return "device"
	}
	return n
}

func (d *Device) statusOfFeed(ctx context.Context, st state, s *Status) {
	cat, err := d.catalog()
	if err != nil || cat.Checked().IsZero() {
		return
	}
	age := cat.Clock().Sub(cat.Checked())
	s.FeedAge, s.FeedState = int64(age/time.Second), "fresh"
	if age > d.Config.Policy.TrustFreshnessMax || cat.Clock().After(cat.Expires()) {
		s.FeedState = "stale"
	}
	set := d.bootedSet()
	if set.IsBaseline() && st.running() != nil {
		set = *st.running()
	}
	if l, err := cat.RecallList(ctx); err == nil {
		if r, ok := l.Find(set.Release); ok {
			s.Recall = set.Label + " " + r.Reason
		}
	}
}

// statusOfSets says which improvement the device has and how far it is.
func (d *Device) statusOfSets(ctx context.Context, st state, s *Status) {
	booted := d.bootedSet()
	s.Booted = setName(booted)
	show := func(set *store.Set) { s.Release, s.Improvement = set.Release, setName(*set) }
	switch {
	case st.inert(st.base) || st.inert(st.current) && st.next == nil:
		s.State, s.Note = StateInert, "the operating system was updated: improvements for the old one are inert"
	case st.next != nil && !st.inert(st.next):
		s.Next, s.Restart = setName(*st.next), true
		_, recalled := d.recalled(ctx, booted.Release)
		switch {
		case st.next.Level < booted.Level && recalled:
			s.State = StateReverting
			show(&booted)
		case st.next.IsBaseline():
			s.State = StateRemoving
			show(&booted)
		default:
			s.State = StateStaged
			show(st.next)
		}
	case st.current != nil && !st.current.IsBaseline():
		s.State = StateActive
		show(st.current)
	}
	if r, err := activate.ReadRecord(d.Store); err == nil {
		for _, refused := range r.Refused {
			if refused.Reason != activate.ReasonBaseline && s.Note == "" {
				s.Note = "at the last boot: " + refused.Text
			}
		}
		if s.State == StateActive && r.Set != st.current.ID {
			s.State = StateRefused
		}
	}
}

// installedSet is what the device will run everywhere once it was restarted.
func (st state) installedSet() *store.Set {
	if s := st.running(); s != nil {
		return s
	}
	if st.base != nil && !st.inert(st.base) {
		return st.base
	}
	return nil
}

// statusOfContent fills the table: what is mounted, who uses it.
func (d *Device) statusOfContent(st state, s *Status) error {
	set := st.installedSet()
	if set == nil {
		return nil
	}
	booted := d.bootedSet()
	usage, err := d.usage()
	if err != nil {
		return err
	}
	ticket := d.ticketText(st, *set)
	s.Damaged = d.damage()
	for _, c := range set.Cryptexes {
		was, _ := booted.Cryptex(c.Name)
		line := CryptexStatus{
			Name: c.Name, Base: set.OSVersion, Seal: c.Seal.Root.String(), Ticket: ticket, Apps: []AppStatus{},
			Changed: was.Image != c.Image,
		}
		if b, ok := st.baseline.Cryptex(c.Name); ok && store.Digest(b.Digest) != c.Image {
			line.Level = set.Level
		}
		line.Mounted, line.Verified = usage.mounted(was)
		line.Verified = line.Verified && !slices.Contains(s.Damaged, c.Name)
		line.Active, line.Users = usage.count(c)
		for _, app := range d.Config.Apps {
			if !app.Uses(c.Name) {
				continue
			}
			if a, running := usage.app(app.ID, c); running {
				line.Apps = append(line.Apps, a)
			}
		}
		s.Cryptexes = append(s.Cryptexes, line)
	}
	d.statusOfFixes(*set, booted, s)
	if s.State == StateStaged && slices.ContainsFunc(s.Cryptexes, func(c CryptexStatus) bool { return c.Changed && c.Active > 0 }) {
		s.State = StatePartly
	}
	return nil
}

// statusOfFixes sorts the improvement's flaws into fixed and not yet active.
// Fixed is only what is proven active in a process.
func (d *Device) statusOfFixes(set, booted store.Set, s *Status) {
	everywhere := map[string]bool{}
	if m, err := d.manifest(booted.Release); err == nil {
		for _, c := range m.CVEs {
			everywhere[c.ID] = true
		}
	}
	target := set
	if set.IsBaseline() {
		target = booted // a removal is staged: what runs is still fixed
	}
	m, err := d.manifest(target.Release)
	if err != nil {
		return
	}
	active, waiting := appsByState(s.Cryptexes)
	for _, c := range m.CVEs {
		if everywhere[c.ID] {
			s.Fixed = append(s.Fixed, Fix{c.ID, "everywhere", c.Exploited})
			continue
		}
		for _, app := range active {
			s.Fixed = append(s.Fixed, Fix{c.ID, app, c.Exploited})
		}
		for _, app := range waiting {
			s.Waiting = append(s.Waiting, Fix{c.ID, app, c.Exploited})
		}
		s.Waiting = append(s.Waiting, Fix{c.ID, "everywhere", c.Exploited})
	}
}

// appsByState lists the running apps that use the installed content in every
// changed cryptex they use, and those that don't.
func appsByState(all []CryptexStatus) (active, waiting []string) {
	ok := map[string]bool{}
	for _, c := range all {
		if !c.Changed {
			continue
		}
		for _, a := range c.Apps {
			before, seen := ok[a.App]
			ok[a.App] = a.Active && (before || !seen)
		}
	}
	for app, good := range ok {
		if good {
			active = append(active, app)
		} else {
			waiting = append(waiting, app)
		}
	}
	slices.Sort(active)
	slices.Sort(waiting)
	return active, waiting
}

// ticketText says in two words what a set's ticket is worth.
func (d *Device) ticketText(st state, set store.Set) string {
	switch _, err := d.checkTicket(st, set); {
	case errors.Is(err, os.ErrPermission):
		return "unchecked" // only root and the agent can read what it is bound to
	case err != nil:
		return "INVALID"
	}
	return "valid,bound"
}

// AgeText is how old the feed is, for people.
func AgeText(seconds int64) string { return amount.Span(time.Duration(seconds) * time.Second) }

// VersionText is an OS version as people say it.
func VersionText(v string) string { return release.DisplayVersion(v) }
