package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// load writes files (path → content) into a new folder and loads it.
func load(t *testing.T, files map[string]string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Load(dir)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"install.allow": "true", "install.automatic": `"user"`, "install.defer": `"0h"`, "install.deadline": `"3d"`,
		"install.battery_min": "10", "install.metered": `"small"`, "activate.relaunch": `"notify"`, "activate.restart": `"notify"`,
		"activate.window": `""`, "remove.allow_user": "true", "remove.require_admin": "true", "recall.accept": "true",
		"recommend.show": "true", "analytics.share": `"user"`, "ui.mode": `"desktop"`, "trust.freshness_max": `"7d"`,
		"trust.enforcement": `"any"`, "trust.corruption": `"eio"`, "trust.execution": `"enforce"`, "pin.release": `""`,
	}
	if len(c.Origins) != len(want) {
		t.Errorf("%d keys, want %d", len(c.Origins), len(want))
	}
	for _, o := range c.Origins {
		if o.Value != want[o.Key] || o.File != "" {
			t.Errorf("%s = %s (%s), want %s", o.Key, o.Value, o.File, want[o.Key])
		}
	}
	if c.Agent.Poll != DefaultPoll || c.Agent.Metered != "auto" {
		t.Errorf("%+v", c.Agent)
	}
}

// TestRules sets a key in two files, in both orders, and checks the value and
// the file that won. The order may matter only for "last".
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		key, a, b string
		want      string
		winsB     bool // the file with value b won
	}{
		{"install.allow", "true", "false", "false", true},
		{"install.automatic", `"always"`, `"never"`, `"never"`, true},
		{"install.automatic", `"user"`, `"always"`, `"always"`, true},
		{"install.defer", `"12h"`, `"14d"`, `"14d"`, true},
		{"install.deadline", `"72h"`, `"6h"`, `"6h"`, true},
		{"install.battery_min", "5", "30", "30", true},
		{"install.metered", `"allow"`, `"deny"`, `"deny"`, true},
		{"install.metered", `"small"`, `"deny"`, `"deny"`, true},
		{"activate.relaunch", `"never"`, `"force"`, `"force"`, true},
		{"activate.restart", `"never"`, `"window"`, `"window"`, true},
		{"remove.allow_user", "true", "false", "false", true},
		{"remove.require_admin", "false", "true", "true", true},
		{"recall.accept", "true", "false", "false", true},
		{"recommend.show", "true", "false", "false", true},
		{"analytics.share", `"user"`, `"never"`, `"never"`, true},
		{"trust.freshness_max", `"14d"`, `"2d"`, `"2d"`, true},
		{"trust.enforcement", `"any"`, `"kernel"`, `"kernel"`, true},
	} {
		section, word, _ := strings.Cut(tt.key, ".")
		file := func(v string) string { return "[" + section + "]\n" + word + " = " + v + "\n" }
		for _, swap := range []bool{false, true} {
			first, second := tt.a, tt.b
			if swap {
				first, second = second, first
			}
			c, err := load(t, map[string]string{"policy.d/10.toml": file(first), "policy.d/20.toml": file(second)})
			if err != nil {
				t.Errorf("%s: %v", tt.key, err)
				continue
			}
			got := find(c, tt.key)
			wantFile := "20.toml"
			if swap {
				wantFile = "10.toml"
			}
			if got.Value != tt.want || filepath.Base(got.File) != wantFile {
				t.Errorf("%s of %s, %s = %s by %s; want %s by %s", tt.key, first, second, got.Value, got.File, tt.want, wantFile)
			}
		}
	}
}

func find(c *Config, key string) Setting {
	for _, o := range c.Origins {
		if o.Key == key {
			return o
		}
	}
	return Setting{}
}

