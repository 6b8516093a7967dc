package evidence

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
)

var (
	baseline = Arm{Base: strings.Repeat("ab", 48)}
	fixA     = Arm{Base: baseline.Base, Release: "SI-2026-0001", Level: 1}
	fixB     = Arm{Base: baseline.Base, Release: "SI-2026-0002", Level: 2}
	noon     = Instant{Wall: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Mono: 1000 * time.Second, Boot: "one"}
)

const segv = syscall.SIGSEGV

// life is a recorder with a clock that tests move.
type life struct {
	*testing.T
	*Recorder
	dir string
	at  Instant
	pid int
}

func begin(t *testing.T) *life {
	return reopen(t, quickDir(t), noon)
}

// quickDir is a folder in memory where there is one: these tests sync thousands
// of times.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "sealant-evidence-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func reopen(t *testing.T, dir string, at Instant) *life {
	t.Helper()
	store, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRecorder(store)
	if err != nil {
		t.Fatal(err)
	}
	return &life{T: t, Recorder: r, dir: dir, at: at, pid: 100}
}

// pass lets time go by, with a tick every minute as Watch does.
func (l *life) pass(d time.Duration) {
	for d > 0 {
		step := min(d, time.Minute)
		l.at, d = l.at.Add(step), d-step
		l.Tick(l.at, nil)
	}
}

// skip lets time go by in which the device is off or nothing runs.
func (l *life) skip(d time.Duration) { l.at = l.at.Add(d) }

func (l *life) start(app string, arm Arm) int {
	l.pid++
	if err := l.Launch(Launch{PID: l.pid, App: app, Arm: arm}, l.at); err != nil {
		l.Fatal(err)
	}
	return l.pid
}

func (l *life) end(pid int, signal syscall.Signal) Crash {
	l.Helper()
	c, ok, err := l.Exit(Exit{PID: pid, Signal: signal}, l.at)
	if err != nil || ok != (signal != 0) {
		l.Fatalf("Exit: %v, %v", ok, err)
	}
	return c
}

// use runs an app for a while, to its good end.
func (l *life) use(app string, arm Arm, d time.Duration) {
	pid := l.start(app, arm)
	l.pass(d)
	l.end(pid, 0)
}

// crash runs an app until it crashes.
func (l *life) crash(app string, arm Arm, after time.Duration) Crash {
	pid := l.start(app, arm)
	l.pass(after)
	return l.end(pid, segv)
}

func (l *life) counts(app string, arm Arm) eprocess.Counts {
	return l.Judge(Question{App: app, Arm: arm, Scope: ScopeMain, Listed: 1}).Counts
}

func (l *life) want(app string, arm Arm, x0 int64, t0 time.Duration, x1 int64, t1 time.Duration) {
	l.Helper()
	c := l.counts(app, arm)
	near := func(got float64, want time.Duration) bool { d := got - want.Hours(); return d < 1e-6 && d > -1e-6 }
	if c.X0 != x0 || c.X1 != x1 || !near(c.T0, t0) || !near(c.T1, t1) {
		l.Errorf("%s: x0 %d t0 %.4f x1 %d t1 %.4f, want %d %.4f %d %.4f", app, c.X0, c.T0, c.X1, c.T1, x0, t0.Hours(), x1, t1.Hours())
	}
}

