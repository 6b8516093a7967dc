package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// person is somebody who is logged in at the device's screen.
const person = 1000

// desktop is that person's session: a bus, an X server, a notification daemon, and
// a menu in which they choose what choice names.
type desktop struct {
	m      *machine
	env    []string
	choice string // file with the choice
}

func (m *machine) desktop() *desktop {
	m.t.Helper()
	for _, tool := range []string{"dunst", "dunstctl", "Xvfb", "dbus-daemon"} {
		if _, err := exec.LookPath(tool); err != nil {
			m.t.Skipf("%s is not installed", tool)
		}
	}
	m.openToAll()
	home := filepath.Join(m.root, "run/user/1000")
	m.v.must(os.MkdirAll(home, 0o700))
	m.v.must(os.Chmod(filepath.Dir(home), 0o755))
	m.v.must(os.Chown(home, person, person))
	d := &desktop{m: m, choice: filepath.Join(home, "choice")}
	bus := filepath.Join(home, "bus")
	d.env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus, "HOME="+home, "XDG_RUNTIME_DIR="+home)
	d.start(nil, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path="+bus)
	m.wait("the session's bus", func() bool { _, err := os.Stat(bus); return err == nil })

	read, write, err := os.Pipe()
	m.v.must(err)
	d.start(write, "Xvfb", "-displayfd", "3", "-screen", "0", "800x600x24", "-nolisten", "tcp")
	write.Close()
	var display int
	_, err = fmt.Fscan(read, &display)
	m.v.must(err)
	d.env = append(d.env, fmt.Sprintf("DISPLAY=:%d", display))

	menu := filepath.Join(home, "menu")
	m.v.must(os.WriteFile(menu, []byte("#!/bin/sh\nexec grep -F -f "+d.choice+"\n"), 0o755))
	rules := filepath.Join(home, "dunstrc")
	m.v.must(os.WriteFile(rules, []byte("[global]\ndmenu = "+menu+"\n"), 0o644))
	d.start(nil, "dunst", "-conf", rules)
	m.wait("the notification daemon", func() bool { _, err := d.ctl("count", "displayed"); return err == nil })
	return d
}

func (d *desktop) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: person, Gid: person}}
	return cmd
}

func (d *desktop) start(file *os.File, name string, args ...string) {
	d.m.t.Helper()
	cmd := d.command(name, args...)
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	d.m.v.must(cmd.Start())
	d.m.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func (d *desktop) ctl(args ...string) (string, error) {
	out, err := d.command("dunstctl", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// shows waits until so many messages are on the screen.
func (d *desktop) shows(n int) {
	d.m.t.Helper()
	d.m.wait(fmt.Sprintf("%d messages are displayed", n), func() bool {
		got, _ := d.ctl("count", "displayed")
		return got == fmt.Sprint(n)
	})
}

// choose picks an action in the menu, until something has come of it.
func (d *desktop) choose(label string, so func() bool) {
	d.m.t.Helper()
	d.m.v.must(os.WriteFile(d.choice, []byte(label+"\n"), 0o644))
	d.m.wait("the choice "+label, func() bool {
		if so() {
			return true
		}
		d.ctl("context")
		time.Sleep(200 * time.Millisecond)
		return so()
	})
}

// TestEvidenceDesktop: the question on a real desktop. The person keeps; the person
// may not remove, then may.
func TestEvidenceDesktop(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	v.recommend(1, "mail")
	asked := func(config string) (*machine, *desktop) {
		t.Helper()
		m := v.enrolled(config)
		m.app("mail")
		if out, code := m.as(0, "install"); code != 0 {
			t.Fatal(out)
		}
		m.boot()
		base, fix := m.arms()
		version := m.version(fix)
		m.past("mail", base, version, 30, 0)
		m.past("mail", fix, version, 3, 3)
		d := m.desktop()
		path := os.Getenv("PATH")
		v.must(os.Setenv("PATH", "/none")) // an agent that finds no browser says itself what it can't do
		m.agent()
		v.must(os.Setenv("PATH", path))
		m.crash("mail")
		d.shows(1)
		return m, d
	}
	pending := func(m *machine) bool { return m.allEvidence().Pending != nil }

	m, d := asked("")
	d.choose("Keep", func() bool { return !pending(m) })
	d.shows(0)
	if out, _ := m.as(0, "history"); !strings.Contains(out, "recommendation-answered") || !strings.Contains(out, "user:1000") {
		t.Error(out)
	}

	m, d = asked("")
	d.choose("Remove", func() bool {
		out, _ := d.ctl("history")
		return strings.Contains(out, "closes unexpectedly")
	})
	d.shows(1) // "Nothing was removed": it needs an administrator
	if !pending(m) {
		t.Error("the question is gone although nobody who may has answered")
	}
	if out, _ := m.as(0, "status"); strings.Contains(out, "removal staged") {
		t.Error(out)
	}

	m, d = asked("[remove]\nrequire_admin = false\n")
	d.choose("Remove", func() bool { return !pending(m) })
	d.shows(1) // "Restart to finish"
	if out, _ := m.as(0, "status"); !strings.Contains(out, "removal staged") {
		t.Error(out)
	}

	// Answered elsewhere, it goes away.
	m, d = asked("")
	if out, code := m.as(0, "evidence", "keep"); code != 0 {
		t.Error(out)
	}
	d.shows(0)
}

// TestNoticesDesktop: what waits is told on the screen, once; a kiosk's stays dark.
func TestNoticesDesktop(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	d := m.desktop()
	stop, _ := m.agent()
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	d.shows(1)
	history := func() string {
		d.ctl("close-all")
		out, _ := d.ctl("history")
		return out
	}
	if out := history(); !strings.Contains(out, "Restart to finish a security improvement") {
		t.Error(out)
	}
	stop()
	stop, _ = m.agent() // the same day: nothing is told again
	time.Sleep(3 * time.Second)
	d.shows(0)
	stop()

	// Taken back by the vendor, it says so, and by whom.
	m.boot()
	v.recall(1)
	if out, code := m.as(0, "check"); code != 41 && code != 12 {
		t.Fatalf("exit %d: %s", code, out)
	}
	stop, _ = m.agent()
	d.shows(1)
	if out := history(); !strings.Contains(out, "took back improvement (a)") || !strings.Contains(out, "A corrected version will follow") {
		t.Error(out)
	}
	stop()

	m = v.enrolled("[ui]\nmode = \"none\"\n")
	d = m.desktop()
	m.agent()
	if out, code := m.as(0, "install", "SI-2026-0001"); code == 0 {
		t.Fatal("a recalled improvement was installed", out)
	}
	v.release(2, 100)
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	time.Sleep(7 * time.Second) // longer than the agent takes to look
	d.shows(0)
}
