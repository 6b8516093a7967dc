package exits

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/linux"
)

// Dump is what systemd-coredump wrote of a crashed process.
type Dump struct {
	Executable string
	Unit       string // the system service, "" for none
	Mounts     string // its /proc/PID/mountinfo
}

// dumpID is systemd-coredump's MESSAGE_ID.
const dumpID = "fc2e22bc6ee647b6b90729ab34a250b1"

// maxDump bounds one record, in bytes; what is asked of it is some 20 KiB.
const maxDump = 4 << 20

// dumpFields are what is asked of a record: never the core itself.
var dumpFields = []string{
	"COREDUMP_PID", "COREDUMP_SIGNAL", "COREDUMP_TIMESTAMP", "COREDUMP_EXE", "COREDUMP_UNIT", "COREDUMP_COMM",
	"COREDUMP_PROC_MOUNTINFO", "_SYSTEMD_UNIT",
}

// Dumps follows the journal of systemd-coredump. It tells of crashes alone, some
// seconds late, but it knows what the process was and saw. Whatever sets the
// machine's core_pattern, sets it: this only reads.
type Dumps struct {
	journal *exec.Cmd
	lines   *bufio.Reader
	lost    atomic.Uint64
	end     sync.Once
	closed  atomic.Bool
}

// OpenDumps follows the journal from now on, if systemd-coredump is what takes this
// machine's core dumps.
func OpenDumps() (*Dumps, error) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || !bytes.Contains(pattern, []byte("systemd-coredump")) {
		return nil, errors.New("cannot follow core dumps: systemd-coredump does not take them")
	}
	cmd := exec.Command("journalctl", "--follow", "--lines=0", "--all", "--output=json", "--quiet", "--system",
		"--output-fields="+strings.Join(dumpFields, ","), "MESSAGE_ID="+dumpID)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot follow core dumps: %w", err)
	}
	return &Dumps{journal: cmd, lines: bufio.NewReaderSize(out, 64<<10)}, nil
}

// Name is "coredump".
func (*Dumps) Name() string { return "coredump" }

// Track does nothing: a record says by itself what crashed.
func (*Dumps) Track(int, int) error { return nil }

// Watch does nothing: core dumps tell of no beginnings.
func (*Dumps) Watch([]Program) error { return nil }

// Lost counts records that could not be read.
func (d *Dumps) Lost() uint64 { return d.lost.Load() }

// Close ends Read.
func (d *Dumps) Close() error {
	d.closed.Store(true)
	d.end.Do(func() {
		_ = d.journal.Process.Kill()
		go d.journal.Wait() // Read may still hold its output
	})
	return nil
}

// Read waits for the next core dump.
func (d *Dumps) Read() (Exit, error) {
	for {
		line, err := readLine(d.lines, maxDump)
		switch {
		case d.closed.Load():
			return Exit{}, os.ErrClosed
		case errors.Is(err, errLong):
			d.lost.Add(1)
			continue
		case err != nil:
			return Exit{}, fmt.Errorf("cannot follow core dumps any more: %w", err)
		}
		e, err := parseDump(line, time.Now(), linux.Monotonic())
		switch {
		case errors.Is(err, errForeign):
		case err != nil:
			d.lost.Add(1)
		default:
			return e, nil
		}
	}
}

var (
	errLong    = errors.New("a line that is too long")
	errForeign = errors.New("not written by systemd-coredump")
)

// readLine reads a line of at most limit bytes; a longer one is read to its end.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			line, long = nil, true
		}
		if !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0, err != nil:
			return nil, errors.Join(err, io.ErrUnexpectedEOF)
		case long:
			return nil, errLong
		default:
			return line, nil
		}
	}
}

// text is a field of journalctl's JSON: a string, or the bytes of one that isn't
// printable, or null where it is too long, or a list of those.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err == nil {
		*t = text(s)
		return nil
	}
	var octets []uint16
	if err := json.Unmarshal(data, &octets); err == nil {
		b := make([]byte, len(octets))
		for i, o := range octets {
			b[i] = byte(o)
		}
		*t = text(b)
	}
	return nil // what can't be read is empty
}

// parseDump reads one record, that was read now.
func parseDump(line []byte, wall time.Time, mono time.Duration) (Exit, error) {
	var r struct {
		PID       text `json:"COREDUMP_PID"`
		Signal    text `json:"COREDUMP_SIGNAL"`
		Timestamp text `json:"COREDUMP_TIMESTAMP"` // microseconds since 1970
		Exe       text `json:"COREDUMP_EXE"`
		Unit      text `json:"COREDUMP_UNIT"`
		Command   text `json:"COREDUMP_COMM"`
		Mounts    text `json:"COREDUMP_PROC_MOUNTINFO"`
		By        text `json:"_SYSTEMD_UNIT"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return Exit{}, fmt.Errorf("cannot read a record of a core dump: %w", err)
	}
	// Anybody may write to the journal; which service wrote, journald says.
	if !strings.HasPrefix(string(r.By), "systemd-coredump@") {
		return Exit{}, errForeign
	}
	pid, err := strconv.Atoi(string(r.PID))
	signal, err2 := strconv.Atoi(string(r.Signal))
	stamp, err3 := strconv.ParseInt(string(r.Timestamp), 10, 64)
	if err := errors.Join(err, err2, err3); err != nil || pid <= 0 || signal <= 0 || signal > 64 {
		return Exit{}, fmt.Errorf("cannot read a record of a core dump: process %q, signal %q, time %q", r.PID, r.Signal, r.Timestamp)
	}
	// Not before this boot, and not in the future: the clock may have been set between.
	at := mono - max(0, wall.Sub(time.UnixMicro(stamp)))
	return Exit{
		PID: pid, Signal: syscall.Signal(signal), At: max(0, at), Command: string(r.Command),
		Dump: &Dump{Executable: string(r.Exe), Unit: string(r.Unit), Mounts: string(r.Mounts)},
	}, nil
}
