//go:build slow

package verity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

const module = "github.com/sealant-os/sealant/"

// program builds one of this module's programs for the machine.
func program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(name))
	build(t, "build", "-trimpath", "-ldflags=-s -w", "-o", path, module+name)
	return path
}

// tests builds the tests of one of this module's packages for the machine.
func tests(t testing.TB, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg)+".test")
	build(t, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", path, module+pkg)
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
