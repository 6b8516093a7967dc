// Package linux is the boundary to the kernel: the only package of Sealant
// that calls golang.org/x/sys/unix. It knows mounts, loop devices, namespaces,
// processes, sockets and files, and nothing of cryptexes, tickets or sets.
//
// Rules of the boundary:
//
//   - Paths of callers are used as they are; the package builds none itself but
//     those of /proc, /sys and /dev.
//   - Every file descriptor is close-on-exec.
//   - What the running kernel lacks is a *fault.Unsupported that names the
//     feature and the first kernel that has it.
//   - What changes a thread (its working directory, its namespaces) happens on
//     a thread of its own, see Isolated.
package linux

import (
	"errors"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// Device is the number of a block device or of a mounted file system, as it
// stands in st_dev, in mountinfo and in /proc/PID/maps.
type Device struct{ Major, Minor uint32 }

// String is the "major:minor" of mountinfo, in decimal.
func (d Device) String() string {
	return strconv.FormatUint(uint64(d.Major), 10) + ":" + strconv.FormatUint(uint64(d.Minor), 10)
}

// ParseDevice reads the decimal "major:minor" that String writes.
func ParseDevice(s string) (Device, error) {
	major, minor, ok := strings.Cut(s, ":")
	if ok {
		a, err1 := strconv.ParseUint(major, 10, 32)
		i, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 == nil && err2 == nil {
			return Device{uint32(a), uint32(i)}, nil
		}
	}
	return Device{}, errors.New("not a device number: " + strconv.Quote(s))
}

func device(dev uint64) Device { return Device{unix.Major(dev), unix.Minor(dev)} }

// Root says whether this process may mount: whether it runs with user id 0.
func Root() bool { return unix.Geteuid() == 0 }

// Release is the running kernel's version, "6.12.48+deb13-amd64".
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// AtLeast says whether the running kernel is version ("6.12") or newer.
func AtLeast(version string) bool {
	have, want := numbers(Release()), numbers(version)
	if have[0] != want[0] {
		return have[0] > want[0]
	}
	return have[1] >= want[1]
}

// numbers reads the leading major and minor version number.
func numbers(s string) (v [2]int) {
	for i, part := range strings.SplitN(s, ".", 3) {
		if i == len(v) {
			break
		}
		end := 0
		for end < len(part) && part[end] >= '0' && part[end] <= '9' {
			end++
		}
		v[i], _ = strconv.Atoi(part[:end])
	}
	return v
}

// lacking turns the errors by which a kernel says "no such call" into a
// *fault.Unsupported and leaves every other error as it is.
func lacking(err error, feature, kernel string) error {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return &fault.Unsupported{Feature: feature, Kernel: kernel}
	}
	return err
}

// Isolated runs f on an operating system thread of its own, with its own
// working directory, root and umask, that is thrown away afterwards. In f the
// thread may enter namespaces, drop privileges of the thread, or start a
// process, which inherits all that; the rest of the program doesn't notice.
//
// It is never the program's first thread: that one can't be thrown away, and
// what /proc tells of the process would be told of it.
func Isolated(f func() error) error {
	done := make(chan error, 1)
	go isolate(f, done, make(chan struct{}))
	return <-done
}

// Alone gives the calling thread, and from now on this goroutine, what Isolated gives,
// for good: in a process that does nothing any more but become another program. What
// the thread takes on, the program has; this process's other threads don't. That is
// sooner done than on a thread of its own.
func Alone() error {
	runtime.LockOSThread()
	return ownFolder()
}

func ownFolder() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return errors.New("cannot give a thread its own working directory: " + err.Error())
	}
	return nil
}

func isolate(f func() error, done chan<- error, settled chan struct{}) {
	// Never unlocked: the runtime ends the thread with the goroutine.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// As long as this goroutine holds the first thread, no other gets it.
		other := make(chan struct{})
		go isolate(f, done, other)
		<-other
		runtime.UnlockOSThread()
		close(settled)
		return
	}
	close(settled)
	if err := ownFolder(); err != nil {
		done <- err
		return
	}
	done <- f()
}