func TestLastAndIntersect(t *testing.T) {
	c, err := load(t, map[string]string{
		"agent.toml":       "[ui]\nmode = \"desktop\"\n[pin]\nrelease = \"SI-2026-0001\"\n[activate]\nwindow = \"22:00-06:00\"\n",
		"policy.d/10.toml": "owner = \"Example Corp\"\n[ui]\nmode = \"none\"\n[activate]\nwindow = \"05:00-23:00\"\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Policy.UIMode != "none" || c.Policy.PinRelease != "SI-2026-0001" {
		t.Errorf("%+v", c.Policy)
	}
	for at, want := range map[string]bool{"22:30": true, "23:00": false, "04:59": false, "05:00": true, "05:59": true, "06:00": false, "12:00": false, "00:00": false} {
		tm, _ := time.Parse("15:04", at)
		if c.Policy.ActivateWindow.Contain(tm) != want {
			t.Errorf("%s inside: %v", at, !want)
		}
	}
	if owner, ok := c.Managed("ui.mode"); !ok || owner != "Example Corp" {
		t.Errorf("ui.mode managed by %q %v", owner, ok)
	}
	if _, ok := c.Managed("pin.release"); ok {
		t.Error("agent.toml counts as managed")
	}
}

func TestMistakesNameFileAndLine(t *testing.T) {
	for name, tt := range map[string]struct{ file, content, want string }{
		"unknown key":     {"policy.d/x.toml", "[install]\nallow = true\nalow = false\n", "x.toml:3: unknown key install.alow"},
		"unknown section": {"agent.toml", "# hello\n[instal]\nallow = true\n", "agent.toml:2: unknown key instal"},
		"server in policy": {
			"policy.d/x.toml", "[server]\nurl = \"http://evil\"\n", "x.toml:1: unknown key server",
		},
		"wrong type":     {"agent.toml", "[install]\nallow = \"yes\"\n", "agent.toml:2"},
		"unknown word":   {"agent.toml", "[install]\n\nmetered = \"some\"\n", `agent.toml:3: install.metered: "some" is none of allow, small, deny`},
		"dotted":         {"agent.toml", "\ninstall.metered = \"some\"\n", `agent.toml:2: install.metered`},
		"out of range":   {"agent.toml", "[install]\ndefer = \"15d\"\n", "agent.toml:2: install.defer"},
		"percent":        {"agent.toml", "[install]\nbattery_min = 101\n", "agent.toml:2: install.battery_min"},
		"duration":       {"agent.toml", "[install]\ndefer = \"soon\"\n", "agent.toml:2"},
		"negative":       {"agent.toml", "[install]\ndefer = \"-5h\"\n", "agent.toml:2"},
		"window":         {"agent.toml", "[activate]\nwindow = \"25:00-26:00\"\n", "agent.toml:2"},
		"no TOML":        {"agent.toml", "install allow\n", "agent.toml:1"},
		"twice":          {"agent.toml", "[ui]\nmode = \"none\"\nmode = \"tty\"\n", "agent.toml:3"},
		"URL":            {"agent.toml", "[server]\nurl = \"ftp://x\"\n", "agent.toml"},
		"poll":           {"agent.toml", "[server]\npoll = \"1ms\"\n", "agent.toml"},
		"app: nothing":   {"apps.d/a.toml", "", "a.toml: cryptexes: missing"},
		"app: both":      {"apps.d/a.toml", "cryptexes = [\"web\"]\ncommand = [\"/a\"]\nunit = \"a.service\"\n", "only one"},
		"app: relative":  {"apps.d/a.toml", "cryptexes = [\"web\"]\ncommand = [\"a\"]\n", "absolute"},
		"app: unknown":   {"apps.d/a.toml", "cryptexes = [\"web\"]\nunits = \"a\"\n", "a.toml:2: unknown key units"},
		"huge":           {"agent.toml", strings.Repeat("#\n", maxFile), "larger than"},
		"app: bad match": {"apps.d/a.toml", "cryptexes = [\"web\"]\ncommand = [\"/a\"]\nmatch = [\"b\"]\n", "absolute"},
	} {
		_, err := load(t, map[string]string{tt.file: tt.content})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want …%s", name, err, tt.want)
			continue
		}
		if fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: kind %v", name, fault.KindOf(err))
		}
	}
}

func TestAgentAndApps(t *testing.T) {
	c, err := load(t, map[string]string{
		"agent.toml":          "[server]\nurl = \"http://127.0.0.1:8443\"\npoll = \"1h\"\n[device]\nname = \"kiosk\"\n[network]\nmetered = \"no\"\n[restart]\ncommand = [\"/bin/true\"]\n[install]\nautomatic = \"never\"\n",
		"apps.d/browser.toml": "name = \"Browser\"\ncryptexes = [\"web\"]\ncommand = [\"/usr/bin/browser\", \"--x\"]\nmatch = [\"/usr/lib/browser/\"]\n",
		"apps.d/nginx.toml":   "cryptexes = [\"os\"]\nunit = \"nginx.service\"\n",
		"apps.d/README":       "not an app",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Agent.Server != "http://127.0.0.1:8443" || c.Agent.Poll != time.Hour || c.Agent.Name != "kiosk" || len(c.Agent.Restart) != 1 || c.Agent.Metered != "no" {
		t.Errorf("%+v", c.Agent)
	}
	if c.Policy.InstallAutomatic != "never" {
		t.Errorf("%+v", c.Policy)
	}
	if len(c.Apps) != 2 {
		t.Fatalf("%+v", c.Apps)
	}
	b, ok := c.App("browser")
	if !ok || b.Name != "Browser" || !b.Uses("web") || b.Uses("os") {
		t.Errorf("%+v", b)
	}
	for exe, want := range map[string]bool{"/usr/bin/browser": true, "/usr/lib/browser/helper": true, "/usr/lib/browser": false, "/usr/bin/browser2": false} {
		if b.Owns(exe) != want {
			t.Errorf("Owns(%s) = %v", exe, !want)
		}
	}
	if n, _ := c.App("nginx"); n.Name != "nginx" || n.Unit != "nginx.service" {
		t.Errorf("%+v", n)
	}
}

func TestDeferIsCappedForKnownAttacks(t *testing.T) {
	p := Policy{InstallDefer: 14 * day}
	if p.DeferFor(false) != 14*day || p.DeferFor(true) != 24*time.Hour {
		t.Error("cap")
	}
	p.InstallDefer = time.Hour
	if p.DeferFor(true) != time.Hour {
		t.Error("a shorter one stays")
	}
}
