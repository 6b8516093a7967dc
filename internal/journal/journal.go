// Package journal tells what happened to systemd's journal, with fields that
// programs can look for: one MESSAGE_ID for each kind of event, and what it is about
// in SEALANT_ fields. spec/journal.md is the specification.
//
// Parties: any of Sealant's programs, as root, writes; whoever may read the system's
// journal reads. The journal is a copy for people and for log collectors: the
// device's own history, which is chained, is what counts. So nothing waits for the
// journal and nothing depends on it: where there is none, Send says so and that is
// all.
//
// An entry is one datagram to journald's native socket: FIELD=value lines, and for
// a value with a line feed FIELD, a line feed, the value's length as 8 bytes
// little-endian, the value, a line feed. Sent by bare system calls, because the boot
// program, which tells too, links no network code.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Journal is the journal of one system.
type Journal struct{ socket string }

// At is the journal of the system whose file system starts at root. A device that
// lives in a folder does not write to the journal of the machine around it.
func At(root string) Journal {
	return Journal{filepath.Join("/", root, "run/systemd/journal/socket")}
}

// Entry is what is told. Empty fields are left out; a field with several values, as
// the cryptexes of a set, stands there several times.
type Entry struct {
	Event Event
	Text  string // one line for people; the event's own subject if empty

	Release  string        // SI-2026-0007
	Cryptex  []string      // web
	From, To string        // 42.3 (a), 42.3 (b)
	Seal     []string      // verity roots in hex, in the order of Cryptex
	Ticket   string        // SHA-384 of the ticket, in hex
	Reason   string        // a stable code
	Actor    string        // auto, user:UID, policy, recall
	App      string        // app id
	Duration time.Duration // 0 if it says nothing
	Priority Priority      // 0 for the event's own
}

// Limits of an entry, in bytes. Longer values are cut, so that whatever a program
// was told by others can't keep its message out of the journal.
const (
	maxValue  = 4 << 10
	maxValues = 64
)

// sendTime bounds how long a journal that stalls holds anybody up.
const sendTime = time.Second

// ErrNone says that there is no journal.
var ErrNone = errors.New("no journal answers")

// Send writes an entry.
func (j Journal) Send(e Entry) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot write to the journal: %w", err)
	}
	defer syscall.Close(fd)
	wait := syscall.NsecToTimeval(int64(sendTime))
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &wait); err != nil {
		return fmt.Errorf("cannot write to the journal: %w", err)
	}
	switch err := syscall.Sendto(fd, e.encode(), syscall.MSG_NOSIGNAL, &syscall.SockaddrUnix{Name: j.socket}); {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNone
	case err != nil:
		return fmt.Errorf("cannot write to the journal: %w", err)
	}
	return nil
}

func (e Entry) encode() []byte {
	k := kindOf(e.Event)
	text, priority := e.Text, e.Priority
	if text == "" {
		text = e.expand(k.subject)
	}
	if priority == 0 {
		priority = k.priority
	}
	var b bytes.Buffer
	field(&b, "MESSAGE", text)
	field(&b, "MESSAGE_ID", k.id)
	field(&b, "PRIORITY", strconv.Itoa(int(priority)))
	field(&b, "SYSLOG_IDENTIFIER", "sealant")
	for _, f := range e.fields() {
		field(&b, f.name, f.value)
	}
	return b.Bytes()
}

type pair struct{ name, value string }

func (e Entry) fields() []pair {
	all := []pair{{"SEALANT_EVENT", string(e.Event)}, {"SEALANT_RELEASE", e.Release}}
	for _, c := range e.Cryptex[:min(len(e.Cryptex), maxValues)] {
		all = append(all, pair{"SEALANT_CRYPTEX", c})
	}
	all = append(all, pair{"SEALANT_FROM", e.From}, pair{"SEALANT_TO", e.To})
	for _, s := range e.Seal[:min(len(e.Seal), maxValues)] {
		all = append(all, pair{"SEALANT_SEAL", s})
	}
	all = append(all,
		pair{"SEALANT_TICKET", e.Ticket}, pair{"SEALANT_REASON", e.Reason},
		pair{"SEALANT_ACTOR", e.Actor}, pair{"SEALANT_APP", e.App})
	if e.Duration > 0 {
		all = append(all, pair{"SEALANT_DURATION_MS", strconv.FormatInt(e.Duration.Milliseconds(), 10)})
	}
	return all
}

// expand fills the @FIELD@s of a subject, as journalctl -x does.
func (e Entry) expand(subject string) string {
	for _, f := range e.fields() {
		subject = strings.ReplaceAll(subject, "@"+f.name+"@", f.value)
	}
	return subject
}

func field(b *bytes.Buffer, name, value string) {
	if value == "" {
		return
	}
	if len(value) > maxValue {
		value = value[:maxValue]
	}
	b.WriteString(name)
	if strings.ContainsRune(value, '\n') {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
		b.WriteString(value)
	} else {
		b.WriteByte('=')
		b.WriteString(value)
	}
	b.WriteByte('\n')
}
