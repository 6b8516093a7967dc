package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

// Machine is the Apps of this machine: those that apps.d names.
type Machine struct {
	store    *store.Store
	apps     func() ([]policy.App, error)
	arrivals *linux.Arrivals

	mu       sync.Mutex
	arms     map[string]evidence.Arm // by set id
	programs map[exits.Program]program
	sets     string    // what programs were looked up for
	looked   time.Time // when
}

// OpenMachine starts to look for launches.
func OpenMachine(st *store.Store, apps func() ([]policy.App, error)) (*Machine, error) {
	if err := os.MkdirAll(st.LaunchDir(), 0o755); err != nil {
		return nil, fmt.Errorf("cannot look for launches: %w", err)
	}
	arrivals, err := linux.WatchArrivals(st.LaunchDir())
	if err != nil {
		return nil, err
	}
	return &Machine{store: st, apps: apps, arrivals: arrivals, arms: make(map[string]evidence.Arm)}, nil
}

// Close ends Started.
func (m *Machine) Close() error { return m.arrivals.Close() }

// Started waits for the next launch of an app.
func (m *Machine) Started() (evidence.Launch, error) {
	for {
		name, err := m.arrivals.Next()
		if err != nil {
			return evidence.Launch{}, err
		}
		number, ok := strings.CutSuffix(name, ".json")
		pid, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		if l, ok := m.Find(pid); ok {
			return l, nil
		}
	}
}

// Find tells how a process was launched.
func (m *Machine) Find(pid int) (evidence.Launch, bool) {
	r, err := launch.Read(m.store, pid)
	if err != nil {
		return evidence.Launch{}, false
	}
	apps, err := m.apps()
	if err != nil {
		return evidence.Launch{}, false
	}
	return m.launched(r, apps)
}

// launched makes a launch of its record; ok is false for what is no app, and
// where nobody knows any more what the set was.
func (m *Machine) launched(r launch.Record, apps []policy.App) (l evidence.Launch, ok bool) {
	app, ok := find(apps, r.App)
	if !ok {
		return l, false
	}
	arm, ok := m.arm(r.Set, r.Release)
	if !ok {
		return l, false
	}
	return evidence.Launch{
		PID: r.PID, App: app.ID, Version: m.version(r.Executable), Arm: arm, Interactive: len(app.Command) > 0,
		Start: r.Start, MountNamespace: r.Namespace,
	}, true
}

func find(apps []policy.App, id string) (policy.App, bool) {
	for _, a := range apps {
		if a.ID == id && id != "" {
			return a, true
		}
	}
	return policy.App{}, false
}

// arm is what a set means for counting. A set that the store doesn't know is the
// operating system's own content before enrolment.
func (m *Machine) arm(set, release string) (evidence.Arm, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.arms[set]; ok {
		return a, true
	}
	var arm evidence.Arm
	if s, err := m.store.SetByID(set); err == nil {
		arm = evidence.Arm{Base: s.Baseline.String(), Release: s.Release, Level: s.Level}
	} else if base, err := activate.ReadBaseline(m.store); err == nil && release == "" {
		digest := base.Digest()
		arm = evidence.Arm{Base: hex.EncodeToString(digest[:])}
	} else {
		return arm, false
	}
	if len(m.arms) > 1000 {
		clear(m.arms)
	}
	m.arms[set] = arm
	return arm, true
}

// version stands for the version of the app itself: whatever changes when its
// program is replaced. A program that lies in a cryptex has none of its own: it
// changes with the content, and that is what is judged.
func (m *Machine) version(executable string) string {
	// Links may lead into a cryptex only below the device's own root.
	real, err := filepath.EvalSymlinks(filepath.Join(m.store.Root(), executable))
	if err != nil {
		real, err = filepath.EvalSymlinks(executable)
	}
	if err != nil || strings.HasPrefix(real, m.store.CryptexDir()+"/") || strings.HasPrefix(real, m.store.RunDir()+"/") {
		return ""
	}
	fi, err := os.Stat(real)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", fi.Size(), fi.ModTime().UnixNano()))
	return hex.EncodeToString(sum[:8])
}

