// Package bus is the agent on the system's message bus: org.sealant.Agent1, for
// desktops and management tools. spec/dbus.md is the specification.
//
// Parties: anybody on the bus may ask; who asks is what the bus says of the
// sender. The methods are those of the local socket (package localapi), with the
// same rules for who may do what. An answer is the JSON text that the command of
// the same name prints as its result.
//
//	busctl call org.sealant.Agent1 /org/sealant/Agent1 org.sealant.Agent1 Status
package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/polkit"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// The names on the bus.
const (
	Name      = "org.sealant.Agent1"
	Path      = dbus.ObjectPath("/org/sealant/Agent1")
	Interface = "org.sealant.Agent1"
	Failure   = "org.sealant.Agent1.Error." // followed by a reason of internal/fault
)

// ErrNone says that the machine has no system bus.
var ErrNone = errors.New("there is no system bus")

// agent has one method for each of the interface's.
type agent struct {
	ctx     context.Context
	conn    *dbus.Conn
	methods map[string]localapi.Method
	crowd   linux.Crowd // whose calls are under way
}

// Serve answers on the bus of the machine whose files are below root until ctx
// ends. It returns ErrNone where there is no bus.
func Serve(ctx context.Context, root string, methods map[string]localapi.Method) error {
	conn, err := dbus.Connect(polkit.Bus(root), dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrNone, err)
	}
	defer conn.Close()
	a := &agent{ctx: ctx, conn: conn, methods: methods, crowd: linux.Crowd{Each: localapi.Each, All: localapi.All}}
	if err := conn.Export(a, Path, Interface); err != nil {
		return fmt.Errorf("cannot serve on the bus: %w", err)
	}
	node := &introspect.Node{Name: string(Path), Interfaces: []introspect.Interface{introspect.IntrospectData, {Name: Interface, Methods: described}}}
	if err := conn.Export(introspect.NewIntrospectable(node), Path, "org.freedesktop.DBus.Introspectable"); err != nil {
		return fmt.Errorf("cannot serve on the bus: %w", err)
	}
	reply, err := conn.RequestName(Name, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("cannot have the name %s on the bus: %w", Name, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fault.New(fault.Busy, "cannot have the name %s on the bus: somebody else has it", Name)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-conn.Context().Done():
		if ctx.Err() != nil {
			return nil
		}
		return errors.New("the bus hung up")
	}
}

// described is what introspection says of the methods below.
var described = []introspect.Method{
	method("Status"), method("Processes"), method("Policy"), method("Doctor"), method("History"), method("Check"),
	method("Install", "release"), method("Reapply"), method("Relaunch", "service"), method("Remove"), method("CancelRemove"),
	method("Restart"),
	{Name: "SetAutomatic", Args: []introspect.Arg{{Name: "on", Type: "b", Direction: "in"}, {Name: "result", Type: "s", Direction: "out"}}},
}

func method(name string, in ...string) introspect.Method {
	m := introspect.Method{Name: name}
	for _, arg := range in {
		m.Args = append(m.Args, introspect.Arg{Name: arg, Type: "s", Direction: "in"})
	}
	m.Args = append(m.Args, introspect.Arg{Name: "result", Type: "s", Direction: "out"})
	return m
}

// Status, and the other methods that only read, are open to all.
func (a *agent) Status(m dbus.Message) (string, *dbus.Error)    { return a.do(m, "status", nil) }
func (a *agent) Processes(m dbus.Message) (string, *dbus.Error) { return a.do(m, "ps", nil) }
func (a *agent) Policy(m dbus.Message) (string, *dbus.Error)    { return a.do(m, "policy", nil) }
func (a *agent) Doctor(m dbus.Message) (string, *dbus.Error)    { return a.do(m, "doctor", nil) }
func (a *agent) History(m dbus.Message) (string, *dbus.Error)   { return a.do(m, "history", nil) }

// Check asks the vendor for news.
func (a *agent) Check(m dbus.Message) (string, *dbus.Error) { return a.do(m, "check", nil) }

// Install installs an improvement, the newest if its id is "".
func (a *agent) Install(m dbus.Message, release string) (string, *dbus.Error) {
	return a.do(m, "install", map[string]any{"release": release})
}

