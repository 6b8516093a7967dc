//go:build slow

// Package enforce tests device/enforce, and the device with it, on a real kernel
// that has BPF among its security modules.
package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// compiled is a package's test binary, or a program.
func compiled(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", append(args[:len(args)-1:len(args)-1], "-o", out, args[len(args)-1])...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Dir = "../../.."
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, text)
	}
	return out
}

// TestKernel runs the tests of device/enforce in the machine.
func TestKernel(t *testing.T) {
	tests := compiled(t, "test", "-c", "./device/enforce")
	r := vm.Run(t, vm.Options{Boot: vm.ResumedBare}, vm.Files{"enforce.test": tests}, `
		./enforce.test -test.v ${RUN:+-test.run "$RUN"} 2>&1
		code=$?
		dmesg | grep -iE 'BUG|oops|bpf' | tail -5
		exit $code`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	if r.Code != 0 || strings.Contains(r.Out, "--- SKIP") {
		t.Fatalf("code %d\n%s", r.Code, r.Console)
	}
}
