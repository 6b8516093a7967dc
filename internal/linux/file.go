package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// Space is what a file system has left, in bytes.
type Space struct {
	Available int64 // for this process: root may also use what is reserved
	Total     int64
}

// Free tells the space of the file system that holds path.
func Free(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("cannot read the free space at %s: %w", path, err)
	}
	blocks := st.Bavail
	if Root() {
		blocks = st.Bfree
	}
	size := int64(st.Frsize) // 32 bits wide on some machines
	return Space{Available: int64(blocks) * size, Total: int64(st.Blocks) * size}, nil
}

// ReadOnly says whether the file system that holds path is mounted read-only.
func ReadOnly(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("cannot read the file system at %s: %w", path, err)
	}
	return st.Flags&unix.ST_RDONLY != 0, nil
}

// Reserve makes sure that the file has size bytes of space on disk, so that
// writing them can't fail for want of it. The file keeps its length.
func Reserve(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if err != nil {
		return fmt.Errorf("cannot reserve %d bytes in %s: %w", size, f.Name(), lacking(err, "reserving space on this file system", ""))
	}
	return nil
}

// lockPoll is how often a taken lock is tried again.
const lockPoll = 25 * time.Millisecond

// Lock takes the exclusive lock of an open file (flock), waiting until ctx
// ends. The kernel gives it back when the file is closed or the process dies.
func Lock(ctx context.Context, f *os.File) error {
	for {
		taken, err := TryLock(f)
		if err != nil || taken {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Busy, "cannot lock %s: %w", f.Name(), ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// TryLock takes the lock if nobody has it.
func TryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
		}
	}
}

// Unlock gives the lock back early.
func Unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// Exchange swaps two names in one step (renameat2 RENAME_EXCHANGE).
func Exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("cannot exchange %s and %s: %w", a, b, err)
	}
	return nil
}

// RenameNew renames a file to a name that must not exist yet; the error is
// os.ErrExist if it does.
func RenameNew(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", from, to, err)
	}
	return nil
}

// SyncDir makes the names in a directory survive a power cut.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot sync the folder: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot sync the folder: %w", err)
	}
	return nil
}

// CloneRange makes length bytes of dst at dstOff share the disk blocks of src
// at srcOff (FICLONERANGE). Offsets and length must be multiples of the file
// system's block size. A *fault.Unsupported means: copy instead.
func CloneRange(dst *os.File, dstOff int64, src *os.File, srcOff, length int64) error {
	err := unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
		Src_fd:      int64(src.Fd()),
		Src_offset:  uint64(srcOff),
		Src_length:  uint64(length),
		Dest_offset: uint64(dstOff),
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOTTY),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return &fault.Unsupported{Feature: "sharing blocks between files"}
	}
	return fmt.Errorf("cannot share blocks of %s: %w", src.Name(), err)
}

// CopyRange copies length bytes inside the kernel where it can (which shares
// blocks where the file system can), by reading and writing where it can't.
func CopyRange(dst *os.File, dstOff int64, src *os.File, srcOff, length int64) error {
	for length > 0 {
		n, err := unix.CopyFileRange(int(src.Fd()), &srcOff, int(dst.Fd()), &dstOff, int(min(length, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			copied, err := io.Copy(io.NewOffsetWriter(dst, dstOff), io.NewSectionReader(src, srcOff, length))
			if err == nil && copied < length {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return fmt.Errorf("cannot copy from %s: %w", src.Name(), err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot copy from %s: %w", src.Name(), err)
		}
		if n == 0 {
			return fmt.Errorf("cannot copy from %s: %w", src.Name(), io.ErrUnexpectedEOF)
		}
		length -= int64(n)
	}
	return nil
}

// ShareRange makes length bytes of dst at dstOff those of src at srcOff: by
// sharing their blocks on disk where the file system can, else by copying inside
// the kernel.
func ShareRange(dst *os.File, dstOff int64, src *os.File, srcOff, length int64) error {
	err := CloneRange(dst, dstOff, src, srcOff, length)
	var unsupported *fault.Unsupported
	if errors.As(err, &unsupported) {
		return CopyRange(dst, dstOff, src, srcOff, length)
	}
	return err
}

// Forget drops the file's clean pages from the page cache, so that the next
// read comes from the disk.
func Forget(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// SameFile says whether two open files are one and the same inode.
func SameFile(a, b *os.File) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Fstat(int(a.Fd()), &x); err != nil {
		return false, err
	}
	if err := unix.Fstat(int(b.Fd()), &y); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}