// Reapply puts removed improvements back.
func (a *agent) Reapply(m dbus.Message) (string, *dbus.Error) { return a.do(m, "reapply", nil) }

// Relaunch restarts a service on what is staged.
func (a *agent) Relaunch(m dbus.Message, service string) (string, *dbus.Error) {
	return a.do(m, "relaunch", map[string]any{"app": service})
}

// Remove removes all improvements; CancelRemove takes that back.
func (a *agent) Remove(m dbus.Message) (string, *dbus.Error) { return a.do(m, "remove", nil) }

// CancelRemove keeps the improvements after all.
func (a *agent) CancelRemove(m dbus.Message) (string, *dbus.Error) {
	return a.do(m, "remove", map[string]any{"cancel": true})
}

// Restart restarts the device.
func (a *agent) Restart(m dbus.Message) (string, *dbus.Error) { return a.do(m, "restart", nil) }

// SetAutomatic switches automatic installation.
func (a *agent) SetAutomatic(m dbus.Message, on bool) (string, *dbus.Error) {
	return a.do(m, "automatic", map[string]any{"on": on})
}

func (a *agent) do(m dbus.Message, name string, options map[string]any) (string, *dbus.Error) {
	result, err := a.call(m, name, options)
	if err == nil {
		var text []byte
		if text, err = json.Marshal(result); err == nil {
			return string(text), nil
		}
	}
	body := []any{err.Error()}
	if hint := fault.HintOf(err); hint != "" {
		body[0] = err.Error() + " (" + hint + ")"
	}
	return "", dbus.NewError(Failure+camel(fault.KindOf(err).String()), body)
}

func (a *agent) call(m dbus.Message, name string, options map[string]any) (any, error) {
	method, ok := a.methods[name]
	if !ok {
		return nil, fault.New(fault.Usage, "cannot do %s: this agent does not know it", name)
	}
	peer, err := a.sender(m)
	if err != nil {
		return nil, err
	}
	leave, ok := a.crowd.Enter(int(peer.UID))
	if !ok {
		return nil, fault.New(fault.Busy, "cannot do %s: too many calls are under way", name)
	}
	defer leave()
	if options == nil {
		options = map[string]any{}
	}
	params, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	if len(params) > localapi.MaxParams {
		return nil, fault.New(fault.Usage, "cannot do %s: the parameters are longer than %d bytes", name, localapi.MaxParams)
	}
	if method.Allow != nil {
		if err := method.Allow(a.ctx, peer); err != nil {
			return nil, err
		}
	}
	return method.Handle(a.ctx, peer, params, func(any) {})
}

// sender is who sent a message, as the bus knows it.
func (a *agent) sender(m dbus.Message) (localapi.Peer, error) {
	name, ok := m.Headers[dbus.FieldSender].Value().(string)
	if !ok {
		return localapi.Peer{}, fault.New(fault.Failed, "cannot know who asks: the message has no sender")
	}
	var known map[string]dbus.Variant
	if err := a.conn.BusObject().CallWithContext(a.ctx, "org.freedesktop.DBus.GetConnectionCredentials", 0, name).Store(&known); err != nil {
		return localapi.Peer{}, fmt.Errorf("cannot know who asks: %w", err)
	}
	uid, ok := known["UnixUserID"].Value().(uint32)
	if !ok {
		return localapi.Peer{}, fault.New(fault.Failed, "cannot know who asks: the bus does not say")
	}
	pid, _ := known["ProcessID"].Value().(uint32)
	return localapi.Peer{
		UID: uid, GID: ^uint32(0), PID: int32(pid), Bus: name,
		Silent: m.Flags&dbus.FlagAllowInteractiveAuthorization == 0,
	}, nil
}

// camel writes "not-eligible" as "NotEligible", for names of errors on the bus.
func camel(reason string) string {
	var b []byte
	up := true
	for i := range len(reason) {
		c := reason[i]
		switch {
		case c >= 'a' && c <= 'z' && up:
			b, up = append(b, c-'a'+'A'), false
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b, up = append(b, c), false
		default:
			up = true
		}
	}
	return string(b)
}
