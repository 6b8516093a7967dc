//go:build slow

package packaging

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// world is a vendor with two operating systems, 42.3.0 and 42.4.0, whose
// program door says which it is; an improvement of the first; and a device
// below dir/device, enrolled, that runs the first, improved.
type world struct {
	dir, prelude string
}

// newWorld makes it. Each script that runs in it is one boot of the device: it
// has a mount namespace of its own, in which the server runs, too.
func newWorld(t *testing.T) *world {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := listener.Addr().String()
	listener.Close()
	w := &world{dir: t.TempDir()}
	w.prelude = fmt.Sprintf(`cd %[1]s; R=%[1]s/device; export SEALANT_ROOT=$R
		PATH=%[2]s:$PATH
		FINISH=; trap 'eval "$FINISH"' EXIT; finish() { FINISH="$1; $FINISH"; }
		serve() { sealsrv dev --dir vendor --listen %[3]s >server.log 2>&1 & finish "kill $!"; sleep 1; }
		# The device's file system begins at $R; what is only in /run ends with a boot.
		boot() { rm -rf $R/run; mkdir -p $R/run; sealant-boot --root $R 2>&1 || echo "exit $?"; }
		s() { sealant --root $R "$@"; }
		`, w.dir, laid(t, "sealant/usr/lib/sealant"), server)
	w.run(t, fmt.Sprintf(`
		sealpub init vendor --throwaway --product ExampleOS --os-version 42.3.0 >/dev/null
		for v in 3 4; do
			mkdir -p os$v/usr/bin os$v/usr/lib/sealant/base os$v/usr/lib/cryptexes/web
			printf '#!/bin/sh\necho door 42.%%s\n' $v >os$v/usr/bin/door; chmod +x os$v/usr/bin/door
			sealpub image split --root os$v --cryptex web=usr/bin/door --subtype app --out images$v
			sealpub release baseline --dir vendor --os-version 42.$v.0 images$v/web.cryptex
			cp vendor/base.json vendor/root.json vendor/ticket-root.pem vendor/log-key.txt os$v/usr/lib/sealant/
			cp images$v/web.cryptex os$v/usr/lib/sealant/base/
			[ $v = 3 ] || continue
			mkdir -p new/usr/bin; printf '#!/bin/sh\necho door 42.3 improved\n' >new/usr/bin/door; chmod +x new/usr/bin/door
			sealpub image build --in new --out web-a.cryptex --name web --subtype app
			sealpub release --dir vendor --id SI-2026-0001 --level 1 --cryptex web=images3/web.cryptex:web-a.cryptex --severity high --title Door
			sealsrv rollout start SI-2026-0001 --dir vendor --percent 100
		done
		mkdir -p device/{etc/sealant,var/lib,dev}; cp -a os3/usr device/
		serve; boot
		s enroll --token $(sealsrv enroll token new --dir vendor -q) --server http://%s --identity file
		s install`, server))
	w.run(t, `boot | grep '(a) SI-2026-0001 .* from next'; s confirm; sh $R/usr/lib/cryptexes/web/usr/bin/door | grep improved`)
	return w
}

func (w *world) run(t *testing.T, script string) string {
	t.Helper()
	out := sh(t, "unshare --mount --propagation private bash -euo pipefail -c "+quote(w.prelude+script)+" 2>&1")
	t.Log(out)
	return out
}

// after boots the device into the new baseline and checks what becomes of the
// improvement of the old one. mount makes the new /usr stand in $R/usr.
func (w *world) after(t *testing.T, mount string) {
	t.Helper()
	said := w.run(t, mount+`
		boot
		sh $R/usr/lib/cryptexes/web/usr/bin/door
		s status || true
		du -s $R/var/lib/sealant
		serve; s check || true
		s status || true
		s history
		s verify
		cd $R/var/lib/sealant; echo "left: $(ls -d sets/SI-* patches/SI-* 2>/dev/null | xargs)"`)
	for _, want := range []string{"attached 42.4.0 baseline", "from delivered", "door 42.4\n", "operating system was updated", "os-update", "left: \n"} {
		if !strings.Contains(said, want) {
			t.Errorf("it is not said: %q", want)
		}
	}
}

