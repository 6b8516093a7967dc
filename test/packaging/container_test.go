//go:build slow

package packaging

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sealant-os/sealant/test/vm"
)

// TestContainer builds the example's bootable container by buildah, of a bare
// Debian where no registry is in reach; holds it against the rules of bootable
// images; deploys it by ostree as bootc would; and boots what was deployed, by the
// container's own kernel and initrd: into the baseline, into an improvement of what
// process 1 links, and, that being damaged, into the baseline again.
func TestContainer(t *testing.T) {
	vm.Proves(t, "the bootable container is what bootc's lint asks for; deployed by ostree it boots by its own kernel and initrd, process 1's libc from the cryptex, and into an improvement; with that damaged, into the baseline, which says why")
	work := t.TempDir()
	base := vm.Debian(t, "ca-certificates")
	sh(t, fmt.Sprintf(`mkdir -p %[1]s/bootc/packages %[1]s/b; cd %[1]s/bootc
		cp %[2]s/* .; cp %[3]s packages/; cp "$(command -v sealpub)" .
		sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway >/dev/null
		tar -cf ../base.tar -C %[4]s .`, work, abs(t, "../../examples/bootc"), packages(t, "sealant_*_amd64.deb"), base))
	in := func(script string) string {
		t.Helper()
		return sh(t, inside+fmt.Sprintf("inside %s %s bash -euc %s 2>&1", builder(t), work, quote("cd /run/work\n"+script)))
	}
	t.Log(in(`export TMPDIR=/run/work/b
		b() { buildah --root /run/work/b/root --runroot /run/work/b/run --storage-driver overlay "$@"; }
		c=$(b from scratch); b add -q $c base.tar /; b commit -q $c base; b rm $c; rm base.tar
		b build --isolation chroot --ulimit nofile=$(ulimit -Hn) --ulimit nproc=$(ulimit -Hu) --layers=false --build-arg BASE=localhost/base --volume /run/work/bootc/vendor:/vendor -t example bootc
		b inspect --type image --format "{{.OCIv1.Config.Labels}}" localhost/example | grep -q containers.bootc:1
		c=$(b from localhost/example); cp -a $(b mount $c) tree; b umount $c >/dev/null`))
	tree := filepath.Join(work, "tree")
	bootable(t, tree)
	delivered(t, tree, filepath.Join(work, "bootc"))

	// As bootc deploys a tree. What runs the test's scripts is put into it, no more.
	vm.Furnish(t, tree)
	words := strings.TrimSpace(in(`cp tree/usr/lib/modules/*/vmlinuz tree/usr/lib/modules/*/initramfs.img .
		mv tree/etc tree/usr/etc
		truncate -s 3G disk; mke2fs -q -F -t ext4 disk; mkdir p; mount -o loop disk p
		ostree admin init-fs p; ostree admin --sysroot=p os-init example
		{ ostree --repo=p/ostree/repo commit -b example --tree=dir=tree
		ostree admin --sysroot=p deploy --os=example example; } >&2
		sed -n "s/^options //p" p/boot/loader/entries/*; umount p`))
	words = words[strings.LastIndex(words, "\n")+1:]
	// The vendor's improvement: another libcrypto, seen by its version.
	sh(t, fmt.Sprintf(`cd %s; mkdir new
		fsck.erofs --extract=new --overwrite tree/usr/lib/sealant/base/os.cryptex >/dev/null
		sed -i 's/\(OpenSSL 3\.[0-9]*\)\.[0-9]/\1.X/g' new/usr/lib/x86_64-linux-gnu/libcrypto.so.3
		sealpub image build --in new --out os.cryptex --name os --subtype os
		sealpub release --dir bootc/vendor --id SI-2026-0001 --level 1 --cryptex os=tree/usr/lib/sealant/base/os.cryptex:os.cryptex \
			--severity high --title OpenSSL --acknowledge version-changed
		sealsrv rollout start SI-2026-0001 --dir bootc/vendor --percent 100`, work))

	boot := func(script string) *vm.Result {
		t.Helper()
		r := vm.Run(t, vm.Options{
			Boot: vm.Cold, Disk: filepath.Join(work, "disk"), Kernel: filepath.Join(work, "vmlinuz"), Initrd: filepath.Join(work, "initramfs.img"),
			Append: "root=/dev/disk/by-id/virtio-root rw " + words,
		}, vm.Files{"vendor": filepath.Join(work, "bootc/vendor"), "sealsrv": laid(t, "sealant-server/usr/bin/sealsrv")}, `
			echo "process 1: $(grep -o '/[^ ]*/libc.so.6' /proc/1/maps | head -1)"
			echo "usr: $(grep ' /usr ' /proc/self/mounts)"
			echo "boot: $(tr -d ' \n' </run/sealant/boot.json)"
			echo "openssl: $(openssl version)"
			systemctl start boot-complete.target sealant-confirm.service
			echo "failed: $(systemctl --failed --no-legend --plain | tr '\n' ' ')"
			`+script)
		t.Logf("took %.0f s\n%s", r.Took.Seconds(), r.Out)
		if r.Code != 0 {
			t.Fatalf("the script ended with %d\n--- console ---\n%s", r.Code, r.Console)
		}
		expect(t, r, "process 1", "/usr/lib/cryptexes/os/usr/lib/x86_64-linux-gnu/libc.so.6")
		expect(t, r, "usr", " ro,")
		expect(t, r, "boot", `"enforcement":"kernel"`)
		if got := r.Line("failed"); got != "" {
			t.Errorf("failed units: %s", got)
		}
		return r
	}
	r := boot(`set -e
		dpkg -s sealant | grep Version
		./sealsrv dev --dir vendor --listen 127.0.0.1:8470 >out/sealsrv.log 2>&1 &
		until ss -ltn | grep -q :8470; do sleep 0.5; done; token=$(./sealsrv enroll token new --dir vendor -q)
		sealant enroll --token $token --server http://127.0.0.1:8470 --identity file
		sealant install`)
	expect(t, r, "boot", `"slot":"delivered"`)
	expect(t, r, "openssl", "OpenSSL 3.")
	// It is damaged in the middle of process 1's C library, while the machine is off.
	r = boot(`set -e; sealant status; sealant verify
		image=/var/lib/sealant/images/$(tr -d ' \n' </run/sealant/boot.json | grep -o '"name":"os","image":"[0-9a-f]*' | grep -o '[0-9a-f]*$')
		printf X | dd of=$image bs=1 seek=$(grep -abo -m 1 'GNU C Library' $image | cut -d: -f1) conv=notrunc status=none`)
	expect(t, r, "boot", `"slot":"next","set":"SI-2026-0001`)
	expect(t, r, "openssl", ".X ")
	r = boot(`sealant status || true`)
	expect(t, r, "boot", `"slot":"base"`)
	expect(t, r, "boot", `"reason":"seal-mismatch"`)
	expect(t, r, "openssl", "OpenSSL 3.")
}

