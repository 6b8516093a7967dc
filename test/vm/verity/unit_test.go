//go:build vm || slow

package verity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestEarlyUnit boots systemd with sealant-boot.service: the cryptexes are there
// before anything runs that waits for sysinit.target, guarded by the kernel.
func TestEarlyUnit(t *testing.T) {
	vm.Proves(t, "sealant-boot.service attaches before sysinit.target, guarded by the kernel")
	w := newWorld(t, "")
	disk, probe := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "probe.service")
	vm.Build(t).NewRoot(t, disk)
	err := os.WriteFile(probe, []byte("[Unit]\nDefaultDependencies=no\nAfter=sysinit.target\nBefore=basic.target\n[Service]\nType=oneshot\n"+
		"ExecStart=/bin/sh -c 'cat /usr/lib/cryptexes/web/version >/run/probe'\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	wants := t.TempDir()
	for unit, target := range map[string]string{"sealant-boot.service": "sysinit.target.wants", "probe.service": "basic.target.wants"} {
		if err := os.MkdirAll(filepath.Join(wants, target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/usr/lib/systemd/system/"+unit, filepath.Join(wants, target, unit)); err != nil {
			t.Fatal(err)
		}
	}
	vm.Put(t, disk, vm.Files{
		"usr/lib/sealant/sealant-boot":                filepath.Join(w.bin, "sealant-boot"),
		"usr/lib/systemd/system/sealant-boot.service": "../../../packaging/systemd/sealant-boot.service",
		"usr/lib/systemd/system/probe.service":        probe,
		"etc/systemd/system":                          wants,
		"usr/lib/sealant":                             filepath.Join(w.dir, "dev/usr/lib/sealant"),
		"usr/lib/cryptexes":                           filepath.Join(w.dir, "dev/usr/lib/cryptexes"),
		"var/lib/sealant":                             filepath.Join(w.dir, "dev/var/lib/sealant"),
		"etc/sealant":                                 filepath.Join(w.dir, "dev/etc/sealant"),
	})
	r := vm.Run(t, vm.Options{Boot: vm.Cold, Disk: disk}, nil, `
		echo "state: $(systemctl is-system-running --wait)"
		echo "probe: $(cat /run/probe)"
		echo "record: $(tr -d ' \n' </run/sealant/boot.json)"
		echo "unit: $(systemctl show -P ActiveState sealant-boot.service) $(systemctl show -P ExecMainStatus sealant-boot.service)"
		systemd-analyze blame | grep sealant-boot
		systemctl --failed --no-legend; journalctl -u sealant-boot --no-pager -o cat | head -5`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	if r.Line("probe") != "web base" || r.Line("unit") != "active 0" || r.Line("state") != "running" {
		t.Error("not as it should be")
	}
	for _, part := range []string{`"slot":"current"`, `"enforcement":"kernel"`, `"refused":[]`} {
		if !strings.Contains(r.Line("record"), part) {
			t.Errorf("the boot record lacks %s", part)
		}
	}
}
