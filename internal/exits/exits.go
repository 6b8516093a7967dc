// Package exits tells how processes end, and how watched programs begin, as the
// kernel says it and for no process more than a few microseconds: nothing here
// ever stands between a crashing program and its end. It displaces nobody: core
// dumps go on as before.
//
// The first choice are BPF programs on the kernel's own fork, exec and exit
// tracepoints: they name the process, its ancestor, control group and mount namespace
// at that moment. Where they can't run, the kernel's process connector tells of the
// same ends, with less about each, and of no beginnings; and the journal of
// systemd-coredump, where that takes core dumps, tells seconds later what a crashed
// process was and which content it saw. All need root.
//
// The package is the kernel's boundary for this one thing, beside internal/linux:
// the BPF library starts programs (os/exec) and must not be linked into sealant-boot.
package exits

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/linux"
)

// Program is an executable file, by the number of its file system and its inode.
type Program struct {
	Device linux.Device
	Inode  uint64
}

// Exit is the end of one process, all its threads included. It is told once. With
// Began it is the beginning of a watched program instead.
type Exit struct {
	PID    int            // in the initial pid namespace
	Root   int            // the tracked process that it is or descends from, 0 if none is known
	Parent int            // its parent at the end
	Signal syscall.Signal // what ended it, 0 if it ended by itself
	Traced bool           // a debugger was attached
	At     time.Duration  // on CLOCK_MONOTONIC

	// What systemd-coredump wrote, nil if it is not it that tells: it may tell of a
	// crash that another source has told of.
	Dump *Dump

	// What only BPF knows; zero otherwise.
	Began          bool    // the process has begun to run Program; from now on it is tracked
	Program        Program // of a beginning
	Command        string  // its name, at most 15 bytes; it may have chosen it itself
	Start          uint64  // clock ticks between boot and its start, as in /proc/PID/stat
	Cgroup         uint64  // the id of its control group, version 2
	MountNamespace uint64  // the inode number of its mount namespace
}

// crashes are the signals by which a program dies of its own fault. SIGKILL is
// not among them: people, the memory limit and shutdown use it.
const crashes uint64 = 1<<syscall.SIGILL | 1<<syscall.SIGTRAP | 1<<syscall.SIGABRT | 1<<syscall.SIGBUS |
	1<<syscall.SIGFPE | 1<<syscall.SIGSEGV | 1<<syscall.SIGSYS

// Crash reports whether the process died of a fault: by one of the signals ILL,
// TRAP, ABRT, BUS, FPE, SEGV and SYS, and not in a debugger.
func (e Exit) Crash() bool {
	return !e.Began && e.Signal > 0 && e.Signal < 64 && crashes&(1<<uint(e.Signal)) != 0 && !e.Traced
}

// Source tells of the end of every tracked process, whatever it was, and of
// every process that dies by a crash signal, tracked or not.
type Source interface {
	// Name is "ebpf", "connector", "coredump" or "connector+coredump".
	Name() string
	// Track follows a process: it, and what it starts from now on, belongs to the
	// root, which is the process itself or one that it descends from.
	Track(pid, root int) error
	// Watch replaces the programs whose beginnings are told, at most MaxPrograms. A
	// process of a tracked one that begins such a program stays what it is.
	Watch(programs []Program) error
	// Read waits for the next end. It returns os.ErrClosed after Close.
	Read() (Exit, error)
	// Lost counts ends that the kernel could not hand over.
	Lost() uint64
	Close() error
}

// Open takes the best source that this machine has. The error lists why there is
// none; the reason says why the first choice was not taken, nil if it was.
func Open() (source Source, reason, err error) {
	first, reason := OpenBPF()
	if reason == nil {
		return first, nil, nil
	}
	second, err := OpenConnector()
	dumps, err2 := OpenDumps()
	switch {
	case err == nil && err2 == nil:
		return Both(second, dumps), reason, nil
	case err == nil:
		return second, reason, nil
	case err2 == nil:
		return dumps, reason, nil
	}
	return nil, reason, fmt.Errorf("cannot learn of crashes: %w", errors.Join(reason, err, err2))
}

// maxTracked bounds the processes that are followed at once.
const maxTracked = 1 << 14

// MaxPrograms bounds the programs whose beginnings are told.
const MaxPrograms = 1 << 12
