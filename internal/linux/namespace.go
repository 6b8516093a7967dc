package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PrivateMounts gives the calling thread a mount namespace of its own: a copy
// of the one it is in, which still follows what is mounted and unmounted there
// later (USB sticks, home directories) but gives nothing back. The thread must
// be locked and have its own working directory, as inside Isolated.
func PrivateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	// One call for the whole tree; mount(2) does the same on older kernels.
	err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_SLAVE})
	if errors.Is(err, unix.ENOSYS) {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	}
	if err != nil {
		return fmt.Errorf("cannot make a mount namespace follow the one it is a copy of: %w", err)
	}
	return nil
}

// SharedMounts makes all mounts of the calling thread's namespace peers of
// their later copies, as systemd does at boot, so that those copies follow.
func SharedMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the mounts: %w", err)
	}
	return nil
}

// inherited are the namespaces that a child has from its parent and that can
// be entered: mounts last, because the others are found through them.
var inherited = []string{"net", "ipc", "uts", "cgroup", "mnt"}

// OpenNamespaces opens the network, ipc, host name, control group and mount
// namespaces of the process. What is opened stays the same whatever the process
// does next.
func (p *Process) OpenNamespaces() (files []*os.File, err error) {
	for _, kind := range inherited {
		fd, err := p.open("ns/" + kind)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), kind))
	}
	return files, nil
}

// NamespaceFiles is how many files OpenNamespaces gives.
const NamespaceFiles = 5

// Enter puts the calling thread into opened namespaces. Same conditions as
// PrivateMounts.
func Enter(namespaces []*os.File) error {
	for _, f := range namespaces {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("cannot enter the %s namespace of a process: %w", f.Name(), err)
		}
	}
	return nil
}

// SameRoot says whether the process's root directory is the calling thread's.
func (p *Process) SameRoot() (bool, error) {
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	var a, b unix.Statx_t
	if err := unix.Statx(p.dir, "root", 0, mask, &a); err != nil {
		return false, p.wrap("root", err)
	}
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, mask, &b); err != nil {
		return false, fmt.Errorf("cannot look at the root directory: %w", err)
	}
	return a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor && a.Ino == b.Ino && a.Mnt_id == b.Mnt_id, nil
}

// OwnMountNamespace is the inode number of the calling thread's mount namespace
// and, on Linux 6.11 and newer, a number that no other one ever has (else 0).
func OwnMountNamespace() (inode, id uint64, err error) {
	fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the mount namespace: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, fmt.Errorf("cannot read the mount namespace: %w", err)
	}
	return st.Ino, namespaceID(fd), nil
}

// MountNamespaceID is the number of the process's mount namespace that no
// other one ever has, 0 on kernels before 6.11.
func (p *Process) MountNamespaceID() (uint64, error) {
	fd, err := p.open("ns/mnt")
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return namespaceID(fd), nil
}

func namespaceID(fd int) (id uint64) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_MNTNS_ID, uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return 0
	}
	return id
}

// SetUmask sets the calling thread's file mode mask; the thread must have its
// own working directory, else it is the whole program's.
func SetUmask(mask int) { unix.Umask(mask) }

// Chdir changes the calling thread's working directory.
func Chdir(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("cannot change to the folder %s: %w", dir, err)
	}
	return nil
}

// SameNamespaces says whether the process lives in all of the caller's
// namespaces of the given kinds.
func (p *Process) SameNamespaces(kinds ...string) (bool, error) {
	own, err := OpenProcess(os.Getpid())
	if err != nil {
		return false, err
	}
	defer own.Close()
	for _, kind := range kinds {
		its, err := p.Namespace(kind)
		if err != nil {
			return false, err
		}
		mine, err := own.Namespace(kind)
		if err != nil {
			return false, err
		}
		if its != mine {
			return false, nil
		}
	}
	return true, nil
}

// JoinCgroup puts this process into the control groups that another one is in,
// in every hierarchy that is mounted here.
func JoinCgroup(p *Process) error {
	data, err := p.read("cgroup")
	if err != nil {
		return err
	}
	own, err := OpenProcess(os.Getpid())
	if err != nil {
		return err
	}
	defer own.Close()
	mine, err := own.read("cgroup")
	if err != nil {
		return err
	}
	groups, have := cgroupLines(string(data)), cgroupLines(string(mine))
	groups = slices.DeleteFunc(groups, func(g cgroup) bool { return slices.Contains(have, g) })
	if len(groups) == 0 {
		return nil
	}
	mounts, err := OwnMounts(func(m *MountPoint) bool { return m.Type == "cgroup2" || m.Type == "cgroup" })
	if err != nil {
		return err
	}
	var errs []error
	for _, group := range groups {
		dir, ok := group.directory(mounts)
		if !ok {
			continue
		}
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			errs = append(errs, fmt.Errorf("cannot join the control group: %w", err))
		}
	}
	return errors.Join(errs...)
}
