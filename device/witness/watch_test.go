package evidence

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

	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// watched is a Watch over the real kernel.
type watched struct {
	*Watch
	*testing.T
	crashes chan Crash
	stop    func()
}

func watch(t *testing.T, source Source, change func(*Watch)) *watched {
	t.Helper()
	store, err := Open(quickDir(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRecorder(store)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{T: t, crashes: make(chan Crash, 1000)}
	w.Watch = &Watch{Recorder: r, Source: source, OnCrash: func(c Crash) { w.crashes <- c }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if change != nil {
		change(w.Watch)
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

// launch starts a shell that waits for its launch to be known, or not.
func (w *watched) launch(app string, arm Arm, script string) *exec.Cmd {
	w.Helper()
	cmd := exec.Command("sh", "-c", "read go; ulimit -c 0; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	p, err := linux.OpenProcess(cmd.Process.Pid)
	if err != nil {
		w.Fatal(err)
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		w.Fatal(err)
	}
	if err := w.Launched(context.Background(), Launch{PID: cmd.Process.Pid, App: app, Arm: arm, Start: st.Start}); err != nil {
		w.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	return cmd
}

func (w *watched) next() Crash {
	w.Helper()
	select {
	case c := <-w.crashes:
		return c
	case <-time.After(30 * time.Second):
		w.Fatal("no crash was told")
		return Crash{}
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
		w := watch(t, source, nil)
		w.launch("mail", fixA, "kill -SEGV $$").Wait()
		if c := w.next(); c.App != "mail" || c.Arm != fixA || c.Signal != syscall.SIGSEGV || !c.Main || !c.Any || c.Child {
			t.Errorf("%+v", c)
		}
		w.launch("browser", baseline, `sh -c 'kill -ABRT $$'; exit 0`).Wait()
		if c := w.next(); c.App != "browser" || c.Arm != baseline || c.Signal != syscall.SIGABRT || c.Main || !c.Any || !c.Child {
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
		store, err := Open(w.Recorder.store.dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRecorder(store)
		if err != nil {
			t.Fatal(err)
		}
		if j := r.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain}); j.Counts.X1 != 1 || j.Counts.T1 < 1.0/60-1e-9 {
			t.Errorf("%+v", j.Counts)
		}
	})
}

// A crash that was told before its launch is still counted.
func TestCrashBeforeLaunch(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		w := watch(t, source, nil)
		cmd := exec.Command("sh", "-c", "ulimit -c 0; kill -SEGV $$")
		cmd.Run()
		w.launch("marker", fixA, "kill -SEGV $$").Wait()
		w.next() // so the first exit has been read
		if err := w.Launched(context.Background(), Launch{PID: cmd.Process.Pid, App: "mail", Arm: fixA}); err != nil {
			t.Fatal(err)
		}
		if c := w.next(); c.App != "mail" || !c.Main {
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
		w := watch(t, source, func(w *Watch) {
			told := w.OnCrash
			w.OnCrash = func(c Crash) { <-release; told(c) }
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
			j := w.Recorder.Judge(Question{App: fmt.Sprintf("app%d", i), Arm: fixA, Scope: ScopeAny})
			if j.Counts.X1 != 1 || j.Seen1 != each {
				t.Errorf("app%d: %d counted, %d seen", i, j.Counts.X1, j.Seen1)
			}
		}
	})
}

func TestDamagedContent(t *testing.T) {
	sources(t, func(t *testing.T, source exits.Source) {
		var asked int
		w := watch(t, source, func(w *Watch) {
			w.Damaged = func(arm Arm) (bool, error) { asked++; return arm == fixB, nil }
		})
		w.launch("mail", fixB, "kill -BUS $$").Wait()
		if c := w.next(); !c.Broken || c.Counted() {
			t.Errorf("%+v", c)
		}
		w.launch("mail", fixB, "kill -SEGV $$").Wait()
		if c := w.next(); !c.Broken || c.Counted() {
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
		w := watch(t, source, func(w *Watch) {
			w.Damaged = func(Arm) (bool, error) { return false, errors.New("no such set") }
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
	w := watch(t, source, func(w *Watch) {
		w.Running = func() ([]Launch, error) {
			return []Launch{{PID: cmd.Process.Pid, App: "mail", Arm: fixA}}, nil
		}
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
	w.init()
	l := Launch{PID: cmd.Process.Pid}
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
