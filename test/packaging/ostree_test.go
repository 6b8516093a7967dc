//go:build slow

package packaging

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestOSTree: ostree, which bootc keeps its systems by, deploys the new tree beside
// the old one. /usr is read-only, /var is both systems'. Rolled back before it was
// thrown away, the improvement is there again; later it is asked for again.
func TestOSTree(t *testing.T) {
	w := newWorld(t)
	// Debian 13's programs run here by their own loader, in this mount namespace.
	w.prelude += fmt.Sprintf(`T=%s; lib=$T/usr/lib/x86_64-linux-gnu
		newer() { local p=$1; shift; $lib/ld-linux-x86-64.so.2 --library-path $lib $T/usr/$p "$@"; }
		ostree() { newer bin/ostree "$@"; }
		deploy() { # VERSION: a tree with what ostree wants of one, beside what runs
			mkdir -p os$1/usr/etc os$1/usr/lib/modules/6.12; echo kernel $1 >os$1/usr/lib/modules/6.12/vmlinuz; echo initrd >os$1/usr/lib/modules/6.12/initramfs.img
			mkdir -p os$1/{var,sysroot,run,proc,dev,sys,tmp,boot}; ln -sfn sysroot/ostree os$1/ostree
			printf 'ID=example\nPRETTY_NAME="ExampleOS 42.%%s"\nVERSION_ID=42.%%s\n' $1 $1 >os$1/usr/lib/os-release
			ostree --repo=$R/ostree/repo commit -b example --tree=dir=os$1 >/dev/null
			ostree admin --sysroot=$R deploy --os=example example
		}
		# A deployment's top folder can't be changed.
		boot() { ! mountpoint -q $R/run || umount -l $R/run; mount -t tmpfs run $R/run; sealant-boot --root $R 2>&1 || echo "exit $?"; }
		# start N: what an initrd does with the Nth entry of the boot loader, 1 the newest.
		start() {
			mount -o loop disk $R
			words=$(cat $(ls -r $R/boot/loader/entries/* | sed -n $1p) | sed -n 's/^options //p')
			echo "$words" >words; mount --bind words /proc/cmdline
			mount -t tmpfs run /run; newer lib/ostree/ostree-prepare-root $R; umount /run /proc/cmdline
			mount --bind $R/sysroot/ostree/deploy/example/var $R/var # as ostree's generator has systemd do
			grep " $R/usr " /proc/self/mounts; ! touch $R/usr/probe
			boot; sh $R/usr/lib/cryptexes/web/usr/bin/door
		}
		`, builder(t))
	w.run(t, `truncate -s 128M disk; mke2fs -q -F -t ext4 disk; mkdir old; cp -a $R/{etc,var} old/
		mount -o loop disk $R; ostree admin init-fs $R; ostree admin --sysroot=$R os-init example
		deploy 3; ostree admin --sysroot=$R status
		mkdir -p $R/ostree/deploy/example/var/lib; cp -a old/var/lib/sealant $R/ostree/deploy/example/var/lib/; cp -a old/etc/sealant $R/ostree/deploy/example/deploy/*/etc/`)
	said := w.run(t, `start 1`) + w.run(t, `mount -o loop disk $R; deploy 4; ostree admin --sysroot=$R status`) +
		w.run(t, `start 1`) + w.run(t, `start 2`)
	var doors []string
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "door ") {
			doors = append(doors, strings.TrimSpace(line))
		}
	}
	if got, want := strings.Join(doors, ", "), "door 42.3 improved, door 42.4, door 42.3 improved"; got != want {
		t.Errorf("improved, updated, rolled back: %s; want %s", got, want)
	}
	w.after(t, `start 1; `)
	said = w.run(t, `start 2; serve; s check || true; s install`) + w.run(t, `start 2`)
	if !strings.Contains(said, "door 42.3\n") || !strings.HasSuffix(said, "door 42.3 improved\n") {
		t.Errorf("after the rollback it is not asked for again")
	}
	t.Log("ostree: improved, updated (inert, reclaimed), rolled back (improved again), read-only /usr")
}

// TestContainer builds the example's bootable container by buildah, of a Debian
// base where no registry is in reach, deploys it by ostree as bootc would, and runs
// openssl in it: its C library and libssl come from the cryptex.
func TestContainer(t *testing.T) {
	work := t.TempDir()
	sh(t, fmt.Sprintf(`mkdir -p %[1]s/bootc/packages %[1]s/b; cd %[1]s/bootc
		cp %[2]s/* .; cp %[3]s packages/; cp "$(command -v sealpub)" .
		sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway >/dev/null
		tar -cf ../base.tar -C %[4]s .`, work, abs(t, "../../examples/bootc"), packages(t, "sealant_*_amd64.deb"), vm.Build(t).Tree()))
	said := sh(t, inside+fmt.Sprintf(`inside %s %s bash -euc '
		cd /run/work; export TMPDIR=/run/work/b
		b() { buildah --root /run/work/b/root --runroot /run/work/b/run --storage-driver overlay "$@"; }
		c=$(b from scratch); b add -q $c base.tar /; b commit -q $c base; b rm $c; rm base.tar
		b build --isolation chroot --ulimit nofile=$(ulimit -Hn) --ulimit nproc=$(ulimit -Hu) --layers=false --build-arg BASE=localhost/base --volume /run/work/bootc/vendor:/vendor -t example bootc
		c=$(b from localhost/example); tree=$(b mount $c)
		grep -q "\"subtype\": *\"os\"" $tree/usr/lib/sealant/base.json; readlink $tree/usr/bin/openssl
		# As bootc encapsulates a tree, deploys it and boots it.
		mv $tree/etc $tree/usr/etc; rm -rf $tree/var $tree/boot; mkdir $tree/var $tree/boot $tree/sysroot; ln -s sysroot/ostree $tree/ostree
		truncate -s 2G disk; mke2fs -q -F -t ext4 disk; mkdir p; mount -o loop disk p
		ostree admin init-fs p; ostree admin --sysroot=p os-init example
		ostree --repo=p/ostree/repo commit -b example --tree=dir=$tree >/dev/null
		ostree admin --sysroot=p deploy --os=example example
		sed -n "s/^options //p" p/boot/loader/entries/* >words; mount --bind words /proc/cmdline
		/usr/lib/ostree/ostree-prepare-root /run/work/p
		umount /proc/cmdline; mount -t proc proc p/proc; mount -t tmpfs run p/run
		p/usr/lib/sealant/sealant-boot --root p
		echo "usr: $(grep -o " /run/work/p/usr .* r[ow]," /proc/self/mounts | cut -d" " -f4)"
		echo "libc: $(chroot p grep -o "/usr/lib/cryptexes.*libc.so.6" /proc/self/maps | head -1)"
		echo "openssl: $(chroot p openssl version)"
		umount -R p; b umount $c >/dev/null
	' 2>&1`, builder(t), work))
	t.Log(said)
	for _, want := range []string{"usr: ro,", "libc: /usr/lib/cryptexes/os/usr/lib/x86_64-linux-gnu/libc.so.6\n", "openssl: OpenSSL 3."} {
		if !strings.Contains(said, want) {
			t.Errorf("it is not said: %q", want)
		}
	}
}
