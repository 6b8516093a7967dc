// Package systemd runs the device's services under a real systemd: Debian's, as
// process 1 of namespaces of its own, over a tree that package vm builds once. It
// comes up in seconds. The kernel is this machine's, so what that lacks
// (device-mapper, for one) is tested in package vm.
package systemd

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/test/namespace"
)

//go:embed boot.sh
var bootScript []byte

// bootTime is how long a machine may take to come up: it only ends what hangs.
const bootTime = 10 * time.Minute

// scriptTime is how long a script may take.
const scriptTime = 10 * time.Minute

// Machine is a systemd that runs.
type Machine struct {
	t     testing.TB
	upper string
	pid   int // of its process 1, as this machine sees it
}

// Boot starts systemd over a copy-on-write view of tree, which is as it was
// afterwards. prepare may write into the view before; only what it writes, and
// what the tree has, is there.
func Boot(t testing.TB, tree string, prepare func(root string)) *Machine {
	t.Helper()
	upper := namespace.Dir(t)
	must(t, syscall.Mount("tmpfs", upper, "tmpfs", 0, "mode=755"))
	up := filepath.Join(upper, "up")
	must(t, os.MkdirAll(up, 0o755))
	prepare(up)
	m := &Machine{t: t, upper: upper}
	script := filepath.Join(upper, "boot.sh")
	must(t, os.WriteFile(script, bootScript, 0o755))
	group := cgroupRoot(t) + "/sealant-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	console, err := os.Create(filepath.Join(upper, "console"))
	must(t, err)
	cmd := exec.Command("bash", script, tree, upper, group)
	cmd.Stdout, cmd.Stderr = console, console
	must(t, cmd.Start())
	console.Close()
	t.Cleanup(func() {
		if m.pid > 0 {
			_ = syscall.Kill(m.pid, syscall.SIGKILL) // ends all processes of its namespace
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		removeGroups(group)
	})
	m.await(cmd.Process.Pid)
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cgroupRoot is where version 2 control groups are mounted.
func cgroupRoot(t testing.TB) string {
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	t.Fatal("cannot find control groups of version 2: systemd needs them")
	return ""
}

// removeGroups takes a control group and those below it away, innermost first.
func removeGroups(group string) {
	for range 50 {
		var dirs []string
		_ = filepath.WalkDir(group, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = syscall.Rmdir(dirs[i])
		}
		if _, err := os.Stat(group); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// await waits until systemd has come up.
func (m *Machine) await(parent int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), bootTime)
	defer cancel()
	for m.pid == 0 {
		m.pid = childOf(parent)
		m.pause(ctx, "it did not start")
	}
	for {
		out, _ := exec.CommandContext(ctx, "nsenter", m.enter("systemctl", "is-system-running")...).Output()
		switch state := strings.TrimSpace(string(out)); state {
		case "running":
			return
		case "degraded":
			failed, _ := m.Try("systemctl --failed --no-legend --plain; journalctl -b -p warning --no-pager | tail -30")
			m.t.Fatalf("the machine came up degraded:\n%s", failed)
		}
		m.pause(ctx, "it did not come up")
	}
}

func (m *Machine) pause(ctx context.Context, what string) {
	m.t.Helper()
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		console, _ := os.ReadFile(filepath.Join(m.upper, "console"))
		if m.pid > 0 {
			jobs, _ := m.Try("systemctl list-jobs; journalctl -b --no-pager | tail -30")
			what += "\n" + jobs
		}
		m.t.Fatalf("cannot boot systemd in namespaces: %s\n%s", what, console)
	}
}

// childOf finds the child of unshare, 0 while the process is not that yet.
func childOf(pid int) int {
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "unshare\n" {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return child
}

// enter are the arguments by which nsenter runs a command inside.
func (m *Machine) enter(command ...string) []string {
	return append([]string{
		"--target", strconv.Itoa(m.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/", "--",
		"env", "-i", "PATH=/usr/sbin:/usr/bin", "HOME=/root", "LC_ALL=C.UTF-8",
	}, command...)
}

// Command is a command to be run inside, as root.
func (m *Machine) Command(command ...string) *exec.Cmd {
	return exec.Command("nsenter", m.enter(command...)...)
}

// Try runs a shell script inside, and returns all that it says.
func (m *Machine) Try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), scriptTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", m.enter("bash", "-c", script)...)
	cmd.WaitDelay = time.Second // what a script left behind may hold its output open
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), errors.Join(err, ctx.Err())
}

// Run runs a shell script inside that must succeed; every line counts.
func (m *Machine) Run(script string) string {
	m.t.Helper()
	out, err := m.Try("set -euo pipefail\n" + script)
	if err != nil {
		said, _ := m.Try("journalctl --no-pager -b -n 30")
		m.t.Fatalf("%v: in\n%s\nit said:\n%s\nthe journal:\n%s", err, script, out, said)
	}
	return out
}

// Eventually waits until a script succeeds, and returns what it said.
func (m *Machine) Eventually(what, script string) string {
	m.t.Helper()
	var out string
	for end := time.Now().Add(scriptTime); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		if out, err = m.Try("set -euo pipefail\n" + script); err == nil {
			return out
		}
	}
	m.t.Fatalf("%s: did not come to pass:\n%s", what, out)
	return ""
}

// PID is the machine's process 1, as this machine sees it.
func (m *Machine) PID() int { return m.pid }
