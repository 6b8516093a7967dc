package activate

import (
	"fmt"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// InUse tells which images somebody may still read: those mounted in any
// process's mount namespace, and those that a process has mapped, open, or as
// its program after they were unmounted. The collector must keep them. Where a
// process can't be looked at, that is an error: what isn't known to be unused
// is not garbage.
func InUse(st *store.Store) (map[store.Digest]bool, error) {
	devices, err := present.Devices(st)
	if err != nil {
		return nil, err
	}
	pids, err := linux.Processes()
	if err != nil {
		return nil, err
	}
	s := useScan{devices: devices, seen: map[uint64]bool{}, used: map[store.Digest]bool{}}
	for _, pid := range pids {
		if err := s.process(pid); err != nil && !linux.Gone(err) {
			return nil, fmt.Errorf("cannot tell which images are in use: %w", err)
		}
	}
	return s.used, nil
}

type useScan struct {
	devices map[linux.Device]present.Content
	seen    map[uint64]bool // mount namespaces that were read
	used    map[store.Digest]bool
	maps    linux.MapReader
}

func (s *useScan) process(pid int) error {
	p, err := linux.OpenProcess(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil || stat.Kernel || stat.State == 'Z' || stat.State == 'X' {
		return err
	}
	space, err := p.Namespace("mnt")
	closed := linux.Denied(err)
	if err != nil && !closed {
		return err
	}
	if closed || !s.seen[space] {
		mounts, err := p.Mounts(nil)
		if err != nil {
			return err
		}
		s.seen[space] = true
		for i := range mounts {
			if c, ok := present.Of(&mounts[i]); ok {
				s.used[c.Image] = true
			}
		}
	}
	if closed {
		return nil
	}
	return s.unmounted(p)
}

// unmounted looks for content that a process uses and no namespace mounts.
func (s *useScan) unmounted(p *linux.Process) error {
	wanted := func(d linux.Device) bool {
		c, ok := s.devices[d]
		return ok && !s.used[c.Image]
	}
	maps, err := s.maps.Mapped(p, wanted)
	if err != nil {
		return err
	}
	for _, m := range maps {
		s.used[s.devices[m.Device].Image] = true
	}
	open, err := p.OpenFiles(wanted)
	if err != nil {
		return err
	}
	for _, d := range append(open, p.Holds(wanted)...) {
		s.used[s.devices[d].Image] = true
	}
	return nil
}
