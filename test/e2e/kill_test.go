package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device"
)

// changing are the system calls by which a file's place or size changes: a
// kill before each of them is every state that a power cut can leave, as long
// as what was synced stays.
const changing = "renameat,renameat2,unlinkat,symlinkat,mkdirat,ftruncate,fsync"

// killed does one thing on the device in a process of its own, under strace,
// which kills it when it makes the n-th of those calls. It reports whether it
// was killed.
func (m *machine) killed(n int, what string) bool {
	m.t.Helper()
	return m.killedAmong(changing, n, what)
}

func (m *machine) killedAmong(calls string, n int, what string) bool {
	m.t.Helper()
	cmd := exec.Command("strace", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", "trace="+calls,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n),
		os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), "E2E_ROOT="+m.root, "E2E_DO="+what)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err == nil {
		return false
	}
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	m.t.Fatalf("%s: %v: %s", what, err, out)
	return false
}

// TestKilledChild is the process that TestKill kills.
func TestKilledChild(t *testing.T) {
	root := os.Getenv("E2E_ROOT")
	if root == "" {
		return // not a child
	}
	// strace counts the calls of each thread by itself: all of them must come
	// from one.
	runtime.LockOSThread()
	d, err := device.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	switch os.Getenv("E2E_DO") {
	case "install":
		_, err = d.Install(ctx, device.InstallOptions{}, user, nil)
	case "confirm":
		_, err = d.Confirm(ctx, nil)
	case "remove":
		_, err = d.Remove(ctx, device.RemoveOptions{}, user, nil)
	case "cancel":
		_, err = d.Remove(ctx, device.RemoveOptions{Cancel: true}, user, nil)
	case "reapply":
		_, err = d.Reapply(ctx, device.ReapplyOptions{}, user, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// state is where the device keeps its state.
func (m *machine) state() string { return filepath.Join(m.root, "var/lib/sealant") }

// save keeps the state beside; load brings it back.
func (m *machine) save(as string) {
	m.t.Helper()
	m.v.must(exec.Command("cp", "-a", m.state(), filepath.Join(m.root, as)).Run())
}

func (m *machine) load(from string) {
	m.t.Helper()
	m.down()
	m.v.must(os.RemoveAll(m.state()))
	m.v.must(exec.Command("cp", "-a", filepath.Join(m.root, from), m.state()).Run())
}

// TestKill kills each journey at every step. Whatever is left, the next boot
// has the old content or the new, whole; the next start heals; and the journey
// can be done again.
func TestKill(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	m.check()
	m.save("new")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.save("staged")
	m.boot()
	m.save("active")
	if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, nil); err != nil {
		t.Fatal(err)
	}
	m.save("removing")
	m.boot()
	m.save("removed")

	for i, tt := range []struct {
		name, from string
		boot       bool // before it
		do         string
		old, new   int // level of web at the next boot
	}{
		{"install", "new", false, "install", 0, 1},
		{"confirm", "staged", true, "confirm", 1, 1},
		{"remove", "active", false, "remove", 1, 0},
		{"cancel", "removing", false, "cancel", 0, 1},
		{"confirm removal", "removing", true, "confirm", 0, 0},
		{"reapply", "removed", false, "reapply", 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			levels := map[int]int{}
			for n, killed := 1+i%stride, true; killed; n += stride {
				m.load(tt.from)
				if tt.boot {
					m.bootOnly()
				}
				killed = m.killed(n, tt.do)
				r := m.boot()
				level := m.level("web")
				if level != tt.old && level != tt.new || m.level("os") != 0 {
					t.Errorf("killed at call %d: level %d, os %d after the boot: %+v", n, level, m.level("os"), r)
				}
				levels[level]++
				if len(r.Refused) > 0 {
					t.Errorf("killed at call %d: the boot refused %+v", n, r.Refused)
				}
				if m.status().Restart {
					m.boot() // the old state was that a restart is pending
				}
				if s := m.status(); s.Restart || s.Note != "" {
					t.Errorf("killed at call %d: %+v", n, s)
				}
				if v := m.verify(); !v.OK {
					t.Errorf("killed at call %d: %+v", n, v.Checks)
				}
				if left := m.leftovers(); len(left) > 0 {
					t.Errorf("killed at call %d: left behind: %v", n, left)
				}
			}
			t.Logf("levels at the next boot: %v", levels)
			if levels[tt.new] == 0 {
				t.Errorf("never came to level %d: %v", tt.new, levels)
			}
		})
	}
}

// leftovers are temporary files and a journal, which no boot may leave.
func (m *machine) leftovers() []string {
	var left []string
	filepath.WalkDir(m.state(), func(path string, e os.DirEntry, err error) error {
		if err == nil && (len(e.Name()) > 5 && e.Name()[:5] == ".tmp-" || e.Name() == "change.json") {
			left = append(left, path)
		}
		return nil
	})
	return left
}
