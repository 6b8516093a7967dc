package device

import (
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// enforcement is who guards what this device runs, and why it is not the
// kernel: as the boot found it, or, where none was seen, as the next will.
func (d *Device) enforcement() (activate.Enforcement, string) {
	if r, err := activate.ReadRecord(d.Store); err == nil && len(r.Cryptexes) > 0 {
		return r.Enforcement, strings.Join(r.Enforcing, "; ")
	}
	if err := activate.Lacking(); err != nil {
		return activate.AtMount, err.Error()
	}
	return activate.Kernel, ""
}

// damage names the cryptexes of which the kernel refused to read a block. Who
// may not ask the kernel sees none.
func (d *Device) damage() []string {
	names := []string{}
	list, _ := activate.Damaged(d.Store)
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

// verifyGuards holds the root hashes that the kernel compares with against
// those of the booted set: what is mounted must be guarded by its seal.
func (d *Device) verifyGuards(set store.Set) error {
	if e, _ := d.enforcement(); e != activate.Kernel {
		return nil
	}
	list, err := activate.Guards(d.Store)
	if err != nil {
		return err
	}
	for _, c := range set.Cryptexes {
		device, err := linux.DeviceAt(filepath.Join(d.Store.CryptexDir(), c.Name))
		if err != nil {
			return err
		}
		guarded := false
		for _, g := range list {
			guarded = guarded || g.Device == device && g.Enforcement == activate.Kernel && g.Root == c.Seal.Root
		}
		if !guarded {
			return fault.New(fault.Seal, "%s is mounted, but the kernel does not compare it with its seal", c.Name)
		}
	}
	return nil
}
