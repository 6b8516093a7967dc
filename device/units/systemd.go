package units

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

// The names that systemd has on D-Bus (org.freedesktop.systemd1(5)).
const (
	busName       = "org.freedesktop.systemd1"
	managerPath   = "/org/freedesktop/systemd1"
	managerFace   = busName + ".Manager"
	unitFace      = busName + ".Unit"
	serviceFace   = busName + ".Service"
	socketFace    = busName + ".Socket"
	jobRemoved    = managerFace + ".JobRemoved"
	propertiesGet = "org.freedesktop.DBus.Properties.GetAll"
)

// manager is a connection to systemd.
type manager struct {
	conn    *dbus.Conn
	object  dbus.BusObject
	signals chan *dbus.Signal
}

// connect opens systemd's private socket; a machine without systemd is a
// *fault.Unsupported.
func connect(ctx context.Context, st *store.Store) (*manager, error) {
	conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(st.SystemdSocketPath()), dbus.WithContext(ctx))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &fault.Unsupported{Feature: "restarting a service without systemd"}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reach systemd: %w", err)
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot reach systemd: %w", err)
	}
	m := &manager{conn, conn.Object(busName, managerPath), make(chan *dbus.Signal, 256)}
	conn.Signal(m.signals)
	if err := m.hello(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// helloTries is how often systemd is spoken to before it counts as deaf.
const helloTries = 10

// hello makes sure that systemd listens. What arrives together with the last line
// of the authentication it may leave unread until more arrives (seen with 257).
func (m *manager) hello(ctx context.Context) error {
	answers := make(chan *dbus.Call, helloTries)
	for i := range helloTries {
		m.object.GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case a := <-answers:
			if a.Err != nil {
				return fmt.Errorf("cannot reach systemd: %w", a.Err)
			}
			return nil
		case <-time.After(10 * time.Millisecond << i):
		case <-ctx.Done():
			return fmt.Errorf("cannot reach systemd: %w", ctx.Err())
		}
	}
	return errors.New("cannot reach systemd: it does not answer")
}

func (m *manager) close() { m.conn.Close() }

func (m *manager) call(ctx context.Context, method string, args ...any) *dbus.Call {
	return m.object.CallWithContext(ctx, managerFace+"."+method, 0, args...)
}

// reload has systemd read its units again. Nothing is restarted.
func (m *manager) reload(ctx context.Context) error {
	if err := m.call(ctx, "Reload").Err; err != nil {
		return fmt.Errorf("cannot have systemd read its units again: %w", err)
	}
	return nil
}

// unit is what systemd says of a service.
type unit struct {
	name, load, active, sub string
	invocation              string // hex; another one at each start
	refuses                 bool   // may not be stopped by hand
	triggers                []string
	kind                    string // Type=: simple, notify, …
	result                  string // of the service: success, exit-code, …
	status                  int32  // how its main process ended
	restarts                uint32
	pid                     uint32
}

func (u unit) up() bool { return u.active == "active" || u.active == "reloading" }

// look asks for a unit's state.
func (m *manager) look(ctx context.Context, name string) (unit, error) {
	u := unit{name: name}
	fail := func(err error) (unit, error) { return u, fmt.Errorf("cannot ask systemd about %s: %w", name, err) }
	var path dbus.ObjectPath
	if err := m.call(ctx, "LoadUnit", name).Store(&path); err != nil {
		return fail(err)
	}
	object := m.conn.Object(busName, path)
	var p map[string]dbus.Variant
	if err := object.CallWithContext(ctx, propertiesGet, 0, unitFace).Store(&p); err != nil {
		return fail(err)
	}
	var id []byte
	take(p, "LoadState", &u.load)
	take(p, "ActiveState", &u.active)
	take(p, "SubState", &u.sub)
	take(p, "InvocationID", &id)
	take(p, "RefuseManualStop", &u.refuses)
	take(p, "TriggeredBy", &u.triggers)
	u.invocation = hex.EncodeToString(id)
	if err := object.CallWithContext(ctx, propertiesGet, 0, serviceFace).Store(&p); err != nil {
		return fail(err)
	}
	take(p, "Type", &u.kind)
	take(p, "Result", &u.result)
	take(p, "ExecMainStatus", &u.status)
	take(p, "NRestarts", &u.restarts)
	take(p, "MainPID", &u.pid)
	return u, nil
}

// accepted says whether the instances of a template are made by a socket, one for
// each connection. Such a socket has the template's name.
func (m *manager) accepted(ctx context.Context, template string) bool {
	var path dbus.ObjectPath
	name := strings.TrimSuffix(template, "@.service") + ".socket"
	if err := m.call(ctx, "GetUnit", name).Store(&path); err != nil {
		return false // it is not loaded, so it listens to nobody
	}
	var p map[string]dbus.Variant
	if err := m.conn.Object(busName, path).CallWithContext(ctx, propertiesGet, 0, socketFace).Store(&p); err != nil {
		return false
	}
	var accept bool
	take(p, "Accept", &accept)
	return accept
}

// take reads a property; one that is missing or of another type stays zero.
func take[T any](p map[string]dbus.Variant, name string, dst *T) {
	if v, ok := p[name].Value().(T); ok {
		*dst = v
	}
}

// list names the loaded units that match a pattern and are not inactive.
func (m *manager) list(ctx context.Context, pattern string) ([]string, error) {
	var rows []struct {
		Name, Description, Load, Active, Sub, Follows string
		Path                                          dbus.ObjectPath
		Job                                           uint32
		JobType                                       string
		JobPath                                       dbus.ObjectPath
	}
	err := m.call(ctx, "ListUnitsByPatterns", []string{"active", "activating", "reloading"}, []string{pattern}).Store(&rows)
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd for %s: %w", pattern, err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names, nil
}

// job has a job done (TryRestartUnit, RestartUnit) and waits for its end; result
// is "done" if it went well.
func (m *manager) job(ctx context.Context, method, name string) (result string, err error) {
	var job dbus.ObjectPath
	if err := m.call(ctx, method, name, "replace").Store(&job); err != nil {
		return "", fmt.Errorf("cannot have systemd restart %s: %w", name, err)
	}
	for {
		select {
		case s, ok := <-m.signals:
			if !ok {
				return "", fmt.Errorf("cannot know how the restart of %s ended: systemd hung up", name)
			}
			if s.Name != jobRemoved || len(s.Body) != 4 || s.Body[1] != job {
				continue
			}
			result, _ := s.Body[3].(string)
			return result, nil
		case <-ctx.Done():
			return "", fmt.Errorf("cannot know how the restart of %s ended: %w", name, ctx.Err())
		}
	}
}
