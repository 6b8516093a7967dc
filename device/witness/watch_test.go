package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

var (
	fixA = evidence.Arm{Base: "ab", Release: "SI-2026-0001", Level: 1}
	fixB = evidence.Arm{Base: "ab", Release: "SI-2026-0002", Level: 2}
	base = evidence.Arm{Base: "ab"}
)

// desk is Apps by hand.
type desk struct {
	mu       sync.Mutex
	running  []evidence.Launch
	programs []exits.Program
	began    map[exits.Program]evidence.Launch
	dumped   map[string]evidence.Launch // by executable
	known    map[int]evidence.Launch
	started  chan evidence.Launch
	closed   chan struct{}
	once     sync.Once
}

func newDesk() *desk {
	return &desk{known: map[int]evidence.Launch{}, started: make(chan evidence.Launch), closed: make(chan struct{})}
}

func (d *desk) Running() ([]evidence.Launch, error) { return d.running, nil }

func (d *desk) Find(pid int) (evidence.Launch, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.known[pid]
	return l, ok
}

func (d *desk) know(l evidence.Launch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[l.PID] = l
}

func (d *desk) Started() (evidence.Launch, error) {
	select {
	case l := <-d.started:
		return l, nil
	case <-d.closed:
		return evidence.Launch{}, os.ErrClosed
	}
}

func (d *desk) Programs() ([]exits.Program, error) { return d.programs, nil }

func (d *desk) Began(e exits.Exit) (evidence.Launch, bool) {
	l, ok := d.began[e.Program]
	l.PID, l.Start = e.PID, e.Start
	return l, ok
}

func (d *desk) Dumped(e exits.Exit) (evidence.Launch, bool) {
	l, ok := d.dumped[e.Dump.Executable]
	l.PID = e.PID
	return l, ok
}

func (d *desk) Prune() error { return nil }
func (d *desk) Close() error { d.once.Do(func() { close(d.closed) }); return nil }

// watched is a Watch over the real kernel.
type watched struct {
	*Watch
	*testing.T
	*desk
	dir     string
	crashes chan evidence.Crash
	stop    func()
}

func start(t *testing.T, source Source, change func(*Watch, *desk)) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{T: t, desk: newDesk(), dir: dir, crashes: make(chan evidence.Crash, 1000)}
	w.Watch = &Watch{
		Recorder: recorder(t, dir), Source: source, Apps: w.desk,
		OnCrash: func(c evidence.Crash) { w.crashes <- c }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if change != nil {
		change(w.Watch, w.desk)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Watch.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func recorder(t *testing.T, dir string) *evidence.Recorder {
	t.Helper()
	store, err := evidence.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.NewRecorder(store)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// launch starts a shell that waits until its launch is known.
func (w *watched) launch(app string, arm evidence.Arm, script string) *exec.Cmd {
	w.Helper()
	cmd := exec.Command("sh", "-c", "read go; ulimit -c 0; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.started <- evidence.Launch{PID: cmd.Process.Pid, App: app, Arm: arm, Start: startOf(w.T, cmd.Process.Pid)}
	// The next launch is taken when this one was followed.
	w.started <- evidence.Launch{PID: 1 << 30, App: "nothing", Arm: base}
	fmt.Fprintln(in, "go")
	return cmd
}

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	p, err := linux.OpenProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Start
}

func (w *watched) next() evidence.Crash {
	w.Helper()
	select {
	case c := <-w.crashes:
		return c
	case <-time.After(30 * time.Second):
		w.Fatal("no crash was told")
		return evidence.Crash{}
	}
}

// sources are the real ones that this machine must have.
func sources(t *testing.T, test func(*testing.T, exits.Source)) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	for name, open := range map[string]func() (exits.Source, error){
		"ebpf":      func() (exits.Source, error) { return exits.OpenBPF() },
		"connector": func() (exits.Source, error) { return exits.OpenConnector() },
	} {
		t.Run(name, func(t *testing.T) {
			source, err := open()
			if err != nil {
				t.Fatal(err)
			}
			test(t, source)
		})
	}
}

func TestRealCrash(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		w := start(t, source, nil)
		w.launch("mail", fixA, "kill -SEGV $$").Wait()
		if c := w.next(); c.App != "mail" || c.Arm != fixA || c.Signal != syscall.SIGSEGV || !c.Main || !c.Any || c.Child {
			t.Errorf("%+v", c)
		}
		w.launch("browser", base, `sh -c 'kill -ABRT $$'; exit 0`).Wait()
		if c := w.next(); c.App != "browser" || c.Arm != base || c.Signal != syscall.SIGABRT || c.Main || !c.Any || !c.Child {
			t.Errorf("%+v", c)
		}
		w.launch("clock", fixA, "kill -KILL $$").Wait()
		w.launch("editor", fixA, "exit 11").Wait()
		w.launch("last", fixA, "kill -ILL $$").Wait()
		if c := w.next(); c.App != "last" {
			t.Errorf("%+v", c)
		}
		w.stop()
		if left := w.Recorder.Running(); len(left) != 0 {
			t.Errorf("still running: %+v", left)
		}
		// It is on disk.
		if j := recorder(t, w.dir).Judge(evidence.Question{App: "mail", Arm: fixA, Scope: evidence.ScopeMain}); j.Counts.X1 != 1 || j.Counts.T1 < 1.0/60-1e-9 {
			t.Errorf("%+v", j.Counts)
		}
	})
}

