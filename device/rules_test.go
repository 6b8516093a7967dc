package device

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

func manifest(level int) release.Manifest {
	m := release.Manifest{ID: id(level), Level: level, Baseline: release.Digest{7}}
	for i := 1; i <= level; i++ {
		m.CVEs = append(m.CVEs, release.CVE{ID: "CVE-2026-110" + string(rune('0'+i)), Since: id(i), Exploited: i == 1})
	}
	return m
}

func id(level int) string { return "SI-2026-000" + string(rune('0'+level)) }

func TestHolds(t *testing.T) {
	below := Hold{Release: id(2), Level: 2, Baseline: release.Digest{7}, Scope: scopeBelow, Reason: "removed", Actor: "user:1000"}
	only := Hold{Release: id(2), Level: 2, Baseline: release.Digest{7}, Scope: scopeOnly, Reason: "recalled", Actor: "recall"}
	foreign := below
	foreign.Baseline[0] = 8
	for name, tt := range map[string]struct {
		hold  Hold
		level int
		want  string // part of it
	}{
		"removed":               {below, 2, "a person (user:1000)"},
		"older than removed":    {below, 1, "removed"},
		"newer than removed":    {below, 3, ""},
		"recalled":              {only, 2, "vendor"},
		"older than recalled":   {only, 1, ""},
		"newer than recalled":   {only, 3, ""},
		"of another baseline":   {foreign, 2, ""},
		"of another, and older": {foreign, 1, ""},
	} {
		got := held([]Hold{tt.hold}, manifest(tt.level))
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if got := without([]Hold{below, only}, id(2)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestReopened(t *testing.T) {
	if got := reopened(manifest(2), manifest(1)); len(got) != 1 || got[0] != "CVE-2026-1102" {
		t.Errorf("%v", got)
	}
	if got := reopened(manifest(2), release.Manifest{}); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestUrgent(t *testing.T) {
	at := func(level int) state {
		st := state{digest: release.Digest{7}}
		if level > 0 {
			st.current = &store.Set{Release: id(level), Level: level, Baseline: store.Digest{7}}
		}
		return st
	}
	if !urgent(at(0), manifest(1)) || !urgent(at(0), manifest(2)) {
		t.Error("the attacked flaw is open on the baseline")
	}
	if urgent(at(1), manifest(2)) {
		t.Error("with (a) the attacked flaw is closed already")
	}
}

func TestActors(t *testing.T) {
	if !User(1000).Person() || Auto.Person() || ByRecall.Person() || User(0) != "user:0" {
		t.Error("who is a person?")
	}
}

// TestNotEnrolled: every journey of a device that is not enrolled says so.
func TestNotEnrolled(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"install": func() error { _, err := d.Install(t.Context(), InstallOptions{}, Auto, nil); return err },
		"reapply": func() error { _, err := d.Reapply(t.Context(), ReapplyOptions{}, Auto, nil); return err },
		"remove":  func() error { _, err := d.Remove(t.Context(), RemoveOptions{}, Auto, nil); return err },
		"check":   func() error { _, err := d.Check(t.Context(), CheckOptions{}, nil); return err },
		"verify":  func() error { _, err := d.Verify(t.Context(), VerifyOptions{}, nil); return err },
		"confirm": func() error { _, err := d.Confirm(t.Context(), nil); return err },
		"restart": func() error { _, err := d.Restart(t.Context(), RestartOptions{}, nil); return err },
	} {
		if err := f(); err == nil || !strings.Contains(fault.HintOf(err), "sealant enroll") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Store.Journal(); !errors.Is(err, store.ErrEmpty) || d.Store.Exists() {
		t.Error("something was written")
	}
}
