//go:build vm || slow

package verity

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestTPM: the device's key and the counter of its nonces are in a TPM. State of
// an older day, and state that was copied to another machine, is refused at
// boot; the baseline comes up.
func TestTPM(t *testing.T) {
	vm.Proves(t, "older state, and state copied to another machine, is refused by the TPM's counter")
	mine, other := filepath.Join(t.TempDir(), "tpm"), filepath.Join(t.TempDir(), "other")
	w := newWorld(t, mine)
	disk := w.disk(t)
	const look = `
		look() { echo "$1: $(content), $(record | grep -o '"reason":"[a-z-]*"' | sort -u | tr '\n' ' ')"; }
	`
	r := w.run(t, vm.Options{Boot: vm.Bare, Data: disk, TPM: mine}, look+`
		boot; look first
		serve
		sealant install -q; echo "install: $?"
		boot; sealant confirm -q; look improved
		echo "doctor: $(sealant doctor | grep -c TPM)"
		cp -a $D/var/lib/sealant /d/old
		sealant remove --yes -q; boot; sealant confirm -q; look removed
		mv $D/var/lib/sealant /d/new; mv /d/old $D/var/lib/sealant
		boot 2>/dev/null; echo "old state: $?"; look old
		rm -r $D/var/lib/sealant; mv /d/new $D/var/lib/sealant
		boot; look put-back
		sealant reapply -q; boot; sealant confirm -q; look again`)
	for line, want := range map[string]string{
		"first": "os base, web base,", "install": "0", "improved": "os a, web a,", "removed": "os base, web base,", "doctor": "2",
		"old state": "31", "old": `os base, web base, "reason":"counter"`, "put-back": "os base, web base,", "again": "os a, web a,",
	} {
		if got := r.Line(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	r = w.run(t, vm.Options{Boot: vm.Bare, Data: disk, TPM: other}, look+`
		boot; echo "exit: $?"; look copied
		serve
		sealant doctor`)
	if got := r.Line("copied"); got != `os base, web base, "reason":"counter"` {
		t.Errorf("copied: %q", got)
	}
	if r.Line("exit") == "0" || !strings.Contains(r.Out, "not usable") {
		t.Error("another machine works with the copied state")
	}
}
