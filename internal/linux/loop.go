package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// loopTries bounds how often another process may snatch the free loop device
// that the kernel had just named.
const loopTries = 64

// Numbers of linux/major.h and linux/miscdevice.h.
const (
	loopMajor        = 7
	loopControlMinor = 237
)

// loopBlock is the sector size of the loop devices, in bytes: that of EROFS
// and of hash trees. Direct I/O needs it to be the file system's or more.
const loopBlock = 4096

// attachLoop gives the open image a read-only loop device that the kernel
// takes down with its last user. Everything is configured in one call, so
// there is no moment in which the device is half set up. Where the file system
// can, the device reads past the page cache: otherwise each page would be kept
// twice, and what changed on the disk seen late.
func attachLoop(image *os.File) (*os.File, error) {
	control, err := openMisc("/dev/loop-control", loopControlMinor)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, &fault.Unsupported{Feature: "loop devices"}
		}
		return nil, fmt.Errorf("cannot open the loop control device: %w", err)
	}
	defer control.Close()
	for range loopTries {
		free, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("cannot find a free loop device: %w", err)
		}
		loop, err := openLoop(free)
		if err != nil {
			return nil, fmt.Errorf("cannot open a loop device: %w", err)
		}
		config := unix.LoopConfig{
			Fd:   uint32(image.Fd()),
			Size: loopBlock,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
				return nil, &fault.Unsupported{Feature: "configuring a loop device in one step", Kernel: "5.8"}
			}
			return nil, fmt.Errorf("cannot configure a loop device: %w", err)
		}
	}
	return nil, errors.New("cannot get a loop device: other programs take them all")
}

// openLoop opens loop device number n, also where /dev has no node for it.
func openLoop(n int) (*os.File, error) {
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return loop, err
	}
	// Loop devices are numbered by their minor unless they have partitions,
	// which the module's parameter max_part asks for and nobody does any more.
	err = aside(func() error {
		if err := (Device{loopMajor, uint32(n)}).node("loop"); err != nil {
			return err
		}
		loop, err = os.OpenFile("loop", os.O_RDWR, 0)
		return err
	})
	return loop, err
}

// deviceOf is the number of the block device behind an open node.
func deviceOf(f *os.File) (Device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Device{}, fmt.Errorf("cannot read a block device's number: %w", err)
	}
	return device(st.Rdev), nil
}
