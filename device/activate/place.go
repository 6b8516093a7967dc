package activate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// placement is a list of switched mount points, with what was there before.
type placement []place

type place struct {
	target string
	old    *linux.Mount // nil if nothing was mounted there
}

// put switches one mount point to m, or places m there.
func (p *placement) put(m *linux.Mount, target string) error {
	taken, err := linux.Mounted(target)
	if err != nil {
		return err
	}
	next := place{target: target}
	if taken {
		if next.old, err = linux.Clone(target); err != nil {
			return err
		}
	}
	// Even a switch that failed may have changed something: undo covers it.
	*p = append(*p, next)
	return m.Switch(target)
}

// keep ends the possibility of undo.
func (p placement) keep() {
	for _, at := range p {
		if at.old != nil {
			at.old.Close()
		}
	}
}

// undo puts back everywhere what was there before.
func (p placement) undo() error {
	defer p.keep()
	var errs []error
	for _, at := range slices.Backward(p) {
		if at.old == nil {
			errs = append(errs, linux.Unmount(at.target))
		} else {
			errs = append(errs, at.old.Switch(at.target))
		}
	}
	return errors.Join(errs...)
}

// placeSet gives every attached cryptex its place among the set's mounts.
// Mounts that a set of this id already has are switched. If one can't be
// placed, everything is as before.
func placeSet(st *store.Store, id string, list []attached) error {
	var p placement
	for _, a := range list {
		if err := placeMount(st, &p, id, a); err != nil {
			return errors.Join(err, p.undo())
		}
	}
	p.keep()
	return nil
}

func placeMount(st *store.Store, p *placement, id string, a attached) error {
	dir := st.SetMount(id, a.want.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the mount point of %s: %w", a.want.Name, err)
	}
	if err := recordDevice(st, a); err != nil {
		return err
	}
	return p.put(a.mount, dir)
}

// recordDevice writes down which image a device number stands for. A process
// may keep content mapped that is mounted nowhere any more; its memory maps
// then only show the number.
func recordDevice(st *store.Store, a attached) error {
	path := st.DeviceLink(a.device.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot record a device: %w", err)
	}
	return pointTo(path, present.Content{Name: a.want.Name, Image: a.want.Image}.Source())
}

// pointTo makes path a link with the given text in one step. It lies in /run
// and need not survive a power cut.
func pointTo(path, text string) error {
	next := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot switch %s: %w", path, err)
	}
	if err := os.Symlink(text, next); err != nil {
		return fmt.Errorf("cannot switch %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("cannot switch %s: %w", path, err)
	}
	return nil
}

// exposeSet puts second mounts of a set's content where everybody sees them.
// A mount point whose cryptex isn't in the set is emptied. If one mount fails,
// what was there before is put back everywhere.
func exposeSet(st *store.Store, id string, names []string) error {
	var p placement
	for _, name := range names {
		if err := expose(st, &p, id, name); err != nil {
			return errors.Join(err, p.undo())
		}
	}
	p.keep()
	return clearMountPoints(st, names)
}

func expose(st *store.Store, p *placement, id, name string) error {
	target := st.MountPoint(name)
	// On a read-only /usr the OS update brings the folder; elsewhere make it.
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("cannot make the mount point of %s: %w", name, err)
	}
	m, err := linux.Clone(st.SetMount(id, name))
	if err != nil {
		return err
	}
	defer m.Close()
	return p.put(m, target)
}

// clearMountPoints unmounts what an earlier boot left at mount points that are
// not named.
func clearMountPoints(st *store.Store, keep []string) error {
	list, err := linux.OwnMounts(func(m *linux.MountPoint) bool {
		return filepath.Dir(m.Path) == st.CryptexDir() && !slices.Contains(keep, filepath.Base(m.Path))
	})
	for _, m := range list {
		err = errors.Join(err, linux.Unmount(m.Path))
	}
	return err
}

// sweep takes away the mounts of all sets but those named. Who uses their
// content keeps it.
func sweep(st *store.Store, keep ...string) error {
	entries, err := os.ReadDir(st.SetMounts(""))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list the mounted sets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			errs = append(errs, unmountSet(st, e.Name()))
		}
	}
	return errors.Join(errs...)
}

func unmountSet(st *store.Store, id string) error {
	dir := st.SetMounts(id)
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot list the mounts of set %s: %w", id, err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		for range maxStacked {
			if taken, err := linux.Mounted(path); err != nil || !taken {
				break
			}
			if err := linux.Unmount(path); err != nil {
				return err
			}
		}
		// Not RemoveAll: if something is still there, it must not be emptied.
		// Removing the folder takes away what is mounted on it in any other
		// namespace too; a launched app has its content elsewhere.
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove a mount point: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("cannot remove a mount point: %w", err)
	}
	return nil
}

// maxStacked bounds how many mounts lie over each other at one place, which
// happens on kernels that can't switch a mount.
const maxStacked = 64
