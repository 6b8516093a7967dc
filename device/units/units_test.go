package units

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

func TestMain(m *testing.M) { namespace.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dropIns are the texts of all drop-ins, by unit.
func dropIns(t *testing.T, st *store.Store) map[string]string {
	t.Helper()
	have, err := existing(st)
	must(t, err)
	return have
}

// Drop-ins name the staged set, whole; they follow it, and go with it. What is
// not ours stays. (Package test/systemd runs all of it under systemd.)
func TestFollow(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	apps := []policy.App{{ID: "a", Unit: "a.service", Cryptexes: []string{"web"}}, {ID: "b", Command: []string{"/usr/bin/b"}, Cryptexes: []string{"web"}}}
	_, err := activate.Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	follow := func() error { return Follow(t.Context(), d.Store, apps) }
	must(t, activate.Stage(t.Context(), d.Store, a, nil, follow))
	if len(dropIns(t, d.Store)) != 0 {
		t.Fatal("drop-ins where systemd does not run")
	}
	must(t, os.MkdirAll(filepath.Join(d.Store.UnitDir(), "a.service.d"), 0o755))
	theirs := filepath.Join(d.Store.UnitDir(), "a.service.d", "50-other.conf")
	must(t, os.WriteFile(theirs, []byte("[Service]\n"), 0o644))

	must(t, follow())
	have := dropIns(t, d.Store)
	for _, name := range rig.Names {
		if want := "\nBindReadOnlyPaths=-" + d.Store.SetMount(a.ID, name) + ":" + d.Store.MountPoint(name) + "\n"; !strings.Contains(have["a.service"], want) {
			t.Errorf("no %q in\n%s", want, have["a.service"])
		}
	}
	if len(have) != 1 {
		t.Errorf("%v", have)
	}
	// A held service stays held with this set, and isn't with the next.
	must(t, put(d.Store, "a.service", held(a.ID)))
	must(t, put(d.Store, "named.service", have["a.service"]))
	must(t, follow())
	if have := dropIns(t, d.Store); !strings.Contains(have["a.service"], heldMark) || strings.Contains(have["named.service"], heldMark) {
		t.Errorf("%v", have)
	}
	if s, err := Examine(d.Store); err != nil || len(s.Held) != 1 || s.Held[0] != "a.service" || s.Set != a.ID {
		t.Errorf("%+v, %v", s, err)
	}
	b := d.Improve("SI-2026-0002", 2)
	must(t, activate.Stage(t.Context(), d.Store, b, nil, follow))
	for unit, text := range dropIns(t, d.Store) {
		if !strings.Contains(text, b.ID) || strings.Contains(text, heldMark) {
			t.Errorf("%s:\n%s", unit, text)
		}
	}
	must(t, activate.Unstage(d.Store, follow))
	if have := dropIns(t, d.Store); len(have) != 0 {
		t.Errorf("%v", have)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(d.Store.UnitDir(), "named.service.d")); err == nil {
		t.Error("an empty folder stays")
	}
}

func TestRelaunchRefuses(t *testing.T) {
	st := store.Below(t.TempDir())
	for name, kind := range map[string]fault.Kind{
		"x.socket": fault.Usage, "x": fault.Usage, "../x.service": fault.Usage, "a b.service": fault.Usage, ".service": fault.Usage,
		"-x.service\n": fault.Usage, "dbus.service": fault.Restart, "systemd-journald.service": fault.Restart,
	} {
		if _, err := Relaunch(t.Context(), st, nil, name); fault.KindOf(err) != kind {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A service's own words don't play tricks on the terminal that shows them.
func TestClean(t *testing.T) {
	for line, want := range map[string]string{
		"plain\n": "plain", "\x1b[31mred\x1b[0m\r\n": "[31mred[0m", "\u009b31m": "31m", " \t\n": "", strings.Repeat("ä", 300): strings.Repeat("ä", 100) + "…",
	} {
		if got := clean(line); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}
