//go:build slow

package verity

import (
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestCycles installs and removes an improvement again and again, with every
// restart, by whole journeys against a real server: loop devices, verity devices
// and mounts stay as many as they were (300 times on the host's kernel:
// test/e2e).
func TestCycles(t *testing.T) {
	vm.Proves(t, "cycles of install, restart, remove, restart leave as many mounts, loop and dm devices as there were")
	r := vm.Run(t, vm.Options{Boot: vm.ResumedBare}, vm.Files{"e2e.test": tests(t, "test/e2e")}, `
		export TMPDIR=/var/tmp SEALANT_CYCLES=40
		./e2e.test -test.v -test.run '^TestCycles$' >out/e2e.txt 2>&1; rc=$?
		sleep 2
		echo "left: $(ls /sys/block | grep -c ^dm-) $(losetup -a | wc -l) $(grep -c erofs /proc/mounts)"
		exit $rc`)
	text := string(r.File(t, "e2e.txt"))
	for line := range strings.Lines(text) {
		if strings.Contains(line, " cycles: ") {
			t.Logf("took %s: %s", r.Took, strings.TrimSpace(line))
		}
	}
	if r.Code != 0 || r.Line("left") != "0 0 0" {
		t.Errorf("%d %s\n%s", r.Code, r.Out, text)
	}
}
