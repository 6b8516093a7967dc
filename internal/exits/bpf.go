package exits

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/layout"
	"github.com/sealant-os/sealant/internal/linux"
)

// BPF is the first choice: three programs of a few dozen instructions, on fork,
// exec and exit, in the kernel's own type format (BTF), so that they fit every kernel
// from 5.8 on without a compiler.
type BPF struct {
	tracked  *ebpf.Map // process → its root
	programs *ebpf.Map // watched programs
	lost     *ebpf.Map
	ring     *ebpf.Map

	watch    sync.Mutex
	watched  map[Program]bool
	reader   *ringbuf.Reader
	attached []*ebpf.Program
	closers  []interface{ Close() error }
	missed   atomic.Uint64 // records that could not be read
	close    sync.Once
}

// ringSize holds 16 384 ends between two reads.
const ringSize = 1 << 20

// record is what the programs write, in the machine's byte order.
type record struct {
	At, Cgroup, Start                         uint64
	PID, Root, Code, Parent, Namespace, Trace uint32
	Command                                   [16]byte
	Program                                   programKey // of a beginning; empty at an end
}

const recordSize = 80

// programKey is a Program as the kernel has it.
type programKey struct {
	Inode  uint64
	Device uint32 // major number << 20 | minor number
	Began  uint32 // 1 in a record of a beginning; 0 in a key
}

// OpenBPF loads and attaches the programs.
func OpenBPF() (*BPF, error) {
	b := &BPF{}
	if err := b.open(); err != nil {
		b.Close()
		if errors.Is(err, ebpf.ErrNotSupported) || layout.Missing(err) {
			return nil, fmt.Errorf("%w (%w)", &fault.Unsupported{Feature: "BPF on the exit of processes", Kernel: "5.8"}, err)
		}
		return nil, fmt.Errorf("cannot watch the exit of processes by BPF: %w", err)
	}
	return b, nil
}

func (b *BPF) open() error {
	// Kernels before 5.11 charge maps against the locked memory limit. (The
	// library's own package for this makes a map whenever a program that links it
	// starts, which costs each command some milliseconds.)
	if !linux.AtLeast("5.11") {
		if err := linux.LockAnyMemory(); err != nil {
			return err
		}
	}
	kernel, err := layout.Running()
	if err != nil {
		return err
	}
	at, err := offsets(kernel)
	if err != nil {
		return err
	}
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&b.tracked, ebpf.MapSpec{Name: "sealant_tracked", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxTracked}},
		{&b.programs, ebpf.MapSpec{Name: "sealant_program", Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: MaxPrograms}},
		{&b.lost, ebpf.MapSpec{Name: "sealant_lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
		{&b.ring, ebpf.MapSpec{Name: "sealant_exits", Type: ebpf.RingBuf, MaxEntries: ringSize}},
	} {
		if *m.to, err = ebpf.NewMap(&m.spec); err != nil {
			return err
		}
		b.closers = append(b.closers, *m.to)
	}
	if b.reader, err = ringbuf.NewReader(b.ring); err != nil {
		return err
	}
	b.closers = append(b.closers, b.reader)
	for hook, code := range map[string]asm.Instructions{
		"sched_process_fork": b.onFork(at),
		"sched_process_exec": b.onExec(at),
		"sched_process_exit": b.onExit(at),
	} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: hook[len("sched_"):], Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: hook,
			License: "Dual BSD/GPL", Instructions: code,
		})
		if err != nil {
			return err
		}
		b.closers = append(b.closers, program)
		b.attached = append(b.attached, program)
		attached, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return err
		}
		b.closers = append(b.closers, attached)
	}
	return nil
}

// Name is "ebpf".
func (*BPF) Name() string { return "ebpf" }

// Track follows a process.
func (b *BPF) Track(pid, root int) error {
	if err := b.tracked.Put(uint32(pid), uint32(root)); err != nil {
		return fmt.Errorf("cannot follow process %d: %w", pid, err)
	}
	return nil
}

// Watch replaces the programs whose beginnings are told.
func (b *BPF) Watch(programs []Program) error {
	b.watch.Lock()
	defer b.watch.Unlock()
	if len(programs) > MaxPrograms {
		return fmt.Errorf("cannot watch %d programs, at most %d", len(programs), MaxPrograms)
	}
	next := make(map[Program]bool, len(programs))
	for _, p := range programs {
		next[p] = true
	}
	for p := range b.watched {
		if next[p] {
			continue
		}
		if err := b.programs.Delete(keyOf(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("cannot forget a program: %w", err)
		}
		delete(b.watched, p)
	}
	if b.watched == nil {
		b.watched = make(map[Program]bool)
	}
	for p := range next {
		if b.watched[p] {
			continue
		}
		if err := b.programs.Put(keyOf(p), uint32(1)); err != nil {
			return fmt.Errorf("cannot watch a program: %w", err)
		}
		b.watched[p] = true
	}
	return nil
}

func keyOf(p Program) programKey {
	return programKey{Inode: p.Inode, Device: p.Device.Major<<20 | p.Device.Minor}
}

// Read waits for the next end.
func (b *BPF) Read() (Exit, error) {
	for {
		raw, err := b.reader.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return Exit{}, os.ErrClosed
		}
		if err != nil {
			return Exit{}, fmt.Errorf("cannot read the exits of processes: %w", err)
		}
		exit, ok := decode(raw.RawSample)
		if ok {
			return exit, nil
		}
		b.missed.Add(1)
	}
}

func decode(raw []byte) (Exit, bool) {
	var r record
	if len(raw) != recordSize {
		return Exit{}, false
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &r); err != nil {
		return Exit{}, false
	}
	name, _, _ := bytes.Cut(r.Command[:], []byte{0})
	return Exit{
		PID: int(r.PID), Root: int(r.Root), Parent: int(r.Parent),
		Signal: syscall.Signal(r.Code & 0x7f), Traced: r.Trace != 0, Command: string(name),
		Began: r.Program.Began != 0, Program: Program{
			Device: linux.Device{Major: r.Program.Device >> 20, Minor: r.Program.Device & (1<<20 - 1)}, Inode: r.Program.Inode,
		},
		At: time.Duration(r.At), Start: r.Start / (uint64(time.Second) / clockTicks), Cgroup: r.Cgroup, MountNamespace: uint64(r.Namespace),
	}, true
}

// clockTicks per second are what /proc counts in, on every architecture that
// Go runs on under Linux.
const clockTicks = 100

// Lost counts ends that did not fit the ring or could not be read.
func (b *BPF) Lost() uint64 {
	var n uint64
	if err := b.lost.Lookup(uint32(0), &n); err != nil {
		n = 0
	}
	return n + b.missed.Load()
}

// Close detaches the programs; a second one does nothing.
func (b *BPF) Close() error {
	var errs []error
	b.close.Do(func() {
		for i := len(b.closers) - 1; i >= 0; i-- {
			errs = append(errs, b.closers[i].Close())
		}
	})
	return errors.Join(errs...)
}
