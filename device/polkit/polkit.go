// Package polkit asks the system's polkit whether somebody may do something.
//
// Parties: who asks is a process, known by what the kernel says of the other end
// of a socket, or a connection of the system's bus, known by what the bus says.
// What may be done is one of the actions of org.sealant.policy; an administrator
// changes who may do it by rules (polkit(8)). polkit may ask the person for a
// password, at the screen or on the terminal.
//
// Root may do everything; polkit isn't asked. Where no polkit answers only root
// may: nothing is open because a service is missing.
package polkit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Action is something that polkit decides on.
type Action string

// The actions, as packaging/polkit/org.sealant.policy has them.
const (
	Check     Action = "org.sealant.check"
	Install   Action = "org.sealant.install" // and reapply
	Relaunch  Action = "org.sealant.relaunch"
	Remove    Action = "org.sealant.remove"
	Restart   Action = "org.sealant.restart"
	SetPolicy Action = "org.sealant.set-policy"
	Share     Action = "org.sealant.share"
)

// Who asks. Name is that of a connection of the bus, or it is "" and PID is a
// process that was connected to a socket when it asked.
type Who struct {
	UID  uint32
	PID  int32
	Name string
	// Interactive says whether a person may be asked for a password.
	Interactive bool
}

// Limits on how long polkit may take; a person types slowly.
const (
	patience    = 5 * time.Second
	typingTime  = 3 * time.Minute
	interactive = uint32(1) // AllowUserInteraction of CheckAuthorization
)

const (
	busName   = "org.freedesktop.PolicyKit1"
	busPath   = "/org/freedesktop/PolicyKit1/Authority"
	busMethod = busName + ".Authority.CheckAuthorization"
)

type subject struct {
	Kind    string
	Details map[string]dbus.Variant
}

type answer struct {
	Authorized bool
	Challenge  bool
	Details    map[string]string
}

// Bus is the address of the system's bus of the machine whose files are below
// root.
func Bus(root string) string {
	return "unix:path=" + dbus.EscapeBusAddressValue(filepath.Join(root, "run/dbus/system_bus_socket"))
}

// Allow returns nil if who may do it; a refusal has the kind fault.Policy.
func Allow(ctx context.Context, root string, who Who, a Action) error {
	if who.UID == 0 {
		return nil
	}
	s, err := who.subject()
	if err != nil {
		return err
	}
	conn, err := dbus.Connect(Bus(root))
	if err != nil {
		return needsRoot()
	}
	defer conn.Close()
	limit, flags := patience, uint32(0)
	if who.Interactive {
		limit, flags = typingTime, interactive
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var got answer
	err = conn.Object(busName, busPath).CallWithContext(ctx, busMethod, 0, s, string(a), map[string]string{}, flags, "").Store(&got)
	var known dbus.Error
	switch {
	case errors.As(err, &known) && (known.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || known.Name == "org.freedesktop.DBus.Error.NameHasNoOwner"):
		return needsRoot()
	case err != nil:
		return fmt.Errorf("cannot ask polkit: %w", err)
	case got.Authorized:
		return nil
	case got.Challenge:
		return fault.New(fault.Policy, "cannot do that: an administrator's password is needed (%s), and nothing here can ask for it", a).
			Hint("run it with sudo, or from a session where polkit has an agent")
	}
	return fault.New(fault.Policy, "cannot do that: polkit does not allow it (%s)", a).Hint("run it with sudo; an administrator's polkit rules decide")
}

func needsRoot() error {
	return fault.New(fault.Failed, "cannot do that: it needs root").Hint("run it with sudo")
}

// subject describes who asks in polkit's words. A process is named with the time
// at which it started, so that its number can't come to mean another one.
func (w Who) subject() (subject, error) {
	if w.Name != "" {
		return subject{"system-bus-name", map[string]dbus.Variant{"name": dbus.MakeVariant(w.Name)}}, nil
	}
	p, err := linux.OpenProcess(int(w.PID))
	if err != nil {
		return subject{}, fmt.Errorf("cannot know who asks: %w", err)
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		return subject{}, fmt.Errorf("cannot know who asks: %w", err)
	}
	return subject{"unix-process", map[string]dbus.Variant{
		"pid":        dbus.MakeVariant(uint32(w.PID)),
		"start-time": dbus.MakeVariant(stat.Start),
		"uid":        dbus.MakeVariant(int32(w.UID)),
	}}, nil
}
