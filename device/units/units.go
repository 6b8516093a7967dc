// Package units brings services onto staged content, by systemd.
//
// A service gets its content from its own mount namespace: while a set is staged
// that isn't what was booted, each service of apps.d has a drop-in
//
//	/run/systemd/system/UNIT.d/60-sealant.conf
//	  [Service]
//	  BindReadOnlyPaths=-/run/sealant/sets/ID/os:/usr/lib/cryptexes/os
//	  BindReadOnlyPaths=-/run/sealant/sets/ID/web:/usr/lib/cryptexes/web
//
// so that its next start, and no process that runs, gets the set. The drop-in
// names the set and not the link to whatever is staged: a start during a change
// gets one set or the other and never some of both. All cryptexes of the set are
// bound, as for every launch: they belong together. A source that has gone is
// ignored (the minus sign): a service then starts on what was booted rather than
// not at all.
//
// # Parties
//
// Root asks: the agent, or a command without one. systemd answers on its private
// socket, which only root can open; no bus need run. What a service is called
// comes from apps.d or from root; what state it is in comes from systemd.
//
// # What the caller must still check
//
// A restarted service may have processes elsewhere. Which content its processes
// are on afterwards, package running tells.
package units

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

// DropIn is the name of the files that this package writes, in UNIT.d.
const DropIn = "60-sealant.conf"

// heldMark begins the line by which a service stays on what was booted, because
// it failed to start with the set that the line names.
const heldMark = "# sealant-held: "

// maxDropIn bounds a drop-in that is read back, in bytes.
const maxDropIn = 64 << 10

// Present says whether systemd runs the machine.
func Present(st *store.Store) bool {
	fi, err := os.Stat(st.UnitDir())
	return err == nil && fi.IsDir()
}

// Follow brings the drop-ins of all services of apps.d in line with what is
// staged now, and has systemd read them if any has changed. It is idempotent,
// and does nothing where systemd doesn't run. No service is restarted.
func Follow(ctx context.Context, st *store.Store, apps []policy.App) error {
	return follow(ctx, st, apps, "")
}

// follow is Follow; the unit named also is one of them whatever apps.d says,
// and is not held any more.
func follow(ctx context.Context, st *store.Store, apps []policy.App, also string) error {
	if !Present(st) {
		return nil
	}
	want, err := wanted(st, apps, also)
	if err != nil {
		return err
	}
	changed, err := write(st, want)
	if err != nil || !changed {
		return err
	}
	return reload(ctx, st)
}

func reload(ctx context.Context, st *store.Store) error {
	m, err := connect(ctx, st)
	if err != nil {
		var none *fault.Unsupported
		if errors.As(err, &none) {
			return nil // systemd isn't there to have read them
		}
		return err
	}
	defer m.close()
	return m.reload(ctx)
}

// wanted is the text of every drop-in that should be, by unit.
func wanted(st *store.Store, apps []policy.App, also string) (map[string]string, error) {
	want := map[string]string{}
	staged, err := present.Staged(st)
	if err != nil {
		return nil, err
	}
	booted, err := present.Booted(st)
	if err != nil {
		return nil, err
	}
	if staged == "" || staged == booted {
		return want, nil
	}
	text, err := describe(st, staged)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		if a.Unit != "" {
			want[a.Unit] = text
		}
	}
	if also != "" {
		want[also] = text
	}
	// Services that were named on a command line stay with the others, and a
	// held one is held until another set comes.
	have, err := existing(st)
	if err != nil {
		return nil, err
	}
	for unit, old := range have {
		switch {
		case unit == also:
		case strings.Contains(old, heldMark+staged+"\n"):
			want[unit] = old
		case want[unit] == "":
			want[unit] = text
		}
	}
	return want, nil
}

// describe is the text of a drop-in for a set.
func describe(st *store.Store, set string) (string, error) {
	names, err := os.ReadDir(st.SetMounts(set))
	if err != nil {
		return "", fmt.Errorf("cannot read the staged set: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by sealant: the next start of this service gets the set %s.\n", set)
	b.WriteString("# Now: sealant relaunch UNIT. It goes when nothing is staged any more.\n[Service]\n")
	for _, n := range names {
		fmt.Fprintf(&b, "BindReadOnlyPaths=-%s:%s\n", st.SetMount(set, n.Name()), st.MountPoint(n.Name()))
	}
	return b.String(), nil
}

func held(set string) string {
	return heldMark + set + "\n# This service failed to start with that set and stays on what was booted.\n# Try again: sealant relaunch UNIT.\n"
}

// existing reads the drop-ins that are there, by unit.
func existing(st *store.Store) (map[string]string, error) {
	found, err := filepath.Glob(filepath.Join(st.UnitDir(), "*.d", DropIn))
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	for _, path := range found {
		text, err := store.ReadFile(path, maxDropIn)
		if err != nil {
			return nil, fmt.Errorf("cannot read a drop-in: %w", err)
		}
		have[strings.TrimSuffix(filepath.Base(filepath.Dir(path)), ".d")] = string(text)
	}
	return have, nil
}

// write makes the drop-ins what they should be.
func write(st *store.Store, want map[string]string) (changed bool, err error) {
	have, err := existing(st)
	if err != nil {
		return false, err
	}
	for unit := range have {
		if _, ok := want[unit]; ok {
			continue
		}
		dir := filepath.Join(st.UnitDir(), unit+".d")
		if err := os.Remove(filepath.Join(dir, DropIn)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return changed, fmt.Errorf("cannot remove a drop-in: %w", err)
		}
		_ = os.Remove(dir) // others may have drop-ins there
		changed = true
	}
	for unit, text := range want {
		if have[unit] == text {
			continue
		}
		if err := put(st, unit, text); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// put writes one drop-in in one step. It lies in /run and need not survive a
// power cut.
func put(st *store.Store, unit, text string) error {
	dir := filepath.Join(st.UnitDir(), unit+".d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write a drop-in: %w", err)
	}
	next := filepath.Join(dir, "."+DropIn+".new")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot write a drop-in: %w", err)
	}
	if err := os.Rename(next, filepath.Join(dir, DropIn)); err != nil {
		return fmt.Errorf("cannot write a drop-in: %w", err)
	}
	return nil
}

// State is what the drop-ins of a machine say.
type State struct {
	Set  string   // that drop-ins give, "" if there are none
	Held []string // units that stay on what was booted
}

// Examine reads the drop-ins.
func Examine(st *store.Store) (State, error) {
	var s State
	have, err := existing(st)
	if err != nil {
		return s, err
	}
	staged, err := present.Staged(st)
	if err != nil {
		return s, err
	}
	for unit, text := range have {
		if strings.HasPrefix(text, heldMark) {
			s.Held = append(s.Held, unit)
		} else if strings.Contains(text, "/"+staged+"/") {
			s.Set = staged
		}
	}
	return s, nil
}
