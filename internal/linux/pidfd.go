package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pidfd is a handle on a process that can't come to mean another one.
type Pidfd struct{ f *os.File }

// OpenPidfd takes a handle on the process pid.
func OpenPidfd(pid int) (Pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Pidfd{}, fmt.Errorf("cannot take a handle on process %d: %w", pid, lacking(err, "pidfd_open", "5.3"))
	}
	return PidfdOf(os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", pid))), nil
}

// PidfdOf uses an open descriptor, one that was received, as a handle.
func PidfdOf(f *os.File) Pidfd { return Pidfd{f} }

// File is the descriptor of the handle.
func (p Pidfd) File() *os.File { return p.f }

// Close lets go of the handle.
func (p Pidfd) Close() error { return p.f.Close() }

// Signal sends a signal; it reports os.ErrProcessDone if the process has ended.
func (p Pidfd) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(int(p.f.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Ended says whether the process has ended.
func (p Pidfd) Ended() bool {
	ready, err := p.poll(0)
	return err == nil && ready
}

// Wait waits until the process has ended, or ctx.
func (p Pidfd) Wait(ctx context.Context) error {
	const slice = 50 * time.Millisecond // how late the end of ctx may be noticed
	for {
		ready, err := p.poll(slice)
		if err != nil || ready {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (p Pidfd) poll(timeout time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot wait for a process: %w", err)
	}
	return n > 0, nil
}

// Inode is the handle's inode number, which on Linux 6.9 and newer no other
// process has between two boots; 0 on older kernels.
func (p Pidfd) Inode() uint64 {
	var fs unix.Statfs_t
	const pidfs = 0x50494446 // PID_FS_MAGIC of linux/magic.h
	if unix.Fstatfs(int(p.f.Fd()), &fs) != nil || int64(fs.Type) != pidfs {
		return 0
	}
	var st unix.Stat_t
	if unix.Fstat(int(p.f.Fd()), &st) != nil {
		return 0
	}
	return st.Ino
}

// BootID is the kernel's random name for the time since it started.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	if len(data) > 36 {
		data = data[:36]
	}
	return string(data), nil
}
