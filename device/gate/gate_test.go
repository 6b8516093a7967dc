package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

var published = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// eligible are facts with every gate open.
func eligible() Facts {
	const id = "SI-2026-0007"
	return Facts{
		Now: published.Add(time.Hour), Device: [32]byte{1}, Product: "kiosk", Baseline: release.Digest{7}, Toggle: true,
		Policy: policy.Policy{
			InstallAllow: true, InstallAutomatic: "user", InstallBatteryMin: 10, InstallMetered: "small",
			InstallDeadline: 72 * time.Hour,
		},
		Power: Power{Battery: true, Percent: 38}, Free: 1 << 30, Where: "/var/lib/sealant",
		Manifest: release.Manifest{ID: id, Product: "kiosk", Baseline: release.Digest{7}, OSVersion: "42.3.0", Published: published},
		Rollout:  release.Rollout{Entries: []release.Ring{{Release: id, Percent: 100, Salt: strings.Repeat("0", 32)}}},
		Download: 4 << 20, Need: 200 << 20,
	}
}

func TestGates(t *testing.T) {
	if err := First(Check(eligible())); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*Facts)
		code   string // "" for open
		kind   fault.Kind
		text   string
	}{
		"another base": {func(f *Facts) { f.Baseline[0] = 8 }, "baseline-differs", fault.NotEligible, "42.3.0"},
		"same version is no match": {
			func(f *Facts) { f.Manifest.Baseline[0] = 9 }, "baseline-differs", fault.NotEligible, "42.3.0",
		},
		"another product": {func(f *Facts) { f.Product = "phone" }, "product-differs", fault.NotEligible, "phone"},
		"forbidden":       {func(f *Facts) { f.Policy.InstallAllow = false }, "install-forbidden", fault.Policy, "policy"},
		"kernel wanted":   {func(f *Facts) { f.Policy.TrustEnforcement = "kernel" }, "enforcement", fault.Policy, "kernel"},
		"kernel wanted and there": {
			func(f *Facts) { f.Policy.TrustEnforcement = "kernel"; f.Kernel = true }, "", 0, "",
		},
		"pinned":       {func(f *Facts) { f.Policy.PinRelease = "SI-2026-0001" }, "pinned", fault.Policy, "SI-2026-0001"},
		"pinned to it": {func(f *Facts) { f.Policy.PinRelease = "SI-2026-0007" }, "", 0, ""},
		"recalled": {
			func(f *Facts) {
				f.Recalls.Entries = []release.Recall{{Release: "SI-2026-0007", Reason: "Mail closes"}}
			}, "recalled", fault.Recalled, "Mail closes",
		},
		"another recalled": {
			func(f *Facts) { f.Recalls.Entries = []release.Recall{{Release: "SI-2026-0006"}} }, "", 0, "",
		},
		"held":         {func(f *Facts) { f.Held = "removed by a person" }, "held", fault.NotEligible, "removed by a person"},
		"ring at 0":    {func(f *Facts) { f.Rollout.Entries[0].Percent = 0 }, "not-in-ring", fault.NotEligible, "0 %"},
		"no ring":      {func(f *Facts) { f.Rollout.Entries = nil }, "not-in-ring", fault.NotEligible, "not begun"},
		"halted":       {func(f *Facts) { f.Rollout.Entries[0].Halted = true }, "halted", fault.NotEligible, "halted"},
		"halted again": {func(f *Facts) { f.Rollout.Entries[0].Halted = true; f.Again = true }, "", 0, ""},
		"deferred":     {func(f *Facts) { f.Policy.InstallDefer = 48 * time.Hour }, "deferred", fault.Waiting, "2026-11-22 12:00Z"},
		"deferred, attacked: too early": {
			func(f *Facts) {
				f.Policy.InstallDefer = 48 * time.Hour
				f.Urgent = true
			}, "deferred", fault.Waiting, "2026-11-21 12:00Z",
		},
		"deferred, attacked: after a day": {
			func(f *Facts) {
				f.Policy.InstallDefer = 48 * time.Hour
				f.Urgent = true
				f.Now = published.Add(24 * time.Hour)
			}, "", 0, "",
		},
		"deferral over":   {func(f *Facts) { f.Policy.InstallDefer = time.Hour }, "", 0, ""},
		"automatic never": {func(f *Facts) { f.Policy.InstallAutomatic = "never" }, "automatic-never", fault.Policy, "policy"},
		"never, asked":    {func(f *Facts) { f.Policy.InstallAutomatic = "never"; f.Asked = true }, "", 0, ""},
		"toggle off":      {func(f *Facts) { f.Toggle = false }, "automatic-off", fault.Policy, "off"},
		"toggle off, always": {
			func(f *Facts) { f.Toggle = false; f.Policy.InstallAutomatic = "always" }, "", 0, "",
		},
		"toggle off, asked": {func(f *Facts) { f.Toggle = false; f.Asked = true }, "", 0, ""},
		"battery low":       {func(f *Facts) { f.Power.Percent = 9 }, "battery-low", fault.Waiting, "9 % (needs 10)"},
		"battery just enough": {
			func(f *Facts) { f.Power.Percent = 10 }, "", 0, "",
		},
		"dead battery on mains": {func(f *Facts) { f.Power = Power{Mains: true, Battery: true} }, "", 0, ""},
		"metered, small":        {func(f *Facts) { f.Metered = true }, "", 0, ""},
		"metered, large":        {func(f *Facts) { f.Metered = true; f.Download = policy.Small + 1 }, "metered", fault.Waiting, "limit 21.0 MB"},
		"metered, deny": {
			func(f *Facts) { f.Metered = true; f.Policy.InstallMetered = "deny" }, "metered", fault.Waiting, "metered",
		},
		"metered, allow": {
			func(f *Facts) { f.Metered = true; f.Policy.InstallMetered = "allow"; f.Download = 1 << 40 }, "", 0, "",
		},
		"metered, nothing to load": {
			func(f *Facts) { f.Metered = true; f.Policy.InstallMetered = "deny"; f.Download = 0 }, "", 0, "",
		},
		"no room": {func(f *Facts) { f.Free = 5e6 }, "no-space", fault.Failed, "/var/lib/sealant has 5.0 MB free"},
	} {
		f := eligible()
		tt.change(&f)
		results := Check(f)
		if len(results) != 12 {
			t.Errorf("%s: %d gates answered", name, len(results))
		}
		err := First(results)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), "("+tt.code+")") ||
			!strings.Contains(err.Error(), tt.text) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (kind %v), want %s", name, err, fault.KindOf(err), tt.code)
		}
		for _, r := range results {
			if !r.Open && KindOf(r.Code) != r.Kind {
				t.Errorf("KindOf(%q) = %v, want %v", r.Code, KindOf(r.Code), r.Kind)
			}
			if r.Open == (r.Code != "") || r.Open != (r.Remedy == "") || r.Text == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

func TestReadPower(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string // under power_supply
		want  Power
	}{
		"no folder":       {nil, Power{Mains: true}},
		"desktop":         {map[string]string{"AC/type": "Mains", "AC/online": "1"}, Power{Mains: true}},
		"laptop, cable":   {map[string]string{"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/capacity": "50"}, Power{true, true, 50}},
		"laptop, battery": {map[string]string{"AC/type": "Mains", "AC/online": "0", "BAT0/type": "Battery", "BAT0/capacity": "50", "BAT0/status": "Discharging"}, Power{false, true, 50}},
		"dead battery on mains": {
			map[string]string{"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/capacity": "0"}, Power{true, true, 0},
		},
		"USB-C":         {map[string]string{"u/type": "USB", "u/online": "1", "b/type": "Battery", "b/capacity": "5", "b/status": "Discharging"}, Power{true, true, 5}},
		"charging":      {map[string]string{"b/type": "Battery", "b/capacity": "5", "b/status": "Charging"}, Power{true, true, 5}},
		"two batteries": {map[string]string{"a/type": "Battery", "a/capacity": "5", "b/type": "Battery", "b/capacity": "60"}, Power{false, true, 60}},
		"mouse":         {map[string]string{"m/type": "Battery", "m/scope": "Device", "m/capacity": "3"}, Power{Mains: true}},
		"broken sensor": {map[string]string{"b/type": "Battery", "b/capacity": "unknown"}, Power{Mains: true}},
		"absent":        {map[string]string{"b/type": "Battery", "b/capacity": "0", "b/present": "0"}, Power{Mains: true}},
		"nonsense":      {map[string]string{"b/type": "Battery", "b/capacity": "300"}, Power{Mains: true}},
	} {
		root := t.TempDir()
		for f, content := range tt.files {
			path := filepath.Join(root, "sys/class/power_supply", f)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := ReadPower(root); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestMetered(t *testing.T) {
	if !Metered(t.Context(), t.TempDir(), "yes") || Metered(t.Context(), t.TempDir(), "no") || Metered(t.Context(), t.TempDir(), "auto") {
		t.Error("the configuration's word counts, and without NetworkManager nothing is metered")
	}
	for word, want := range map[uint32]bool{1: true, 3: true, 0: false, 2: false, 4: false, 11: false} {
		if meteredWord(word) != want {
			t.Errorf("%d: %v", word, !want)
		}
	}
}

// A deadline that an administrator set overrides the person's switch and the
// limit on metered networks, and nothing else.
func TestDeadline(t *testing.T) {
	late := published.Add(73 * time.Hour)
	for name, tt := range map[string]struct {
		change func(*Facts)
		code   string
	}{
		"off, the default's deadline": {func(f *Facts) { f.Toggle = false }, "automatic-off"},
		"off, an administrator's":     {func(f *Facts) { f.Toggle, f.Deadline = false, true }, ""},
		"off, not yet": {
			func(f *Facts) { f.Toggle, f.Deadline, f.Now = false, true, published.Add(71*time.Hour) }, "automatic-off",
		},
		"off, at once": {
			func(f *Facts) {
				f.Toggle, f.Deadline, f.Now, f.Policy.InstallDeadline = false, true, published, 0
			}, "",
		},
		"deferred counts from there": {
			func(f *Facts) { f.Toggle, f.Deadline, f.Policy.InstallDefer = false, true, 48*time.Hour }, "automatic-off",
		},
		"exploited caps the deferral": {
			func(f *Facts) {
				f.Toggle, f.Deadline, f.Urgent, f.Policy.InstallDefer, f.Now = false, true, true, 14*24*time.Hour, published.Add(97*time.Hour)
			}, "",
		},
		"never by policy": {func(f *Facts) { f.Deadline, f.Policy.InstallAutomatic = true, "never" }, "automatic-never"},
		"forbidden":       {func(f *Facts) { f.Deadline, f.Policy.InstallAllow = true, false }, "install-forbidden"},
		"large, metered":  {func(f *Facts) { f.Metered, f.Download = true, policy.Small+1 }, ""},
		"metered, deny":   {func(f *Facts) { f.Metered, f.Deadline, f.Policy.InstallMetered = true, true, "deny" }, "metered"},
		"battery":         {func(f *Facts) { f.Deadline, f.Power = true, Power{Battery: true, Percent: 3} }, "battery-low"},
	} {
		f := eligible()
		f.Now = late
		tt.change(&f)
		code := ""
		for _, r := range Check(f) {
			if !r.Open && code == "" {
				code = r.Code
			}
		}
		if code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
}