// Running lists the apps that run: those that were launched, and those that use
// content of this device without a launch, as services do.
func (m *Machine) Running() ([]evidence.Launch, error) {
	apps, err := m.apps()
	if err != nil {
		return nil, err
	}
	scan, err := running.Processes(m.store, apps)
	if err != nil {
		return nil, err
	}
	records, err := launch.List(m.store)
	if err != nil {
		return nil, err
	}
	var list []evidence.Launch
	roots := make(map[int]int) // process → index of its launch in list
	for _, r := range records {
		if !r.Running() {
			continue
		}
		if l, ok := m.launched(r, apps); ok {
			roots[r.PID] = len(list)
			list = append(list, l)
		}
	}
	found := newGroups(scan.Uses)
	for _, pid := range found.order {
		if _, known := roots[pid]; known {
			continue
		}
		if top, ok := found.top(pid, roots); ok && top != pid {
			continue // below another one, which is or becomes a launch
		}
		l, ok, err := m.unlaunched(pid, found.uses[pid], apps)
		if err != nil && !linux.Gone(err) {
			return list, err
		}
		if ok {
			roots[pid] = len(list)
			list = append(list, l)
		}
	}
	for _, pid := range found.order {
		if top, ok := found.top(pid, roots); ok && top != pid {
			if i, ok := roots[top]; ok {
				list[i].Others = append(list[i].Others, pid)
			}
		}
	}
	return list, nil
}

// groups are the processes of apps, as a scan found them.
type groups struct {
	uses   map[int][]running.Use
	parent map[int]int
	order  []int
}

func newGroups(uses []running.Use) groups {
	g := groups{uses: make(map[int][]running.Use), parent: make(map[int]int)}
	for _, u := range uses {
		if u.App == "" {
			continue
		}
		if g.uses[u.PID] == nil {
			g.order = append(g.order, u.PID)
			if p, err := linux.OpenProcess(u.PID); err == nil {
				if st, err := p.Stat(); err == nil {
					g.parent[u.PID] = st.Parent
				}
				p.Close()
			}
		}
		g.uses[u.PID] = append(g.uses[u.PID], u)
	}
	return g
}

// top is the first of a process's ancestors, or itself, that is a launch, or that
// has no parent in the same app.
func (g groups) top(pid int, roots map[int]int) (int, bool) {
	for range 1000 {
		if _, ok := roots[pid]; ok {
			return pid, true
		}
		up, ok := g.parent[pid]
		if !ok {
			return 0, false
		}
		_, launched := roots[up]
		if !launched && (g.uses[up] == nil || g.uses[up][0].App != g.uses[pid][0].App) {
			return pid, true
		}
		pid = up
	}
	return 0, false
}

// unlaunched makes a launch of a process that was found running: its content is
// what it uses, if that is all of the booted or of the staged set.
func (m *Machine) unlaunched(pid int, uses []running.Use, apps []policy.App) (l evidence.Launch, ok bool, err error) {
	app, ok := find(apps, uses[0].App)
	if !ok {
		return l, false, nil
	}
	arm, ok := m.armOf(uses)
	if !ok {
		return l, false, nil // it holds content of two sets, or of one that is gone
	}
	p, err := linux.OpenProcess(pid)
	if err != nil {
		return l, false, err
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		return l, false, err
	}
	exe, err := p.Executable()
	if err != nil {
		return l, false, err
	}
	l = evidence.Launch{
		PID: pid, App: app.ID, Version: m.version(exe), Arm: arm, Interactive: len(app.Command) > 0, Start: st.Start,
	}
	if app.Unit != "" {
		if l.Cgroup, err = p.CgroupID(); err != nil {
			return l, false, err
		}
	}
	return l, true, nil
}

func (m *Machine) armOf(uses []running.Use) (evidence.Arm, bool) {
	var contents []present.Content
	for _, u := range uses {
		contents = append(contents, present.Content{Name: u.Cryptex, Image: u.Image})
	}
	return m.armWith(contents)
}

// armWith is the arm whose set has these contents: the booted one, else the staged
// one, else what the operating system delivers.
func (m *Machine) armWith(contents []present.Content) (evidence.Arm, bool) {
	for _, linked := range []func(*store.Store) (string, error){present.Booted, present.Staged} {
		id, err := linked(m.store)
		if err != nil || id == "" {
			continue
		}
		set, err := m.store.SetByID(id)
		if err == nil && holds(contents, func(name string) (store.Digest, bool) {
			c, ok := set.Cryptex(name)
			return c.Image, ok
		}) {
			return m.arm(id, set.Release)
		}
	}
	base, err := activate.ReadBaseline(m.store)
	if err != nil || !holds(contents, func(name string) (store.Digest, bool) {
		c, ok := base.Cryptex(name)
		return store.Digest(c.Digest), ok
	}) {
		return evidence.Arm{}, false
	}
	return m.arm(string(activate.Delivered), "")
}

func holds(contents []present.Content, image func(name string) (store.Digest, bool)) bool {
	for _, c := range contents {
		if d, ok := image(c.Name); !ok || d != c.Image {
			return false
		}
	}
	return true
}

// kept is how long the record of a launch that has ended may still be asked for.
const kept = 10 * time.Minute

// Prune forgets the records of launches that ended a while ago.
func (m *Machine) Prune() error { return launch.Prune(m.store, time.Now().Add(-kept)) }
