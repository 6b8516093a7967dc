package units

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Outcome is what became of one service.
type Outcome struct {
	Unit  string `json:"unit"`  // an instance of a template by itself
	State string `json:"state"` // one of the states below
	Text  string `json:"text"`  // for people
}

// The states of an Outcome.
const (
	Restarted = "restarted"
	Inactive  = "inactive" // it does not run; its next start gets the content
	Left      = "left"     // one connection's instance: it ends by itself
)

// patience is how long a restart may take at most. systemd has its own, usually
// shorter limits for each service.
const patience = 10 * time.Minute

// settling is how long a service is watched after its program has begun: a
// simple one counts as started before that has run at all.
const settling = 2 * time.Second

// steps is how often a service is looked at in that time.
const steps = 16

// Relaunch restarts one service, or all instances of a template, on what is
// staged now. Services that don't run stay so. Nothing else is touched.
//
// A service that does not come up goes back: it is held on what was booted and
// started again there; the error says so, and what the journal says.
func Relaunch(ctx context.Context, st *store.Store, apps []policy.App, name string) ([]Outcome, error) {
	if err := policy.CheckUnit(name); err != nil {
		return nil, fault.New(fault.Usage, "cannot relaunch %s: %w", name, err)
	}
	if slices.Contains(vital, name) {
		return nil, fault.New(fault.Restart, "cannot relaunch %s: the whole system rests on it", name).Hint("sealant restart")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := inspect(ctx, st, name); err != nil {
		return nil, err
	}
	if err := follow(ctx, st, apps, name); err != nil {
		return nil, err
	}
	m, err := connect(ctx, st)
	if err != nil {
		return nil, err
	}
	defer m.close()
	names, err := m.instances(ctx, name)
	if err != nil {
		return nil, err
	}
	var out []Outcome
	for _, n := range names {
		o, err := m.renew(ctx, st, n, name)
		if err != nil {
			return out, err
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		out = append(out, Outcome{name, Inactive, name + " has no instance that runs; the next one gets it"})
	}
	return out, nil
}

// inspect refuses what can't be relaunched, before anything is changed.
func inspect(ctx context.Context, st *store.Store, name string) error {
	m, err := connect(ctx, st)
	if err != nil {
		return err
	}
	defer m.close()
	if template(name) {
		return nil // it is no unit by itself
	}
	u, err := m.look(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case u.load == "not-found":
		return fault.New(fault.Usage, "cannot relaunch %s: systemd does not know that service", name).
			Hint("systemctl list-units; a service of a person's own manager (systemctl --user) runs on staged content if its ExecStart= is: sealant run APP")
	case u.load != "loaded":
		return fault.New(fault.Failed, "cannot relaunch %s: systemd says that it is %s", name, u.load).Hint("systemctl status %s", name)
	case u.refuses:
		return fault.New(fault.Restart, "cannot relaunch %s: it may not be stopped while the system runs", name).Hint("sealant restart")
	}
	return nil
}

// vital are services whose restart ends every session or cuts the ground from
// under the rest of the system; the device's restart brings them over.
var vital = []string{"dbus.service", "dbus-broker.service", "systemd-logind.service", "systemd-journald.service", "systemd-udevd.service"}

func template(name string) bool { return strings.Contains(name, "@.") }

// instances are the units that a name stands for.
func (m *manager) instances(ctx context.Context, name string) ([]string, error) {
	if !template(name) {
		return []string{name}, nil
	}
	return m.list(ctx, strings.Replace(name, "@.", "@*.", 1))
}

// renew restarts one unit; owner is the unit whose drop-in it has.
func (m *manager) renew(ctx context.Context, st *store.Store, name, owner string) (Outcome, error) {
	before, err := m.look(ctx, name)
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case !before.up() && before.active != "activating":
		text := name + " does not run; its next start gets it"
		if len(before.triggers) > 0 {
			text = fmt.Sprintf("%s does not run; %s starts it with it", name, strings.Join(before.triggers, ", "))
		}
		return Outcome{name, Inactive, text}, nil
	case template(owner) && m.accepted(ctx, owner):
		return Outcome{name, Left, name + " serves one connection and ends with it; the next one gets it"}, nil
	}
	began := time.Now()
	if err := m.restart(ctx, before); err != nil {
		return Outcome{}, m.backOut(ctx, st, before, owner, began, err)
	}
	return Outcome{name, Restarted, name + " was restarted"}, nil
}

// restart restarts a unit and watches until it has settled.
func (m *manager) restart(ctx context.Context, before unit) error {
	result, err := m.job(ctx, "TryRestartUnit", before.name)
	if err != nil {
		return err
	}
	if result != "done" {
		u, _ := m.look(ctx, before.name)
		return fmt.Errorf("its start ended with %q (%s)", result, u.why())
	}
	return m.settle(ctx, before)
}

// settle watches a unit that has been started; one that ends badly or is started
// once more has not come up.
func (m *manager) settle(ctx context.Context, before unit) error {
	started := ""
	for end := time.Now().Add(settling); ; {
		select {
		case <-time.After(settling / steps):
		case <-ctx.Done():
			return ctx.Err()
		}
		u, err := m.look(ctx, before.name)
		if err != nil {
			return err
		}
		if started == "" {
			started = u.invocation
		}
		switch {
		case u.active == "failed", strings.HasPrefix(u.sub, "auto-restart"), u.invocation != started:
			return fmt.Errorf("it ended at once (%s)", u.why())
		case !u.begun():
			end = time.Now().Add(settling)
		case u.kind != "simple" && u.kind != "exec" && u.kind != "idle", time.Now().After(end):
			return nil // others say themselves when they are up
		}
	}
}

// begun says whether a service's main process is its program already, and not
// systemd's own that becomes it.
func (u unit) begun() bool {
	p, err := linux.OpenProcess(int(u.pid))
	if u.pid == 0 || err != nil {
		return true // it has none, or none any more
	}
	defer p.Close()
	exe, err := p.Executable()
	return err != nil || !strings.HasPrefix(filepath.Base(exe), "systemd-executor") && exe != "/usr/lib/systemd/systemd"
}

// why says how a service failed.
func (u unit) why() string {
	if u.result == "exit-code" {
		return "exit code " + strconv.Itoa(int(u.status))
	}
	return u.result
}

// backOut brings a service that did not come up back onto what was booted.
func (m *manager) backOut(ctx context.Context, st *store.Store, before unit, owner string, began time.Time, cause error) error {
	said := excerpt(ctx, before.name, began)
	fail := func(format string, args ...any) error {
		err := fault.New(fault.Failed, "cannot relaunch %s: %w; %s%s", before.name, cause, fmt.Sprintf(format, args...), said)
		return err.Hint("journalctl -u %s; when that is mended: sealant relaunch %s", before.name, owner)
	}
	have, err := existing(st)
	if err != nil || !strings.Contains(have[owner], "BindReadOnlyPaths=") {
		return fail("it was on the content of the last boot already")
	}
	set, err := present.Staged(st)
	if err == nil {
		err = put(st, owner, held(set))
	}
	if err == nil {
		err = m.reload(ctx)
	}
	if err != nil {
		return fail("and it can't be brought back: %v", err)
	}
	// A unit that failed often may not be started again before this.
	_ = m.call(ctx, "ResetFailedUnit", before.name).Err
	result, err := m.job(ctx, "RestartUnit", before.name)
	if err == nil && result != "done" {
		err = fmt.Errorf("its start ended with %q", result)
	}
	if err == nil {
		err = m.settle(ctx, before)
	}
	if err != nil {
		return fail("and on the content of the last boot neither: %v", err)
	}
	return fail("it runs on the content of the last boot again")
}

// excerptLines is how much of the journal an error shows.
const excerptLines = 5

// excerpt is what the journal says of a unit since a moment: ": line; line".
func excerpt(ctx context.Context, name string, since time.Time) string {
	out, err := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--output=cat", "--all",
		"--lines="+strconv.Itoa(excerptLines), "--since=@"+strconv.FormatInt(since.Unix(), 10), "--unit="+name).Output()
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = clean(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return " (journal: " + strings.Join(lines, " / ") + ")"
}

// clean makes a line of a service's own fit to be shown on a terminal.
func clean(line string) string {
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd {
			return -1
		}
		return r
	}, line)
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return strings.TrimSpace(line)
}
