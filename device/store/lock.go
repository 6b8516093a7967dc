package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// Lock is held by the one process that changes the state. The kernel lets go
// of it when the process ends, however it ends.
type Lock struct{ f *os.File }

// patience is how long Lock waits for another change: long enough for what the
// agent does by itself in the background, so that a person who types a command
// at that moment is not refused, and short enough for a person to wait.
const (
	patience = 2 * time.Second
	retry    = 20 * time.Millisecond
)

// Lock takes the right to change the state, or fails with fault.Busy when
// another change does not end within two seconds. Two handles of one process
// exclude each other as well.
func (s *Store) Lock() (*Lock, error) {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrPermission) {
		return nil, fault.New(fault.Failed, "cannot lock state: %w", err).Hint("run it with sudo")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock state: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	for begun := time.Now(); errors.Is(err, syscall.EWOULDBLOCK) && time.Since(begun) < patience; {
		time.Sleep(retry)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Busy, "cannot start: another change is under way").
				Hint("wait for it to finish, then try again")
		}
		return nil, fmt.Errorf("cannot lock state: %w", err)
	}
	return &Lock{f}, nil
}

// Unlock gives the right back.
func (l *Lock) Unlock() error { return l.f.Close() }
