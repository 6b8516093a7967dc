// Package witness sees apps start, run and crash on the running machine and tells
// it to device/evidence, which counts. It needs root.
//
// Crashes come from the kernel (internal/exits), for every program, whoever
// started it. Which app a process is of, and with which content, comes from the
// records of device/launch, written before a program gets control, and for
// programs that nobody launched from a look at all processes once a minute. What
// a process says about itself is never believed.
package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// Rhythm of a Watch.
const (
	tickEvery  = time.Minute      // use is counted by the minute
	flushEvery = 10 * time.Minute // exposure that a power cut may cost
	heldFor    = 10 * time.Second // an exit may be told before its launch
	sameCrash  = 30 * time.Second // between what two sources say of one crash
	maxHeld    = 256
	backlog    = 4096 // exits that wait while one is worked on; the kernel keeps more
	wholeFor   = 10 * time.Minute
)

// busyTicks is how much processor time, in hundredths of a second, makes a minute
// of an interactive app count. An idle window blinks its cursor with less.
const busyTicks = 5

// dumpWait is how long a core dump's record waits for what the kernel tells of the
// same crash, which knows whose child it was.
var dumpWait = 3 * time.Second

// Source is what a Watch learns of exits from; internal/exits has several.
type Source interface {
	Track(pid, root int) error
	Watch(programs []exits.Program) error
	Read() (exits.Exit, error)
	Lost() uint64
	Close() error
}

// Apps knows which apps run.
type Apps interface {
	// Running lists them; it is asked at the start and once a minute.
	Running() ([]evidence.Launch, error)
	// Find tells how a process was launched, also one that has ended.
	Find(pid int) (evidence.Launch, bool)
	// Programs lists the apps' executables, wherever they are seen.
	Programs() ([]exits.Program, error)
	// Began tells which app a process is that has begun one of them.
	Began(exits.Exit) (evidence.Launch, bool)
	// Dumped tells which app a process was that left a core dump.
	Dumped(exits.Exit) (evidence.Launch, bool)
	// Started waits for the next launch. It returns os.ErrClosed after Close.
	Started() (evidence.Launch, error)
	// Prune forgets launches that ended a while ago.
	Prune() error
	Close() error
}

// Watch feeds a Recorder from the running machine.
type Watch struct {
	Recorder *evidence.Recorder
	Source   Source
	Apps     Apps
	// Damaged says whether the content of an arm fails its seal on this disk. It
	// is asked when a program dies of SIGBUS, which is how the kernel tells that a
	// block could not be read. Where it is nil or fails, that counts as damage.
	Damaged func(evidence.Arm) (bool, error)
	// OnCrash is told of every counted crash and of every one with damaged
	// content, one at a time; exits wait meanwhile, the programs do not.
	OnCrash func(evidence.Crash)
	Log     *slog.Logger
}

