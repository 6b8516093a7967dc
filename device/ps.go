package device

import (
	"context"

	"github.com/sealant-os/sealant/device/running"
)

// Running is what runs on which content. It changes nothing.
type Running struct {
	OSVersion string `json:"os_version"`
	running.Scan
}

// Running looks at every process. Asked through the agent it sees all of them;
// an ordinary user without an agent sees their own, and how many are hidden.
func (d *Device) Running(context.Context) (Running, error) {
	b, err := d.baseline()
	if err != nil {
		return Running{}, err
	}
	scan, err := running.Processes(d.Store, d.Config.Apps)
	if err != nil {
		return Running{}, err
	}
	return Running{b.OSVersion, *scan}, nil
}
