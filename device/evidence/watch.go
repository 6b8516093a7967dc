package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// Rhythm of a Watch.
const (
	tickEvery  = time.Minute      // use is counted by the minute
	flushEvery = 10 * time.Minute // exposure that a power cut may cost
	heldFor    = 10 * time.Second // an exit may be told before its launch
	maxHeld    = 256
	backlog    = 4096 // exits that wait while one is worked on; the kernel keeps more
	wholeFor   = 10 * time.Minute
)

// busyTicks is how much processor time, in hundredths of a second, makes a minute
// of an interactive app count. An idle window blinks its cursor with less.
const busyTicks = 5

// Source is what a Watch learns of exits from; internal/exits has two.
type Source interface {
	Track(pid int) error
	Read() (exits.Exit, error)
	Lost() uint64
	Close() error
}

// Watch feeds a Recorder from the running machine.
type Watch struct {
	Recorder *Recorder
	Source   Source

	// Running lists the apps that run; it is asked at the start and at every tick,
	// and finds what nobody launched. Optional.
	Running func() ([]Launch, error)
	// Damaged says whether the content of an arm fails its seal on this disk; it
	// is asked at crashes. Without it a SIGBUS from a cryptex counts as damage.
	Damaged func(Arm) (bool, error)
	// OnCrash is told of every counted crash and of every one with damaged
	// content, one at a time; exits wait meanwhile, the programs do not.
	OnCrash func(Crash)
	Log     *slog.Logger

	launches chan Launch
	setUp    sync.Once
	now      func() (Instant, error)
}