// Run watches until ctx ends, then writes what was counted. It closes the source
// and the apps.
func (w *Watch) Run(ctx context.Context) error {
	at, err := evidence.Now()
	if err != nil {
		return err
	}
	loop := watching{
		Watch: w, boot: at.Boot, cpu: make(map[int]uint64), whole: make(map[evidence.Arm]finding),
		launches: make(chan evidence.Launch, 64), ended: make(chan exits.Exit, backlog),
		dumps: make(chan exits.Exit, maxHeld), crashed: make(map[int]time.Duration),
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var reading sync.WaitGroup
	reading.Go(func() { fail(loop.readLaunches(ctx)) })
	reading.Go(func() { fail(loop.readExits(ctx)) })
	stop := context.AfterFunc(ctx, func() {
		w.Source.Close()
		w.Apps.Close()
	})
	defer stop()
	loop.run(ctx)
	reading.Wait()
	loop.drain()
	failed := context.Cause(ctx)
	if errors.Is(failed, context.Canceled) || errors.Is(failed, os.ErrClosed) {
		failed = nil
	}
	return errors.Join(failed, w.Recorder.Flush())
}

// watching is a Watch under way. All but reading is in one goroutine.
type watching struct {
	*Watch
	boot     string
	launches chan evidence.Launch
	ended    chan exits.Exit
	cpu      map[int]uint64           // processor time of a launched process at the last tick
	dumps    chan exits.Exit          // core dumps that have waited
	crashed  map[int]time.Duration    // when a process was seen to crash
	held     []held                   // crashes of processes that nobody knows yet
	whole    map[evidence.Arm]finding // whether an arm's content was found damaged
	told     uint64                   // lost exits that were told
}

type held struct {
	exits.Exit
	until time.Duration
}

type finding struct {
	damaged bool
	until   time.Duration
}

func (w *watching) readLaunches(ctx context.Context) error {
	for {
		l, err := w.Apps.Started()
		if err != nil {
			return err
		}
		// At once, so that its children are followed too.
		w.follow(l)
		select {
		case w.launches <- l:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *watching) readExits(ctx context.Context) error {
	for {
		e, err := w.Source.Read()
		if err != nil {
			return err
		}
		select {
		case w.ended <- e:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *watching) run(ctx context.Context) {
	tick, flush := time.NewTicker(tickEvery), time.NewTicker(flushEvery)
	defer tick.Stop()
	defer flush.Stop()
	w.find()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-w.launches:
			w.launch(l, linux.Monotonic())
		case e := <-w.ended:
			w.launched() // who was told of before it ended is known before its end
			if e.Dump != nil {
				w.await(ctx, e)
				continue
			}
			w.exit(e)
		case e := <-w.dumps:
			w.exit(e)
		case <-tick.C:
			w.tick()
		case <-flush.C:
			w.tell("cannot keep the evidence", w.Recorder.Flush())
			w.tell("cannot tidy the records of launches", w.Apps.Prune())
		}
	}
}

// drain takes what was read but not worked on when the end came.
func (w *watching) drain() {
	w.launched()
	for {
		select {
		case e := <-w.ended:
			w.exit(e)
		default:
			w.Recorder.Tick(w.at(linux.Monotonic()), w.look)
			return
		}
	}
}

func (w *watching) tell(what string, err error) {
	if err != nil && w.Log != nil {
		w.Log.Warn(what, "error", err)
	}
}

// follow has a process, and those of its app that run already, told by the source.
func (w *watching) follow(l evidence.Launch) {
	w.tell("cannot follow an app", w.Source.Track(l.PID, l.PID))
	for _, pid := range l.Others {
		w.tell("cannot follow an app", w.Source.Track(pid, l.PID))
	}
}

// launched takes the launches that wait.
func (w *watching) launched() {
	for {
		select {
		case l := <-w.launches:
			w.launch(l, linux.Monotonic())
		default:
			return
		}
	}
}

// at is a moment of this boot on all clocks.
func (w *watching) at(mono time.Duration) evidence.Instant {
	return evidence.Instant{Wall: time.Now().UTC().Add(mono - linux.Monotonic()), Mono: mono, Boot: w.boot}
}

func (w *watching) launch(l evidence.Launch, at time.Duration) {
	if err := w.Recorder.Launch(l, w.at(at)); err != nil {
		w.tell("cannot count a launch", err)
		return
	}
	// Exits that were faster than the launch: its own is the last of them.
	waiting := w.held
	w.held = nil
	for _, h := range waiting {
		if root, _ := w.belongs(h.Exit); root != 0 {
			w.exit(h.Exit)
		} else {
			w.held = append(w.held, h)
		}
	}
}

// find records what runs already, and what started without a launch, and renews
// the list of programs whose start is told.
func (w *watching) find() {
	programs, err := w.Apps.Programs()
	w.tell("cannot find the apps' programs", err)
	w.tell("cannot watch for the start of apps", w.Source.Watch(programs))
	running, err := w.Apps.Running()
	w.tell("cannot look which apps run", err)
	known := make(map[int]bool)
	for _, l := range w.Recorder.Running() {
		known[l.PID] = true
	}
	for _, l := range running {
		if !known[l.PID] {
			w.follow(l)
			w.launch(l, linux.Monotonic())
		}
	}
}

func (w *watching) exit(e exits.Exit) {
	if e.Began {
		if l, ok := w.Apps.Began(e); ok {
			w.launch(l, e.At)
		}
		return
	}
	at := w.at(e.At)
	if before, ok := w.crashed[e.PID]; ok && e.Crash() && (e.At-before).Abs() < sameCrash {
		return // another source told of it
	}
	root, child := w.belongs(e)
	if root == 0 && e.Crash() {
		// It may have been launched and have crashed before anybody looked.
		if l, ok := w.Apps.Find(e.PID); ok && sameProcess(l, e) {
			w.launch(l, e.At)
			root, child = w.belongs(e)
		} else if l, running, ok := w.dumped(e); ok {
			root, child = l.PID, running
			if !running {
				w.launch(l, e.At)
				root, child = w.belongs(e)
			}
		} else {
			w.hold(e)
		}
	}
	if root == 0 {
		return
	}
	exit := evidence.Exit{PID: root, Child: child}
	if e.Crash() {
		exit.Signal = e.Signal
		if arm, ok := w.arm(root); ok && e.Signal == syscall.SIGBUS {
			exit.Broken = w.damaged(arm, at.Mono)
		}
	}
	crash, ok, err := w.Recorder.Exit(exit, at)
	w.tell("cannot keep the evidence of a crash", err)
	if ok {
		w.crashed[e.PID] = e.At
	}
	if ok && (crash.Counted() || crash.Broken) && w.OnCrash != nil {
		w.OnCrash(crash)
	}
}

// await lets a core dump's record wait.
func (w *watching) await(ctx context.Context, e exits.Exit) {
	time.AfterFunc(dumpWait, func() {
		select {
		case w.dumps <- e:
		case <-ctx.Done():
		}
	})
}

// dumped finds the app that a core dump is of. Where the app runs with the same
// content, it is a part of it that crashed.
func (w *watching) dumped(e exits.Exit) (l evidence.Launch, running, ok bool) {
	if e.Dump == nil {
		return l, false, false
	}
	if l, ok = w.Apps.Dumped(e); !ok {
		return l, false, false
	}
	for _, r := range w.Recorder.Running() {
		if r.App == l.App && r.Arm == l.Arm {
			return r, true, true
		}
	}
	return l, false, true
}

// sameProcess guards against a process number that was used again.
func sameProcess(l evidence.Launch, e exits.Exit) bool {
	return l.PID == e.PID && (l.Start == 0 || e.Start == 0 || l.Start == e.Start)
}

// belongs finds the launched process that an exit is of: itself, its ancestor, or
// one in the control group or mount namespace of its own.
func (w *watching) belongs(e exits.Exit) (root int, child bool) {
	var group, space int
	apps := make(map[string]bool)
	for _, l := range w.Recorder.Running() {
		switch {
		case sameProcess(l, e):
			return l.PID, false
		case l.PID == e.Root:
			root = l.PID
		case l.Cgroup != 0 && l.Cgroup == e.Cgroup:
			group, apps[l.App] = l.PID, true
		case l.MountNamespace != 0 && l.MountNamespace == e.MountNamespace:
			space, apps[l.App] = l.PID, true
		}
	}
	switch {
	case root != 0:
		return root, true
	case len(apps) != 1:
		return 0, false // nobody's, or it is not clear whose
	}
	return max(group, space), true
}

func (w *watching) arm(pid int) (evidence.Arm, bool) {
	for _, l := range w.Recorder.Running() {
		if l.PID == pid {
			return l.Arm, true
		}
	}
	return evidence.Arm{}, false
}

func (w *watching) hold(e exits.Exit) {
	now := linux.Monotonic()
	w.held = append(w.held, held{e, now + heldFor})
	for len(w.held) > maxHeld || len(w.held) > 0 && w.held[0].until < now {
		w.held = w.held[1:]
	}
}

// damaged asks whether the content of an arm is damaged. The answer holds for a
// while: a storm of crashes must not read the disk a thousand times.
func (w *watching) damaged(arm evidence.Arm, now time.Duration) bool {
	if w.Damaged == nil {
		return true
	}
	if f, ok := w.whole[arm]; ok && now < f.until {
		return f.damaged
	}
	damaged, err := w.Damaged(arm)
	if err != nil {
		w.tell("cannot check the content of an app that crashed", err)
		damaged = true
	}
	w.whole[arm] = finding{damaged, now + wholeFor}
	return damaged
}

func (w *watching) tick() {
	w.find()
	w.Recorder.Tick(w.at(linux.Monotonic()), w.look)
	if lost := w.Source.Lost(); lost != w.told {
		w.tell("crashes may be missing", fmt.Errorf("%d exits of processes were lost", lost-w.told))
		w.told = lost
	}
	for pid, at := range w.crashed {
		if linux.Monotonic()-at > wholeFor {
			delete(w.crashed, pid)
		}
	}
	running := make(map[int]bool)
	for _, l := range w.Recorder.Running() {
		running[l.PID] = true
	}
	for pid := range w.cpu {
		if !running[pid] {
			delete(w.cpu, pid)
		}
	}
}

func (w *watching) look(l evidence.Launch) (alive, busy bool) {
	p, err := linux.OpenProcess(l.PID)
	if err != nil {
		return !linux.Gone(err), true
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		return !linux.Gone(err), true
	}
	if st.State == 'Z' || l.Start != 0 && st.Start != l.Start {
		return false, false
	}
	before, seen := w.cpu[l.PID]
	w.cpu[l.PID] = st.Processor
	return true, !seen || st.Processor >= before+busyTicks
}

// Describe says in one line, for a source of that name, how crashes are learned of, for people.
func Describe(source string, reason error) string {
	by := map[string]string{
		"connector": "the kernel's process connector", "coredump": "the journal of systemd-coredump",
		"connector+coredump": "the kernel's process connector and the journal of systemd-coredump",
	}
	if text, ok := by[source]; ok {
		return fmt.Sprintf("%s (not BPF: %v)", text, reason)
	}
	return "BPF on the exit of processes"
}
