package witness

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// teller is a source that says what a test says.
type teller struct {
	ends   chan exits.Exit
	closed chan struct{}
	once   sync.Once
}

func newTeller() *teller {
	return &teller{ends: make(chan exits.Exit, 10), closed: make(chan struct{})}
}

func (s *teller) Track(int, int) error        { return nil }
func (s *teller) Watch([]exits.Program) error { return nil }
func (s *teller) Lost() uint64                { return 0 }
func (s *teller) Close() error                { s.once.Do(func() { close(s.closed) }); return nil }
func (s *teller) Read() (e exits.Exit, _ error) {
	select {
	case e = <-s.ends:
		return e, nil
	case <-s.closed:
		return e, os.ErrClosed
	}
}

// A core dump's record counts where nothing else told of the crash, and only there,
// in whatever order the two come.
func TestDumps(t *testing.T) {
	dumpWait = 50 * time.Millisecond
	const pid = 1 << 22 // beyond what runs here
	now := linux.Monotonic()
	record := func(pid int) exits.Exit {
		return exits.Exit{PID: pid, Signal: syscall.SIGSEGV, At: now, Dump: &exits.Dump{Executable: "/usr/bin/mail"}}
	}
	kernel := func(pid, root int) exits.Exit {
		return exits.Exit{PID: pid, Root: root, Signal: syscall.SIGSEGV, At: now + time.Second}
	}
	for _, tt := range []struct {
		name    string
		running int // a process of the app that runs
		ends    []exits.Exit
		seen    int64 // in the scope of any process
		main    int64
	}{
		{"a record alone", 0, []exits.Exit{record(pid)}, 1, 1},
		{"a record of a program that is no app", 0, []exits.Exit{{PID: pid, Signal: syscall.SIGSEGV, At: now, Dump: &exits.Dump{Executable: "/usr/bin/other"}}}, 0, 0},
		{"the kernel first, of a stranger", 0, []exits.Exit{kernel(pid, 0), record(pid)}, 1, 1},
		{"the kernel first, of a launch", pid, []exits.Exit{kernel(pid, pid), record(pid)}, 1, 1},
		{"the kernel first, of a child", pid, []exits.Exit{kernel(pid+1, pid), record(pid + 1)}, 1, 0},
		{"the record first", 0, []exits.Exit{record(pid), kernel(pid, 0)}, 1, 1},
		{"the record first, of a launch", pid, []exits.Exit{record(pid), kernel(pid, pid)}, 1, 1},
		{"a record of a part of a running app", pid, []exits.Exit{record(pid + 1)}, 1, 0},
		{"two crashes", 0, []exits.Exit{record(pid), record(pid + 1)}, 2, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := newTeller()
			w := start(t, source, func(_ *Watch, d *desk) {
				d.dumped = map[string]evidence.Launch{"/usr/bin/mail": {App: "mail", Arm: fixA}}
			})
			if tt.running != 0 {
				w.started <- evidence.Launch{PID: tt.running, App: "mail", Arm: fixA}
				w.started <- evidence.Launch{PID: 1 << 30, App: "nothing", Arm: fixA}
				for len(w.Recorder.Running()) < 1 {
					time.Sleep(time.Millisecond)
				}
			}
			for _, e := range tt.ends {
				source.ends <- e
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(4 * dumpWait)
			w.stop()
			r := recorder(t, w.dir)
			for scope, want := range map[string]int64{evidence.ScopeAny: tt.seen, evidence.ScopeMain: tt.main} {
				j := r.Judge(evidence.Question{App: "mail", Arm: fixA, Scope: scope})
				if j.Seen1 != want {
					t.Errorf("in the scope %s %d crashes were seen, want %d", scope, j.Seen1, want)
				}
			}
		})
	}
}
