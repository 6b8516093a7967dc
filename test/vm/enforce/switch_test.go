//go:build vm || slow

package enforce

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/test/rig"
	"github.com/sealant-os/sealant/test/vm"
)

// TestSwitch stages the baseline on a device that enforces: the set that
// is staged is guarded from its first moment, the one that runs stays guarded, and
// an image that both sets have has one list.
func TestSwitch(t *testing.T) {
	vm.Proves(t, "a staged set is guarded from its first moment, and the one that runs stays guarded")
	d := rig.New(t, rig.NewVendor(t))
	set := d.Improve("SI-2026-0001", 1)
	must(t, d.Store.Stage(set.ID))
	root := filepath.Join(t.TempDir(), "root.tar") // it has links that lead nowhere here
	if out, err := exec.Command("tar", "-C", d.Root, "-cf", root, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r := vm.Run(t, vm.Options{}, vm.Files{
		"root.tar":     root,
		"device.test":  compiled(t, "test", "-c", "./device"),
		"sealant":      compiled(t, "build", "./cmd/sealant"),
		"sealant-boot": compiled(t, "build", "./cmd/sealant-boot"),
	}, `
		tar -C / -xf root.tar && cp sealant sealant-boot /usr/bin/
		try() {
			name=$1; shift
			if out=$("$@" 2>&1); then echo "$name: ok"; else echo "$name: $? $out"; fi
		}
		lists() { sealant enforce status | grep -c files; }
		ld=/lib64/ld-linux-x86-64.so.2
		sealant-boot
		try load sealant enforce load
		try booted /usr/lib/cryptexes/web/run 0
		try booted-plain $ld /usr/lib/cryptexes/web/plain 0
		echo "lists at first: $(lists)"
		sealant agent >agent.txt 2>&1 & agent=$!
		for i in 1 2 3 4 5 6 7 8 9 10; do [ -S /run/sealant/agent.sock ] && break; sleep 1; done
		kill $agent; wait $agent # it has confirmed the boot
		try stage env SEALANT_TEST_MACHINE=1 ./device.test -test.run TestStagesOnThisMachine -test.v
		ls /run/sealant/staged/
		try staged /run/sealant/staged/web/run 0
		try staged-plain $ld /run/sealant/staged/web/plain 0
		try still /usr/lib/cryptexes/web/run 0
		try still-plain $ld /usr/lib/cryptexes/web/plain 0
		echo "lists then: $(lists)"
		sealant enforce status
		cat agent.txt; true`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for _, c := range []struct{ name, want string }{
		{"load", "ok"},
		{"booted", "ok"},
		{"booted-plain", "127"},
		{"lists at first", "2"},
		{"stage", "ok"},
		{"staged", "ok"},
		{"staged-plain", "127"},
		{"still", "ok"},
		{"still-plain", "127"},
		{"lists then", "3"},
	} {
		line(t, r, c.name, c.want)
	}
}
