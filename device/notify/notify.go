// Package notify shows a message to the person at the screen, by the freedesktop
// notification service of each logged-in user's session bus, and brings back the
// action that was chosen.
//
// A session bus speaks only with its own user. So the agent, which is root, starts
// itself again as that user (Child); that process has no privilege, talks D-Bus,
// says on its standard output what was chosen, and does in the session what is only
// that user's business, as relaunching an app. What it says is believed no more than
// that user would be: the caller asks its policy what a user may do. It speaks the
// session's language.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/fault"
)

// ChildCommand is the hidden command of sealant that calls Child.
const ChildCommand = "notify-child"

// Message is what is shown.
type Message struct {
	Text    map[string]Text `json:"text"`    // by language tag; English is always there
	Actions []Action        `json:"actions"` // in order; may be empty
	Urgent  bool            `json:"urgent"`  // it stays until it is answered or closed
}

// Text is a message in one language.
type Text struct {
	Summary string   `json:"summary"`
	Body    string   `json:"body"`   // plain text
	Labels  []string `json:"labels"` // of the actions, in their order
}

// Action is a button.
type Action struct {
	Key string `json:"key"` // what comes back
	// Run are arguments of this program: what it then does in the session, as that
	// user, with that user's rights. It may be empty.
	Run []string `json:"run,omitempty"`
}

// Say makes a text in every language.
func Say(say func(*wording.Language) Text) map[string]Text {
	all := make(map[string]Text)
	for tag, l := range wording.All() {
		all[tag] = say(l)
	}
	return all
}

// Closed is what comes back when the person closed the message, or it expired.
const Closed = ""

// Limits of the child's input and output, in bytes, and how long a message may
// wait for an answer.
const (
	maxMessage = 64 << 10
	maxChoice  = 4 << 10
	Patience   = 24 * time.Hour
)

// Session is a logged-in user with a session bus.
type Session struct {
	UID, GID uint32
	Bus      string // path of the bus's socket
}

// Sessions lists the session buses below runDir, which is /run/user: a folder for
// each user, made by the login manager and owned by that user.
func Sessions(runDir string) []Session {
	folders, err := os.ReadDir(runDir)
	if err != nil {
		return nil
	}
	var list []Session
	for _, f := range folders {
		uid, err := strconv.ParseUint(f.Name(), 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		bus := filepath.Join(runDir, f.Name(), "bus")
		fi, err := os.Lstat(bus)
		if err != nil || fi.Mode().Type() != os.ModeSocket {
			continue
		}
		// A socket that somebody else put there is not that user's bus.
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && uint64(st.Uid) == uid {
			list = append(list, Session{UID: st.Uid, GID: st.Gid, Bus: bus})
		}
	}
	return list
}

// Notifier starts the child.
type Notifier struct {
	// Self are program and arguments by which this program calls Child; nil means:
	// this program, with ChildCommand.
	Self []string
}

// Show shows a message in a session and waits until the person has chosen an
// action, has closed it, or ctx ends. A session without a notification service is a
// *fault.Unsupported.
func (n Notifier) Show(ctx context.Context, s Session, m Message) (chosen string, err error) {
	input, err := json.Marshal(m)
	if err != nil || len(input) > maxMessage {
		return "", fmt.Errorf("cannot show a message: %d bytes, %w", len(input), err)
	}
	self := n.Self
	if self == nil {
		self = []string{"/proc/self/exe", ChildCommand}
	}
	ctx, stop := context.WithTimeout(ctx, Patience)
	defer stop()
	cmd := exec.CommandContext(ctx, self[0], self[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir = "/"
	cmd.Env = []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=" + dbus.EscapeBusAddressValue(s.Bus), "PATH=/usr/bin:/bin"}
	cmd.Stdin = bytes.NewReader(input)
	var out, problem limited
	cmd.Stdout, cmd.Stderr = &out, &problem
	if os.Getuid() != int(s.UID) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.UID, Gid: s.GID}}
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == noService {
			return "", &fault.Unsupported{Feature: "showing messages in the session of user " + strconv.Itoa(int(s.UID))}
		}
		return "", fmt.Errorf("cannot show a message: %w: %s", err, strings.TrimSpace(problem.String()))
	}
	chosen = strings.TrimSpace(out.String())
	for _, a := range m.Actions {
		if a.Key == chosen {
			return chosen, nil
		}
	}
	return Closed, nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxChoice - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) String() string { return l.b.String() }
