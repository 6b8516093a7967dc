//go:build slow

package packaging

import (
	"fmt"
	"strings"
	"testing"
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
