// Package running says what runs on which content, and brings an app from old
// content to new.
//
// It goes by mounts and by the devices of what a process has mapped, which the
// kernel tells, and by the stamps of launches, which Sealant made itself. It
// believes nothing that a process says about itself: not its name, its command
// line or its environment, and not whether a file counts as deleted.
package running

import (
	"cmp"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// State says how the content that a process uses stands to the content that a
// launch gets now.
type State string

// The states.
const (
	Active State = "active" // what a launch gets now
	Older  State = "older"  // of another improvement
	Base   State = "base"   // the baseline's, while a launch gets an improvement
)

// Use is a process and one cryptex whose content it uses.
type Use struct {
	PID     int          `json:"pid"`
	UID     int          `json:"uid"`
	Command string       `json:"command"` // the name it goes by; for showing only
	App     string       `json:"app"`     // id in apps.d, "" if it belongs to none
	Unit    string       `json:"unit"`    // systemd unit, "" if none
	Cryptex string       `json:"cryptex"`
	Image   store.Digest `json:"image"`
	Release string       `json:"release"` // the improvement that brought the content, "" is the baseline
	Label   string       `json:"label"`   // "(b)", or "base"
	State   State        `json:"state"`
	Todo    string       `json:"todo"` // a command, "restart", or "" if nothing is to be done
	Proof   Proof        `json:"proof"`

	start uint64 // of the process, in clock ticks since boot
}

// Name is what people call the process: its app, its unit, or its command.
func (u Use) Name() string {
	switch {
	case u.App != "":
		return u.App
	case u.Unit != "" && !strings.HasSuffix(u.Unit, ".scope"):
		return u.Unit
	}
	return u.Command
}

// Proof is how it was found out.
type Proof struct {
	Namespace uint64   `json:"namespace"`       // inode of the mount namespace
	Device    string   `json:"device"`          // of the file system, "0:47"
	Mounted   bool     `json:"mounted"`         // still mounted in that namespace
	Files     []string `json:"files,omitempty"` // that the process has mapped
	Launched  bool     `json:"launched,omitempty"`
}

// Scan is what was found in one pass over all processes.
type Scan struct {
	Uses   []Use          `json:"uses"`
	Hidden int            `json:"hidden"` // processes that this user may not look into
	Seen   map[string]int `json:"-"`      // uses per cryptex
}

// Processes finds every process that uses content of this device, by its mount
// namespace and the devices of what it has mapped; never by names, a deleted
// file or its environment. Somebody who isn't root sees their own only, and how
// many were hidden.
func Processes(st *store.Store, apps []policy.App) (*Scan, error) {
	s, err := newScan(st, apps)
	if err != nil {
		return nil, err
	}
	pids, err := linux.Processes()
	if err != nil {
		return nil, err
	}
	if err := s.all(pids, min(runtime.GOMAXPROCS(0), maxParts)); err != nil {
		return nil, err
	}
	slices.SortFunc(s.result.Uses, func(a, b Use) int {
		return cmp.Or(cmp.Compare(b.PID, a.PID), cmp.Compare(a.Cryptex, b.Cryptex))
	})
	return &s.result, nil
}

// all looks at the processes, on n processors at once: the kernel's part of the
// work is the larger one.
func (s *scan) all(pids []int, n int) error {
	parts := make([]*scan, n)
	errs := make([]error, len(parts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range parts {
		part := *s
		part.spaces, part.result = map[uint64]map[linux.Device]bool{}, Scan{Seen: map[string]int{}}
		parts[i] = &part
		work := func() {
			for n := next.Add(1) - 1; n < int64(len(pids)) && errs[i] == nil; n = next.Add(1) - 1 {
				errs[i] = part.look(pids[n])
			}
		}
		if i == len(parts)-1 {
			work()
		} else {
			wg.Go(work)
		}
	}
	wg.Wait()
	for _, part := range parts {
		s.result.Uses = append(s.result.Uses, part.result.Uses...)
		s.result.Hidden += part.result.Hidden
		for name, n := range part.result.Seen {
			s.result.Seen[name] += n
		}
	}
	return errors.Join(errs...)
}

// maxParts bounds how many processors a scan takes.
const maxParts = 4

// look is process, for one that may end or be out of bounds.
func (s *scan) look(pid int) error {
	err := s.process(pid)
	switch {
	case linux.Gone(err):
		return nil
	case linux.Denied(err):
		s.result.Hidden++
		return nil
	}
	return err
}

// scan is the state of one pass, or of one processor's part of it.
type scan struct {
	st      *store.Store
	apps    []policy.App
	shelf   *shelf
	devices map[linux.Device]present.Content
	records []launch.Record
	spaces  map[uint64]map[linux.Device]bool // cryptex devices mounted in a namespace
	maps    linux.MapReader
	result  Scan
}

func newScan(st *store.Store, apps []policy.App) (*scan, error) {
	s := &scan{st: st, spaces: map[uint64]map[linux.Device]bool{}, result: Scan{Uses: []Use{}, Seen: map[string]int{}}}
	var err error
	if s.devices, err = present.Devices(st); err != nil {
		return nil, err
	}
	if s.records, err = launch.List(st); err != nil {
		return nil, err
	}
	if s.shelf, err = newShelf(st); err != nil {
		return nil, err
	}
	// What apps.d calls /usr/bin/x may be a link into a cryptex by now.
	for _, a := range apps {
		a.Match = slices.Clone(a.Match)
		if len(a.Command) > 0 {
			if real, err := filepath.EvalSymlinks(filepath.Join(st.Root(), a.Command[0])); err == nil {
				a.Match = append(a.Match, s.below(real))
			}
		}
		s.apps = append(s.apps, a)
	}
	return s, nil
}

// ours says whether a device number stands for content of this device.
func (s *scan) ours(d linux.Device) bool { _, ok := s.devices[d]; return ok }

// process looks at one process. The cheap questions come first: most processes
// of a busy machine are in namespaces without any content, or use none.
func (s *scan) process(pid int) error {
	p, err := linux.OpenProcess(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	space, err := p.Namespace("mnt")
	if err != nil {
		return err
	}
	mounted, err := s.space(p, space)
	if err != nil || len(mounted) == 0 {
		return err
	}
	maps, err := s.maps.Mapped(p, s.ours)
	if err != nil {
		return err
	}
	record, launched := launch.Of(s.records, p)
	launched = launched && record.PID == pid
	if len(maps) == 0 && !launched {
		return nil
	}
	found := map[linux.Device]*Proof{}
	proof := func(d linux.Device) *Proof {
		if found[d] == nil {
			found[d] = &Proof{Namespace: space, Device: d.String(), Mounted: mounted[d]}
		}
		return found[d]
	}
	for i, m := range maps {
		// Without a mount the number alone proves nothing: look at the file.
		if mounted[m.Device] || maps[i].OnErofs(p) {
			proof(m.Device).Files = append(proof(m.Device).Files, m.Path)
		}
	}
	if launched {
		for d := range mounted {
			if s.wants(record, s.devices[d]) {
				proof(d).Launched = true
			}
		}
	}
	return s.add(p, found, record)
}

// space lists the cryptex devices that are mounted in a namespace.
func (s *scan) space(p *linux.Process, inode uint64) (map[linux.Device]bool, error) {
	if m, ok := s.spaces[inode]; ok {
		return m, nil
	}
	devices := map[linux.Device]bool{}
	_, err := p.Mounts(func(m *linux.MountPoint) bool {
		if c, ok := present.Of(m); ok && s.devices[m.Device] == c {
			devices[m.Device] = true
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	s.spaces[inode] = devices
	return devices, nil
}

// wants says whether a launched app is known to use a cryptex even if nothing
// of it is mapped, as scripts don't: if apps.d says so, and the launch gave it
// this very content.
func (s *scan) wants(r launch.Record, c present.Content) bool {
	if !slices.Contains(r.Content, c) {
		return false
	}
	for _, a := range s.apps {
		if a.ID == r.App {
			return a.Uses(c.Name)
		}
	}
	return false
}

// add describes the process and what it uses.
func (s *scan) add(p *linux.Process, found map[linux.Device]*Proof, r launch.Record) error {
	if len(found) == 0 {
		return nil
	}
	stat, err := p.Stat()
	if err != nil {
		return err
	}
	status, err := p.Status()
	if err != nil {
		return err
	}
	cgroup, err := p.Cgroup()
	if err != nil {
		return err
	}
	u := Use{PID: p.PID, UID: status.UID[0], Command: stat.Command, Unit: linux.Unit(cgroup), App: r.App, start: stat.Start}
	if u.App == "" {
		u.App = s.app(p, u.Unit, cgroup)
	}
	// A process may hold two images of one cryptex, mapped before and after
	// something was switched under it: each is told.
	for d, proof := range found {
		c := s.devices[d]
		use := u
		use.Cryptex, use.Image, use.Proof = c.Name, c.Image, *proof
		use.Release, use.Label, use.State = s.shelf.judge(c)
		use.Todo = s.todo(use)
		s.result.Uses = append(s.result.Uses, use)
		s.result.Seen[c.Name]++
	}
	return nil
}

// app finds the app of a process that wasn't launched.
func (s *scan) app(p *linux.Process, unit, cgroup string) string {
	// A person's own manager may have a unit of any name.
	own := strings.Contains(cgroup, "/user@")
	for _, a := range s.apps {
		if !own && a.OwnsUnit(unit) {
			return a.ID
		}
	}
	exe, err := p.Executable()
	if err != nil {
		return ""
	}
	candidates := []string{exe, s.below(exe)}
	// A program on an unmounted file system has a path that begins at its root.
	for _, d := range p.Holds(s.ours) {
		candidates = append(candidates, filepath.Join(s.below(s.st.MountPoint(s.devices[d].Name)), exe))
	}
	for _, c := range candidates {
		if id := launch.Owner(s.apps, c); id != "" {
			return id
		}
	}
	return ""
}

// below is a path as it is on the device itself, whose file system may start
// in a folder of this machine's.
func (s *scan) below(path string) string {
	return strings.TrimPrefix(path, strings.TrimSuffix(s.st.Root(), "/"))
}

// todo is how the process gets the content that a launch gets.
func (s *scan) todo(u Use) string {
	if u.State == Active {
		return ""
	}
	for _, a := range s.apps {
		if a.ID == u.App && a.Uses(u.Cryptex) {
			return "sealant relaunch " + a.ID
		}
	}
	return "restart"
}