func TestCountingRules(t *testing.T) {
	const h = time.Hour
	for name, c := range map[string]func(*life){
		"use counts in the arm it was launched in": func(l *life) {
			l.use("mail", baseline, 6*h)
			l.use("mail", fixA, 2*h)
			l.want("mail", fixA, 0, 6*h, 0, 2*h)
		},
		"an old process keeps its arm after a newer one starts": func(l *life) {
			old := l.start("mail", baseline)
			l.pass(h)
			fresh := l.start("mail", fixA)
			l.pass(h)
			l.end(old, segv)
			l.end(fresh, 0)
			l.want("mail", fixA, 1, 2*h, 0, h)
		},
		"two processes of an app are one app": func(l *life) {
			l.use("mail", baseline, h)
			a, b := l.start("mail", fixA), l.start("mail", fixA)
			l.pass(h)
			l.end(a, 0)
			l.pass(h)
			l.end(b, 0)
			l.want("mail", fixA, 0, h, 0, 2*h)
		},
		"a loop of 20 crashes counts once": func(l *life) {
			l.use("mail", baseline, h)
			for range 20 {
				l.crash("mail", fixA, 20*time.Second)
			}
			l.want("mail", fixA, 0, h, 1, time.Minute)
			if j := l.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain}); j.Seen1 != 20 {
				l.Errorf("seen %d", j.Seen1)
			}
		},
		"exposure does not count in the refractory time": func(l *life) {
			l.use("mail", baseline, h)
			l.crash("mail", fixA, h)
			l.use("mail", fixA, 5*h)
			l.want("mail", fixA, 0, h, 1, 2*h)
		},
		"a crash after the refractory time counts": func(l *life) {
			l.use("mail", baseline, h)
			l.crash("mail", fixA, h)
			l.crash("mail", fixA, 4*h)
			l.want("mail", fixA, 0, h, 2, h)
		},
		"each arm has its own refractory time": func(l *life) {
			l.crash("mail", fixA, h)
			l.crash("mail", baseline, h) // after removal
			l.want("mail", fixA, 1, h, 1, h)
		},
		"a crash at launch counts as one minute": func(l *life) {
			l.use("mail", baseline, h)
			l.crash("mail", fixA, 0)
			l.want("mail", fixA, 0, h, 1, time.Minute)
		},
		"a run without a crash has no floor": func(l *life) {
			l.use("mail", baseline, h)
			l.use("mail", fixA, 10*time.Second)
			l.want("mail", fixA, 0, h, 0, 10*time.Second)
		},
		"the app next to it is another app": func(l *life) {
			l.use("mail", baseline, h)
			l.use("mail", fixA, h)
			l.crash("browser", fixA, 2*h)
			l.want("mail", fixA, 0, h, 0, h)
		},
		"an older improvement is on the side without": func(l *life) {
			l.use("mail", baseline, h)
			l.crash("mail", fixA, h)
			l.use("mail", fixB, 3*h)
			l.want("mail", fixB, 1, 2*h, 0, 3*h)
		},
		"a newer improvement says nothing about an older one": func(l *life) {
			l.use("mail", baseline, h)
			l.use("mail", fixA, h)
			l.crash("mail", fixB, 3*h)
			l.want("mail", fixA, 0, h, 0, h)
		},
		"another baseline says nothing": func(l *life) {
			l.use("mail", Arm{Base: "other"}, 9*h)
			l.use("mail", baseline, h)
			l.use("mail", fixA, h)
			l.want("mail", fixA, 0, h, 0, h)
		},
		"both arms grow after removal and reapplying": func(l *life) {
			for range 3 {
				l.use("mail", baseline, 2*h)
				l.use("mail", fixA, h)
			}
			l.want("mail", fixA, 0, 6*h, 0, 3*h)
		},
		"use more than 90 days before the improvement is forgotten": func(l *life) {
			l.crash("mail", baseline, h)
			l.skip(90 * 24 * h)
			l.use("mail", baseline, 2*h)
			l.skip(24 * h)
			l.use("mail", fixA, h)
			l.want("mail", fixA, 0, 2*h, 0, h)
		},
		"the baseline stays while the improvement does": func(l *life) {
			l.use("mail", baseline, 2*h)
			l.use("mail", fixA, h)
			l.skip(200 * 24 * h)
			l.use("mail", fixA, h)
			l.want("mail", fixA, 0, 2*h, 0, 2*h)
		},
		"another end than a crash is none": func(l *life) {
			l.use("mail", baseline, h)
			pid := l.start("mail", fixA)
			l.pass(h)
			l.end(pid, 0)
			l.want("mail", fixA, 0, h, 0, h)
		},
		"damaged content is no crash": func(l *life) {
			l.use("mail", baseline, h)
			pid := l.start("mail", fixA)
			l.pass(h)
			c, ok, err := l.Exit(Exit{PID: pid, Signal: syscall.SIGBUS, Broken: true}, l.at)
			if !ok || err != nil || !c.Broken || c.Counted() {
				l.Errorf("%+v, %v, %v", c, ok, err)
			}
			l.want("mail", fixA, 0, h, 0, h)
		},
		"a number that is used again is a new run": func(l *life) {
			l.use("mail", baseline, h)
			pid := l.start("mail", fixA) // its exit is never told
			l.pass(h)
			if err := l.Launch(Launch{PID: pid, App: "browser", Arm: fixA}, l.at); err != nil {
				l.Fatal(err)
			}
			l.pass(h)
			l.end(pid, segv)
			l.want("mail", fixA, 0, h, 0, h)
		},
		"a clock that goes back adds nothing and breaks nothing": func(l *life) {
			l.use("mail", baseline, h)
			pid := l.start("mail", fixA)
			l.pass(h)
			l.Tick(l.at.Add(-30*time.Minute), nil)
			l.pass(h)
			l.end(pid, 0)
			l.want("mail", fixA, 0, h, 0, 2*h)
		},
		"time asleep is no use": func(l *life) {
			l.use("mail", baseline, h)
			pid := l.start("mail", fixA)
			l.pass(h)
			l.at.Wall = l.at.Wall.Add(9 * h) // the wall clock went on, the other did not
			l.pass(h)
			l.end(pid, 0)
			l.want("mail", fixA, 0, h, 0, 2*h)
		},
		"a wall clock in 1970 counts as use": func(l *life) {
			l.use("mail", baseline, h)
			l.use("mail", fixA, h)
			right := l.at.Wall
			l.at.Wall = time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC)
			l.use("mail", fixA, h)
			l.at.Wall = right
			l.use("mail", fixA, h)
			l.want("mail", fixA, 0, h, 0, 3*h)
		},
		"a wall clock 50 years ahead costs nothing": func(l *life) {
			l.use("mail", baseline, h)
			l.use("mail", fixA, h)
			right := l.at.Wall
			l.at.Wall = right.AddDate(50, 0, 0)
			l.use("mail", fixA, h)
			l.at.Wall = right
			l.use("mail", fixA, h)
			l.want("mail", fixA, 0, h, 0, 3*h)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t)
			c(l)
			if t.Failed() {
				return
			}
			// What is on disk is what was counted.
			before := l.counts("mail", fixA)
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			after := reopen(t, l.dir, l.at).counts("mail", fixA)
			if before.X0 != after.X0 || before.X1 != after.X1 || before.T0-after.T0 > 1e-6 || before.T1-after.T1 > 1e-6 {
				t.Errorf("before %+v, from disk %+v", before, after)
			}
		})
	}
}

