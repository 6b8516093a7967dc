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

// attachLoop gives the open image a read-only loop device that the kernel
// takes down with its last user. Everything is configured in one call, so
// there is no moment in which the device is half set up.
func attachLoop(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
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
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", free), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot open a loop device: %w", err)
		}
		config := unix.LoopConfig{
			Fd:   uint32(image.Fd()),
			Size: 4096,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
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
