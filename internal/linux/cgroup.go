package linux

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup is one line of /proc/PID/cgroup, "hierarchy:controllers:path".
type cgroup struct{ hierarchy, controllers, path string }

func cgroupLines(text string) []cgroup {
	var list []cgroup
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 {
			list = append(list, cgroup{f[0], f[1], f[2]})
		}
	}
	return list
}

// directory is where the group's files are, given the mounted hierarchies. In
// a hierarchy of version 1 the mount's folder is named after its controllers,
// in whatever order.
func (g cgroup) directory(mounts []MountPoint) (string, bool) {
	for _, m := range mounts {
		switch {
		case g.hierarchy == "0" && m.Type == "cgroup2":
		case g.hierarchy != "0" && m.Type == "cgroup" && sameControllers(path.Base(m.Path), g.controllers):
		default:
			continue
		}
		rel, ok := strings.CutPrefix(g.path, strings.TrimSuffix(m.Root, "/"))
		if !ok {
			continue
		}
		return path.Join(m.Path, path.Clean("/"+rel)), true
	}
	return "", false
}

// CgroupID is the kernel's number for the process's control group in the unified
// tree, as BPF programs see it; 0 if it is in none below the top.
func (p *Process) CgroupID() (uint64, error) { return p.groupID("") }

// ServiceGroup is the number of the control group of the service that a process
// belongs to: where it runs one of the service's control commands in a group of its
// own, of the group above (systemd's ".control").
func ServiceGroup(pid int) (uint64, error) {
	p, err := OpenProcess(pid)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	id, err := p.groupID("/.control")
	if err == nil && id == 0 {
		err = fmt.Errorf("cannot tell the control group of process %d: it is in none", pid)
	}
	return id, err
}

// GroupAlive tells whether there is a control group of a number, as the unified tree
// is now.
func GroupAlive() func(id uint64) bool {
	alive := map[uint64]bool{}
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // gone meanwhile
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			alive[st.Ino] = true
		}
		return nil
	})
	return func(id uint64) bool { return err != nil || alive[id] }
}

func (p *Process) groupID(below string) (uint64, error) {
	data, err := p.read("cgroup")
	if err != nil {
		return 0, err
	}
	mounts, err := OwnMounts(func(m *MountPoint) bool { return m.Type == "cgroup2" })
	if err != nil {
		return 0, err
	}
	for _, g := range cgroupLines(string(data)) {
		if dir, ok := g.directory(mounts); ok && g.path != "/" {
			var st unix.Stat_t
			if err := unix.Stat(strings.TrimSuffix(dir, below), &st); err != nil {
				return 0, p.wrap("cgroup", err)
			}
			return st.Ino, nil
		}
	}
	return 0, nil
}

func sameControllers(a, b string) bool {
	x := strings.Split(strings.TrimPrefix(a, "name="), ",")
	y := strings.Split(strings.TrimPrefix(b, "name="), ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}
