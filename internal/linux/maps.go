package linux

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mapping is a file of which a process has at least one part in its memory.
type Mapping struct {
	Device Device
	Inode  uint64
	Path   string // as the process's namespace names it; for showing only
	Exec   bool   // mapped executable somewhere
	window string // "start-end", the name under map_files
}

// MapReader reads the memory maps of many processes with one buffer.
type MapReader struct {
	buf  []byte
	text bool // this kernel has no PROCMAP_QUERY
}

// Mapped lists the files on a device for which wanted is true that the process
// has mapped, each file once.
func (r *MapReader) Mapped(p *Process, wanted func(Device) bool) ([]Mapping, error) {
	fd, err := p.open("maps")
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if r.buf == nil {
		r.buf = make([]byte, 128<<10)
	}
	if !r.text {
		list, ok, err := r.query(p, fd, wanted)
		if ok {
			return list, err
		}
		r.text = true
	}
	return r.read(p, fd, wanted)
}

// read lists what Mapped does from the text of /proc/PID/maps.
func (r *MapReader) read(p *Process, fd int, wanted func(Device) bool) ([]Mapping, error) {
	var list []Mapping
	kept := 0
	for {
		n, err := unix.Read(fd, r.buf[kept:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, p.wrap("maps", err)
		}
		data := r.buf[:kept+n]
		last := bytes.LastIndexByte(data, '\n')
		if n == 0 {
			return list, nil
		}
		if last < 0 {
			if len(data) == len(r.buf) {
				return nil, p.wrap("maps", errors.New("a line is too long"))
			}
			kept = len(data)
			continue
		}
		list = scanMaps(list, data[:last+1], wanted)
		kept = copy(r.buf, data[last+1:])
	}
}

// scanMaps reads whole lines "start-end perms offset major:minor inode path",
// with hexadecimal device numbers. It looks at the device of each line first
// and at the rest only of those that are wanted.
func scanMaps(list []Mapping, data []byte, wanted func(Device) bool) []Mapping {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		line := data[:end]
		data = data[end+1:]

		window, rest, ok := bytes.Cut(line, space)
		perms, rest, ok2 := bytes.Cut(rest, space)
		_, rest, ok3 := bytes.Cut(rest, space)
		number, rest, ok4 := bytes.Cut(rest, space)
		if !ok || !ok2 || !ok3 || !ok4 {
			continue
		}
		major, minor, ok := bytes.Cut(number, colon)
		if !ok {
			continue
		}
		dev := Device{uint32(digits(major, 16)), uint32(digits(minor, 16))}
		if dev == (Device{}) || !wanted(dev) {
			continue
		}
		inode, name, _ := bytes.Cut(rest, space)
		m := Mapping{
			Device: dev, Inode: digits(inode, 10), Path: string(bytes.TrimLeft(name, " ")),
			Exec: len(perms) > 2 && perms[2] == 'x', window: windowName(window),
		}
		list = addMapping(list, m)
	}
	return list
}

// windowName is a line's first word as map_files has it: without the zeros that
// the line has in front of low addresses.
func windowName(window []byte) string {
	start, end, _ := bytes.Cut(window, dash)
	return strconv.FormatUint(digits(start, 16), 16) + "-" + strconv.FormatUint(digits(end, 16), 16)
}

var dash = []byte("-")

var space, colon = []byte(" "), []byte(":")

func addMapping(list []Mapping, m Mapping) []Mapping {
	for i := range list {
		if list[i].Device == m.Device && list[i].Inode == m.Inode {
			list[i].Exec = list[i].Exec || m.Exec
			return list
		}
	}
	return append(list, m)
}

// digits reads a number of the kernel's making; what is no digit ends it.
func digits(s []byte, base uint64) (n uint64) {
	for _, c := range s {
		var d uint64
		switch {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		default:
			return n
		}
		if d >= base {
			return n
		}
		n = n*base + d
	}
	return n
}

// OnErofs says whether the mapped file really lies on an EROFS file system. A
// device number alone may have been given to another one meanwhile.
func (m *Mapping) OnErofs(p *Process) bool {
	fd, err := unix.Openat(p.dir, "map_files/"+m.window, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && int64(st.Type) == unix.EROFS_SUPER_MAGIC_V1
}

// Holds lists the wanted devices on which the process's program, working
// directory or root lie, which its memory maps need not show.
func (p *Process) Holds(wanted func(Device) bool) (list []Device) {
	for _, name := range []string{"exe", "cwd", "root"} {
		var st unix.Stat_t
		if unix.Fstatat(p.dir, name, &st, 0) != nil {
			continue
		}
		if dev := device(st.Dev); wanted(dev) {
			list = append(list, dev)
		}
	}
	return list
}

// OpenFiles lists the wanted devices on which the process has files open.
func (p *Process) OpenFiles(wanted func(Device) bool) ([]Device, error) {
	fd, err := unix.Openat(p.dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, p.wrap("fd", err)
	}
	dir := os.NewFile(uintptr(fd), "fd")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, p.wrap("fd", err)
	}
	var list []Device
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, 0) != nil {
			continue
		}
		if dev := device(st.Dev); wanted(dev) && !slices.Contains(list, dev) {
			list = append(list, dev)
		}
	}
	return list, nil
}
