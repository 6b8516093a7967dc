package linux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Arrivals tells the names of files that are moved into a folder, as a program
// does that writes a file whole and then gives it its name.
type Arrivals struct {
	events *os.File
	buffer [4096]byte
	names  []string
}

// WatchArrivals starts to watch a folder.
func WatchArrivals(dir string) (*Arrivals, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, fmt.Errorf("cannot watch %s: %w", dir, err)
	}
	return &Arrivals{events: events}, nil
}

// Next waits for the next name. It returns "" when the kernel dropped some, so
// that the caller looks for itself, and os.ErrClosed after Close.
func (a *Arrivals) Next() (string, error) {
	for len(a.names) == 0 {
		n, err := a.events.Read(a.buffer[:])
		if err != nil {
			return "", err
		}
		a.names = inotifyNames(a.buffer[:n])
	}
	name := a.names[0]
	a.names = a.names[1:]
	return name, nil
}

// inotifyNames reads the events of one read, of struct inotify_event each.
func inotifyNames(b []byte) (names []string) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size < 0 || size > len(b) {
			break
		}
		name, _, _ := bytes.Cut(b[:size], []byte{0})
		b = b[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			name = nil
		}
		names = append(names, string(name))
	}
	return names
}

// Close ends the watch.
func (a *Arrivals) Close() error { return a.events.Close() }
