//go:build vm || slow

// Package crashes tests in a virtual machine what only a whole system has: core dumps
// that systemd-coredump takes.
package crashes

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// A crash is told by the journal of systemd-coredump, with what the process was and
// saw; a record that somebody else wrote is not believed.
func TestDumps(t *testing.T) {
	vm.Proves(t, "a crash is attributed by the journal of systemd-coredump, with the mounts that the process saw")
	program := filepath.Join(t.TempDir(), "watch")
	build := exec.Command("go", "build", "-o", program, "./watch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r := vm.Run(t, vm.Options{}, vm.Files{"watch": program}, `
		echo '|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h %d' > /proc/sys/kernel/core_pattern
		systemctl start systemd-coredump.socket
		./watch > out/watch
		cat /proc/sys/kernel/core_pattern > out/pattern
		journalctl --all -o json MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1 _COMM=systemd-coredum > out/record || true
	`)
	t.Log(r.Out) // its time is in whole seconds
	var got struct {
		Crash, Signal, Exe, Mounts string
		Same                       bool
		Late                       float64
		Lost                       uint64
	}
	if err := json.Unmarshal([]byte(r.File(t, "watch")), &got); err != nil || r.Code != 0 {
		t.Fatalf("exit %d, %v: %s", r.Code, err, r.File(t, "watch"))
	}
	if !got.Same || got.Signal != "segmentation fault" || !strings.HasSuffix(got.Exe, "sh") || got.Late < -1.1 || got.Late > 60 || got.Lost != 0 {
		t.Errorf("told %+v", got)
	}
	if !strings.Contains(got.Mounts, " /tmp/seen ") {
		t.Errorf("the mounts are not those that it saw:\n%s", got.Mounts)
	}
	if dir := os.Getenv("SEALANT_RECORDS"); dir != "" {
		os.WriteFile(filepath.Join(dir, "coredump.json"), []byte(r.File(t, "record")), 0o644)
	}
	t.Logf("systemd-coredump told of a crash, with the mounts that the process saw")
}
