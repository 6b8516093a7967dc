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

// versions are two of each package that the archive has, the older and the newer.
type versions struct{ older, newer []string }

// example is the worked example's machine: a Debian tree with the device's
// package installed and the older of two versions of openssl and nginx, whose
// parts were moved into cryptexes; and the vendor's folder with an improvement
// to the newer.
type example struct {
	image  *vm.Image
	vendor string // sealpub's folder, beside images and images-new in the image's tree
}

const sources = `deb http://deb.debian.org/debian trixie main
deb http://deb.debian.org/debian-security trixie-security main
`

// newExample builds the machine, once for each state of the packages.
func newExample(t *testing.T, initrd string) example {
	t.Helper()
	deb := packages(t, "sealant_*_amd64.deb")
	key := "example 1 " + initrd + sh(t, "sha256sum <"+deb+"; cat ../../examples/mkosi/*; cat example_test.go | sha256sum")
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
			step(`cp /etc/resolv.conf %[1]s/etc/; cp %[2]s %[1]s/tmp/sealant.deb; mkdir -p %[5]s/new/var/lib/dpkg/info
				inside() { unshare --mount --pid --fork --mount-proc=%[1]s/proc chroot %[1]s env DEBIAN_FRONTEND=noninteractive "$@"; }
				rm -f %[1]s/etc/initramfs/post-update.d/*; ln -sf /bin/true %[1]s/usr/local/sbin/update-initramfs
				ln -sf /dev/null %[1]s/etc/systemd/system/nginx.service
				inside apt-get update -qq
				version() { inside apt-cache madison "$1" | awk '{print $3}' | sort -V | sed -n "$2p"; }
				for p in openssl libssl3t64 openssl-provider-legacy nginx nginx-common; do
					old=$(version $p 1) new=$(version $p '$')
					echo "$p $old -> $new"
					set -- "$@" $p=$old
					case $p in nginx-common) continue ;; esac
					(cd %[5]s && apt-get download -qq -o Dir=%[1]s -o Dir::State::status=%[1]s/var/lib/dpkg/status $p=$new libc6 2>/dev/null)
				done
				inside apt-get install -qq -y --no-install-recommends --allow-downgrades dracut-core initramfs-tools-core zstd "$@" >/dev/null
				for deb in %[5]s/*.deb; do
					dpkg-deb -x $deb %[5]s/new
					dpkg-deb --fsys-tarfile $deb | tar -t | sed 's,^\.,,; s,/$,,' >%[5]s/new/var/lib/dpkg/info/$(dpkg-deb -f $deb Package).list
				done
				chmod -R go-w %[5]s/new/etc; rm -r %[5]s/*.deb
				inside dpkg -i /tmp/sealant.deb
				rm -f %[1]s/etc/resolv.conf %[1]s/usr/local/sbin/update-initramfs
				%[3]s/initrd %[1]s %[4]s; ls -l %[1]s/boot`, tree, deb, scripts, initrd, work),
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
	return example{image, filepath.Join(filepath.Dir(image.Tree()), "vendor")}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// boot starts the example's machine from its own initrd.
func (e example) boot(t *testing.T, disk, words, script string) *vm.Result {
	t.Helper()
	r := vm.Run(t, vm.Options{
		Boot: vm.Cold, Image: e.image, Disk: disk, Initrd: filepath.Join(e.image.Tree(), "boot/initrd.img"),
		Append: "root=/dev/disk/by-id/virtio-root rootfstype=ext4 " + words, Timeout: 6 * time.Minute,
	}, vm.Files{"vendor": e.vendor, "sealsrv": laid(t, "sealant-server/usr/bin/sealsrv")}, script)
	t.Logf("took %.0f s\n%s", r.Took.Seconds(), r.Out)
	if r.Code != 0 {
		t.Fatalf("the script ended with %d\n--- console ---\n%s", r.Code, r.Console)
	}
	return r
}

// look says what runs in this boot: process 1's C library, openssl, the boot record.
const look = `
	echo "process 1: $(grep -o '/[^ ]*/libc.so.6' /proc/1/maps | head -1)"
	echo "process 1 crypto: $(grep -o '/[^ ]*/libcrypto.so.3' /proc/1/maps | head -1)"
	echo "state: $(systemctl is-system-running --wait)"
	echo "openssl: $(openssl version)"
	echo "boot: $(tr -d '\n' </run/sealant/boot.json)"
	echo "root: $(grep ' / ' /proc/self/mounts)"
	systemctl --failed --no-legend
`

// TestExample is the story of the worked example, told by a machine that boots
// from dracut's initrd.
func TestExample(t *testing.T) {
	e := newExample(t, "dracut")
	disk := filepath.Join(t.TempDir(), "root")
	e.image.NewRoot(t, disk)

	first := e.boot(t, disk, "rw", look+`
		false
	`)
	_ = first
}

var _ = strings.Contains
