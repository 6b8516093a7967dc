// Package login asks the login manager, logind, who wants the device not to be
// restarted now, and has it restart the device.
//
// Parties: logind knows the inhibitors that programs hold ("a disc is being
// burnt") and speaks on the system's bus. A machine without it has no
// inhibitors; it is restarted by a command.
package login

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/polkit"
)

const (
	busName = "org.freedesktop.login1"
	busPath = "/org/freedesktop/login1"
	face    = busName + ".Manager"
)

// patience is how long logind may take to answer.
const patience = 10 * time.Second

// ErrNone says that no login manager answers.
var ErrNone = errors.New("no login manager answers")

// Inhibitor is a program that wants no restart now.
type Inhibitor struct {
	Who, Why string // in its own words
	UID, PID uint32
}

func dial(ctx context.Context, root string) (*dbus.Conn, dbus.BusObject, error) {
	conn, err := dbus.Connect(polkit.Bus(root), dbus.WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%w)", ErrNone, err)
	}
	return conn, conn.Object(busName, busPath), nil
}

// Inhibitors are those that block a restart, of the machine whose files are below
// root. Those that only delay one are logind's affair.
func Inhibitors(ctx context.Context, root string) ([]Inhibitor, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, object, err := dial(ctx, root)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var rows []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := object.CallWithContext(ctx, face+".ListInhibitors", dbus.FlagNoAutoStart).Store(&rows); err != nil {
		return nil, explain(err)
	}
	var list []Inhibitor
	for _, r := range rows {
		// "block-weak" holds back whoever isn't root; a restart by policy is no
		// more urgent than that.
		if strings.HasPrefix(r.Mode, "block") && strings.Contains(":"+r.What+":", ":shutdown:") {
			list = append(list, Inhibitor{r.Who, r.Why, r.UID, r.PID})
		}
	}
	return list, nil
}

// Reboot has logind restart the device, in the ordinary way: programs are asked to
// end, and what delays a shutdown delays it.
func Reboot(ctx context.Context, root string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, object, err := dial(ctx, root)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := object.CallWithContext(ctx, face+".Reboot", dbus.FlagNoAutoStart, false).Err; err != nil {
		return explain(err)
	}
	return nil
}

func explain(err error) error {
	var known dbus.Error
	if errors.As(err, &known) && (known.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || known.Name == "org.freedesktop.DBus.Error.NameHasNoOwner") {
		return fmt.Errorf("%w (%w)", ErrNone, err)
	}
	return fmt.Errorf("cannot ask the login manager: %w", err)
}