func TestInteractive(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, time.Hour)
	l.pid++
	if err := l.Launch(Launch{PID: l.pid, App: "mail", Arm: fixA, Interactive: true}, l.at); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		l.at = l.at.Add(time.Minute)
		l.Tick(l.at, func(Launch) (alive, busy bool) { return true, i < 20 })
	}
	l.want("mail", fixA, 0, time.Hour, 0, 20*time.Minute)
	// A process that is gone without a word is not counted for its last minute.
	l.at = l.at.Add(time.Minute)
	l.Tick(l.at, func(Launch) (alive, busy bool) { return false, false })
	l.want("mail", fixA, 0, time.Hour, 0, 20*time.Minute)
	if n := len(l.Running()); n != 0 {
		t.Errorf("%d still run", n)
	}
}

func TestScopes(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, 6*time.Hour)
	pid := l.start("mail", fixA)
	l.pass(time.Hour)
	c, ok, err := l.Exit(Exit{PID: pid, Child: true, Signal: segv}, l.at)
	if !ok || err != nil || c.Main || !c.Any || !c.Child {
		t.Fatalf("%+v, %v, %v", c, ok, err)
	}
	l.pass(time.Hour)
	if c := l.end(pid, segv); !c.Main || c.Any {
		t.Errorf("%+v: the child's crash is in another scope", c)
	}
	for scope, want := range map[string]eprocess.Counts{
		ScopeMain: {X0: 0, T0: 6, X1: 1, T1: 2},
		ScopeAny:  {X0: 0, T0: 6, X1: 1, T1: 1},
	} {
		if got := l.Judge(Question{App: "mail", Arm: fixA, Scope: scope}).Counts; got != want {
			t.Errorf("%s: %+v, want %+v", scope, got, want)
		}
	}
}

// The refractory time goes on over a restart of the agent and of the device.
func TestRefractoryOverRestarts(t *testing.T) {
	const h = time.Hour
	for name, c := range map[string]struct {
		after time.Duration // by the wall
		boot  string
		want  bool
	}{
		"agent, too early":                {1 * h, "one", false},
		"agent, late enough":              {4 * h, "one", true},
		"device, too early":               {1 * h, "two", false},
		"device, late enough":             {5 * h, "two", true},
		"device, the clock went backward": {-900 * h, "two", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t)
			l.crash("mail", fixA, h)
			at := l.at.Add(c.after)
			if c.boot != at.Boot {
				at.Boot, at.Mono = c.boot, 60*time.Second
			}
			l = reopen(t, l.dir, at)
			if got := l.crash("mail", fixA, 0).Main; got != c.want {
				t.Errorf("counted: %v", got)
			}
			l.pass(4*h + time.Minute)
			if !l.crash("mail", fixA, 0).Main {
				t.Error("a crash 4 h later does not count")
			}
		})
	}
}
