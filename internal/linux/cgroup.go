package linux

import (
	"path"
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
func (p *Process) CgroupID() (uint64, error) {
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
			if err := unix.Stat(dir, &st); err != nil {
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