// A crash is counted although it is told before its launch, or although its
// launch is never told and only its record is found.
func TestCrashBeforeLaunch(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		w := start(t, source, nil)
		crash := func() int {
			cmd := exec.Command("sh", "-c", "ulimit -c 0; kill -SEGV $$")
			cmd.Run()
			return cmd.Process.Pid
		}
		early := crash()
		w.launch("marker", fixA, "kill -SEGV $$").Wait()
		w.next() // so the first exit has been read
		w.started <- evidence.Launch{PID: early, App: "mail", Arm: fixA}
		if c := w.next(); c.App != "mail" || !c.Main {
			t.Errorf("%+v", c)
		}
		gate := exec.Command("sh", "-c", "read go; ulimit -c 0; kill -SEGV $$")
		in, err := gate.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := gate.Start(); err != nil {
			t.Fatal(err)
		}
		w.know(evidence.Launch{PID: gate.Process.Pid, App: "browser", Arm: fixB, Start: startOf(t, gate.Process.Pid)})
		fmt.Fprintln(in, "go")
		gate.Wait()
		if c := w.next(); c.App != "browser" || c.Arm != fixB || !c.Main {
			t.Errorf("%+v", c)
		}
	})
}

// A thousand crashes of many apps at once: each app's crashes are all seen, one
// each is counted, and the crashing programs wait for nothing, not even while
// nobody takes the news.
func TestStorm(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		const apps, each = 10, 100
		release := make(chan struct{})
		w := start(t, source, func(w *Watch, d *desk) {
			told := w.OnCrash
			w.OnCrash = func(c evidence.Crash) { <-release; told(c) }
		})
		var all []*exec.Cmd
		for i := range apps {
			all = append(all, w.launch(fmt.Sprintf("app%d", i), fixA, fmt.Sprintf(`i=0; while [ $i -lt %d ]; do sh -c 'kill -SEGV $$'; i=$((i+1)); done 2>/dev/null; exit 0`, each)))
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil { // ends although OnCrash hangs
				t.Error(err)
			}
		}
		close(release)
		for range apps {
			if c := w.next(); !c.Any || c.Main {
				t.Errorf("%+v", c)
			}
		}
		w.launch("marker", fixA, "kill -SEGV $$").Wait()
		w.next()
		if lost := source.Lost(); lost != 0 {
			t.Errorf("%d lost", lost)
		}
		for i := range apps {
			j := w.Recorder.Judge(evidence.Question{App: fmt.Sprintf("app%d", i), Arm: fixA, Scope: evidence.ScopeAny})
			if j.Counts.X1 != 1 || j.Seen1 != each {
				t.Errorf("app%d: %d counted, %d seen", i, j.Counts.X1, j.Seen1)
			}
		}
	})
}

