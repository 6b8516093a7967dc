//go:build vm || slow

package verity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

const module = "github.com/sealant-os/sealant/"

// tests builds the tests of one of this module's packages for the machine.
func tests(t testing.TB, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	build(t, "test", "-c", "-vet=off", "-tags", "slow", "-trimpath", "-ldflags=-s -w", "-o", path, module+pkg)
	return path
}

func build(t testing.TB, args ...string) {
	t.Helper()
	run := exec.Command("go", args...)
	run.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %s\n%s", strings.Join(args, " "), err, out)
	}
}

// TestOnAKernelWithVerity runs the tests of the packages that attach content on
// a kernel that guards it, where the host's may only check it when mounting.
func TestOnAKernelWithVerity(t *testing.T) {
	vm.Proves(t, "attaching and its tests hold with dm-verity, and leave no loop device, dm device or mount")
	files := vm.Files{"spec/vectors/run": "../../../spec/vectors/run", "linux.test": tests(t, "internal/linux"), "activate.test": tests(t, "device/activate")}
	r := vm.Run(t, vm.Options{Boot: vm.ResumedBare}, files, `
		export TMPDIR=/var/tmp/t; mkdir -p $TMPDIR at/two; cd at/two
		rc=0
		../../linux.test -test.v -test.short >../../out/linux.txt 2>&1 || rc=1
		../../activate.test -test.v -test.short -test.skip TestLinksNoNetwork >../../out/activate.txt 2>&1 || rc=1
		sleep 1
		echo "loops: $(losetup -a | wc -l)"
		echo "devices: $(ls /sys/block | grep -c ^dm-)"
		echo "mounts: $(grep -c erofs /proc/mounts)"
		exit $rc`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for _, name := range []string{"linux.txt", "activate.txt"} {
		text := string(r.File(t, name))
		t.Logf("%s: %d passed, %d skipped", name, strings.Count(text, "--- PASS"), strings.Count(text, "--- SKIP"))
		if r.Code != 0 {
			t.Errorf("%s", text)
		}
	}
	if r.Line("loops") != "0" || r.Line("devices") != "0" || r.Line("mounts") != "0" {
		t.Error("something was left behind")
	}
}

// TestCorruptionPolicy: policy may have the kernel restart the machine, or
// panic, when it meets a damaged block. The next start doesn't meet it again, though
// it has nothing whole.
func TestCorruptionPolicy(t *testing.T) {
	vm.Proves(t, "policy has the kernel restart or panic at a damaged block")
	w := newWorld(t, "")
	at := parts(t, filepath.Join(w.images, "base/web.cryptex"))["data"]
	for word, said := range map[string]string{"restart": "dm-verity device corrupted", "panic": "Kernel panic - not syncing: dm-verity device corrupted"} {
		disk := w.disk(t)
		r := w.run(t, vm.Options{Data: disk, Cut: vm.Cut{At: said}}, `
			mkdir -p $D/etc/sealant/policy.d; echo 'trust.corruption = "`+word+`"' >$D/etc/sealant/policy.d/site.toml
			boot
			flip $D/usr/lib/sealant/base/web.cryptex `+strconv.FormatInt(at, 10)+`
			sync # the damage outlives the cut
			echo "reading" >/dev/ttyS0
			cat $D/usr/lib/cryptexes/web/numbers >/dev/null
			echo "went on" >/dev/ttyS0`)
		if !r.Cut || strings.Contains(r.Console, "went on") || !strings.Contains(r.Console, "reading") {
			t.Errorf("%s: the machine went on:\n%s\n%s", word, r.Out, r.Console)
		}
		r = w.run(t, vm.Options{Data: disk}, `
			boot >/dev/null; echo "boot: $? $(content), $(record)"
			cat $D/usr/lib/cryptexes/web/numbers >/dev/null 2>&1 || echo "read: refused"`)
		for _, part := range []string{"base", `"slot":"delivered"`, "seal-mismatch"} {
			if !strings.Contains(r.Line("boot"), part) {
				t.Errorf("%s: the next start: no %s: %s", word, part, r.Line("boot"))
			}
		}
		if r.Line("read") != "refused" {
			t.Errorf("%s: the damaged block was read: %q", word, r.Out)
		}
	}
}
