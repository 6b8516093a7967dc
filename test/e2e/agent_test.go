package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
)

// agent starts the device's agent as a process of its own and waits until it
// answers. It ends with the test, or when the returned function is called.
func (m *machine) agent() (stop func(), log *buffer) { return m.agentBy() }

// agentBy starts the agent by another program, which is given its command line.
func (m *machine) agentBy(by ...string) (stop func(), log *buffer) {
	m.t.Helper()
	line := append(by, command(m.t), "--root", m.root, "agent")
	log = &buffer{}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stderr = log
	m.v.must(cmd.Start())
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	m.t.Cleanup(stop)
	m.wait("the agent answers", func() bool {
		_, err := os.Stat(filepath.Join(m.root, "run/sealant/agent.sock"))
		return err == nil
	})
	return stop, log
}

// buffer may be read while a process writes it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// configure replaces agent.toml.
func (m *machine) configure(config string) {
	m.t.Helper()
	file := filepath.Join(m.root, "etc/sealant/agent.toml")
	text := fmt.Sprintf("[server]\nurl = %q\npoll = \"1s\"\n[network]\nmetered = \"no\"\n%s", m.v.url, config)
	m.v.must(os.WriteFile(file+".new", []byte(text), 0o644))
	m.v.must(os.Rename(file+".new", file))
}

// wait polls until something is so.
func (m *machine) wait(what string, so func() bool) {
	m.t.Helper()
	for range 600 {
		if so() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.t.Fatalf("waited a minute: %s", what)
}

// as runs the command as a user and returns what it printed and its exit code.
func (m *machine) as(uid int, args ...string) (out string, code int) {
	m.t.Helper()
	cmd := exec.Command(command(m.t), append([]string{"--root", m.root}, args...)...)
	cmd.Env = append(os.Environ(), "LANG=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	both, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return string(both), cmd.ProcessState.ExitCode()
}

// open to everybody: t.TempDir makes its folders for root alone.
func (m *machine) openToAll() {
	m.t.Helper()
	for dir := m.root; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		m.v.must(os.Chmod(dir, 0o755))
	}
	m.v.must(os.Chmod(filepath.Dir(command(m.t)), 0o755))
}

// TestAgent: reads are for all, changes for root, through the agent's socket.
func TestAgent(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	m.openToAll()
	stop, _ := m.agent()
	const nobody = 65534
	for _, tt := range []struct {
		uid  int
		args string
		code int
		text string
	}{
		{nobody, "status", 0, "No improvement installed"},
		{nobody, "doctor", 0, "V2"},
		{nobody, "history", 0, "enrolled"},
		{nobody, "policy --effective", 0, "install.allow"},
		{nobody, "install", 1, "sudo"},
		{nobody, "remove --yes", 1, "sudo"},
		{0, "remove --yes", 1, "none on this device"},
		{nobody, "restart", 1, "sudo"},
		{nobody, "check", 10, "Available"},
		{0, "install", 0, "Nothing running was changed"},
		{nobody, "status", 0, "staged"},
		{nobody, "remove --yes", 1, "sudo"},
		{nobody, "verify", 0, "all bytes read"},
		{0, "restart --simulate", 0, "The next boot uses 42.3 (a)"},
		{0, "remove --yes", 0, "Removed"},
		{nobody, "cve CVE-2026-1101", 10, "fixes it"},
		{0, "install", 20, "held"},
		{0, "reapply", 0, "Nothing running was changed"},
	} {
		out, code := m.as(tt.uid, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out, tt.text) {
			t.Errorf("%s as %d: exit %d, want %d and %q:\n%s", tt.args, tt.uid, code, tt.code, tt.text, out)
		}
	}
	// Policy may let a person remove without being root, or nobody at all.
	m.configure("[remove]\nallow_user = false\nrequire_admin = false\n")
	if out, code := m.as(nobody, "remove", "--yes"); code != fault.Policy.ExitCode() {
		t.Errorf("exit %d: %s", code, out)
	}
	m.configure("[remove]\nrequire_admin = false\n")
	if out, code := m.as(nobody, "remove", "--yes"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := m.as(0, "reapply"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	stop()
	// Without an agent root does it itself; others can only read.
	if out, code := m.as(0, "status"); code != 0 || !strings.Contains(out, "staged") {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := m.as(nobody, "status"); code != 0 || !strings.Contains(out, "unchecked") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, what := range []string{"verify", "check", "install", "remove --yes"} {
		if out, code := m.as(nobody, strings.Fields(what)...); code != 1 || !strings.Contains(out, "sudo") {
			t.Errorf("%s: exit %d: %s", what, code, out)
		}
	}
	if out, code := m.as(nobody, "history"); code != 0 || !strings.Contains(out, "reapplied") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestSecondAgent is refused; a dead one's socket is replaced.
func TestSecondAgent(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	m.agent()
	out, code := m.as(0, "agent")
	if code != fault.Busy.ExitCode() {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestAutomatic: the agent asks by itself, installs what policy lets it, takes
// back what is recalled, and leaves alone what a person removed.
func TestAutomatic(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	m.configure("[install]\nautomatic = \"never\"\n")
	stop, log := m.agent()
	v.release(1, 100)
	m.wait("it asks, and may not install", func() bool { return strings.Contains(log.String(), "automatic-never") })
	if s := m.status(); s.State != device.StateNone {
		t.Errorf("%+v", s)
	}
	// The person's own switch counts where policy leaves it to them.
	if out, code := m.as(0, "policy", "--automatic", "off"); code != fault.Policy.ExitCode() {
		t.Errorf("exit %d: %s", code, out)
	}
	m.configure("")
	if out, code := m.as(0, "policy", "--automatic", "off"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	m.wait("it may not, again", func() bool { return strings.Contains(log.String(), "automatic-off") })
	if out, code := m.as(0, "policy", "--automatic", "on"); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	m.wait("it installs", func() bool { return m.status().State == device.StateStaged })
	stop()
	m.boot()
	_, log = m.agent()
	if s := m.status(); s.State != device.StateActive {
		t.Errorf("%+v", s)
	}
	v.release(2, 100)
	m.wait("it installs the next", func() bool { return m.status().Improvement == "42.3 (b)" })
	v.recall(2)
	m.wait("it takes it back", func() bool { return m.status().Next != "42.3 (b)" })
	if s := m.status(); s.State != device.StateActive || s.Improvement != "42.3 (a)" {
		t.Errorf("%+v", s) // it was only staged: the device goes on with (a)
	}
	if out, code := m.as(0, "remove", "--yes"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	before := len(v.requests("/tuf/metadata/timestamp"))
	m.wait("it asks again", func() bool { return len(v.requests("/tuf/metadata/timestamp")) > before+2 })
	if s := m.status(); s.State != device.StateRemoving {
		t.Errorf("removed, but: %+v\n%s", s, log)
	}
}

// TestConfirmAtStart: the agent confirms the boot before it can be asked.
func TestConfirmAtStart(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.bootOnly()
	m.agent()
	if out, code := m.as(0, "status"); code != 0 || !strings.Contains(out, "active everywhere") {
		t.Errorf("exit %d: %s", code, out)
	}
}
