//go:build slow

package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/systemd"
	"github.com/sealant-os/sealant/test/vm"
)

// clean copies a Debian tree that never saw the packages, and returns a
// function that runs a script inside it and gives back what was said.
func clean(t *testing.T) (tree string, inside func(script string) string) {
	t.Helper()
	tree = filepath.Join(t.TempDir(), "tree")
	sh(t, fmt.Sprintf("cp -a --reflink=auto %s %s; mkdir %[2]s/packages", vm.Build(t).Tree(), tree))
	return tree, func(script string) string {
		t.Helper()
		return sh(t, fmt.Sprintf("unshare --mount --pid --fork --mount-proc=%[1]s/proc chroot %[1]s sh -euc %[2]s 2>&1", tree, quote(script)))
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// newer packs what a package holds once more, as a version that follows it.
func newer(t *testing.T, name, format, into string) string {
	t.Helper()
	yaml := laid(t, name+".yaml")
	out := sh(t, fmt.Sprintf(`sed 's/^version: "\(.*\)"/version: "\1.1"/' %s >%s/newer.yaml; ../../build/tools/nfpm package --config %[2]s/newer.yaml --packager %s --target %[2]s/ >/dev/null; ls %[2]s/*.1*.%[3]s`,
		yaml, into, format))
	return strings.TrimSpace(out)
}

// state is what a device would have, and an administrator's choices.
const state = `
	mkdir -p /var/lib/sealant/identity; echo 1 >/var/lib/sealant/version; echo key >/var/lib/sealant/identity/key.pem
	echo '# mine' >>/etc/sealant/agent.toml
	echo 'cryptexes = ["web"]' >/etc/sealant/apps.d/mine.toml
	systemctl disable sealant-confirm.service 2>/dev/null
`

// kept checks what no maintainer script may touch.
const kept = `
	grep -q key /var/lib/sealant/identity/key.pem
	test "$(cat /var/lib/sealant/version)" = 1
`

// TestDebian: install, upgrade, remove, purge in a clean Debian.
func TestDebian(t *testing.T) {
	tree, inside := clean(t)
	deb := packages(t, "sealant_*_amd64.deb")
	next := newer(t, "sealant", "deb", t.TempDir())
	sh(t, fmt.Sprintf("cd %s/packages; cp %s 1.deb; cp %s 2.deb; cp %s server.deb; cp %s publisher.deb",
		tree, deb, next, packages(t, "sealant-server_*_amd64.deb"), packages(t, "sealant-publisher_*_amd64.deb")))
	files := inside(`find / -xdev -not -path '/proc/*' -not -path '/var/lib/dpkg/*' -not -path '/boot/*' -not -path '/var/log/*' -not -path '/packages/*' | sort >/packages/before; wc -l </packages/before`)
	t.Logf("%s files before", strings.TrimSpace(files))

	t.Log(inside(`ln -sf /bin/true /usr/local/sbin/update-initramfs; dpkg -i /packages/1.deb; sealant --version; sealant-boot --help 2>&1 | head -1; sealant status || test $? = 1`))
	for _, unit := range []string{"sealant.service", "sealant-boot.service", "sealant-launch.socket", "sealant-confirm.service"} {
		if got := strings.TrimSpace(inside("systemctl is-enabled " + unit)); got != "enabled" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	t.Log(inside(state + `dpkg -i /packages/2.deb` + kept + `
		grep -q mine /etc/sealant/agent.toml
		test -e /etc/sealant/apps.d/mine.toml
		test "$(systemctl is-enabled sealant-confirm.service)" = disabled`))

	// A system that lives in cryptexes does not lose what attaches them.
	said := inside(`echo '{}' >/usr/lib/sealant/base.json; ! dpkg -r sealant 2>&1; dpkg -s sealant | grep Status`)
	if !strings.Contains(said, "SEALANT_REMOVE=yes") || !strings.Contains(said, "ok installed") {
		t.Errorf("removed from under a system that needs it: %s", said)
	}
	said = inside(`SEALANT_REMOVE=yes dpkg -r sealant 2>&1; rm /usr/lib/sealant/base.json` + kept + `! test -e /usr/bin/sealant; grep -q mine /etc/sealant/agent.toml`)
	t.Log(said)
	if !strings.Contains(said, "stay in /var/lib/sealant") {
		t.Errorf("it does not say that the state stays: %s", said)
	}
	said = inside(`rm /etc/sealant/apps.d/mine.toml; dpkg -P sealant 2>&1;` + kept + `! test -e /etc/sealant`)
	if !strings.Contains(said, "rm -r /var/lib/sealant") {
		t.Errorf("it does not say how to give the state up: %s", said)
	}

	t.Log(inside(`dpkg -i /packages/server.deb /packages/publisher.deb; sealsrv --version; sealpub --version; id sealsrv; stat -c '%U %a' /var/lib/sealsrv
		test "$(systemctl is-enabled sealsrv.service)" = disabled
		dpkg -P sealant-server sealant-publisher`))
	left := inside(`rm -rf /var/lib/sealant /usr/lib/sealant /usr/local/sbin/update-initramfs
		find / -xdev -not -path '/proc/*' -not -path '/var/lib/dpkg/*' -not -path '/boot/*' -not -path '/var/log/*' -not -path '/packages/*' | sort | comm -13 /packages/before - | grep -v -e '^/etc/.*-$' -e '^/var/lib/sealsrv$' -e ^/var/lib/systemd/ -e ^/run/ || true`)
	if left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestRPM: install, upgrade and remove by rpm. There is no distribution of
// rpm's in reach here: the scripts run in a Debian tree.
func TestRPM(t *testing.T) {
	tree, inside := clean(t)
	pack := packages(t, "sealant-0*x86_64.rpm")
	next := newer(t, "sealant", "rpm", t.TempDir())
	rpm := func(args string) string {
		t.Helper()
		return sh(t, fmt.Sprintf("unshare --mount --pid --fork --mount-proc=%[1]s/proc rpm --root %[1]s --dbpath /var/lib/rpm --nodeps %s 2>&1", tree, args))
	}
	t.Log(rpm("-i " + pack))
	t.Log(inside("sealant --version; systemctl is-enabled sealant.service sealant-boot.service sealant-launch.socket sealant-confirm.service" + state))
	t.Log(rpm("-U " + next))
	inside(kept + `grep -q mine /etc/sealant/agent.toml; test "$(systemctl is-enabled sealant-confirm.service)" = disabled`)
	inside("echo '{}' >/usr/lib/sealant/base.json")
	if said := rpm("-e sealant || true"); !strings.Contains(said, "SEALANT_REMOVE=yes") {
		t.Errorf("removed from under a system that needs it: %s", said)
	}
	inside("test -x /usr/bin/sealant; rm /usr/lib/sealant/base.json")
	said := rpm("-e sealant")
	inside(kept + "! test -e /usr/bin/sealant; grep -q mine /etc/sealant/agent.toml.rpmsave")
	if !strings.Contains(said, "stay in /var/lib/sealant") {
		t.Errorf("it does not say that the state stays: %s", said)
	}
}

// TestReproducible: the same commit, built elsewhere, makes the same bytes.
func TestReproducible(t *testing.T) {
	build := func() string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "else", "where")
		return sh(t, fmt.Sprintf("git clone -q ../.. %s; cd %[1]s; mkdir ../tmp; TMPDIR=%[1]s/../tmp packaging/build amd64 >/dev/null; cd build/packages; sha256sum *", dir))
	}
	var here string
	if sh(t, "git status --porcelain") == "" {
		names := packages(t, "sealant_*_amd64.deb")
		here = sh(t, fmt.Sprintf("cd %s; v=$(basename %s | cut -d_ -f2); sha256sum *$v*_amd64.deb *$v*.x86_64.rpm", filepath.Dir(names), names))
	} else {
		here = build() // what stands here is no commit
	}
	if there := build(); sorted(here) != sorted(there) {
		t.Errorf("they differ:\n%s\n%s", here, there)
	}
	t.Log(here)
}

func sorted(lines string) string {
	all := strings.Split(strings.TrimSpace(lines), "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// TestARM64 runs the programs of the arm64 packages under qemu's user mode: a
// patch is made and applied, a release signed.
func TestARM64(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sealant", "sealant-publisher", "sealant-server", "sealant-lab"} {
		sh(t, fmt.Sprintf("dpkg-deb -x %s %s", packages(t, name+"_*_arm64.deb"), dir))
	}
	bin := filepath.Join(dir, "run")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"sealant": "usr/lib/sealant", "sealant-boot": "usr/lib/sealant", "sealpub": "usr/bin", "sealsrv": "usr/bin", "sealant-lab": "usr/bin",
	} {
		script := fmt.Sprintf("#!/bin/sh\nexec qemu-aarch64-static %s/%s/%s \"$@\"\n", dir, path, name)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(sh(t, fmt.Sprintf(`PATH=%s:$PATH; cd %s
		file -L usr/bin/sealant | grep -q aarch64
		for p in sealant sealpub sealsrv sealant-lab; do $p --version; done
		sealant-boot --help 2>&1 | head -1
		sealant-boot --root %[2]s/nothing || test $? = 1
		mkdir -p old/usr/lib new/usr/lib
		cp usr/bin/sealpub old/usr/lib/library; head -c 40000 usr/bin/sealsrv >>old/usr/lib/library
		cp usr/bin/sealpub new/usr/lib/library; head -c 50000 usr/lib/sealant/sealant >>new/usr/lib/library
		for v in old new; do sealpub image build --in $v --out $v.cryptex --name web --subtype app; sealpub image verify $v.cryptex; done
		sealpub patch make old.cryptex new.cryptex p
		sealpub patch apply old.cryptex p back
		cmp back new.cryptex
		sealpub init vendor --throwaway --product ExampleOS --os-version 42.3.0 >/dev/null
		sealpub release baseline --dir vendor old.cryptex
		sealsrv leaf new --dir vendor
		# What this architecture made, the other reads.
		%[3]s image verify new.cryptex; %[3]s patch apply old.cryptex p there; cmp there new.cryptex`,
		bin, dir, laid(t, "sealant-publisher/usr/bin/sealpub"))))
}

// TestInstallingPage runs the commands of docs/installing.md as an engineer would on
// a machine that runs: systemd starts what is to run, an upgrade restarts the agent
// alone, and when the package is purged nothing of it runs or has failed.
func TestInstallingPage(t *testing.T) {
	m := systemd.Boot(t, vm.Build(t).Tree(), func(root string) {
		sh(t, fmt.Sprintf(`mkdir -p %[1]s/packages/newer %[1]s/usr/local/sbin %[1]s/usr/lib/sealant; ln -s /bin/true %[1]s/usr/local/sbin/update-initramfs
			cp %[2]s %[1]s/packages/; cp %[3]s %[1]s/packages/newer/`,
			root, packages(t, "sealant_*_amd64.deb"), newer(t, "sealant", "deb", t.TempDir())))
	})
	const path = "PATH=/usr/local/sbin:$PATH\n" // of an update-initramfs that does nothing
	said := m.Run(path + "cd /packages; " + pageCommands(t, "installing.md"))
	t.Log(said)
	for _, want := range []string{"enabled\nenabled\nenabled\n", "50-fleet.toml", "window"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page's commands never print %q", want)
		}
	}
	t.Log(m.Run(path + `systemctl is-active sealant-launch.socket
		test "$(systemctl show -P ConditionResult sealant.service)" = no # there is no baseline here
		socket=$(systemctl show -P ActiveEnterTimestampMonotonic sealant-launch.socket)
		dpkg -i /packages/newer/*.deb
		test "$socket" = "$(systemctl show -P ActiveEnterTimestampMonotonic sealant-launch.socket)"
		dpkg -P sealant
		! systemctl is-active sealant-launch.socket sealant.service
		! systemctl list-units --all --no-legend --plain 'sealant*' | grep -v ^sealant-vm
		systemctl --failed --no-legend --plain; test -z "$(systemctl --failed --no-legend --plain)"`))
}
