package notify

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"

	"github.com/sealant-os/sealant/device/wording"
)

// The user's own service manager, on the session's bus where there is one.
const (
	manager       = "org.freedesktop.systemd1"
	managerObject = "/org/freedesktop/systemd1"
)

// environment is the session's, as its service manager knows it; empty where there
// is none.
func environment(ctx context.Context, conn *dbus.Conn) map[string]string {
	env := make(map[string]string)
	var words []string
	// Not asked to start: a bus without it has other ways.
	v := conn.Object(manager, managerObject).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, manager+".Manager", "Environment")
	var value dbus.Variant
	if v.Store(&value) != nil || value.Store(&words) != nil {
		return env
	}
	for _, w := range words {
		if name, value, ok := strings.Cut(w, "="); ok {
			env[name] = value
		}
	}
	return env
}

// localeFiles are where systems keep the language of those who chose none.
var localeFiles = []string{"/etc/locale.conf", "/etc/default/locale"}

// languageOf is what the person reads: the session's language, else the system's.
func languageOf(ctx context.Context, conn *dbus.Conn) *wording.Language {
	env := environment(ctx, conn)
	if env["LANG"] == "" && env["LC_ALL"] == "" && env["LC_MESSAGES"] == "" {
		for _, name := range localeFiles {
			if data, err := os.ReadFile(name); err == nil {
				for line := range strings.Lines(string(data)) {
					if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
						env[name] = strings.Trim(value, `"'`)
					}
				}
				break
			}
		}
	}
	return wording.Of(func(name string) string { return env[name] })
}

// runHere runs this program in the session: as a unit of the user's service manager,
// which gives it the session's environment and a life of its own; where there is
// none, as a plain process.
func runHere(ctx context.Context, conn *dbus.Conn, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot go on in the session: %w", err)
	}
	type property struct {
		Name  string
		Value dbus.Variant
	}
	type command struct {
		Path   string
		Args   []string
		Ignore bool
	}
	type auxiliary struct {
		Name       string
		Properties []property
	}
	call := conn.Object(manager, managerObject).CallWithContext(ctx, manager+".Manager.StartTransientUnit", dbus.FlagNoAutoStart,
		fmt.Sprintf("sealant-%s-%d.service", args[0], os.Getpid()), "fail", []property{
			{"Description", dbus.MakeVariant("Sealant " + strings.Join(args, " "))},
			// What it starts, as a relaunched app, outlives it.
			{"KillMode", dbus.MakeVariant("process")},
			{"ExecStart", dbus.MakeVariant([]command{{self, append([]string{self}, args...), false}})},
		}, []auxiliary{})
	if call.Err == nil {
		return nil
	}
	cmd := exec.Command(self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot go on in the session: %w", err)
	}
	return cmd.Process.Release()
}