// An app that anybody starts by its program counts too: a loop of short ones that
// crash at once, nobody having launched them.
func TestStartedByAnybody(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	source, err := exits.OpenBPF()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/mail"
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	fs, inode, err := linux.FileAt(path)
	if err != nil {
		t.Fatal(err)
	}
	mail := exits.Program{Device: fs, Inode: inode}
	w := start(t, source, func(w *Watch, d *desk) {
		d.programs = []exits.Program{mail}
		d.began = map[exits.Program]evidence.Launch{mail: {App: "mail", Arm: fixA}}
	})
	w.launch("marker", fixA, "kill -SEGV $$").Wait()
	w.next() // so the watch has begun
	const crashes = 30
	for range crashes {
		exec.Command(path, "-c", "ulimit -c 0; kill -SEGV $$").Run()
	}
	if c := w.next(); c.App != "mail" || c.Arm != fixA || !c.Main || !c.Any {
		t.Errorf("%+v", c)
	}
	w.launch("last", fixA, "kill -SEGV $$").Wait()
	w.next()
	j := w.Recorder.Judge(evidence.Question{App: "mail", Arm: fixA, Scope: evidence.ScopeMain})
	if j.Counts.X1 != 1 || j.Seen1 != crashes {
		t.Errorf("%d counted, %d seen", j.Counts.X1, j.Seen1)
	}
}

func TestDamagedContent(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		var asked int
		w := start(t, source, func(w *Watch, d *desk) {
			w.Damaged = func(arm evidence.Arm) (bool, error) { asked++; return arm == fixB, nil }
		})
		w.launch("mail", fixB, "kill -BUS $$").Wait()
		if c := w.next(); !c.Broken || c.Counted() {
			t.Errorf("%+v", c)
		}
		w.launch("mail", fixB, "kill -BUS $$").Wait()
		if c := w.next(); !c.Broken || c.Counted() {
			t.Errorf("%+v", c)
		}
		w.launch("mail", fixB, "kill -SEGV $$").Wait()
		if c := w.next(); c.Broken || !c.Main {
			t.Errorf("%+v", c)
		}
		w.launch("mail", fixA, "kill -BUS $$").Wait()
		if c := w.next(); c.Broken || !c.Main {
			t.Errorf("%+v", c)
		}
		w.stop()
		if asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	})
	sources(t, func(t *testing.T, source exits.Source) {
		w := start(t, source, func(w *Watch, d *desk) {
			w.Damaged = func(evidence.Arm) (bool, error) { return false, errors.New("no such set") }
		})
		w.launch("mail", fixA, "kill -BUS $$").Wait()
		if c := w.next(); !c.Broken {
			t.Errorf("a SIGBUS that could not be checked counts: %+v", c)
		}
	})
}

// What runs already is found, and looked at by the minute.
func TestRunning(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	source, _, err := exits.Open()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "ulimit -c 0; sleep 60; true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := start(t, source, func(w *Watch, d *desk) {
		d.running = []evidence.Launch{{PID: cmd.Process.Pid, App: "mail", Arm: fixA}}
	})
	w.launch("marker", fixA, "kill -SEGV $$").Wait()
	w.next()
	cmd.Process.Signal(syscall.SIGABRT)
	cmd.Wait()
	if c := w.next(); c.App != "mail" || !c.Main {
		t.Errorf("%+v", c)
	}
}

func TestLook(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	cmd := exec.Command("sh", "-c", "read go; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read go")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &watching{Watch: &Watch{}, cpu: make(map[int]uint64)}
	l := evidence.Launch{PID: cmd.Process.Pid}
	w.look(l)
	if alive, busy := w.look(l); !alive || busy {
		t.Errorf("a waiting process: alive %v, busy %v", alive, busy)
	}
	fmt.Fprintln(in, "go")
	out.Read(make([]byte, 10))
	if alive, busy := w.look(l); !alive || !busy {
		t.Errorf("a working process: alive %v, busy %v", alive, busy)
	}
	other := l
	other.Start = 1
	if alive, _ := w.look(other); alive {
		t.Error("another process of that number lives")
	}
	in.Close()
	cmd.Process.Kill()
	for !zombie(cmd.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	if alive, _ := w.look(l); alive {
		t.Error("a zombie lives")
	}
	cmd.Wait()
	if alive, _ := w.look(l); alive {
		t.Error("the dead live")
	}
}

func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}
