//go:build slow

package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/test/vm"
)

// example is the worked example's machine: a Debian tree with the device's
// package installed and the older of two versions of openssl and nginx, whose
// parts were moved into cryptexes; and the vendor's folder with an improvement
// to the newer.
type example struct {
	image *vm.Image
	dir   string // of the initrds (dracut.img, initramfs-tools.img), and vendor, sealpub's folder
}

const sources = `deb http://deb.debian.org/debian trixie main
deb http://deb.debian.org/debian-security trixie-security main
`

// newExample builds the machine. It holds this very build of the packages, so
// it is not kept for other runs, unless $SEALANT_KEEP is set.
func newExample(t *testing.T) example {
	t.Helper()
	deb := packages(t, "sealant_*_amd64.deb")
	key := "example " + sh(t, "sha256sum <"+deb+"; find ../../examples/mkosi -type f | sort | xargs cat; sed '/^func (e example)/,$d' example_test.go")
	scripts, err := filepath.Abs("../../examples/mkosi")
	if err != nil {
		t.Fatal(err)
	}
	image := vm.Build(t).Derive(t, key, func(tree string) error {
		began := time.Now()
		step := func(format string, args ...any) error {
			t.Helper()
			t.Logf("%5.1f s  %s", time.Since(began).Seconds(), sh(t, fmt.Sprintf(format, args...)))
			return nil
		}
		// What the image's builder does: mkosi.conf's packages, an older and a newer build.
		if err := os.WriteFile(filepath.Join(tree, "etc/apt/sources.list"), []byte(sources), 0o644); err != nil {
			return err
		}
		work := filepath.Join(filepath.Dir(tree), "work")
		return firstError(
			step(`cp /etc/resolv.conf %[1]s/etc/; cp %[2]s %[1]s/tmp/sealant.deb; mkdir -p %[4]s/new/var/lib/dpkg/info
				inside() { unshare --mount --pid --fork --mount-proc=%[1]s/proc chroot %[1]s env DEBIAN_FRONTEND=noninteractive "$@"; }
				rm -f %[1]s/etc/initramfs/post-update.d/*; ln -sf /bin/true %[1]s/usr/local/sbin/update-initramfs
				ln -sf /dev/null %[1]s/etc/systemd/system/nginx.service
				# As systemd-remount-fs does by fstab, on machines that boot read-only.
				printf '[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n[Service]\nType=oneshot\nExecStart=/usr/bin/mount -o remount,rw /\n' >%[1]s/etc/systemd/system/writable.service
				ln -s ../writable.service %[1]s/etc/systemd/system/sysinit.target.wants/
				inside apt-get update -qq
				version() { inside apt-cache madison "$1" | awk '{print $3}' | sort -V | sed -n "$2p"; }
				for p in openssl libssl3t64 openssl-provider-legacy nginx nginx-common; do
					old=$(version $p 1) new=$(version $p '$')
					echo "$p $old -> $new"
					set -- "$@" $p=$old
					case $p in nginx-common) continue ;; esac
					(cd %[4]s && apt-get download -qq -o Dir=%[1]s -o Dir::State::status=%[1]s/var/lib/dpkg/status $p=$new libc6 2>/dev/null)
				done
				inside apt-get install -qq -y --no-install-recommends --allow-downgrades dracut-core initramfs-tools-core zstd "$@" >/dev/null
				for deb in %[4]s/*.deb; do
					dpkg-deb -x $deb %[4]s/new
					dpkg-deb --fsys-tarfile $deb | tar -t | sed 's,^\.,,; s,/$,,' >%[4]s/new/var/lib/dpkg/info/$(dpkg-deb -f $deb Package).list
				done
				chmod -R go-w %[4]s/new/etc; rm -r %[4]s/*.deb
				inside dpkg -i /tmp/sealant.deb
				rm -f %[1]s/etc/resolv.conf %[1]s/usr/local/sbin/update-initramfs
				for with in dracut initramfs-tools; do
					%[3]s/initrd %[1]s $with; mv %[1]s/boot/initrd.img %[4]s/../$with.img
				done; ls -l %[4]s/../*.img`, tree, deb, scripts, work),
			// The vendor: two builds, split alike; a baseline and an improvement.
			step(`%[3]s/split %[1]s %[2]s/images; %[3]s/split %[2]s/new %[2]s/images-new; rm -rf %[2]s/new
				cd %[2]s
				sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway
				sealpub release baseline --dir vendor images/os.cryptex images/web.cryptex
				%[3]s/deliver %[1]s vendor images`, tree, work, scripts),
			step(`cd %[1]s; sealpub release --dir vendor --id SI-2026-0001 --level 1 \
				--cryptex os=images/os.cryptex:images-new/os.cryptex --cryptex web=images/web.cryptex:images-new/web.cryptex \
				--cve CVE-2026-1101='Handshakes could read too far' --severity high --title 'OpenSSL and nginx' \
				--acknowledge version-changed
				sealsrv rollout start SI-2026-0001 --dir vendor --percent 100
				rm -rf images images-new; mv vendor %[2]s/../vendor; rm -r %[1]s`, work, tree),
		)
	})
	dir := filepath.Dir(image.Tree())
	t.Cleanup(func() {
		if os.Getenv("SEALANT_KEEP") == "" {
			os.RemoveAll(dir)
		}
	})
	return example{image, dir}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// boot starts the example's machine from an initrd of its own.
func (e example) boot(t *testing.T, disk, initrd, words, script string) *vm.Result {
	t.Helper()
	r := vm.Run(t, vm.Options{
		Boot: vm.Cold, Image: e.image, Disk: disk, Initrd: filepath.Join(e.dir, initrd+".img"),
		Append: "root=/dev/disk/by-id/virtio-root rootfstype=ext4 " + words, Timeout: 15 * time.Minute,
	}, vm.Files{
		"vendor": filepath.Join(e.dir, "vendor"), "sealsrv": laid(t, "sealant-server/usr/bin/sealsrv"), "newer.deb": newer(t, "sealant", "deb", t.TempDir()),
	}, look+script)
	t.Logf("booted by %s, took %.0f s\n%s", initrd, r.Took.Seconds(), r.Out)
	if r.Code != 0 {
		t.Fatalf("the script ended with %d\n--- console ---\n%s", r.Code, r.Console)
	}
	if got := r.Line("process 1"); got != "/usr/lib/cryptexes/os/usr/lib/x86_64-linux-gnu/libc.so.6" {
		t.Errorf("process 1 has its C library from %q", got)
	}
	if got := r.Line("failed"); got != "" {
		t.Errorf("failed units: %s", got)
	}
	return r
}

// expect compares what a machine printed after a name.
func expect(t *testing.T, r *vm.Result, name, want string) {
	t.Helper()
	if got := r.Line(name); !strings.Contains(got, want) {
		t.Errorf("%s: %q, wanted %q", name, got, want)
	}
}

// look says what runs in this boot: process 1's C library, openssl, the boot
// record; and starts two TLS servers. version NAME asks openssl in the mount
// namespace of one of them.
const look = `
	echo "process 1: $(grep -o '/[^ ]*/libc.so.6' /proc/1/maps | head -1)"
	echo "root: $(grep ' / ' /proc/self/mounts)"
	echo "boot: $(tr -d ' \n' </run/sealant/boot.json)"
	echo "openssl: $(openssl version)"
	mkdir -p /etc/sealant/apps.d
	for name in relaunched untouched; do
		printf '[Service]\nExecStart=/usr/bin/openssl s_server -accept 127.0.0.1:%s -nocert -quiet\n' 844${#name} >/run/systemd/system/$name.service
		printf 'cryptexes = ["os"]\nunit = "%s.service"\n' $name >/etc/sealant/apps.d/$name.toml
	done
	systemctl daemon-reload
	systemctl start relaunched untouched
	version() { nsenter -m -t $(systemctl show -P MainPID $1) openssl version; }
	systemctl start boot-complete.target sealant-confirm.service
	echo "failed: $(systemctl --failed --no-legend --plain | tr '\n' ' ')"
`

// TestExample is the story of the worked example on real Debian packages: a
// machine whose process 1 gets its C library from a cryptex boots by dracut's
// initrd, is improved and relaunches one service; boots into the improvement by
// initramfs-tools' initrd with the root still read-only; removes it offline and
// boots into the baseline.
func TestExample(t *testing.T) {
	e := newExample(t)
	disk := filepath.Join(t.TempDir(), "root")
	e.image.NewRoot(t, disk)

	r := e.boot(t, disk, "dracut", "rw", `
		set -e
		./sealsrv dev --dir vendor --listen 127.0.0.1:8470 >out/sealsrv.log 2>&1 &
		until token=$(./sealsrv enroll token new --dir vendor -q); do sleep 1; done
		sealant enroll --token $token --server http://127.0.0.1:8470 --identity file
		sealant install
		echo "installed, everybody: $(openssl version)"
		echo "installed, relaunched: $(version relaunched)"
		sealant relaunch relaunched
		echo "then, relaunched: $(version relaunched)"
		echo "then, untouched: $(version untouched)"
		sealant ps || true
		sealant status || true
		sealant verify`)
	old := r.Line("openssl")
	expect(t, r, "boot", `"slot":"delivered"`)
	expect(t, r, "boot", `"enforcement":"kernel"`)
	for _, name := range []string{"installed, everybody", "installed, relaunched", "then, untouched"} {
		expect(t, r, name, old)
	}
	improved := r.Line("then, relaunched")
	if improved == old || improved == "" {
		t.Errorf("the relaunched service has %q, the machine %q", improved, old)
	}

	r = e.boot(t, disk, "initramfs-tools", "ro", `
		echo "untouched: $(version untouched)"
		sealant status || true
		sealant verify
		sealant remove --yes
		sealant status || true`)
	expect(t, r, "boot", `"slot":"next","set":"SI-2026-0001`)
	expect(t, r, "boot", `"enforcement":"kernel"`)
	expect(t, r, "openssl", improved)
	expect(t, r, "untouched", improved)

	r = e.boot(t, disk, "dracut", "ro", `
		echo "untouched: $(version untouched)"
		sealant status || true
		sealant history

		# An upgrade of the package restarts the agent and touches nothing else.
		ln -sf /bin/true /usr/local/sbin/update-initramfs
		pids() { for u in relaunched untouched; do systemctl show -P MainPID $u; done; grep cryptex /proc/self/mountinfo; }
		agent=$(systemctl show -P MainPID sealant.service)
		before=$(pids)
		dpkg -i newer.deb
		test "$before" = "$(pids)" && echo "what runs: untouched"
		test "$agent" != "$(systemctl show -P MainPID sealant.service)" && echo "agent: restarted, $(systemctl is-active sealant.service)"`)
	expect(t, r, "what runs", "untouched")
	expect(t, r, "agent", "restarted, active")
	expect(t, r, "boot", `"slot":"next","set":"base`)
	expect(t, r, "openssl", old)
	expect(t, r, "untouched", old)
	t.Logf("%s -> %s -> %s", old, improved, r.Line("openssl"))
}
