package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/wording"
)

// serviceTime is how long a notification service may take to start and answer.
const serviceTime = 20 * time.Second

// noService is the child's exit code where nobody shows messages.
const noService = 7

// ErrNoService says that the session has no notification service; the command
// ends with its ExitCode.
var ErrNoService = errors.New("no notification service")

// ExitCode is the exit code with which the child's command ends after an error.
func ExitCode(err error) int {
	if errors.Is(err, ErrNoService) {
		return noService
	}
	return 1
}

const (
	service = "org.freedesktop.Notifications"
	object  = "/org/freedesktop/Notifications"
)

// Child shows the message that it reads, on the session bus of its environment,
// and writes the chosen action's key. It ends when the message is gone.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var m Message
	dec := json.NewDecoder(io.LimitReader(in, maxMessage))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return fmt.Errorf("cannot read the message: %w", err)
	}
	conn, err := dbus.ConnectSessionBus()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoService, err)
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(service), dbus.WithMatchObjectPath(object), dbus.WithMatchInterface(service)); err != nil {
		return fmt.Errorf("%w: %w", ErrNoService, err)
	}
	id, err := show(ctx, conn, m)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			// Whoever asked no longer wants to know.
			return errors.Join(ctx.Err(), conn.Object(service, object).Call(service+".CloseNotification", 0, id).Err)
		case s, ok := <-signals:
			if !ok {
				return errors.New("the session's bus is gone")
			}
			if len(s.Body) != 2 || s.Body[0] != id {
				continue
			}
			switch s.Name {
			case service + ".ActionInvoked":
				key, _ := s.Body[1].(string)
				_, err := fmt.Fprintln(out, key)
				// Some services leave it on the screen.
				conn.Object(service, object).Call(service+".CloseNotification", 0, id)
				for _, a := range m.Actions {
					if a.Key == key && len(a.Run) > 0 {
						err = errors.Join(err, runHere(ctx, conn, a.Run))
					}
				}
				return err
			case service + ".NotificationClosed":
				return nil
			}
		}
	}
}

func show(ctx context.Context, conn *dbus.Conn, m Message) (id uint32, err error) {
	text := m.in(languageOf(ctx, conn))
	actions := []string{}
	for i, a := range m.Actions {
		label := a.Key
		if i < len(text.Labels) {
			label = text.Labels[i]
		}
		actions = append(actions, a.Key, label)
	}
	urgency, expire := byte(1), int32(-1)
	if m.Urgent {
		urgency, expire = 2, 0
	}
	// Not given up half way: a message without an id could not be taken back.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), serviceTime)
	defer stop()
	call := conn.Object(service, object).CallWithContext(ctx, service+".Notify", 0,
		"Sealant", uint32(0), "security-high", text.Summary, escape(text.Body), actions,
		map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency), "desktop-entry": dbus.MakeVariant("sealant")}, expire)
	if err := call.Store(&id); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoService, err)
	}
	return id, nil
}

// escape keeps a text plain where the service reads markup.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// in is the message in a language.
func (m Message) in(l *wording.Language) Text {
	if t, ok := m.Text[l.Tag()]; ok {
		return t
	}
	return m.Text[wording.English().Tag()]
}
