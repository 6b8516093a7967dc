package systemd

import (
	"strings"
	"testing"
)

const (
	readerApp = "etc/sealant/apps.d/reader.toml"
	readerOf  = "cryptexes = [\"web\"]\nunit = \"reader.service\"\n"
	program   = "[Service]\nExecStart=/usr/lib/cryptexes/web/run 100000\n"
)

// A service gets staged content by its own restart; no other process does.
func TestRelaunch(t *testing.T) {
	k := newKiosk(t, files{
		readerApp:                            readerOf,
		"etc/systemd/system/reader.service":  program,
		"etc/systemd/system/other.service":   program,
		"etc/systemd/system/stopped.service": program,
	})
	k.Run("systemctl start reader other")
	pid := "systemctl show -P MainPID "
	before, other := k.Run(pid+"reader"), k.Run(pid+"other")
	k.stage(k.a.ID)
	if c := k.content("reader"); c != "web base" {
		t.Errorf("staging changed what a service has: %q", c)
	}
	if text := k.Run("sealant ps"); !strings.Contains(text, "sealant relaunch reader") {
		t.Errorf("ps does not say what to do:\n%s", text)
	}
	k.Run("sealant relaunch reader")
	if c := k.content("reader"); c != "web (a)" {
		t.Errorf("a relaunched service has %q", c)
	}
	if c := k.content("other"); c != "web base" || k.Run(pid+"other") != other || k.Run(pid+"reader") == before {
		t.Errorf("the other service has %q", c)
	}
	// By the unit's name, and one that apps.d doesn't have.
	k.Run("sealant relaunch other.service")
	if c := k.content("other"); c != "web (a)" {
		t.Errorf("a service that apps.d does not have: %q", c)
	}
	if text := k.Run("sealant relaunch stopped.service"); !strings.Contains(text, "does not run") {
		t.Errorf("%q", text)
	}
	// What is mounted on the host later reaches the service too.
	k.Run("mkdir -p /mnt/later; mount -t tmpfs tmpfs /mnt/later; echo here >/mnt/later/f")
	if text := k.Run("nsenter -t $(systemctl show -P MainPID reader) -m cat /mnt/later/f"); text != "here\n" {
		t.Errorf("%q", text)
	}
	// The next set, while a service is on the one before.
	k.stage(k.b.ID)
	if c := k.content("reader"); c != "web (a)" {
		t.Errorf("the service lost its content: %q", c)
	}
	k.Run("systemctl restart reader")
	if c := k.content("reader"); c != "web (b)" {
		t.Errorf("any restart brings what is staged: %q", c)
	}
	k.stage("-")
	if c := k.content("reader"); c != "web (b)" {
		t.Errorf("the service lost its content: %q", c)
	}
	if text := k.Run("ls /run/systemd/system"); strings.Contains(text, "reader") || strings.Contains(text, "other") {
		t.Errorf("drop-ins stay: %s", text)
	}
	k.Run("sealant relaunch reader")
	if c := k.content("reader"); c != "web base" {
		t.Errorf("nothing is staged, but the service has %q", c)
	}
}
