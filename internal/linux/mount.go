package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h (Linux 6.5).
const moveMountBeneath = 0x200

// Mount is a mounted file system that has no place yet. It is seen by nobody
// until it is placed, and dissolves when it is closed unplaced.
type Mount struct{ tree *os.File }

// Options of a new mount. It is always read-only and never honours device files.
type Options struct {
	// Source is the text that mountinfo shows as the mount's source. It must be
	// one path component: no slash, at most 255 bytes.
	Source string
	// NoSuid makes set-user-id bits and file capabilities inert.
	NoSuid bool
	// Loop puts a loop device between image and file system even where the
	// kernel mounts image files itself.
	Loop bool
}

// MountErofs mounts the EROFS file system that begins at byte 0 of image, that
// very open file and not what its name means by now. Linux 6.12 and newer mount
// the file itself; else a loop device stands between, which the kernel frees
// with the mount's last user. The image may be closed afterwards.
func MountErofs(image *os.File, o Options) (*Mount, error) {
	if !o.Loop {
		m, err := mountErofs(fmt.Sprintf("/proc/self/fd/%d", image.Fd()), o)
		if !errors.Is(err, unix.ENOTBLK) && !errors.Is(err, unix.EOPNOTSUPP) {
			return m, err
		}
	}
	loop, err := attachLoop(image)
	if err != nil {
		return nil, err
	}
	// With autoclear set the device goes when the mount goes; this descriptor
	// only keeps it alive until then.
	defer loop.Close()
	want, err := deviceOf(loop)
	if err != nil {
		return nil, err
	}
	var m *Mount
	err = aside(func() (err error) {
		if err := want.node(o.Source); err != nil {
			return err
		}
		m, err = newErofs(o)
		return err
	})
	if err != nil {
		return nil, err
	}
	if got, err := m.Device(); err != nil || got != want {
		m.Close()
		return nil, fmt.Errorf("cannot mount %s: another device was mounted in its stead", loop.Name())
	}
	return m, nil
}

// mountErofs mounts the file at path under the name o.Source. The kernel takes
// the source as a path and shows it in mountinfo for good, so a symbolic link
// of that name is laid out aside.
func mountErofs(path string, o Options) (m *Mount, err error) {
	err = aside(func() error {
		if err := unix.Symlinkat(path, unix.AT_FDCWD, o.Source); err != nil {
			return fmt.Errorf("cannot name the mount %q: %w", o.Source, err)
		}
		m, err = newErofs(o)
		return err
	})
	return m, err
}

// newErofs mounts what o.Source names in the working directory.
func newErofs(o Options) (*Mount, error) {
	attr := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV
	if o.NoSuid {
		attr |= unix.MOUNT_ATTR_NOSUID
	}
	return newMount("erofs", func(fs int) error {
		if err := unix.FsconfigSetString(fs, "source", o.Source); err != nil {
			return err
		}
		return unix.FsconfigSetFlag(fs, "ro")
	}, attr)
}

// newMount makes a detached mount of a file system type.
func newMount(kind string, configure func(fs int) error, attr int) (*Mount, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, &fault.Unsupported{Feature: "the file system " + kind, Kernel: firstKernel(kind)}
	case err != nil:
		return nil, fmt.Errorf("cannot open a %s file system: %w", kind, lacking(err, "the new mount interface", "5.2"))
	}
	defer unix.Close(fs)
	if configure != nil {
		if err := configure(fs); err != nil {
			return nil, fmt.Errorf("cannot configure a %s mount: %w", kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		if said := kernelSays(fs); said != "" {
			return nil, fmt.Errorf("cannot mount %s: %w (%s)", kind, err, said)
		}
		return nil, fmt.Errorf("cannot mount %s: %w", kind, err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s: %w", kind, err)
	}
	return &Mount{os.NewFile(uintptr(tree), kind)}, nil
}

func firstKernel(kind string) string {
	if kind == "erofs" {
		return "5.4"
	}
	return ""
}

// kernelSays reads the last message that the kernel left in a file system
// context: "e erofs: cannot find valid erofs superblock".
func kernelSays(fs int) string {
	var last string
	buf := make([]byte, 512)
	for range 16 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		if n > 2 && buf[1] == ' ' {
			last = string(buf[2:n])
		}
	}
	return last
}

// Clone makes a second mount of what is mounted at path, with a place of its
// own, and nothing of what is mounted below.
func Clone(path string) (*Mount, error) { return openTree(path, 0) }

// CloneTree is Clone with everything that is mounted below path.
func CloneTree(path string) (*Mount, error) { return openTree(path, unix.AT_RECURSIVE) }

func openTree(path string, flags uint) (*Mount, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, fmt.Errorf("cannot take the mount at %s: %w", path, lacking(err, "open_tree", "5.2"))
	}
	return &Mount{os.NewFile(uintptr(tree), path)}, nil
}

