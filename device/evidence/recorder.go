package evidence

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
)

// Recorder turns launches, passing time and exits into observations, by the
// counting rules. Every method is told when it happens, in any pace: live by
// Watch, or thirty days in a second by a replay. Its methods may be called at the
// same time; moments should not go backwards, and one that does adds nothing.
type Recorder struct {
	store *Store

	mu     sync.Mutex
	apps   map[string]*document
	dirty  map[string]bool
	runs   map[int]*run // by launched process
	groups map[groupKey]*group
}

// run is one launched process that has not ended.
type run struct {
	Launch
	group *group
}

// groupKey is what is counted together: hours are of the app, not of each of its
// windows.
type groupKey struct {
	app, version string
	arm          Arm
}

// group is an app in one arm that runs, with one process or more.
type group struct {
	groupKey
	runs int
	upTo Instant       // exposure is counted up to here
	used time.Duration // since the app started in this arm, for the floor
}

// NewRecorder starts recording on what the store holds. The error, if any, tells
// of files that did not read; the recorder is good all the same.
func NewRecorder(store *Store) (*Recorder, error) {
	apps, problems := store.load()
	return &Recorder{
		store: store, apps: apps, dirty: make(map[string]bool),
		runs: make(map[int]*run), groups: make(map[groupKey]*group),
	}, errors.Join(problems...)
}

// resume takes the refractory time over into the boot of at: exactly within one
// boot, by the wall clock from another one. A wall clock that went backwards
// can't stretch it.
func (s *series) resume(at Instant) {
	if s.boot == at.Boot {
		return
	}
	s.boot = at.Boot
	switch {
	case s.Last == nil:
	case s.Last.Boot == at.Boot:
		s.quiet = eprocess.Quiet{Crashed: true, Until: time.Duration(s.Last.Mono)*time.Millisecond + eprocess.Refractory}
	default:
		left := eprocess.Refractory - max(0, at.Wall.Sub(s.Last.Wall))
		s.quiet = eprocess.Quiet{Crashed: true, Until: at.Mono + max(0, left)}
	}
}

