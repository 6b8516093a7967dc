package device

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/login"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/journal"
)

// RestartOptions say whether to restart, or only to say what would come.
type RestartOptions struct {
	Simulate bool `json:"simulate"`
}

// Restarted is what the next boot will do.
type Restarted struct {
	From    string   `json:"from"` // what runs: "42.3 base"
	To      string   `json:"to"`   // what the next boot tries
	Tries   int      `json:"tries"`
	Checks  []string `json:"checks"`  // what was verified, in a simulation
	Command []string `json:"command"` // what restarts this device, unless its login manager does
}

// Restart restarts the device, so that what is staged takes force everywhere.
// A simulation verifies what the boot will verify, every byte of it, and
// restarts nothing.
func (d *Device) Restart(ctx context.Context, o RestartOptions, report Report) (Restarted, error) {
	if _, err := d.enrolled(); err != nil {
		return Restarted{}, err
	}
	st, err := d.state()
	if err != nil {
		return Restarted{}, err
	}
	res := Restarted{Checks: []string{}, Command: d.restartCommand()}
	set := st.running()
	if set == nil {
		return res, fault.New(fault.Failed, "cannot say what the next boot would use: no set belongs to the installed system").Hint("sealant check")
	}
	res.From, res.To = setName(d.bootedSet()), setName(*set)
	if st.next != nil {
		if res.Tries, err = d.Store.Tries(); err != nil || res.Tries == 0 {
			return res, fault.New(fault.Failed, "%s is staged, but the boot would not try it: it has no tries left (%w)", res.To, err).Hint("sealant install stages it again")
		}
	}
	if o.Simulate {
		if err := activate.Verify(ctx, d.Store, *set, report.progress("verify")); err != nil {
			return res, err
		}
		res.Checks = append(res.Checks, "ticket: this device, this baseline, nonce in force", "images: all bytes read, digests and seals equal the ticket")
		return res, nil
	}
	if os.Geteuid() != 0 {
		return res, fault.New(fault.Failed, "cannot restart: that needs root").Hint("sudo sealant restart")
	}
	_ = d.journal().Send(journal.Entry{Event: journal.Restarting, From: res.From, To: res.To, Release: set.Release, Reason: "asked"})
	return res, d.reboot(ctx)
}

// reboot has the login manager restart the device, which asks programs to end and
// lets those that delay a shutdown finish; where there is none, or agent.toml names
// another way, a command does. Whoever blocks a restart is heard, also by root.
func (d *Device) reboot(ctx context.Context) error {
	if len(d.Config.Agent.Restart) == 0 {
		who, err := d.inhibited(ctx)
		if err != nil {
			return err
		}
		if who != "" {
			return fault.New(fault.Waiting, "cannot restart now: %s", who).Hint("systemd-inhibit --list; what is staged takes force at the next restart")
		}
		if err := login.Reboot(ctx, d.Store.Root()); !errors.Is(err, login.ErrNone) {
			return err
		}
	}
	command := d.restartCommand()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fault.New(fault.Failed, "cannot restart by %q: %w (%s)", strings.Join(command, " "), err, upstream.Clean(string(out)))
	}
	return nil
}

// restartCommand is what restarts a device without a login manager.
func (d *Device) restartCommand() []string {
	if len(d.Config.Agent.Restart) > 0 {
		return d.Config.Agent.Restart
	}
	return []string{"systemctl", "reboot"}
}