// Private takes the unplaced mount, with all below it, out of every propagation
// group: what is mounted on it or taken from it elsewhere later doesn't show.
func (m *Mount) Private() error {
	err := unix.MountSetattr(int(m.tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("cannot make a mount private: %w", lacking(err, "mount_setattr", "5.12"))
	}
	return nil
}

// Device is the mounted file system's number.
func (m *Mount) Device() (Device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(m.tree.Fd()), &st); err != nil {
		return Device{}, fmt.Errorf("cannot read a mount's device: %w", err)
	}
	return device(st.Dev), nil
}

// Place puts the mount on the directory target, over whatever is mounted
// there. From then on it lives without m; m must still be closed.
func (m *Mount) Place(target string) error {
	err := unix.MoveMount(int(m.tree.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("cannot mount at %s: %w", target, err)
	}
	return nil
}

// Switch puts the mount in the place of the one that is at target, so that at
// every moment either the old content or the new is there. Who has the old
// content open keeps it. Where target is no mount point it is Place.
//
// A mount namespace that follows this one loses what it has mounted over target
// itself, because the kernel passes the unmounting on; one that must keep its
// own content puts it on a private mount (see Private).
//
// Kernels before 6.5 can't slip a mount beneath another: there the new one is
// laid over the old, which stays hidden until the next boot.
func (m *Mount) Switch(target string) error {
	taken, err := Mounted(target)
	if err != nil {
		return err
	}
	if !taken {
		return m.Place(target)
	}
	err = unix.MoveMount(int(m.tree.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|moveMountBeneath)
	if errors.Is(err, unix.EINVAL) {
		return m.Place(target)
	}
	if err != nil {
		return fmt.Errorf("cannot mount beneath %s: %w", target, err)
	}
	// One step takes away the old mount on top; the new one is there already.
	if err := Unmount(target); err != nil {
		return fmt.Errorf("cannot take the old mount from %s: %w", target, err)
	}
	return nil
}

// Close gives the mount back; if it was never placed, it dissolves.
func (m *Mount) Close() error { return m.tree.Close() }

// Mounted says whether path is the root of a mount.
func Mounted(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, &fault.Unsupported{Feature: "recognising a mount point by statx", Kernel: "5.8"}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Unmount takes the topmost mount away from path at once. Processes that use it
// keep it; it ends with the last of them. It is no error if nothing is mounted.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot unmount %s: %w", path, err)
	}
	return nil
}

// Bind mounts what is at source on target too, with what is mounted below it.
func Bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot bind %s to %s: %w", source, target, err)
	}
	return nil
}

// Tmpfs mounts an empty file system in memory at target.
func Tmpfs(target string) error {
	m, err := newMount("tmpfs", func(fs int) error {
		return unix.FsconfigSetString(fs, "mode", "0755")
	}, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Place(target)
}

// DeviceAt is the number of the file system that is seen at path.
func DeviceAt(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	return device(st.Dev), nil
}

// FileAt names the file at path as the kernel does: by the file system that it
// is mounted from, which on btrfs and overlay is not what stat tells, and inode.
func FileAt(path string) (fs Device, inode uint64, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return fs, 0, fmt.Errorf("cannot look at %s: %w", path, err)
	}
	mounts, err := OwnMounts(func(m *MountPoint) bool { return uint64(m.ID) == st.Mnt_id })
	if err != nil {
		return fs, 0, err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 || len(mounts) != 1 {
		return Device{st.Dev_major, st.Dev_minor}, st.Ino, nil
	}
	return mounts[0].Device, st.Ino, nil
}
