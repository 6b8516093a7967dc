//go:build vm || slow

package verity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestRestart has the login manager restart the machine: not while somebody holds it
// back, and then for real. The machine comes up by itself, on the improvement.
func TestRestart(t *testing.T) {
	w := newWorld(t, "")
	disk, units := filepath.Join(t.TempDir(), "root"), t.TempDir()
	vm.Build(t).NewRoot(t, disk)
	for unit, target := range map[string]string{"sealant-boot.service": "sysinit.target.wants", "sealant-confirm.service": "multi-user.target.wants"} {
		must(t, os.MkdirAll(filepath.Join(units, target), 0o755))
		must(t, os.Symlink("/usr/lib/systemd/system/"+unit, filepath.Join(units, target, unit)))
	}
	put := vm.Files{
		"usr/lib/sealant/sealant-boot": filepath.Join(w.bin, "sealant-boot"),
		"etc/systemd/system":           units,
		"usr/bin/sealant":              filepath.Join(w.bin, "sealant"),
		"usr/bin/sealsrv":              filepath.Join(w.bin, "sealsrv"),
		"srv/vendor":                   filepath.Join(w.dir, "vendor"),
		"usr/lib/sealant":              filepath.Join(w.dir, "dev/usr/lib/sealant"),
		"usr/lib/cryptexes":            filepath.Join(w.dir, "dev/usr/lib/cryptexes"),
		"var/lib/sealant":              filepath.Join(w.dir, "dev/var/lib/sealant"),
		"etc/sealant":                  filepath.Join(w.dir, "dev/etc/sealant"),
	}
	for _, unit := range []string{"sealant-boot.service", "sealant-confirm.service", "sealant.service"} {
		put["usr/lib/systemd/system/"+unit] = filepath.Join("../../../packaging/systemd", unit)
	}
	vm.Put(t, disk, put)
	r := vm.Run(t, vm.Options{Boot: vm.Cold, Disk: disk, Args: []string{"-action", "reboot=reset"}}, nil, `
		said=/var/tmp/said
		say() { echo "$@" >>$said; echo "$@" >/dev/ttyS0; }
		seen() { say "$1: $(cat /usr/lib/cryptexes/web/version), $(tr -d ' \n' </run/sealant/boot.json)"; }
		if [ ! -e $said ]; then
			seen first
			cat /proc/sys/kernel/random/boot_id >/var/tmp/boot
			rm -f /etc/systemd/system/systemd-logind.service
			systemctl daemon-reload
			systemctl start systemd-logind
			sealsrv dev --dir /srv/vendor --listen 127.0.0.1:8470 >/var/tmp/server.log 2>&1 &
			until ss -ltn | grep -q :8470; do sleep 0.2; done
			out=$(sealant install -q 2>&1); say "install: $? $out"
			systemctl start sealant.service
			until [ -S /run/sealant/agent.sock ]; do sleep 0.2; done
			systemd-inhibit --what=shutdown --who=burner --why="a disc is being burnt" --mode=block sleep 1000 &
			until systemd-inhibit --list --no-legend | grep -q burner; do sleep 0.2; done
			out=$(sealant restart 2>&1); say "held: $?" $out
			kill $!
			while systemd-inhibit --list --no-legend | grep -q burner; do sleep 0.2; done
			sync
			out=$(sealant restart 2>&1); say "restart: $?" $out
			sleep 300
			exit 1
		fi
		seen second
		[ "$(cat /var/tmp/boot)" = "$(cat /proc/sys/kernel/random/boot_id)" ] || say "boots: 2"
		systemctl start boot-complete.target sealant-confirm.service; say "confirm: $?"
		say "then: $(basename $(readlink /var/lib/sealant/current)) $(readlink /var/lib/sealant/next)"
		cat $said; tail -5 /var/tmp/server.log
		journalctl -o cat SEALANT_EVENT=restarting --no-pager | head -3`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for name, want := range map[string]string{
		"first": "web base,", "install": "0", "held": "22", "restart": "0", "second": "web a,", "boots": "2", "confirm": "0", "then": "SI-2026-0001",
	} {
		if !strings.HasPrefix(r.Line(name), want) {
			t.Errorf("%s: %q, want %q", name, r.Line(name), want)
		}
	}
	if !strings.Contains(r.Line("held"), `"burner" holds it back: "a disc is being burnt"`) {
		t.Errorf("it doesn't say who holds the restart back: %s", r.Line("held"))
	}
	for _, part := range []string{`"slot":"next"`, `"refused":[]`} {
		if !strings.Contains(r.Line("second"), part) {
			t.Errorf("the second boot's record lacks %s", part)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
