//go:build slow

package verity

import (
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

func TestTry(t *testing.T) {
	w := newWorld(t, "--identity file")
	r := w.run(t, vm.Options{Data: w.disk(t)}, `
		t() { echo "$(cut -d' ' -f1 /proc/uptime) $*"; }
		t start; boot; t booted; content; record; echo
		serve; t served
		sealant install; t installed
		boot; t booted; content
		sealant confirm; t confirmed
		sealant status
		sealant verify; t verified
		sealant remove --yes; t removed
		boot; content; t booted
		sealant confirm
		devices
		sealant history
	`)
	_ = r
}
