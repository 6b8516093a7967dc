package linux

import (
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procmapQuery is struct procmap_query of linux/fs.h: what Linux 6.11 and newer
// answer about one part of a process's memory, without writing a line of text
// for each.
type procmapQuery struct {
	size, flags, addr                   uint64
	start, end, vmaFlags, pageSize      uint64
	offset, inode                       uint64
	major, minor, nameSize, buildIDSize uint32
	nameAddr, buildIDAddr               uint64
}

const (
	procmapQueryCall = 0xc0686611 // PROCMAP_QUERY: _IOWR('f', 17, struct procmap_query)
	vmaExecutable    = 0x04       // PROCMAP_QUERY_VMA_EXECUTABLE
	coveringOrNext   = 0x10
	onlyFiles        = 0x20

	// maxMappedPath is the kernel's limit of the path of a mapped file, in bytes.
	maxMappedPath = 4096
)

// query asks for the first file that is mapped at addr or after it; false if
// there is none.
func (q *procmapQuery) query(fd int, addr uint64) (bool, error) {
	*q = procmapQuery{size: uint64(unsafe.Sizeof(*q)), flags: coveringOrNext | onlyFiles, addr: addr}
	return q.ask(fd)
}

func (q *procmapQuery) ask(fd int) (bool, error) {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQueryCall, uintptr(unsafe.Pointer(q)))
		switch {
		case errno == 0:
			return true, nil
		case errno == unix.ENOENT:
			return false, nil
		case errno != unix.EINTR:
			return false, errno
		}
	}
}

// name asks for the path of the file at the address that was found.
func (q *procmapQuery) name(fd int, buf []byte) string {
	again := procmapQuery{
		size: uint64(unsafe.Sizeof(*q)), flags: onlyFiles, addr: q.start,
		nameSize: maxMappedPath, nameAddr: uint64(uintptr(unsafe.Pointer(&buf[0]))),
	}
	if found, err := again.ask(fd); !found || err != nil || again.nameSize == 0 || again.inode != q.inode {
		return "" // for showing only
	}
	return unix.ByteSliceToString(buf[:again.nameSize])
}

// query lists what Mapped does; ok is false on kernels that can't be asked.
func (r *MapReader) query(p *Process, fd int, wanted func(Device) bool) (list []Mapping, ok bool, err error) {
	var q procmapQuery
	for addr := uint64(0); ; addr = q.end {
		found, err := q.query(fd, addr)
		switch {
		case errors.Is(err, unix.ENOTTY) && addr == 0:
			return nil, false, nil
		case errors.Is(err, unix.ESRCH):
			return list, true, nil // it has ended, and has no memory any more
		case err != nil:
			return nil, true, p.wrap("maps", err)
		case !found:
			return list, true, nil
		}
		dev := Device{q.major, q.minor}
		if dev == (Device{}) || !wanted(dev) {
			continue
		}
		list = addMapping(list, Mapping{
			Device: dev, Inode: q.inode, Path: q.name(fd, r.buf), Exec: q.vmaFlags&vmaExecutable != 0,
			window: strconv.FormatUint(q.start, 16) + "-" + strconv.FormatUint(q.end, 16),
		})
	}
}
