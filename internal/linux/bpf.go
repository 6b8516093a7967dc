package linux

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// SecurityModules lists the kernel's security modules in force, in their order.
// The error is os.ErrNotExist where securityfs is not mounted.
func SecurityModules() ([]string, error) {
	text, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return nil, fmt.Errorf("cannot list the kernel's security modules: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(text)), ","), nil
}

// MountBPF mounts the kernel's file system of BPF objects at path, unless it is
// there already.
func MountBPF(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if uint32(fs.Type) == unix.BPF_FS_MAGIC { // of 32 or 64 bits
		return nil
	}
	m, err := newMount("bpf", func(fs int) error {
		return unix.FsconfigSetString(fs, "mode", "0700")
	}, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Place(path)
}

// Open opens the root folder of what is mounted.
func (m *Mount) Open() (*os.File, error) {
	fd, err := unix.Openat(int(m.tree.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a mount: %w", err)
	}
	return os.NewFile(uintptr(fd), m.tree.Name()), nil
}

// OpenFile opens a file by its path below the mount's root. It follows no links.
func (m *Mount) OpenFile(path string) (*os.File, error) {
	fd, err := unix.Openat2(int(m.tree.Fd()), path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenBlock opens the block device of that number for reading. What is no block
// device, as the number of a file system without one, is os.ErrNotExist.
func OpenBlock(d Device) (f *os.File, err error) {
	if d.Major == 0 {
		return nil, fmt.Errorf("cannot open the block device %s: %w", d, os.ErrNotExist)
	}
	err = aside(func() error {
		if err := d.node("device"); err != nil {
			return err
		}
		f, err = os.Open("device")
		return absent(err)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open the block device %s: %w", d, err)
	}
	return f, nil
}
