// Package evidence lets a device judge by itself whether an improvement makes an
// app crash. It counts, for each app and each content the app ran with, hours of
// use and crashes; and at a new crash of an app that the vendor lists it decides
// whether the person is to be asked. It removes nothing, and nothing of it ever
// leaves the device: this package has no way to the network.
//
// Parties: the vendor's signed list names apps and may be wrong or old; so the
// device asks only when its own counts say so too (internal/eprocess). An app can
// make itself crash, to have a security fix removed; so there is never more than
// a question, and the person is told what removing opens again. Root can write
// the store, and root can remove improvements anyway.
//
// spec/evidence.md has the rules of counting and the format on disk. The parts:
// a Store keeps observations; a Recorder turns launches, passing time and exits
// into observations, with the caller's clock (device/witness feeds it from the
// running machine); Recorder.Judge answers for one entry of the list; Prompts
// keeps what the person was asked.
package evidence

import (
	"fmt"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/linux"
)

// Instant is a moment on the three clocks that counting needs: which day it is,
// how much time passes, and since which boot.
type Instant struct {
	Wall time.Time     // may be wrong, and may jump
	Mono time.Duration // CLOCK_MONOTONIC: since boot, without suspend
	Boot string        // the kernel's boot id; Mono says nothing across two of them
}

// Now is this machine's Instant.
func Now() (Instant, error) {
	boot, err := linux.BootID()
	if err != nil {
		return Instant{}, err
	}
	return Instant{Wall: time.Now().UTC(), Mono: linux.Monotonic(), Boot: boot}, nil
}

// Add is the moment d later in the same boot.
func (i Instant) Add(d time.Duration) Instant {
	i.Wall, i.Mono = i.Wall.Add(d), i.Mono+d
	return i
}

// Arm is the content that an app runs with: the set of its mount namespace,
// stamped when it was launched. When something was installed says nothing about
// what a process runs.
type Arm struct {
	Base    string `json:"base"`    // the baseline's digest, in hex
	Release string `json:"release"` // "" for the baseline itself
	Level   int    `json:"level"`   // 0 for the baseline; levels of one baseline are cumulative
}

// Launch is an app that starts or was found running.
type Launch struct {
	PID     int
	App     string // app id
	Version string // of the app itself, outside of cryptexes; "" if it has none of its own
	Arm     Arm
	// Interactive says that a person uses the app: then only minutes count in
	// which it used the processor.
	Interactive bool
	// Start is the process's start in clock ticks since boot, 0 if unknown.
	Start uint64
	// What tells the app's other processes: the control group and the mount
	// namespace that are its own, 0 if it has none, and those that run already.
	Cgroup, MountNamespace uint64
	Others                 []int
}

// Exit is the end of a process of an app.
type Exit struct {
	PID    int            // the launched process
	Child  bool           // not that process itself ended but one that belongs to it
	Signal syscall.Signal // of a crash; 0 for every other end
	// Broken says that the app's content was damaged when this happened: repair
	// is due, and nothing is to be learned about the improvement.
	Broken bool
}

// Crash is what the recorder made of an app's crash.
type Crash struct {
	App     string
	Version string
	Arm     Arm
	At      Instant
	Signal  syscall.Signal
	Child   bool // of a process that the app's main process started
	Broken  bool // its content was damaged; it was not counted
	Main    bool // counted in the scope of main processes
	Any     bool // counted in the scope of any process
}

// Counted reports whether the crash counts at all; a second one within the
// refractory time does not.
func (c Crash) Counted() bool { return c.Main || c.Any }

// The scopes in which an app's crashes are counted; release.Advice names one.
const (
	ScopeMain = "main" // only its main process
	ScopeAny  = "any"  // any of its processes
)

// Baseline is how far back use without an improvement still counts, before the
// app first ran with it.
const Baseline = 90 * 24 * time.Hour

// The verdicts beyond those of the numbers alone (internal/eprocess).
const (
	Confounded eprocess.Verdict = "confounded"     // the app itself changed together with the improvement
	Repair     eprocess.Verdict = "repair"         // its content is damaged: repair, never remove
	NotActive  eprocess.Verdict = "not-active"     // the app has not run with the improvement
	NotListed  eprocess.Verdict = "not-listed"     // the vendor's list does not name it
	NotAsked   eprocess.Verdict = "asked-recently" // it would, but the person was asked within 7 days
)

// Words says a verdict in plain words.
func Words(v eprocess.Verdict) string {
	switch v {
	case eprocess.RecommendRemoval:
		return "crashes clearly more often with the improvement"
	case eprocess.NotSignificant:
		return "no sign that the improvement makes it crash"
	case eprocess.NotEnoughData:
		return fmt.Sprintf("too little use to judge (needs %d hours before and %d crashes since)", eprocess.MinHours, eprocess.MinCrashes)
	case Confounded:
		return "the app itself changed together with the improvement; no judgement"
	case Repair:
		return "its content is damaged on this disk; repair it, do not remove the improvement"
	case NotActive:
		return "has not run with the improvement yet"
	case NotListed:
		return "not on the vendor's list"
	case NotAsked:
		return "crashes clearly more often with the improvement; you were asked less than 7 days ago"
	}
	return string(v)
}
