package device

import (
	"path/filepath"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// usage is who uses which content on this machine now, and what is mounted
// where everybody sees it.
type usage struct {
	uses   []running.Use
	hidden int // processes that this user may not look into
	shown  map[string]present.Content
}

// usage looks at every process and every mount.
func (d *Device) usage() (usage, error) {
	u := usage{shown: map[string]present.Content{}}
	scan, err := running.Processes(d.Store, d.Config.Apps)
	if err != nil {
		return u, err
	}
	u.uses, u.hidden = scan.Uses, scan.Hidden
	// The last mount at a place is the one that is seen.
	_, err = linux.OwnMounts(func(m *linux.MountPoint) bool {
		if c, ok := present.Of(m); ok && filepath.Dir(m.Path) == d.Store.CryptexDir() {
			u.shown[filepath.Base(m.Path)] = c
		}
		return false
	})
	return u, err
}

// count says how many processes use a cryptex at all, and how many of them use
// nothing of it but the given image.
func (u usage) count(c store.Cryptex) (active, all int) {
	good := map[int]bool{}
	for _, x := range u.uses {
		if x.Cryptex == c.Name {
			before, seen := good[x.PID]
			good[x.PID] = x.Image == c.Image && (before || !seen)
		}
	}
	for _, ok := range good {
		if ok {
			active++
		}
	}
	return active, len(good)
}

// app says how an app's processes stand to a cryptex; running is false if none
// of them uses it.
func (u usage) app(id string, c store.Cryptex) (s AppStatus, running bool) {
	s = AppStatus{App: id, Active: true, PIDs: []int{}}
	for _, x := range u.uses {
		if x.App != id || x.Cryptex != c.Name {
			continue
		}
		running = true
		if x.Image != c.Image {
			s.Active = false
			s.PIDs = append(s.PIDs, x.PID)
		}
	}
	return s, running
}

// mounted says whether a cryptex is mounted where everybody sees it, and
// whether it is the image that a set names.
func (u usage) mounted(c store.Cryptex) (mounted, same bool) {
	content, ok := u.shown[c.Name]
	return ok, ok && content.Image == c.Image
}
