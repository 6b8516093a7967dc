//go:build vm || slow

package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// The key that Debian's OVMF has in the variables that a machine with firmware
// starts with: Linux takes it into its platform keyring.
const platformKey, platformCert = "/usr/share/ovmf/PkKek-1-snakeoil.key", "/usr/share/ovmf/PkKek-1-snakeoil.pem"

// TestIPE boots with firmware, gives the kernel the policy that sealpub wrote for
// what is published, signed with a key of the firmware's, and executes the same
// program from a published image and from one that isn't. All of userspace is the
// initrd, which the boot loader vouches for.
func TestIPE(t *testing.T) {
	vm.Proves(t, "the kernel takes the IPE policy that sealpub wrote, by a key of the firmware, and executes only what the vendor published")
	dir := t.TempDir()
	run := func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %q: %v %s", name, args, err, err.(*exec.ExitError).Stderr)
		}
		return out
	}
	m := vm.Build(t)
	sealpub := compiled(t, "build", "./cmd/sealpub")
	// Two vendors, one of which the policy knows.
	for _, name := range []string{"ours", "theirs"} {
		must(t, os.MkdirAll(filepath.Join(dir, name+"-tree"), 0o755))
		run("cp", filepath.Join(m.Tree(), "usr/bin/busybox"), name+"-tree/busybox")
		must(t, os.WriteFile(filepath.Join(dir, name+"-tree/who"), []byte(name), 0o644))
		run(sealpub, "init", name, "--product", "ExampleOS", "--os-version", "42.3.0", "--throwaway")
		run(sealpub, "image", "build", "--in", name+"-tree", "--out", name+".cryptex", "--name", "web", "--subtype", "app")
		run(sealpub, "release", "baseline", "--dir", name, name+".cryptex")
		for _, f := range []string{"usr/lib/sealant/base", "usr/lib/cryptexes/web", "var/lib"} {
			must(t, os.MkdirAll(filepath.Join(dir, name+"-root", f), 0o755))
		}
		run("cp", name+".cryptex", name+"-root/usr/lib/sealant/base/web.cryptex")
		for _, f := range []string{"base.json", "ticket-root.pem"} {
			run("cp", filepath.Join(name, f), name+"-root/usr/lib/sealant/"+f)
		}
	}
	sign := func(version, key, cert, out string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, "policy"), run(sealpub, "ipe", "--dir", "ours", "--policy-version", version), 0o644))
		run("openssl", "smime", "-sign", "-in", "policy", "-signer", cert, "-inkey", key, "-passin", "pass:snakeoil",
			"-noattr", "-nodetach", "-nosmimecap", "-binary", "-outform", "der", "-out", out)
	}
	sign("0.0.7", platformKey, platformCert, "policy.p7b")
	run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=other", "-days", "2")
	sign("0.0.8", "other.key", "other.pem", "other.p7b")

	boot, err := os.ReadFile(compiled(t, "build", "./cmd/sealant-boot"))
	must(t, err)
	initrd, err := m.NewInitrd([]string{"virtio_blk", "ext4", "loop", "dm_verity", "erofs"}, map[string][]byte{
		"sealant-boot": boot, "init": []byte(ipeInit),
	})
	must(t, err)
	file := filepath.Join(dir, "initrd")
	must(t, os.WriteFile(file, initrd, 0o644))
	r := vm.Run(t, vm.Options{Boot: vm.Bare, EFI: filepath.Join(dir, "vars"), Initrd: file}, vm.Files{
		"ours": filepath.Join(dir, "ours-root"), "theirs": filepath.Join(dir, "theirs-root"), "busybox": filepath.Join(m.Tree(), "usr/bin/busybox"),
		"policy.p7b": filepath.Join(dir, "policy.p7b"), "other.p7b": filepath.Join(dir, "other.p7b"),
	}, "")
	t.Logf("took %s\n%s", r.Took, r.Out)
	if r.Code != 0 {
		t.Fatalf("code %d\n%s", r.Code, r.Console)
	}
	for _, c := range []struct{ name, want string }{
		{"before ours", "0 ours"},
		{"before theirs", "0 theirs"},
		{"policy of another key", "1"},
		{"policy", "0"},
		{"active", "0"},
		{"ours", "0 ours"},
		{"theirs", "126"},
		{"disk", "126"},
		{"unsigned", "1"},
	} {
		if got := r.Line(c.name); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// ipeInit is all of userspace.
const ipeInit = `#!/bin/sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc; $B mount -t sysfs sys /sys
$B mount -t securityfs sec /sys/kernel/security
for m in $($B cat /modules/order); do $B insmod /modules/$m; done
until x=$($B grep -lx xchg /sys/block/vd*/serial 2>/dev/null); do $B usleep 20000; done
x=${x%/serial}; $B mkdir -p /x; $B mount -t ext4 /dev/${x##*/} /x
end() { echo $1 >/x/rc; $B sync; $B umount /x; $B sync; echo o >/proc/sysrq-trigger; $B sleep 60; }
exec >/x/out.txt 2>&1
for who in ours theirs; do /sealant-boot --root /x/$who --run /run/$who; done
try() { # NAME, COMMAND...
	name=$1; shift
	out=$("$@" 2>&1); echo "$name: $? $out"
}
prog() { try "$1" /x/$2/usr/lib/cryptexes/web/busybox cat /x/$2/usr/lib/cryptexes/web/who; }
I=/sys/kernel/security/ipe
prog "before ours" ours; prog "before theirs" theirs
try "policy of another key" $B cp /x/other.p7b $I/new_policy
try policy $B cp /x/policy.p7b $I/new_policy
$B ls $I/policies
echo 1 >$I/policies/sealant/active; echo "active: $?"
prog ours ours; prog theirs theirs
try disk /x/busybox true
try unsigned $B sh -c "echo 'policy_name=sealant policy_version=0.0.9' >$I/policies/sealant/update"
$B dmesg | $B grep -i ipe_ | $B tail -3
end 0
`
