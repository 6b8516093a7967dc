package linux

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// ueventSize is more than the kernel ever puts into one uevent, in bytes.
const ueventSize = 16 << 10

// Damage is a block that dm-verity refused to let anybody read.
type Damage struct {
	Device Device
	Block  string // as the kernel names it: "0,12" is data block 12, "1,3" a block of the tree
}

// Damages hears of damaged blocks from the kernel's uevents.
type Damages struct {
	events *os.File
	raw    interface {
		Read(func(fd uintptr) bool) error
	}
}

// WatchDamage begins to listen. The kernel tells of the first hundred blocks of
// each device. It needs the initial network namespace.
func WatchDamage() (*Damages, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("cannot listen to the kernel's events: %w", unheard(err))
	}
	const fromKernel = 1 // the multicast group; 2 is udev's
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot listen to the kernel's events: %w", err)
	}
	events := os.NewFile(uintptr(fd), "uevents")
	raw, err := events.SyscallConn()
	if err != nil {
		events.Close()
		return nil, err
	}
	return &Damages{events, raw}, nil
}

func unheard(err error) error {
	if err == unix.EPROTONOSUPPORT || err == unix.EAFNOSUPPORT {
		return &fault.Unsupported{Feature: "uevents"}
	}
	return err
}

// Next waits for the next damaged block. Where the kernel had to drop events
// Overrun says so of the error, and the next call goes on. After Close it is
// os.ErrClosed.
func (d *Damages) Next() (Damage, error) {
	buf := make([]byte, ueventSize)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		if closed := d.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		}); closed != nil {
			return Damage{}, os.ErrClosed
		}
		if err != nil {
			return Damage{}, fmt.Errorf("cannot hear the kernel's events: %w", err)
		}
		// Only the kernel has port 0: any other sender pretends.
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue
		}
		if damage, ok := parseDamage(buf[:n]); ok {
			return damage, nil
		}
	}
}

// Close ends the listening.
func (d *Damages) Close() error { return d.events.Close() }

// parseDamage reads a uevent: "change@/devices/…", then KEY=value, each ended
// by a zero byte.
func parseDamage(event []byte) (d Damage, ok bool) {
	var major, minor uint64
	var block, action string
	for i, word := range bytes.Split(event, []byte{0}) {
		key, value, _ := strings.Cut(string(word), "=")
		var err error
		switch {
		case i == 0:
			action, _, _ = strings.Cut(key, "@")
		case key == "MAJOR":
			major, err = strconv.ParseUint(value, 10, 32)
		case key == "MINOR":
			minor, err = strconv.ParseUint(value, 10, 32)
		case key == "DM_VERITY_ERR_BLOCK_NR":
			block = value
		}
		if err != nil {
			return d, false
		}
	}
	return Damage{Device{uint32(major), uint32(minor)}, block}, action == "change" && block != "" && major != 0
}
