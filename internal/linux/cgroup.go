package linux

import (
	"path"
	"slices"
	"strings"
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

func sameControllers(a, b string) bool {
	x := strings.Split(strings.TrimPrefix(a, "name="), ",")
	y := strings.Split(strings.TrimPrefix(b, "name="), ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}
