package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/internal/fault"
)

func TestMain(m *testing.M) {
	localeFiles = nil
	if len(os.Args) > 1 && os.Args[1] == "relaunch" { // as an action runs it
		if err := os.WriteFile(os.Args[2], []byte(strings.Join(os.Args[3:], " ")), 0o644); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "child" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Child(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(ExitCode(err))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// notifier calls this test program as the child.
func notifier() Notifier { return Notifier{Self: []string{os.Args[0], "child"}} }

// session starts a session bus of its own.
func session(t *testing.T) Session {
	t.Helper()
	bus := filepath.Join(t.TempDir(), "bus")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path="+bus)
	if err := cmd.Start(); err != nil {
		t.Skipf("dbus-daemon is not installed: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 300 {
		if _, err := os.Stat(bus); err == nil {
			return Session{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Bus: bus}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the bus did not start")
	return Session{}
}

// desktop is a notification service by hand.
type desktop struct {
	conn  *dbus.Conn
	shown chan shown
	gone  chan uint32
}

type shown struct {
	ID            uint32
	Summary, Body string
	Actions       []string
	Hints         map[string]dbus.Variant
	Expire        int32
}

func (d *desktop) Notify(app string, replaces uint32, icon, summary, body string, actions []string, hints map[string]dbus.Variant, expire int32) (uint32, *dbus.Error) {
	const id = 42
	d.shown <- shown{id, summary, body, actions, hints, expire}
	return id, nil
}

func (d *desktop) CloseNotification(id uint32) *dbus.Error {
	d.gone <- id
	return nil
}

func (d *desktop) emit(t *testing.T, name string, values ...any) {
	t.Helper()
	if err := d.conn.Emit(object, service+"."+name, values...); err != nil {
		t.Fatal(err)
	}
}

func desktopOn(t *testing.T, s Session) *desktop {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + s.Bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &desktop{conn: conn, shown: make(chan shown, 10), gone: make(chan uint32, 10)}
	if err := conn.Export(d, object, service); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return d
}

var question = Message{
	Text: map[string]Text{
		"en": {"Mail closes unexpectedly", "Mail <closed> 6 times & more", []string{"Keep", "Remove & Restart…"}},
		"de": {"Mail wird unerwartet beendet", "6-mal", []string{"Behalten", "Entfernen"}},
	},
	Urgent: true, Actions: []Action{{Key: "keep"}, {Key: "remove"}},
}

type answer struct {
	chosen string
	err    error
}

func show1(ctx context.Context, s Session, m Message) chan answer {
	c := make(chan answer, 1)
	go func() {
		chosen, err := notifier().Show(ctx, s, m)
		c <- answer{chosen, err}
	}()
	return c
}

func TestAnswers(t *testing.T) {
	s := session(t)
	d := desktopOn(t, s)
	for want, answer := range map[string]func(id uint32){
		"remove": func(id uint32) {
			stranger, err := dbus.Connect("unix:path=" + s.Bus)
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			if err := stranger.Emit(object, service+".ActionInvoked", id, "keep"); err != nil {
				t.Fatal(err)
			}
			d.emit(t, "ActionInvoked", id+1, "keep") // somebody else's message
			d.emit(t, "NotificationClosed", id+1, uint32(2))
			d.emit(t, "ActionInvoked", id, "remove")
		},
		"keep": func(id uint32) { d.emit(t, "ActionInvoked", id, "keep") },
		Closed: func(id uint32) { d.emit(t, "NotificationClosed", id, uint32(2)) },
	} {
		got := show1(t.Context(), s, question)
		n := <-d.shown
		if n.Summary != question.Text["en"].Summary || n.Body != "Mail &lt;closed&gt; 6 times &amp; more" || n.Expire != 0 || n.Hints["urgency"].Value() != byte(2) {
			t.Errorf("%+v", n)
		}
		if strings.Join(n.Actions, ",") != "keep,Keep,remove,Remove & Restart…" {
			t.Errorf("%q", n.Actions)
		}
		answer(n.ID)
		if a := <-got; a.err != nil || a.chosen != want {
			t.Errorf("%q, %v, want %q", a.chosen, a.err, want)
		}
	}
	// An action that was not offered is none.
	got := show1(t.Context(), s, question)
	d.emit(t, "ActionInvoked", (<-d.shown).ID, "rm -rf")
	if a := <-got; a.err != nil || a.chosen != Closed {
		t.Errorf("%q, %v", a.chosen, a.err)
	}
}

// manages is a service manager by hand, on the session's bus.
type manages struct{ units chan []string }

type unitProperty struct {
	Name  string
	Value dbus.Variant
}

type unitAuxiliary struct {
	Name       string
	Properties []unitProperty
}

func (m *manages) StartTransientUnit(name, mode string, properties []unitProperty, _ []unitAuxiliary) (dbus.ObjectPath, *dbus.Error) {
	for _, p := range properties {
		if p.Name == "ExecStart" {
			m.units <- append([]string{name, mode}, fmt.Sprint(p.Value.Value()))
		}
	}
	return "/job/1", nil
}

func (m *manages) Get(_, _ string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant([]string{"DISPLAY=:7", "LANG=de_DE.UTF-8"}), nil
}

// A message speaks the session's language, and an action is done in the session.
func TestInSession(t *testing.T) {
	s := session(t)
	d := desktopOn(t, s)
	mark := filepath.Join(t.TempDir(), "ran")
	m := question
	m.Actions = []Action{{Key: "keep"}, {Key: "remove", Run: []string{"relaunch", mark, "mail"}}}
	choose := func(want string) {
		t.Helper()
		got := show1(t.Context(), s, m)
		n := <-d.shown
		if n.Summary != want {
			t.Errorf("says %q, want %q", n.Summary, want)
		}
		d.emit(t, "ActionInvoked", n.ID, "remove")
		if a := <-got; a.err != nil || a.chosen != "remove" {
			t.Errorf("%q, %v", a.chosen, a.err)
		}
	}
	choose("Mail closes unexpectedly") // no service manager: a plain process
	for range 500 {
		if data, _ := os.ReadFile(mark); string(data) == "mail" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if data, _ := os.ReadFile(mark); string(data) != "mail" {
		t.Errorf("the action was not run: %q", data)
	}
	conn, err := dbus.Connect("unix:path=" + s.Bus)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	by := &manages{make(chan []string, 1)}
	if err := errors.Join(conn.Export(by, managerObject, manager+".Manager"), conn.Export(by, managerObject, "org.freedesktop.DBus.Properties")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(manager, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	choose("Mail wird unerwartet beendet")
	select {
	case unit := <-by.units:
		if !strings.HasPrefix(unit[0], "sealant-relaunch-") || !strings.Contains(unit[2], "relaunch "+mark+" mail") {
			t.Errorf("%q", unit)
		}
	case <-time.After(10 * time.Second):
		t.Error("no unit was started")
	}
}

func TestTakenBack(t *testing.T) {
	s := session(t)
	d := desktopOn(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	got := show1(ctx, s, question)
	n := <-d.shown
	cancel()
	if a := <-got; !errors.Is(a.err, context.Canceled) {
		t.Errorf("%q, %v", a.chosen, a.err)
	}
	select {
	case id := <-d.gone:
		if id != n.ID {
			t.Errorf("closed %d", id)
		}
	case <-time.After(10 * time.Second):
		t.Error("the message stays on the screen")
	}
}

func TestNobodyShows(t *testing.T) {
	s := session(t)
	var lacks *fault.Unsupported
	if _, err := notifier().Show(t.Context(), s, question); !errors.As(err, &lacks) {
		t.Errorf("a bus without a service: %v", err)
	}
	s.Bus = filepath.Join(t.TempDir(), "bus")
	if _, err := notifier().Show(t.Context(), s, question); !errors.As(err, &lacks) {
		t.Errorf("no bus: %v", err)
	}
	if _, err := notifier().Show(t.Context(), s, Message{Text: map[string]Text{"en": {Body: strings.Repeat("x", maxMessage)}}}); err == nil {
		t.Error("a message of 64 KiB")
	}
}

func TestSessions(t *testing.T) {
	dir := t.TempDir()
	listen := func(uid string, owner int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, uid), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(dir, uid, "bus"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if err := os.Chown(filepath.Join(dir, uid, "bus"), owner, owner); err != nil {
			t.Skip("needs root")
		}
	}
	listen("1000", 1000)
	listen("1001", 1000) // put there by another
	listen("0", 0)
	listen("name", 1000)
	if err := os.MkdirAll(filepath.Join(dir, "1002"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "1000/bus"), filepath.Join(dir, "1002/bus")); err != nil {
		t.Fatal(err)
	}
	list := Sessions(dir)
	if len(list) != 1 || list[0].UID != 1000 || list[0].Bus != filepath.Join(dir, "1000/bus") {
		t.Errorf("%+v", list)
	}
	if list := Sessions(filepath.Join(dir, "none")); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// A real notification daemon on a real X server, answered as its own tool does.
func TestRealDaemon(t *testing.T) {
	for _, tool := range []string{"dunst", "dunstctl", "Xvfb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	s := session(t)
	env := append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS=unix:path="+s.Bus, "HOME="+t.TempDir())
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "800x600x24", "-nolisten", "tcp")
	server.ExtraFiles = []*os.File{write}
	start := func(cmd *exec.Cmd) {
		t.Helper()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	start(server)
	write.Close()
	var display int
	if _, err := fmt.Fscan(read, &display); err != nil {
		t.Fatal(err)
	}
	env = append(env, fmt.Sprintf("DISPLAY=:%d", display))
	menu := filepath.Join(t.TempDir(), "menu")
	if err := os.WriteFile(menu, []byte("#!/bin/sh\nexec grep Remove\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "dunstrc")
	if err := os.WriteFile(rules, []byte("[global]\ndmenu = "+menu+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dunst", "-conf", rules)
	daemon.Env = env
	start(daemon)
	ctl := func(args ...string) (string, error) {
		cmd := exec.Command("dunstctl", args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	until := func(what string, so func() bool) {
		t.Helper()
		for range 300 {
			if so() {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("waited in vain: %s", what)
	}
	until("dunst answers", func() bool { _, err := ctl("count", "displayed"); return err == nil })
	got := show1(t.Context(), s, question)
	until("the question is displayed", func() bool { n, _ := ctl("count", "displayed"); return n == "1" })
	if out, err := ctl("close"); err != nil {
		t.Fatal(out, err)
	}
	if a := <-got; a.err != nil || a.chosen != Closed {
		t.Errorf("closed: %q, %v", a.chosen, a.err)
	}
	// The menu of a message's actions, in which somebody chooses.
	got = show1(t.Context(), s, question)
	until("the question is displayed", func() bool { n, _ := ctl("count", "displayed"); return n == "1" })
	until("the choice is heard", func() bool {
		ctl("context")
		select {
		case a := <-got:
			if a.err != nil || a.chosen != "remove" {
				t.Errorf("chosen: %q, %v", a.chosen, a.err)
			}
			return true
		default:
			return false
		}
	})
}
