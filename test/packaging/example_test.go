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

// example is the worked example's machine: the image that mkosi makes by
// examples/mkosi, of the older of two states of Debian's archive, with its parts
// moved into cryptexes; the initrd that mkosi makes by examples/mkosi-initrd; and
// the vendor's folder with an improvement to the newer.
type example struct {
	image *vm.Image
	dir   string // of the initrds (dracut.img, initramfs-tools.img, mkosi-initrd.img), and vendor, sealpub's folder
}

// newExample builds the machine. It holds this very build of the packages, so
// it is not kept for other runs, unless $SEALANT_KEEP is set.
func newExample(t *testing.T) example {
	t.Helper()
	deb := packages(t, "sealant_*_amd64.deb")
	key := "example " + sh(t, "sha256sum <"+deb+"; find ../../examples/mkosi* -type f | sort | xargs cat; sed '/^func (e example)/,$d' example_test.go")
	tools := builder(t)
	image := vm.Make(t, key, func(tree string) error {
		began := time.Now()
		step := func(format string, args ...any) error {
			t.Helper()
			t.Logf("%5.1f s  %s", time.Since(began).Seconds(), sh(t, inside+fmt.Sprintf(format, args...)))
			return nil
		}
		work := filepath.Join(filepath.Dir(tree), "work")
		return firstError(
			// Three folders for mkosi: the image, the image as it is built later, the initrd.
			step(`work=%[1]s; mkdir -p $work/bin $work/cache
				cp "$(command -v sealpub)" $work/bin/
				cp -a %[3]s/mkosi $work/old; cp -a %[3]s/mkosi $work/new; cp -a %[3]s/mkosi-initrd $work/initrd
				for folder in old new initrd; do mkdir $work/$folder/mkosi.{packages,output}; cp %[2]s $work/$folder/mkosi.packages/sealant.deb; done
				# The older: without the second of the archives.
				sed -i '/^$/,$d' $work/old/mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources
				sed -i 's|^"$SRCDIR/initrd".*|"$SRCDIR/initrd" "$BUILDROOT" initramfs-tools; mv "$BUILDROOT/boot/initrd.img" "$OUTPUTDIR/initramfs-tools.img"\n&|; s|^"$SRCDIR/split"|cp "$BUILDROOT/usr/lib/x86_64-linux-gnu/libcrypto.so.3" "$OUTPUTDIR/"\n&|' $work/old/mkosi.finalize
				# The newer: only what the cryptexes are made of. Where Debian has no newer one at the moment, the vendor made its own.
				sed -i '/linux-image\|systemd\|udev\|dbus\|polkit\|kmod\|iproute2\|dracut\|sealant/d' $work/new/mkosi.conf
				sed -i 's|^"$SRCDIR/initrd".*|cd "$BUILDROOT/usr/lib/x86_64-linux-gnu"; ! cmp "$SRCDIR/libcrypto.so.3" libcrypto.so.3 \|\| sed -i "s/\\(OpenSSL 3\\.[0-9]*\\)\\.[0-9]/\\1.X/" libcrypto.so.3|' $work/new/mkosi.finalize
				# What is of the test: a fast boot, a root that is made writable by a unit.
				units=$work/extra/etc/systemd/system; mkdir -p $units/sysinit.target.wants
				ln -s /dev/null $units/nginx.service
				printf '[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n[Service]\nType=oneshot\nExecStart=/usr/bin/mount -o remount,rw /\n' >$units/writable.service
				ln -s ../writable.service $units/sysinit.target.wants/`, work, deb, abs(t, "../../examples")),
			step(`mkosi() { inside %[1]s %[2]s mkosi --package-cache-dir /run/work/cache --extra-search-path /run/work/bin --force "$@"; }
				of() { d=$1; shift; mkosi --directory /run/work/$d "$@" build >%[2]s/$d.log 2>&1 || { tail -50 %[2]s/$d.log; exit 1; }; }
				of old --skeleton-tree /run/work/extra --package initramfs-tools-core,busybox-static,procps,zstd
				mv %[2]s/old/mkosi.output/libcrypto.so.3 %[2]s/new/; of new
				of initrd --sandbox-tree /run/work/old/mkosi.sandbox --extra-tree /run/work/old/mkosi.output/example/usr/lib/modules:/usr/lib/modules
				ls -l %[2]s/*/mkosi.output`, tools, work),
			// The vendor: a baseline, which the image carries, and an improvement.
			step(`cd %[1]s; mv old/mkosi.output/example %[2]s; mv old/mkosi.output/example.images images; mv new/mkosi.output/example.images images-new
				mv old/mkosi.output/initramfs-tools.img ..; mv %[2]s/boot/initrd.img ../dracut.img; mv initrd/mkosi.output/initrd.cpio.zst ../mkosi-initrd.img
				sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway
				sealpub release baseline --dir vendor images/os.cryptex images/web.cryptex
				%[3]s/deliver %[2]s vendor images
				set -- --cryptex os=images/os.cryptex:images-new/os.cryptex
				cmp -s images/web.cryptex images-new/web.cryptex || set -- "$@" --cryptex web=images/web.cryptex:images-new/web.cryptex
				sealpub release --dir vendor --id SI-2026-0001 --level 1 "$@" \
				--cve CVE-2026-1101='Handshakes could read too far' --severity high --title 'OpenSSL and nginx' \
				--acknowledge version-changed
				sealsrv rollout start SI-2026-0001 --dir vendor --percent 100
				mv vendor ..; cd ..; rm -r %[1]s; ls -l *.img`, work, tree, abs(t, "../../examples/mkosi")),
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

// builder is a Debian tree with the programs that make images: mkosi, buildah.
func builder(t *testing.T) string {
	t.Helper()
	return vm.Debian(t, "mkosi", "reprepro", "buildah", "netavark", "ca-certificates", "ostree", "ostree-boot")
}

// inside TREE FOLDER COMMAND…: runs a command in a tree, as root of a mount
// namespace that has the folder at /run/work. It may make namespaces itself.
const inside = `
inside() {
	unshare --mount --propagation private sh -euc '
		tree=$1 work=$2; shift 2
		mount --bind "$tree" "$tree"; cd "$tree"
		for d in proc sys dev; do mount --rbind /$d $d; done
		for d in run tmp var/tmp; do mount -t tmpfs tmp $d; done
		mkdir -p run/work "$work/tmp"
		mount --rbind "$work" run/work; mount --bind "$work/tmp" var/tmp
		touch etc/resolv.conf; mount --bind "$(readlink -f /etc/resolv.conf)" etc/resolv.conf
		pivot_root . mnt; umount -l /mnt; cd /
		exec env PATH=/usr/sbin:/usr/bin HOME=/root "$@"' sh "$@"
}
`

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
		Append: "root=/dev/disk/by-id/virtio-root rootfstype=ext4 " + words,
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

// TestExample is the story of the worked example on real Debian packages, from
// the image that mkosi built: a machine whose process 1 gets its C library from a
// cryptex boots by dracut's initrd, is improved and relaunches one service; boots
// into the improvement by mkosi's own initrd with the root still read-only, and
// removes it offline; boots into the baseline by initramfs-tools'.
func TestExample(t *testing.T) {
	vm.Proves(t, "the image that mkosi built boots with process 1's libc from a cryptex; a relaunched service has the new libssl, an untouched one the old; restart brings it to all, by mkosi's initrd; removal restores the old")
	e := newExample(t)
	disk := filepath.Join(t.TempDir(), "root")
	e.image.NewRoot(t, disk)

	r := e.boot(t, disk, "dracut", "rw", `
		set -e
		./sealsrv dev --dir vendor --listen 127.0.0.1:8470 >out/sealsrv.log 2>&1 &
		until ss -ltn | grep -q :8470; do sleep 0.5; done; token=$(./sealsrv enroll token new --dir vendor -q)
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

	r = e.boot(t, disk, "mkosi-initrd", "ro", `
		echo "untouched: $(version untouched)"
		sealant status || true
		sealant verify
		sealant remove --yes
		sealant status || true`)
	expect(t, r, "boot", `"slot":"next","set":"SI-2026-0001`)
	expect(t, r, "boot", `"enforcement":"kernel"`)
	expect(t, r, "openssl", improved)
	expect(t, r, "untouched", improved)

	r = e.boot(t, disk, "initramfs-tools", "ro", `
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
