//go:build vm || slow

package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestResumed shows what a resumed machine has: the kernel's features that the
// device needs, the files it was given, and a way to give some back.
func TestResumed(t *testing.T) {
	Proves(t, "a saved machine goes on with the kernel features that a device needs")
	given := filepath.Join(t.TempDir(), "given")
	must(t, os.WriteFile(given, []byte("hello\n"), 0o644))
	r := Run(t, Options{}, Files{"a/given": given}, `
		cat a/given
		echo "pid 1: $(cat /proc/1/comm)"
		echo "state: $(systemctl is-system-running)"
		echo "clock: $(date +%s)"
		ls /dev/mapper/control /sys/kernel/security/ipe/enforce
		echo "lsm: $(cat /sys/kernel/security/lsm)"
		echo "verity: $(grep -c "^dm_verity" /proc/modules)"
		ls /sys/kernel/btf/vmlinux
		echo back >out/given
		exit 7`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	if r.Code != 7 || r.Cut || string(r.File(t, "given")) != "back\n" || !strings.HasPrefix(r.Out, "hello\n") {
		t.Fatalf("code %d, out %q\nconsole:\n%s", r.Code, r.Out, r.Console)
	}
	if r.Line("pid 1") != "systemd" || r.Line("state") != "running" || r.Line("verity") != "1" || !strings.Contains(r.Line("lsm"), "bpf") {
		t.Fatalf("not the machine that was expected:\n%s", r.Out)
	}
}

// TestPowerCut shows that a data disk keeps what was synced before the power
// was cut, and nothing that was still to come.
func TestPowerCut(t *testing.T) {
	Proves(t, "a power cut keeps what was synced and loses what was not")
	disk := filepath.Join(t.TempDir(), "disk")
	NewDisk(t, disk, "")
	r := Run(t, Options{Boot: ResumedBare, Data: disk, Cut: Cut{At: "now", After: 100 * time.Millisecond}}, nil, `
		mkdir /d && mount "$DATA" /d || exit 1
		mkdir /d/state; echo kept >/d/state/kept; sync
		echo now >/dev/ttyS0
		sleep 20
		echo lost >/d/state/lost; sync`)
	t.Logf("took %s", r.Took)
	if !r.Cut {
		t.Fatalf("no cut: %d %s", r.Code, r.Out)
	}
	dir := Extract(t, disk, "/state")
	if data, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(data) != "kept\n" {
		t.Fatalf("kept: %q %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lost")); err == nil {
		t.Fatal("written after the power was cut")
	}
	r = Run(t, Options{Boot: ResumedBare, Data: disk}, nil, `mkdir /d && mount "$DATA" /d && cat /d/state/kept`)
	if r.Code != 0 || r.Out != "kept\n" {
		t.Fatalf("after the cut: %d %s", r.Code, r.Out)
	}
}

// TestFirmwareAndTPM boots without systemd, by UEFI, with a TPM.
func TestFirmwareAndTPM(t *testing.T) {
	Proves(t, "a machine boots by UEFI with a TPM")
	dir := t.TempDir()
	r := Run(t, Options{Boot: Bare, TPM: filepath.Join(dir, "tpm"), EFI: filepath.Join(dir, "vars"), Append: "word"}, nil, `
		echo "pid 1: $(cat /proc/1/comm)"
		echo "word: $(grep -c word /proc/cmdline)"
		ls -d /sys/firmware/efi /dev/tpmrm0`)
	t.Logf("took %s", r.Took)
	if r.Code != 0 || r.Line("pid 1") != "agent" || r.Line("word") != "1" {
		t.Fatalf("%d %s", r.Code, r.Out)
	}
}
