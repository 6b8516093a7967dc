package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// The numbers of linux/connector.h and linux/cn_proc.h that ProcessEvents uses.
const (
	connectorIndexProc = 1 // CN_IDX_PROC
	connectorValueProc = 1 // CN_VAL_PROC
	listen             = 1 // PROC_CN_MCAST_LISTEN
	connectorBuffer    = 8 << 20
)

// ProcessEvents opens the kernel's process connector: each read of the file is
// one datagram of netlink messages about forks, execs and exits of every process.
// It needs root and the initial network and pid namespaces.
func ProcessEvents() (*os.File, error) {
	fail := func(what string, err error) (*os.File, error) {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			err = &fault.Unsupported{Feature: "the process connector"}
		}
		return nil, fmt.Errorf("cannot %s the process connector: %w", what, err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return fail("open", err)
	}
	// A storm of exits must fit while the reader is not running. Best effort: the
	// kernel says so when events were lost.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, connectorBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, connectorBuffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorIndexProc}); err != nil {
		unix.Close(fd)
		return fail("join", err)
	}
	// struct nlmsghdr, struct cn_msg, enum proc_cn_mcast_op.
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, 16+20+4)
	b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_DONE)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, connectorIndexProc)
	b = binary.NativeEndian.AppendUint32(b, connectorValueProc)
	b = binary.NativeEndian.AppendUint64(b, 0) // sequence and acknowledgement
	b = binary.NativeEndian.AppendUint16(b, 4)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, listen)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return fail("subscribe to", err)
	}
	return os.NewFile(uintptr(fd), "process connector"), nil
}

// Overrun says whether a read of ProcessEvents failed because the kernel had to
// drop events; the next read goes on behind the gap.
func Overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// Monotonic is the time of CLOCK_MONOTONIC: since boot, without suspend.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0 // it has no documented failure
	}
	return time.Duration(ts.Nano())
}