// TestSysupdate: systemd-sysupdate itself brings the new /usr into the other
// partition, by the example's transfer file.
func TestSysupdate(t *testing.T) {
	w := newWorld(t)
	tree := vm.Build(t).Tree() // Debian's systemd 257 is in there
	said := w.run(t, fmt.Sprintf(`
		truncate -s 48M disk
		sfdisk -q disk <<-END
			label: gpt
			size=16M, type=8484680c-9521-48c6-9c11-b0720656f69e, name="example_42.3"
			size=16M, type=8484680c-9521-48c6-9c11-b0720656f69e, name="_empty"
		END
		for v in 3 4; do truncate -s 16M usr$v; mke2fs -q -F -t ext4 -d os$v/usr usr$v; done
		dd if=usr3 of=disk bs=1M seek=1 conv=notrunc status=none
		disk=$(losetup -P --show -f disk); finish "losetup -d $disk"
		mkdir root u; mount -t tmpfs t u; mkdir u/{u,w}; mount -t overlay -o lowerdir=%s,upperdir=u/u,workdir=u/w o root
		mkdir -p root/etc/sysupdate.d root/var/lib/updates
		sed "s,^Path=auto,Path=$disk," %s >root/etc/sysupdate.d/50-usr.transfer
		cp usr4 root/var/lib/updates/example_42.4.usr.raw
		mount --rbind /dev root/dev; mount -t proc p root/proc; mount -t sysfs s root/sys
		chroot root sh -ec 'PATH=/usr/lib/systemd:$PATH; %s'
		sfdisk -d $disk | grep name=`, tree, abs(t, "../../examples/sysupdate/50-usr.transfer"), pageCommands(t, "os-updates.md")))
	if !strings.Contains(said, "name=\"example_42.4\"") || !strings.Contains(said, "name=\"example_42.3\"") {
		t.Fatal("the partition was not updated")
	}
	w.after(t, "mount -o loop,ro,offset=$((17 << 20)) disk $R/usr; ")
}

// TestRAUC: rauc itself installs a bundle that brings a baseline for the root
// that does not run; its hook calls sealant base install.
func TestRAUC(t *testing.T) {
	w := newWorld(t)
	w.run(t, fmt.Sprintf(`
		serve
		mkdir -p content run bin; example=%s
		cp $example/manifest.raucm $example/hook.sh content/
		cp os4/usr/lib/sealant/base.json .; tar -cf content/baseline.tar base.json -C images4 web.cryptex
		openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out keyring.pem -subj /CN=ExampleOS -days 30 2>/dev/null
		rauc --cert keyring.pem --key key.pem bundle content update.raucb
		for slot in a b; do truncate -s 24M $slot; mke2fs -q -F -t ext4 -d os3 $slot; done
		A=$(losetup -f --show a) B=$(losetup -f --show b); finish "losetup -d $A $B"
		sed "s,/dev/disk/by-partlabel/root-a,$A,; s,/dev/disk/by-partlabel/root-b,$B,; s,/etc/rauc,$PWD,; s,/run/rauc/mnt,$PWD/run,; s,/var/lib/rauc,$PWD," $example/system.conf >system.conf
		# The hook's sealant is this device's.
		printf '#!/bin/sh\nexec %%s --root %%s "$@"\n' $(command -v sealant) $R >bin/sealant; chmod +x bin/sealant; PATH=$PWD/bin:$PATH
		export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$PWD/bus
		dbus-daemon --session --nofork --address=$DBUS_SYSTEM_BUS_ADDRESS 2>/dev/null & finish "kill $!"; sleep 1
		rauc -c system.conf --override-boot-slot=A service >rauc.log 2>&1 & finish "kill $!"; sleep 1
		rauc -c system.conf install update.raucb || { cat rauc.log; false; }
		cat rauc.log
		mkdir m; mount -o loop,ro a m; grep -o '"os_version":"[^"]*"' m/usr/lib/sealant/base.json; umount m
		mount -o loop,ro b m; grep -o '"os_version":"[^"]*"' m/usr/lib/sealant/base.json; umount m`, abs(t, "../../examples/rauc")))
	w.after(t, "mkdir slot; mount -o loop,ro b slot; mount --bind slot/usr $R/usr; ")
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pageCommands are all commands in the blocks of a page of docs that are marked sh.
func pageCommands(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for i, part := range strings.Split(string(text), "```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			all.WriteString(block)
		}
	}
	if all.Len() == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return all.String()
}
