package exits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/linux"
)

// Connector is the second choice: the kernel's process connector, which tells of
// every fork and exit; the descendants of tracked processes are followed here.
// It takes the end of a process's first thread for the end of the process, knows
// no names, and of debuggers only those that attach to a running process.
type Connector struct {
	socket *os.File
	lost   atomic.Uint64

	mu     sync.Mutex
	roots  map[int]int  // process → its root
	traced map[int]bool // tracked processes that a debugger has attached to

	buffer  []byte
	pending []byte // messages of the last datagram that were not looked at yet
}

// OpenConnector subscribes to the process connector.
func OpenConnector() (*Connector, error) {
	socket, err := linux.ProcessEvents()
	if err != nil {
		return nil, err
	}
	return newConnector(socket), nil
}

func newConnector(socket *os.File) *Connector {
	return &Connector{socket: socket, roots: make(map[int]int), traced: make(map[int]bool), buffer: make([]byte, 1<<16)}
}

// Name is "connector".
func (*Connector) Name() string { return "connector" }

// Track follows a process.
func (c *Connector) Track(pid, root int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.roots) >= maxTracked {
		return fmt.Errorf("cannot follow process %d: %d are followed already", pid, maxTracked)
	}
	c.roots[pid] = root
	return nil
}

// Watch does nothing: the connector tells of no beginnings.
func (c *Connector) Watch([]Program) error { return nil }

// Read waits for the next end.
func (c *Connector) Read() (Exit, error) {
	for {
		for len(c.pending) > 0 {
			message, rest, ok := cutMessage(c.pending)
			c.pending = rest
			if !ok {
				c.lost.Add(1)
				break
			}
			if exit, ok := c.event(message); ok {
				return exit, nil
			}
		}
		n, err := c.socket.Read(c.buffer)
		switch {
		case errors.Is(err, os.ErrClosed):
			return Exit{}, os.ErrClosed
		case linux.Overrun(err):
			c.lost.Add(1)
		case err != nil:
			return Exit{}, fmt.Errorf("cannot read the exits of processes: %w", err)
		default:
			c.pending = c.buffer[:n]
		}
	}
}

// Sizes of the kernel's headers and events, in bytes.
const (
	netlinkHeader   = 16 // struct nlmsghdr
	connectorHeader = 20 // struct cn_msg
	eventHeader     = 16 // what, cpu and time of struct proc_event
	forkEvent       = 16
	ptraceEvent     = 16
	exitEvent       = 16 // up to the parent, which old kernels don't tell
)

// What an event is about.
const (
	eventFork   = 1
	eventPtrace = 0x100
	eventExit   = 1 << 31
)

// cutMessage cuts the first netlink message off a datagram and returns its
// struct proc_event.
func cutMessage(b []byte) (event, rest []byte, ok bool) {
	if len(b) < netlinkHeader {
		return nil, nil, false
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < netlinkHeader+connectorHeader+eventHeader || size > len(b) {
		return nil, nil, false
	}
	event = b[netlinkHeader+connectorHeader : size]
	return event, b[min(len(b), (size+3)&^3):], true
}

// event follows forks and turns the interesting ends into an Exit.
func (c *Connector) event(b []byte) (Exit, bool) {
	what := binary.NativeEndian.Uint32(b)
	at := time.Duration(binary.NativeEndian.Uint64(b[8:]))
	b = b[eventHeader:]
	field := func(i int) int { return int(int32(binary.NativeEndian.Uint32(b[4*i:]))) }
	switch {
	case what == eventFork && len(b) >= forkEvent:
		parent, child, childGroup := field(1), field(2), field(3)
		if child == childGroup && parent != childGroup {
			c.inherit(parent, child)
		}
	case what == eventPtrace && len(b) >= ptraceEvent:
		c.debug(field(1), field(2) != 0)
	case what == eventExit && len(b) >= exitEvent:
		pid, group := field(0), field(1)
		if pid != group {
			break // a thread
		}
		exit := Exit{PID: pid, Signal: syscall.Signal(field(2) & 0x7f), At: at}
		exit.Root, exit.Traced = c.drop(pid)
		if len(b) >= exitEvent+8 {
			exit.Parent = field(5)
		}
		return exit, exit.Root == pid || exit.Crash()
	}
	return Exit{}, false
}

func (c *Connector) inherit(parent, child int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if root, ok := c.roots[parent]; ok && len(c.roots) < maxTracked {
		c.roots[child] = root
	}
}

// debug notes that a debugger has attached to a process, or has let go of it.
func (c *Connector) debug(pid int, attached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, tracked := c.roots[pid]; tracked && attached {
		c.traced[pid] = true
	} else {
		delete(c.traced, pid)
	}
}

func (c *Connector) drop(pid int) (root int, traced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root, traced = c.roots[pid], c.traced[pid]
	delete(c.roots, pid)
	delete(c.traced, pid)
	return root, traced
}

// Lost counts the gaps in the kernel's report; each may hold several ends.
func (c *Connector) Lost() uint64 { return c.lost.Load() }

// Close unsubscribes.
func (c *Connector) Close() error { return c.socket.Close() }
