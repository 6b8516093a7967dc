package enforce

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sealant-os/sealant/internal/linux"
)

// How says how something was to be executed.
type How uint8

// The ways to execute. Their numbers are shared with the programs.
const (
	Exec    How = 1 // as a program, a script or an interpreter
	Map     How = 2 // mapped executable: a library, a program named to ld.so
	Protect How = 3 // mapped first and made executable then
)

// String is a stable code.
func (h How) String() string {
	switch h {
	case Exec:
		return "exec"
	case Map:
		return "mmap"
	case Protect:
		return "mprotect"
	}
	return "unknown"
}

// Reason says why something is refused.
type Reason uint8

// The reasons. Their numbers are shared with the programs.
const (
	Unlisted Reason = 1 // it lies in a cryptex that doesn't list it
	Outside  Reason = 2 // a strict app's, and it lies neither in a cryptex nor in the base
)

// String is a stable code.
func (r Reason) String() string {
	switch r {
	case Unlisted:
		return "unlisted"
	case Outside:
		return "outside"
	}
	return "unknown"
}

// Event is one refusal, or what would have been one.
type Event struct {
	At      time.Duration // on CLOCK_MONOTONIC
	How     How
	Reason  Reason
	Refused bool // false in Audit
	Table   Table
	Device  linux.Device
	Inode   uint64
	Name    string // the file's, without its folders; it may be cut, or "" where the kernel tells no names
	PID     int    // in the initial pid namespace
	UID     int
	Command string // the process's name, which it may have chosen itself
	Cgroup  uint64
}

// The bytes of an event as the programs write it, in the machine's byte order.
const (
	eventAt, eventInode, eventTable, eventCgroup = 0, 8, 16, 24
	eventDevice, eventPID, eventUID, eventWhat   = 32, 36, 40, 44
	eventCommand, commandSize, eventName         = 48, 16, 64
	nameSize                                     = 64
	eventSize                                    = eventName + nameSize
)

// Events reads what the programs tell. There must be one reader at a time.
type Events struct {
	guard  *Guard
	reader *ringbuf.Reader
}

// Events begins to read, with what was told while nobody read. The guard must
// stay open.
func (g *Guard) Events() (*Events, error) {
	r, err := ringbuf.NewReader(g.events)
	if err != nil {
		return nil, fmt.Errorf("cannot read the events of enforcement: %w", err)
	}
	return &Events{g, r}, nil
}

// Read waits for the next event. It returns os.ErrClosed after Close.
func (e *Events) Read() (Event, error) {
	for {
		raw, err := e.reader.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return Event{}, os.ErrClosed
		}
		if err != nil {
			return Event{}, fmt.Errorf("cannot read the events of enforcement: %w", err)
		}
		if event, number, ok := decode(raw.RawSample); ok {
			e.guard.name(&event, number)
			return event, nil
		}
	}
}

// Close ends a Read.
func (e *Events) Close() error { return e.reader.Close() }

func decode(b []byte) (event Event, table uint64, ok bool) {
	if len(b) != eventSize {
		return Event{}, 0, false
	}
	n := binary.NativeEndian
	what, dev := n.Uint32(b[eventWhat:]), n.Uint32(b[eventDevice:])
	text := func(at, size int) string {
		s, _, _ := bytes.Cut(b[at:at+size], []byte{0})
		return string(bytes.ToValidUTF8(s, []byte("?")))
	}
	return Event{
		At: time.Duration(n.Uint64(b[eventAt:])), Inode: n.Uint64(b[eventInode:]), Cgroup: n.Uint64(b[eventCgroup:]),
		Device: linux.Device{Major: dev >> 20, Minor: dev & (1<<20 - 1)},
		PID:    int(n.Uint32(b[eventPID:])), UID: int(n.Uint32(b[eventUID:])),
		How: How(what), Reason: Reason(what >> 8), Refused: Mode(what>>16&0xff) == Enforce,
		Command: text(eventCommand, commandSize), Name: text(eventName, nameSize),
	}, n.Uint64(b[eventTable:]), true
}

// name says which cryptex an event is about.
func (g *Guard) name(e *Event, number uint64) {
	tables, err := g.Tables()
	if err != nil || number == 0 {
		return
	}
	for _, t := range tables {
		if t.Number == number {
			e.Table = t
		}
	}
}

// String is one line for people.
func (e Event) String() string {
	verb := map[How]string{Exec: "execute", Map: "map as code", Protect: "make executable"}[e.How]
	name := e.Name
	if name == "" {
		name = fmt.Sprintf("inode %d of %s", e.Inode, e.Device)
	}
	who := fmt.Sprintf("%s (process %d, user %d)", e.Command, e.PID, e.UID)
	verdict := "was refused to"
	if !e.Refused {
		verdict = "would be refused to"
	}
	if e.Reason == Outside {
		return fmt.Sprintf("%s %s %s %s: a strict app executes only what is sealed", who, verdict, verb, name)
	}
	if e.Table.Name == "" {
		return fmt.Sprintf("%s %s %s %s: what may execute from its cryptex is not known", who, verdict, verb, name)
	}
	return fmt.Sprintf("%s %s %s %s: the trust cache of %s does not list it", who, verdict, verb, name, e.Table.Name)
}
