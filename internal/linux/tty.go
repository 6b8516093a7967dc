package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenTerminal makes a pseudo terminal: the side that a program runs on, and
// the side that shows and types.
func OpenTerminal() (user, program *os.File, err error) {
	user, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a pseudo terminal: %w", err)
	}
	defer func() {
		if err != nil {
			user.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("cannot unlock a pseudo terminal: %w", err)
	}
	number, err := unix.IoctlGetUint32(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot name a pseudo terminal: %w", err)
	}
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a pseudo terminal: %w", err)
	}
	return user, program, nil
}

// Terminal says whether the file is a terminal.
func Terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Foreground says whether this process may read from the terminal: whether it
// is in the foreground of the terminal's session.
func Foreground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// CopyTerminalSize gives one terminal the size of another.
func CopyTerminalSize(from, to *os.File) error {
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return err
	}
	return unix.IoctlSetWinsize(int(to.Fd()), unix.TIOCSWINSZ, size)
}

// NewSession makes this process the leader of a session of its own, and the
// terminal, if any, its controlling terminal.
func NewSession(terminal *os.File) error {
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot begin a session: %w", err)
	}
	if terminal == nil {
		return nil
	}
	if err := unix.IoctlSetInt(int(terminal.Fd()), unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("cannot take the terminal: %w", err)
	}
	return nil
}
