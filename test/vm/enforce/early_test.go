//go:build vm || slow

package enforce

import (
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// strictUnit is a service of a strict app. It says what it and its child may execute.
const strictUnit = `[Unit]
Description=A strict app

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/var/tmp/x && echo "x: yes" || echo "x: no"; /bin/sh -c "setsid /var/tmp/x && echo child: yes || echo child: no"; /usr/lib/cryptexes/web/listed && echo "listed: yes"'
StandardOutput=file:/run/strict.txt
`

// TestEarly boots with systemd's units: what isn't listed is refused before the
// system has come up, without an agent; and a strict service is one.
func TestEarly(t *testing.T) {
	vm.Proves(t, "what no trust cache lists is refused before sysinit.target, without an agent; a strict service is one")
	root := t.TempDir()
	deliver(t, root)
	disk := filepath.Join(t.TempDir(), "disk")
	vm.Build(t).NewRoot(t, disk)
	r := vm.Run(t, vm.Options{Boot: vm.Bare, Disk: disk}, vm.Files{
		"root":         root,
		"sealant":      compiled(t, "build", "./cmd/sealant"),
		"sealant-boot": compiled(t, "build", "./cmd/sealant-boot"),
		"units":        "../../../packaging/systemd",
	}, `
		set -e
		cp -a root/. /
		cp sealant /usr/bin/; cp sealant-boot /usr/lib/sealant/
		cp units/sealant-boot.service units/sealant-enforce.service /usr/lib/systemd/system/
		mkdir -p /etc/sealant/apps.d; cp units/system-generators/sealant-strict /usr/lib/systemd/system-generators/
		printf 'cryptexes=["web"]\nunit="strict.service"\nstrict=true\n' >/etc/sealant/apps.d/strict.toml
		cat >/usr/lib/systemd/system/strict.service <<-E
		`+strictUnit+`
		E
		cp /usr/bin/true /var/tmp/x
		systemctl --root=/ enable sealant-boot.service sealant-enforce.service`)
	if r.Code != 0 {
		t.Fatalf("%d %s\n%s", r.Code, r.Out, r.Console)
	}
	r = vm.Run(t, vm.Options{Boot: vm.Cold, Disk: disk}, nil, `
		W=/usr/lib/cryptexes/web
		try() {
			name=$1; shift
			if out=$("$@" 2>&1); then echo "$name: ok"; else echo "$name: $? $out"; fi
		}
		try listed $W/listed
		try unlisted $W/unlisted
		try data /lib64/ld-linux-x86-64.so.2 $W/data.bin
		since() { systemctl show -P $2 $1; }
		[ "$(since sealant-enforce.service ExecMainExitTimestampMonotonic)" -lt "$(since sysinit.target ActiveEnterTimestampMonotonic)" ] && echo "early: yes"
		echo "load took: $(( ($(since sealant-enforce.service ExecMainExitTimestampMonotonic) - $(since sealant-enforce.service ExecMainStartTimestampMonotonic)) / 1000 )) ms of $(( $(since basic.target ActiveEnterTimestampMonotonic) / 1000 ))"
		try strict systemctl start strict.service
		cat /run/strict.txt
		try outside /var/tmp/x
		systemctl --failed --no-legend --plain; journalctl -b -u sealant-boot -u sealant-enforce -u strict -o cat | tail -20
		true`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for _, c := range []struct{ name, want string }{
		{"listed", "yes"},
		{"unlisted", "126"},
		{"data", "127"},
		{"early", "yes"},
		{"strict", "ok"},
		{"x", "no"},
		{"child", "no"},
		{"outside", "ok"},
	} {
		line(t, r, c.name, c.want)
	}
}
