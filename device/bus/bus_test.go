package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/localapi"
	"github.com/sealant-os/sealant/device/polkit"
	"github.com/sealant-os/sealant/internal/fault"
)

// busConfig is a bus on which everybody may do everything.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/></policy></busconfig>`

// daemon runs a bus for the machine below root.
func daemon(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, "run/dbus/system_bus_socket")
	config := filepath.Join(root, "bus.conf")
	for _, err := range []error{os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(config, fmt.Appendf(nil, busConfig, path), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--config-file="+config)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot run a bus (Debian package dbus-daemon): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the bus did not come up")
}

func TestServe(t *testing.T) {
	root := t.TempDir()
	if err := Serve(t.Context(), root, nil); !errors.Is(err, ErrNone) {
		t.Fatalf("without a bus: %v", err)
	}
	daemon(t, root)
	var asked localapi.Peer
	methods := map[string]localapi.Method{
		"status": {Handle: func(_ context.Context, p localapi.Peer, params json.RawMessage, _ func(any)) (any, error) {
			asked = p
			return map[string]string{"params": string(params)}, nil
		}},
		"install": {
			Allow: func(context.Context, localapi.Peer) error {
				return fault.New(fault.NotEligible, "cannot install: no").Hint("do this")
			},
			Handle: func(context.Context, localapi.Peer, json.RawMessage, func(any)) (any, error) {
				t.Error("done though it was refused")
				return nil, nil
			},
		},
		"remove": {Handle: func(_ context.Context, _ localapi.Peer, params json.RawMessage, _ func(any)) (any, error) {
			return string(params), nil
		}},
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, root, methods) }()

	conn, err := dbus.Connect(polkit.Bus(root))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	object := conn.Object(Name, Path)
	var text string
	for range 200 { // until it has its name
		if err = object.Call(Interface+".Status", 0).Store(&text); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil || text != `{"params":"{}"}` {
		t.Fatalf("%q, %v", text, err)
	}
	if int(asked.UID) != os.Getuid() || int(asked.PID) != os.Getpid() || asked.Bus != conn.Names()[0] || !asked.Silent {
		t.Errorf("%+v", asked)
	}
	call := <-conn.Send(&dbus.Message{
		Type: dbus.TypeMethodCall, Flags: dbus.FlagAllowInteractiveAuthorization, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant(Name), dbus.FieldPath: dbus.MakeVariant(Path),
			dbus.FieldInterface: dbus.MakeVariant(Interface), dbus.FieldMember: dbus.MakeVariant("Status"),
		},
	}, make(chan *dbus.Call, 1)).Done
	if call.Err != nil || asked.Silent {
		t.Errorf("%v %+v", call.Err, asked)
	}
	var known dbus.Error
	err = object.Call(Interface+".Install", 0, "SI-2026-0001").Err
	if !errors.As(err, &known) || known.Name != Failure+"NotEligible" || !strings.Contains(err.Error(), "do this") {
		t.Errorf("%v", err)
	}
	if err := object.Call(Interface+".CancelRemove", 0).Store(&text); err != nil || text != `"{\"cancel\":true}"` {
		t.Errorf("%q, %v", text, err)
	}
	for _, hostile := range []*dbus.Call{
		object.Call(Interface+".Install", 0), object.Call(Interface+".Install", 0, uint32(7)), object.Call(Interface+".NoSuch", 0),
		object.Call(Interface+".Reapply", 0), // this agent has no such method
	} {
		if hostile.Err == nil {
			t.Errorf("%+v", hostile)
		}
	}
	err = object.Call(Interface+".Install", 0, strings.Repeat("x", localapi.MaxParams)).Err
	if !errors.As(err, &known) || known.Name != Failure+"Usage" {
		t.Errorf("a very long name: %.200v", err)
	}
	// Nobody but one may be the agent.
	if err := Serve(ctx, root, methods); fault.KindOf(err) != fault.Busy {
		t.Errorf("a second agent: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Without polkit nobody but root may do anything.
func TestNoPolkit(t *testing.T) {
	root := t.TempDir()
	who := polkit.Who{UID: 1000, PID: int32(os.Getpid())}
	if err := polkit.Allow(t.Context(), root, who, polkit.Install); err == nil {
		t.Error("allowed without a bus")
	}
	daemon(t, root)
	if err := polkit.Allow(t.Context(), root, who, polkit.Install); err == nil || !strings.Contains(err.Error(), "needs root") {
		t.Error(err)
	}
	if err := polkit.Allow(t.Context(), root, polkit.Who{}, polkit.Install); err != nil {
		t.Error(err)
	}
}

// Errors are named after the reasons that the commands have.
func TestCamel(t *testing.T) {
	for in, want := range map[string]string{"failed": "Failed", "not-eligible": "NotEligible", "": "", "-x--y": "XY"} {
		if got := camel(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
