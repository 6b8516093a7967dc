package device

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/units"
)

// examineServices looks at what brings services onto staged content.
func (d *Device) examineServices(g *Diagnosis) {
	if !units.Present(d.Store) {
		g.add("R1", "ok", "", "systemd does not run here: services get new content by a restart of the device")
		return
	}
	staged, err := present.Staged(d.Store)
	booted, err2 := present.Booted(d.Store)
	s, err3 := units.Examine(d.Store)
	if err := errors.Join(err, err2, err3); err != nil {
		g.add("R1", "bad", "", "%v", err)
		return
	}
	services := 0
	for _, a := range d.Config.Apps {
		if a.Unit != "" {
			services++
		}
	}
	switch {
	case len(s.Held) > 0:
		g.add("R1", "warn", "journalctl -u "+s.Held[0]+"; then: sealant relaunch "+s.Held[0],
			"did not start on the staged content and stay on what was booted: %s", strings.Join(s.Held, ", "))
	case staged != "" && staged != booted && services > 0 && s.Set != staged:
		g.add("R1", "bad", "systemctl restart sealant.service", "services would not get what is staged: their drop-ins are missing or old")
	case staged != "" && staged != booted:
		g.add("R1", "ok", "", "%s of apps.d get what is staged at their next start (sealant relaunch UNIT does it now)", plural(services, "service"))
	default:
		g.add("R1", "ok", "", "nothing is staged for services beyond what was booted")
	}
}

// examineAccess says who may change this device, besides root.
func (d *Device) examineAccess(g *Diagnosis) {
	has := func(path string) bool {
		_, err := os.Stat(filepath.Join(d.Store.Root(), path))
		return err == nil
	}
	switch {
	case !has("run/dbus/system_bus_socket"):
		g.add("A1", "ok", "", "there is no system bus: only root may change anything")
	case !has("usr/share/polkit-1/actions/org.sealant.policy"):
		g.add("A1", "warn", "install org.sealant.policy in /usr/share/polkit-1/actions", "polkit does not know sealant's actions: only root may change anything")
	default:
		g.add("A1", "ok", "", "polkit decides who may change what (pkaction | grep org.sealant)")
	}
	if !d.Agent && units.Present(d.Store) {
		g.add("A2", "warn", "sudo systemctl enable --now sealant.service", "the agent does not run: nothing is installed or taken back by itself")
	}
}

// examineForce says what policy forces, and what is in its way.
func (d *Device) examineForce(g *Diagnosis) {
	p := d.Config.Policy
	if p.ActivateRestart != "window" && p.ActivateRelaunch != "force" {
		return
	}
	when := "at any time"
	if len(p.ActivateWindow) > 0 {
		when = "between " + p.ActivateWindow.String()
	}
	text := "policy restarts this device " + when + ", announced 15 minutes before"
	if p.ActivateRestart != "window" {
		text = "policy restarts services of apps.d " + when
	}
	if plan, ok := d.plannedRestart(); ok {
		text += "; the next restart is at " + plan.At.Local().Format("15:04")
	}
	g.add("P1", "ok", "", "%s", text)
}