// Launched tells of an app that starts. Called before the app's first instruction
// it misses nothing; called after, an exit that was faster still finds it.
func (w *Watch) Launched(ctx context.Context, l Launch) error {
	w.init()
	if err := w.Source.Track(l.PID); err != nil {
		return err
	}
	select {
	case w.launches <- l:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *Watch) init() {
	w.setUp.Do(func() {
		w.launches = make(chan Launch, 64)
		if w.now == nil {
			w.now = Now
		}
		if w.Log == nil {
			w.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Run watches until ctx ends, then writes what it has. It closes the source.
func (w *Watch) Run(ctx context.Context) error {
	w.init()
	at, err := w.now()
	if err != nil {
		return err
	}
	loop := watching{Watch: w, boot: at.Boot, cpu: make(map[int]uint64), whole: make(map[Arm]finding)}
	ended := make(chan exits.Exit, backlog)
	var failed error
	go func() {
		defer close(ended)
		for {
			exit, err := w.Source.Read()
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					failed = err // read after ended was closed
				}
				return
			}
			ended <- exit
		}
	}()
	stop := context.AfterFunc(ctx, func() { w.Source.Close() })
	defer stop()

	tick, flush := time.NewTicker(tickEvery), time.NewTicker(flushEvery)
	defer tick.Stop()
	defer flush.Stop()
	loop.find()
	for {
		select {
		case l := <-w.launches:
			loop.launch(l)
		case exit, ok := <-ended:
			if !ok {
				w.Source.Close()
				return errors.Join(failed, w.Recorder.Flush())
			}
			loop.launched() // who was told of before it ended is known before its end
			loop.exit(exit)
		case <-tick.C:
			loop.tick()
		case <-flush.C:
			w.tell("cannot keep the evidence", w.Recorder.Flush())
		}
	}
}

func (w *Watch) tell(what string, err error) {
	if err != nil {
		w.Log.Warn(what, "error", err)
	}
}

// watching is a Watch under way, in one goroutine.
type watching struct {
	*Watch
	boot  string
	cpu   map[int]uint64  // processor time of a launched process at the last tick
	held  []held          // crashes of processes that nobody launched yet
	whole map[Arm]finding // whether an arm's content was found damaged
	told  uint64          // lost exits that were told
}

type held struct {
	exits.Exit
	until time.Duration
}

type finding struct {
	damaged bool
	until   time.Duration
}

// launched takes the launches that wait.
func (w *watching) launched() {
	for {
		select {
		case l := <-w.launches:
			w.launch(l)
		default:
			return
		}
	}
}

// at is a moment of this boot on all clocks.
func (w *watching) at(mono time.Duration) Instant {
	return Instant{Wall: time.Now().UTC().Add(mono - linux.Monotonic()), Mono: mono, Boot: w.boot}
}

func (w *watching) launch(l Launch) {
	now := linux.Monotonic()
	if err := w.Recorder.Launch(l, w.at(now)); err != nil {
		w.tell("cannot count a launch", err)
		return
	}
	// Exits that were faster than the launch: its own is the last of them.
	waiting := w.held
	w.held = nil
	for _, h := range waiting {
		older := h.PID == l.PID && l.Start != 0 && h.Start != 0 && h.Start != l.Start
		if (h.PID == l.PID || h.Root == l.PID) && !older {
			w.exit(h.Exit)
		} else {
			w.held = append(w.held, h)
		}
	}
}

// find records what runs already, and what started without a launcher.
func (w *watching) find() {
	if w.Running == nil {
		return
	}
	running, err := w.Running()
	w.tell("cannot look which apps run", err)
	known := make(map[int]bool)
	for _, l := range w.Recorder.Running() {
		known[l.PID] = true
	}
	for _, l := range running {
		if known[l.PID] {
			continue
		}
		w.tell("cannot follow an app", w.Source.Track(l.PID))
		w.launch(l)
	}
}

func (w *watching) exit(e exits.Exit) {
	at := w.at(e.At)
	root, child := w.belongs(e)
	if root == 0 {
		if e.Crash() {
			w.hold(e)
		}
		return
	}
	exit := Exit{PID: root, Child: child}
	if e.Crash() {
		exit.Signal = e.Signal
		if arm, ok := w.arm(root); ok {
			exit.Broken = w.damaged(arm, e.Signal, at.Mono)
		}
	}
	crash, ok, err := w.Recorder.Exit(exit, at)
	w.tell("cannot keep the evidence of a crash", err)
	if ok && (crash.Counted() || crash.Broken) && w.OnCrash != nil {
		w.OnCrash(crash)
	}
}

// belongs finds the launched process that an exit is of: itself, its ancestor, or
// one in the control group or mount namespace of its own.
func (w *watching) belongs(e exits.Exit) (root int, child bool) {
	var group, space int
	apps := make(map[string]bool)
	for _, l := range w.Recorder.Running() {
		switch {
		case l.PID == e.PID:
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

func (w *watching) arm(pid int) (Arm, bool) {
	for _, l := range w.Recorder.Running() {
		if l.PID == pid {
			return l.Arm, true
		}
	}
	return Arm{}, false
}

func (w *watching) hold(e exits.Exit) {
	now := linux.Monotonic()
	w.held = append(w.held, held{e, now + heldFor})
	for len(w.held) > maxHeld || len(w.held) > 0 && w.held[0].until < now {
		w.held = w.held[1:]
	}
}

// damaged asks whether the crash may come from damaged content. The answer holds
// for a while: a storm of crashes must not read the disk a thousand times.
func (w *watching) damaged(arm Arm, signal syscall.Signal, now time.Duration) bool {
	if w.Damaged == nil {
		return signal == syscall.SIGBUS
	}
	if f, ok := w.whole[arm]; ok && now < f.until {
		return f.damaged
	}
	damaged, err := w.Damaged(arm)
	if err != nil {
		w.tell("cannot check the content of an app that crashed", err)
		damaged = signal == syscall.SIGBUS
	}
	w.whole[arm] = finding{damaged, now + wholeFor}
	return damaged
}

func (w *watching) tick() {
	w.find()
	w.Recorder.Tick(w.at(linux.Monotonic()), w.look)
	if lost := w.Source.Lost(); lost != w.told {
		w.Log.Warn("exits of processes were lost; crashes may be missing", "lost", lost-w.told)
		w.told = lost
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

func (w *watching) look(l Launch) (alive, busy bool) {
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

// Describe says in one line how crashes are learned of, for doctor.
func Describe(source exits.Source, reason error) string {
	switch {
	case source == nil:
		return fmt.Sprintf("crashes are not counted: %v", reason)
	case reason != nil:
		return fmt.Sprintf("crashes are counted by the %s (not by BPF: %v)", source.Name(), reason)
	}
	return "crashes are counted by BPF on the exit of processes"
}