// bootable holds a tree against the rules of "bootc container lint", as far as they
// are about files.
func bootable(t *testing.T, tree string) {
	t.Helper()
	lint := func(rule string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("no bootable image: %s", rule)
		}
	}
	found := func(pattern string) []string {
		names, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	kernels := found("usr/lib/modules/*")
	lint("one kernel with its modules", len(kernels) == 1 && len(found("usr/lib/modules/*/modules.dep")) == 1)
	for _, kernel := range kernels {
		image, err := os.ReadFile(filepath.Join(kernel, "vmlinuz"))
		lint("a kernel beside its modules", err == nil && len(image) > 0x206 && string(image[0x202:0x206]) == "HdrS")
		initrd, err := os.Stat(filepath.Join(kernel, "initramfs.img"))
		lint("an initrd beside the kernel", err == nil && initrd.Size() > 1<<20)
	}
	for _, folder := range []string{"boot", "dev", "var", "run", "tmp", "sysroot"} {
		names, err := os.ReadDir(filepath.Join(tree, folder))
		lint(fmt.Sprintf("/%s is there and empty, it has %v (%v)", folder, names, err), err == nil && len(names) == 0)
	}
	link, err := os.Readlink(filepath.Join(tree, "ostree"))
	lint("/ostree leads to /sysroot/ostree", err == nil && link == "sysroot/ostree")
	lint("/etc, and no /usr/etc", len(found("etc/os-release")) == 1 && len(found("usr/etc")) == 0)
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		info, err := os.Stat(filepath.Join(tree, "etc", name))
		lint("/etc/"+name+" was put there by the build", errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > 0)
	}
	id, err := os.ReadFile(filepath.Join(tree, "etc/machine-id"))
	lint("each machine gives itself a name", err == nil && len(id) == 0)
	must(t, filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		lint("names are UTF-8: "+path, utf8.ValidString(path))
		return err
	}))
	known := strings.Fields("bin boot dev etc home lib lib64 media mnt opt ostree proc root run sbin srv sys sysroot tmp usr var")
	names, err := os.ReadDir(tree)
	must(t, err)
	for _, name := range names {
		lint("/"+name.Name()+" is nothing of a system", slices.Contains(known, name.Name()))
	}
}

// delivered checks what a tree brings for Sealant: baseline, images, roots of
// trust, units. Nothing of the vendor's keys is in it.
func delivered(t *testing.T, tree, build string) {
	t.Helper()
	for _, name := range []string{"base.json", "root.json", "ticket-root.pem", "log-key.txt"} {
		want, err := os.ReadFile(filepath.Join(build, "vendor", name))
		must(t, err)
		got, err := os.ReadFile(filepath.Join(tree, "usr/lib/sealant", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not the vendor's (%v)", name, err)
		}
	}
	for name, file := range map[string]string{"os": "usr/bin/openssl", "web": "usr/sbin/nginx"} {
		t.Log(sh(t, fmt.Sprintf("sealpub image verify %s/usr/lib/sealant/base/%s.cryptex", tree, name)))
		link, err := os.Readlink(filepath.Join(tree, file))
		if want := filepath.Join("usr/lib/cryptexes", name, file); err != nil || !strings.HasSuffix(link, want) {
			t.Errorf("%s leads to %q, not to %s (%v)", file, link, want, err)
		}
		if place, err := os.ReadDir(filepath.Join(tree, "usr/lib/cryptexes", name)); err != nil || len(place) != 0 {
			t.Errorf("cryptex %s has no empty place: %v", name, err)
		}
	}
	for _, unit := range []string{
		"sysinit.target.wants/sealant-boot.service", "sysinit.target.wants/sealant-enforce.service", "multi-user.target.wants/sealant.service",
		"multi-user.target.wants/sealant-confirm.service", "sockets.target.wants/sealant-launch.socket",
	} {
		if _, err := os.Lstat(filepath.Join(tree, "etc/systemd/system", unit)); err != nil {
			t.Errorf("not enabled: %s", err)
		}
	}
	secret := map[[32]byte]string{}
	must(t, filepath.WalkDir(filepath.Join(build, "vendor/keys"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			secret[sha256.Sum256(data)] = path
		}
		return err
	}))
	if len(secret) == 0 {
		t.Error("the vendor has no keys")
	}
	must(t, filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if key := secret[sha256.Sum256(data)]; key != "" {
			t.Errorf("%s is the vendor's key %s", path, key)
		}
		return err
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
