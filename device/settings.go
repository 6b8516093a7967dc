package device

import (
	"context"
	"slices"
	"time"

	"github.com/sealant-os/sealant/device/analytics"
	"github.com/sealant-os/sealant/device/settings"
	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// Settings is all that the settings page shows: what a person can see and change.
func (d *Device) Settings(ctx context.Context) (settings.View, error) {
	v := settings.View{State: settings.None, Apps: []settings.App{}, Heard: time.Time{}}
	s, err := d.Status(ctx)
	if err != nil {
		return v, err
	}
	v.Device, v.Vendor, v.Back = s.Name, s.Product, s.Product+" "+release.DisplayVersion(s.OSVersion)
	if s.State == StateForeign {
		v.State = settings.Unenrolled
		return v, nil
	}
	if s.FeedAge >= 0 {
		v.Heard, v.Stale = d.Now().UTC().Add(-time.Duration(s.FeedAge)*time.Second), s.FeedState != "fresh"
	}
	v.Automatic = d.automaticSwitch()
	if v.Share, v.Paired, err = d.shareSwitches(); err != nil {
		return v, err
	}
	v.Removal.Owner, v.Removal.Locked = d.lock("remove.allow_user", !d.Config.Policy.RemoveAllowUser)
	if err := d.settingsOfImprovement(&v, s); err != nil {
		return v, err
	}
	p, err := d.prompts()
	if err != nil {
		return v, err
	}
	if n, ok := p.Pending(); ok && n.Release == s.Release && d.Config.Policy.UIMode != "none" {
		v.Question = &n
	}
	if damage := d.crashDamage(p); damage != nil {
		v.Damaged = d.appName(damage.App)
	}
	return v, nil
}

// settingsOfImprovement fills in what this device has, or had.
func (d *Device) settingsOfImprovement(v *settings.View, s Status) error {
	v.Name = s.Improvement
	switch s.State {
	case StateStaged, StateActive, StatePartly:
		v.State = settings.Installed
	case StateRemoving:
		v.State = settings.Removing
	case StateReverting:
		v.State = settings.Reverting
	case StateRefused:
		v.State = settings.Refused
	}
	v.Restart = s.Restart
	active, waiting := appsByState(s.Cryptexes)
	if !s.Restart { // booted into it: whatever runs and is not named uses it
		active = append(active, appsUnchanged(s.Cryptexes)...)
	}
	for _, a := range d.Config.Apps {
		if on := slices.Contains(active, a.ID); on || slices.Contains(waiting, a.ID) {
			v.Apps = append(v.Apps, settings.App{ID: a.ID, Name: a.Name, Active: on})
		}
	}
	if s.Release != "" {
		m, err := d.manifest(s.Release)
		if err != nil {
			return err
		}
		v.Label, v.Fixes = m.Label(), len(m.CVEs)
		v.Removable = v.State == settings.Installed || v.State == settings.Refused
		for _, c := range m.CVEs {
			if c.Exploited {
				v.Exploited++
			}
		}
		return d.installedAt(v, s.Release)
	}
	if n := len(s.Held); n > 0 {
		last := s.Held[n-1]
		name := release.DisplayVersion(s.OSVersion) + " " + release.Label(last.Level)
		switch last.Reason {
		case "removed":
			v.Held = name
		case "recalled":
			v.Recalled = name
		}
	}
	return nil
}

// appsUnchanged are running apps in cryptexes whose content is what was booted.
func appsUnchanged(all []CryptexStatus) (apps []string) {
	for _, c := range all {
		for _, a := range c.Apps {
			if !c.Changed && c.Level > 0 && a.Active {
				apps = append(apps, a.App)
			}
		}
	}
	return apps
}

// installedAt finds when an improvement came.
func (d *Device) installedAt(v *settings.View, rel string) error {
	records, err := d.Store.History()
	if err != nil && fault.KindOf(err) != fault.Seal {
		return err
	}
	for _, r := range slices.Backward(records) {
		if r.Release == rel && (r.Event == "staged" || r.Event == "reapplied") {
			v.Installed = r.Time
			break
		}
	}
	return nil
}

func (d *Device) automaticSwitch() settings.Switch {
	word := d.Config.Policy.InstallAutomatic
	owner, locked := d.lock("install.automatic", word != "user")
	return settings.Switch{On: word == "always" || word == "user" && d.automaticOn(), Locked: locked, Owner: owner}
}

func (d *Device) shareSwitches() (share, paired settings.Switch, err error) {
	owner, locked := d.lock("analytics.share", d.Config.Policy.AnalyticsShare == "never")
	for origin, to := range map[analytics.Origin]*settings.Switch{analytics.Own: &share, analytics.Paired: &paired} {
		_, on, err := d.desk().On(origin)
		if err != nil {
			return share, paired, err
		}
		*to = settings.Switch{On: on && !locked, Locked: locked, Owner: owner}
	}
	return share, paired, nil
}

// lock says who keeps a setting as it is, if somebody does.
func (d *Device) lock(key string, kept bool) (owner string, locked bool) {
	if !kept {
		return "", false
	}
	owner, _ = d.Config.Managed(key)
	return owner, true
}

// Flaws are what an improvement fixes, and where that is active.
type Flaws struct {
	Name  string          `json:"name"` // "42.3 (b)"
	Flaws []settings.Flaw `json:"flaws"`
}

// Flaws lists what the improvement on this device fixes.
func (d *Device) Flaws(ctx context.Context) (Flaws, error) {
	f := Flaws{Flaws: []settings.Flaw{}}
	s, err := d.Status(ctx)
	if err != nil || s.Release == "" {
		return f, err
	}
	m, err := d.manifest(s.Release)
	if err != nil {
		return f, err
	}
	f.Name = m.Name()
	for _, c := range m.CVEs {
		flaw := settings.Flaw{ID: c.ID, Text: c.Text, Credit: c.Credit, Exploited: c.Exploited, Active: []string{}}
		for _, fix := range s.Fixed {
			switch {
			case fix.CVE != c.ID:
			case fix.In == "everywhere":
				flaw.Everywhere = true
			default:
				flaw.Active = append(flaw.Active, d.appName(fix.In))
			}
		}
		f.Flaws = append(f.Flaws, flaw)
	}
	slices.SortStableFunc(f.Flaws, func(a, b settings.Flaw) int {
		switch {
		case a.Exploited == b.Exploited:
			return 0
		case a.Exploited:
			return -1
		}
		return 1
	})
	return f, nil
}

// SettingsPage is the page for the user of this process, of the device at root.
// Everything on it is asked for and done as that user. relaunch relaunches an app in
// that user's session.
func SettingsPage(rootDir string, uid uint32, l *wording.Language, relaunch func(context.Context, string) error) *settings.Page {
	p := page{rootDir, relaunch}
	return &settings.Page{
		UID: uid, Language: l, Do: p.do,
		View: func(ctx context.Context) (v settings.View, err error) {
			return v, Ask(ctx, rootDir, "settings", struct{}{}, nil, &v)
		},
		Flaws: func(ctx context.Context) (string, []settings.Flaw, error) {
			var f Flaws
			err := Ask(ctx, rootDir, "flaws", struct{}{}, nil, &f)
			return f.Name, f.Flaws, err
		},
		Preview: func(ctx context.Context) (settings.Preview, error) {
			var a Analytics
			err := Ask(ctx, rootDir, "analytics", struct{}{}, nil, &a)
			return settings.Preview{On: a.Device.On && a.Policy != "never", To: a.To, Waiting: a.Waiting, Today: a.Today}, err
		},
	}
}
