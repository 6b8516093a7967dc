package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// aside runs f on a thread of its own whose working directory is an empty
// tmpfs that nobody else can reach. It is where names for the kernel are laid
// out: a device node made there is the device of that number, whatever /dev
// holds or lacks.
func aside(f func() error) error {
	return Isolated(func() error {
		m, err := newMount("tmpfs", nil, unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
		if err != nil {
			return err
		}
		defer m.Close()
		if err := unix.Fchdir(int(m.tree.Fd())); err != nil {
			return err
		}
		return f()
	})
}

// node makes a node for a block device in the working directory.
func (d Device) node(name string) error {
	if err := unix.Mknod(name, unix.S_IFBLK|0o400, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
		return fmt.Errorf("cannot name the block device %s: %w", d, err)
	}
	return nil
}

// openMisc opens a character device of the kernel's misc family. Early at boot,
// or where no /dev was laid out for it, its node may be missing: then one is
// made aside. Opening it makes the kernel load the driver. The error is
// os.ErrNotExist where the kernel has no such driver.
func openMisc(path string, minor uint32) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, absent(err)
	}
	const misc = 10
	err = aside(func() error {
		if err := unix.Mknod("node", unix.S_IFCHR|0o600, int(unix.Mkdev(misc, minor))); err != nil {
			return err
		}
		f, err = os.OpenFile("node", os.O_RDWR, 0)
		return absent(err)
	})
	return f, err
}

// absent turns the errors by which the kernel says that nothing is behind a
// device's node into os.ErrNotExist.
func absent(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return os.ErrNotExist
	}
	return err
}
