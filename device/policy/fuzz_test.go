package policy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
)

// FuzzLoad: whatever the files hold, it is refused as a mistake in the
// configuration, or it gives a policy within its limits.
func FuzzLoad(f *testing.F) {
	f.Add("[install]\nallow = true\ndefer = \"14d\"\n", "owner = \"x\"\n[install]\ndefer = \"1h\"\n", "cryptexes = [\"web\"]\ncommand = [\"/a\"]\n")
	f.Add("install.battery_min = 5\n", "[activate]\nwindow = \"22:00-06:00\"\n", "")
	f.Add("[server]\nurl = \"http://x\"\npoll = \"1s\"\n", "", "unit = \"a\"\ncryptexes = [\"os\"]")
	f.Fuzz(func(t *testing.T, agent, corp, app string) {
		dir := t.TempDir()
		for name, content := range map[string]string{"agent.toml": agent, "policy.d/1.toml": corp, "apps.d/a.toml": app} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Load(dir)
		if err != nil {
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%v", err)
			}
			return
		}
		p := c.Policy
		if p.InstallDefer < 0 || p.InstallDefer > 14*day || p.InstallBatteryMin < 0 || p.InstallBatteryMin > 100 || p.TrustFreshnessMax <= 0 || len(c.Origins) != 20 {
			t.Errorf("%+v", p)
		}
	})
}
