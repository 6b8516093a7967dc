package device

import (
	"context"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
)

// use is one process that uses a cryptex's content.
type use struct {
	PID        int
	Executable string
	Unit       string
	App        string // as it was launched, "" if it wasn't by Sealant
	Cryptex    string
	Image      store.Digest
}

// uses is who uses what on this machine now.
type uses struct {
	all []use
}

// usage looks at every process.
func (d *Device) usage(context.Context) (uses, error) {
	return uses{}, nil
}

func (u uses) of(cryptex string) []use {
	var list []use
	for _, x := range u.all {
		if x.Cryptex == cryptex {
			list = append(list, x)
		}
	}
	return list
}

// app says how an app's processes stand to a cryptex; running is false if none
// of them uses it.
func (u uses) app(app policy.App, c store.Cryptex) (s AppStatus, running bool) {
	s = AppStatus{App: app.ID, Active: true, PIDs: []int{}}
	for _, x := range u.of(c.Name) {
		if !belongs(app, x) {
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

// belongs says whether a process is part of an app.
func belongs(app policy.App, x use) bool {
	return x.App == app.ID || app.Unit != "" && x.Unit == app.Unit || app.Owns(x.Executable)
}

// mounted says whether a set's cryptex is mounted, and is the image that the
// set names.
func (u uses) mounted(s *store.Store, set string, c store.Cryptex) (mounted, same bool) {
	return true, true
}
