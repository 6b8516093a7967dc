package witness

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// program is an executable of an app.
type program struct {
	app     policy.App
	path    string          // as this process sees it
	content present.Content // of the cryptex that it lies in; empty if in none
}

// How often the apps' programs are looked up again, if nothing else tells of a
// change, and how many files of a folder of apps.d are looked at.
const (
	lookEvery = 10 * time.Minute
	maxFolder = 2000
)

// Programs lists the executables of every app: its command and what matches, and
// where those lie in a cryptex, the same in the booted and in the staged content.
func (m *Machine) Programs() ([]exits.Program, error) {
	apps, err := m.apps()
	if err != nil {
		return nil, err
	}
	booted, _ := present.Booted(m.store)
	staged, _ := present.Staged(m.store)
	sets := fmt.Sprintf("%s %s %+v", booted, staged, apps)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sets != sets || time.Since(m.looked) > lookEvery {
		devices, err := present.Devices(m.store)
		if err != nil {
			return nil, err
		}
		m.programs = make(map[exits.Program]program)
		for _, app := range apps {
			for _, path := range executables(m.store.Root(), app) {
				m.add(app, path, devices, booted, staged)
			}
		}
		m.sets, m.looked = sets, time.Now()
	}
	list := make([]exits.Program, 0, len(m.programs))
	for p := range m.programs {
		list = append(list, p)
	}
	return list, nil
}

// add notes one executable, wherever its app may see it.
func (m *Machine) add(app policy.App, path string, devices map[linux.Device]present.Content, sets ...string) {
	paths := []string{path}
	if rel, ok := strings.CutPrefix(path, m.store.CryptexDir()+"/"); ok {
		for _, id := range sets {
			if id != "" {
				paths = append(paths, filepath.Join(m.store.SetMounts(id), rel))
			}
		}
	}
	for _, path := range paths {
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm()&0o111 == 0 {
			continue
		}
		device, inode, err := linux.FileAt(path)
		if err != nil || len(m.programs) >= exits.MaxPrograms {
			continue
		}
		key := exits.Program{Device: device, Inode: inode}
		if other, taken := m.programs[key]; taken && other.app.ID != app.ID {
			// Two apps with one program: only a launch tells them apart.
			m.programs[key] = program{}
			continue
		}
		m.programs[key] = program{app, path, devices[device]}
	}
}

// executables are the paths of an app's programs, links resolved.
func executables(root string, app policy.App) []string {
	var named []string
	if len(app.Command) > 0 {
		named = append(named, app.Command[0])
	}
	var found []string
	resolve := func(path string) {
		for _, p := range []string{filepath.Join(root, path), path} {
			if real, err := filepath.EvalSymlinks(p); err == nil {
				found = append(found, real)
				return
			}
		}
	}
	for _, match := range app.Match {
		if !strings.HasSuffix(match, "/") {
			named = append(named, match)
			continue
		}
		n := 0
		// What can't be read is left out; the look at all processes finds it.
		_ = filepath.WalkDir(filepath.Join(root, match), func(path string, e fs.DirEntry, err error) error {
			if n++; n > maxFolder {
				return fs.SkipAll
			}
			if err == nil && !e.IsDir() {
				found = append(found, path)
			}
			return nil
		})
	}
	for _, path := range named {
		resolve(path)
	}
	return found
}

// Began tells which app a process is that has begun a program of one.
func (m *Machine) Began(e exits.Exit) (evidence.Launch, bool) {
	if l, ok := m.Find(e.PID); ok && sameProcess(l, e) {
		return l, true // it was launched: the record knows more
	}
	m.mu.Lock()
	p := m.programs[e.Program]
	m.mu.Unlock()
	if p.app.ID == "" {
		return evidence.Launch{}, false
	}
	arm, ok := m.armAt(e, p)
	if !ok {
		return evidence.Launch{}, false
	}
	return evidence.Launch{
		PID: e.PID, App: p.app.ID, Version: m.version(p.path), Arm: arm, Interactive: len(p.app.Command) > 0, Start: e.Start,
	}, true
}

// Dumped tells which app a process was that left a core dump: by its executable or
// its service, and with which content by what it had mounted.
func (m *Machine) Dumped(e exits.Exit) (evidence.Launch, bool) {
	apps, err := m.apps()
	if err != nil {
		return evidence.Launch{}, false
	}
	app, ok := m.owner(apps, e.Dump)
	if !ok {
		return evidence.Launch{}, false
	}
	at := make(map[string]present.Content)
	if _, err := linux.ReadMounts(strings.NewReader(e.Dump.Mounts), m.contentsAt(at)); err != nil || len(at) == 0 {
		return evidence.Launch{}, false
	}
	arm, ok := m.armWith(slices.Collect(maps.Values(at)))
	if !ok {
		return evidence.Launch{}, false
	}
	return evidence.Launch{
		PID: e.PID, App: app.ID, Version: m.version(e.Dump.Executable), Arm: arm, Interactive: len(app.Command) > 0,
	}, true
}

// owner is the one app that a core dump is of.
func (m *Machine) owner(apps []policy.App, d *exits.Dump) (owner policy.App, ok bool) {
	for _, app := range apps {
		if app.Unit != "" && app.Unit == d.Unit || app.Owns(d.Executable) || slices.Contains(executables(m.store.Root(), app), d.Executable) {
			if ok {
				return policy.App{}, false // two apps with one program
			}
			owner, ok = app, true
		}
	}
	return owner, ok
}

// contentsAt collects what is mounted at the cryptexes' places; the last mount at a
// place is the one that is seen.
func (m *Machine) contentsAt(at map[string]present.Content) func(*linux.MountPoint) bool {
	return func(mount *linux.MountPoint) bool {
		if c, ok := present.Of(mount); ok && filepath.Dir(mount.Path) == m.store.CryptexDir() {
			at[mount.Path] = c
		}
		return false
	}
}

// armAt is the content that a process sees: that of its mount namespace, and where
// that is gone with it, that of the file that it ran.
func (m *Machine) armAt(e exits.Exit, p program) (evidence.Arm, bool) {
	own, _, err := linux.OwnMountNamespace()
	if err == nil && own == e.MountNamespace {
		if id, err := present.Booted(m.store); err == nil && id != "" {
			release := ""
			if set, err := m.store.SetByID(id); err == nil {
				release = set.Release
			}
			return m.arm(id, release)
		}
		return m.arm(string(activate.Delivered), "")
	}
	if contents := m.seen(e); len(contents) > 0 {
		return m.armWith(contents)
	}
	if p.content.Name != "" {
		return m.armWith([]present.Content{p.content})
	}
	return evidence.Arm{}, false
}

// seen is what a process that still runs has at the cryptexes' places; the last
// mount at a place is the one that is seen.
func (m *Machine) seen(e exits.Exit) []present.Content {
	p, err := linux.OpenProcess(e.PID)
	if err != nil {
		return nil
	}
	defer p.Close()
	if st, err := p.Stat(); err != nil || e.Start != 0 && st.Start != e.Start {
		return nil
	}
	at := make(map[string]present.Content)
	if _, err := p.Mounts(m.contentsAt(at)); err != nil {
		return nil
	}
	return slices.Collect(maps.Values(at))
}
