package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sealant-os/sealant/internal/fault"
)

// What is kept for the records of a removal and of its confirmation (journal,
// slots, history), which must work where neither a byte nor an inode is free.
const (
	reserveSize   = 1 << 20  // bytes
	reserveStep   = 64 << 10 // bytes; where there are not all, some are better than none
	reserveInodes = 16       // a removal leaves five files and links more, and needs one at a time besides
)

// NoSpace says whether a failure is a full file system, or a full quota.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Reserve makes sure that the room for a removal is set aside: as much of it as
// there is, and an error if that is not all.
func (s *Store) Reserve() error {
	if err := errors.Join(s.reserveBytes(), s.reserveInodes()); err != nil {
		return fault.New(fault.Failed, "cannot reserve room for a removal on the file system of %s: %w", s.dir, err)
	}
	return nil
}

// reserveBytes writes the bytes, so that no file system gives them away. Zeros do:
// none of the file systems in question drops them unless compression is on, and
// then room remains.
func (s *Store) reserveBytes() (err error) {
	path := s.path("reserve")
	if fi, err := os.Stat(path); err == nil && fi.Size() == reserveSize {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close(), syncDir(s.dir)) }()
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for at < reserveSize {
		n, err := f.Write(make([]byte, min(reserveStep, reserveSize-at)))
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// reserveInodes makes empty files, whose inodes are given back with them.
func (s *Store) reserveInodes() error {
	dir := s.path("spare")
	if all, err := os.ReadDir(dir); err == nil && len(all) == reserveInodes {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for n := range reserveInodes {
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// ReleaseReserve frees that room; Reserve takes it again afterwards.
func (s *Store) ReleaseReserve() error {
	return errors.Join(remove(s.path("reserve")), remove(s.path("spare")))
}