// Launch notes an app that starts now, or that was found running now.
func (r *Recorder) Launch(l Launch, at Instant) error {
	for what, name := range map[string]string{"app": l.App, "version": l.Version, "base": l.Arm.Base, "release": l.Arm.Release} {
		if err := checkName(what, name, what != "app"); err != nil {
			return fmt.Errorf("cannot count a launch: %w", err)
		}
	}
	if (l.Arm.Release == "") != (l.Arm.Level == 0) || l.Arm.Level < 0 || l.Arm.Level > 999_999 {
		return fmt.Errorf("cannot count a launch: level %d of release %q", l.Arm.Level, l.Arm.Release)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.runs[l.PID]; ok {
		if old.App == l.App && old.Arm == l.Arm && old.Version == l.Version && (old.Start == l.Start || l.Start == 0) {
			return nil // known already
		}
		r.end(old, at) // the number is used again
	}
	key := groupKey{l.App, l.Version, l.Arm}
	g := r.groups[key]
	if g == nil {
		if err := r.admit(l.App); err != nil {
			return err
		}
		g = &group{groupKey: key, upTo: at}
		r.groups[key] = g
	}
	r.accrue(g, at)
	g.runs++
	r.runs[l.PID] = &run{l, g}
	return nil
}

// admit makes room for an app's document.
func (r *Recorder) admit(app string) error {
	if r.apps[app] != nil {
		return nil
	}
	if len(r.apps) >= maxApps {
		var oldest *document
		for _, d := range r.apps {
			if !r.active(d.App) && (oldest == nil || d.newest() < oldest.newest()) {
				oldest = d
			}
		}
		if oldest == nil {
			return fmt.Errorf("cannot count %s: %d apps run already", app, maxApps)
		}
		if err := r.store.forget(oldest.App); err != nil {
			return err
		}
		delete(r.apps, oldest.App)
		delete(r.dirty, oldest.App)
	}
	r.apps[app] = &document{Schema: observationsSchema, App: app}
	return nil
}

func (r *Recorder) active(app string) bool {
	for key := range r.groups {
		if key.app == app {
			return true
		}
	}
	return false
}

// Look says of a launched process whether it still runs, and whether it used the
// processor since the last look.
type Look func(Launch) (alive, busy bool)

// Tick counts the time since the last tick as use of every app that runs. Call it
// once a minute. With look nil all that was launched and did not exit is in use.
func (r *Recorder) Tick(at Instant, look Look) {
	r.mu.Lock()
	defer r.mu.Unlock()
	uses := make(map[*group]bool)
	for _, run := range r.runs {
		alive, busy := true, true
		if look != nil {
			alive, busy = look(run.Launch)
		}
		if !alive {
			r.remove(run) // its exit was not told; the time since the last tick is not counted
			continue
		}
		uses[run.group] = uses[run.group] || busy || !run.Interactive
	}
	for _, g := range r.groups {
		if uses[g] {
			r.accrue(g, at)
		} else {
			g.upTo = at
		}
	}
}

// accrue counts the group's use up to a moment, in both scopes.
func (r *Recorder) accrue(g *group, at Instant) {
	from := g.upTo
	if at.Boot != from.Boot {
		g.upTo = at // another boot: nothing is known of the time between
		return
	}
	if at.Mono <= from.Mono {
		return
	}
	g.upTo = at
	g.used += at.Mono - from.Mono
	for _, scope := range []string{ScopeMain, ScopeAny} {
		s := r.series(g, scope, from)
		r.add(g, s, at, s.quiet.Exposure(from.Mono, at.Mono))
	}
}

// series is the group's series, with its refractory time on the clock of at.
func (r *Recorder) series(g *group, scope string, at Instant) *series {
	s := r.apps[g.app].find(g.arm, g.version, scope)
	s.resume(at)
	return s
}

func (r *Recorder) add(g *group, s *series, at Instant, used time.Duration) *dayCounts {
	day := s.on(r.apps[g.app].dayOf(at.Wall))
	s.part += used
	day.Used += s.part.Milliseconds()
	s.part %= time.Millisecond
	r.dirty[g.app] = true
	return day
}

// Exit notes that a launched process has ended, or crashed, or that one which
// belongs to it crashed. It returns what became of a crash; ok is false for every
// other end and for processes that nobody launched. A counted crash is on disk
// when Exit returns; the error says that it is not.
func (r *Recorder) Exit(e Exit, at Instant) (crash Crash, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run := r.runs[e.PID]
	if run == nil {
		return Crash{}, false, nil
	}
	g := run.group
	r.accrue(g, at)
	if !e.Child {
		r.end(run, at)
	}
	if e.Signal == 0 {
		return Crash{}, false, nil
	}
	crash = Crash{App: g.app, Version: g.version, Arm: g.arm, At: at, Signal: e.Signal, Child: e.Child, Broken: e.Broken}
	if e.Broken {
		return crash, true, nil
	}
	crash.Any = r.count(g, ScopeAny, at)
	if !e.Child {
		crash.Main = r.count(g, ScopeMain, at)
	}
	if crash.Counted() {
		err = r.flush(g.app)
	}
	return crash, true, err
}

// count counts a crash in one scope, unless it is within the refractory time.
func (r *Recorder) count(g *group, scope string, at Instant) bool {
	s := r.series(g, scope, at)
	counts := s.quiet.Crash(at.Mono)
	var topUp time.Duration
	if counts {
		topUp = eprocess.TopUp(g.used)
		s.Last = &lastCrash{Wall: at.Wall.UTC().Truncate(time.Second), Mono: at.Mono.Milliseconds(), Boot: at.Boot}
	}
	day := r.add(g, s, at, topUp)
	day.Seen++
	if counts {
		day.Crashes++
	}
	return counts
}

// end takes a run out, with its use up to now.
func (r *Recorder) end(run *run, at Instant) {
	r.accrue(run.group, at)
	r.remove(run)
}

func (r *Recorder) remove(run *run) {
	delete(r.runs, run.PID)
	if run.group.runs--; run.group.runs == 0 {
		delete(r.groups, run.group.groupKey)
	}
}

// Running lists the launches that have not ended.
func (r *Recorder) Running() []Launch {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Launch, 0, len(r.runs))
	for _, run := range r.runs {
		list = append(list, run.Launch)
	}
	return list
}

// Flush writes what changed since the last time. Exposure that was not flushed is
// lost in a power cut: call it every ten minutes, and at the end.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for app := range r.dirty {
		errs = append(errs, r.flush(app))
	}
	return errors.Join(errs...)
}

func (r *Recorder) flush(app string) error {
	d := r.apps[app]
	d.trim()
	if err := r.store.save(d); err != nil {
		return err
	}
	delete(r.dirty, app)
	return nil
}
