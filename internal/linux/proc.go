package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// procLimit bounds what is read of one small file in /proc; maps and mountinfo
// are read as streams.
const procLimit = 1 << 20

// Process is a process in /proc, held by its open directory: everything read
// through it is of that one process, even when its number is used again. When
// the process has ended, every call returns an error for which Gone is true.
//
// Nothing that a process can write itself (command line, environment, its
// name) is good for a decision; Command is for showing.
type Process struct {
	PID int
	dir int // a plain descriptor: a scan opens thousands
}

// OpenProcess holds the process pid.
func OpenProcess(pid int) (*Process, error) {
	for {
		dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			return &Process{pid, dir}, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("cannot find process %d: %w", pid, err)
		}
	}
}

// Close lets go of the process. Nothing may be asked of it any more.
func (p *Process) Close() error {
	dir := p.dir
	p.dir = -1
	return unix.Close(dir)
}

// Processes lists the numbers of all processes that this one can see.
func Processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Gone says whether an error means that the process has ended meanwhile.
func Gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist)
}

// Denied says whether an error means that this process may not look.
func Denied(err error) bool { return errors.Is(err, os.ErrPermission) }

func (p *Process) open(name string) (int, error) {
	for {
		fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, p.wrap(name, err)
		}
	}
}

func (p *Process) wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot read %s of process %d: %w", name, p.PID, err)
}

func (p *Process) read(name string) ([]byte, error) {
	fd, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	data := make([]byte, 0, 2048)
	for len(data) < procLimit {
		if len(data) == cap(data) {
			data = slices.Grow(data, cap(data))
		}
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, p.wrap(name, err)
		}
		if n == 0 {
			break
		}
		data = data[:len(data)+n]
	}
	return data, nil
}

func (p *Process) readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dir, name, buf)
	if err != nil {
		return "", p.wrap(name, err)
	}
	return string(buf[:n]), nil
}

// Stat is what the kernel says of a process in /proc/PID/stat.
type Stat struct {
	Command string // the name, at most 15 bytes, that the process may have given itself
	State   byte   // 'Z' for one that has ended but was not waited for
	Parent  int
	Session int
	Kernel  bool   // a thread of the kernel
	Start   uint64 // clock ticks between boot and start; with the pid it names a process for good

	Processor uint64 // clock ticks of processor time, its own and of children it waited for
}

// Stat reads the process's state.
func (p *Process) Stat() (Stat, error) {
	data, err := p.read("stat")
	if err != nil {
		return Stat{}, err
	}
	st, err := parseStat(data)
	return st, p.wrap("stat", err)
}

// parseStat reads "pid (name) state ppid …"; the name may hold anything, so
// the last parenthesis ends it.
func parseStat(data []byte) (Stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("no process name")
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, errors.New("too few fields")
	}
	st := Stat{Command: string(data[open+1 : end]), State: f[0][0]}
	var errs [4]error
	var flags uint64
	st.Parent, errs[0] = strconv.Atoi(f[1])
	st.Session, errs[1] = strconv.Atoi(f[3])
	flags, errs[2] = strconv.ParseUint(f[6], 10, 64)
	st.Start, errs[3] = strconv.ParseUint(f[19], 10, 64)
	for _, field := range f[11:15] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return Stat{}, err
		}
		st.Processor += n
	}
	const kernelThread = 0x00200000 // PF_KTHREAD of linux/sched.h
	st.Kernel = flags&kernelThread != 0
	return st, errors.Join(errs[:]...)
}

// Status is what matters of /proc/PID/status.
type Status struct {
	UID, GID       [4]int // real, effective, saved, file system
	Groups         []int
	Bounding       uint64 // capabilities that the process or its children can ever have
	NoNewPrivs     bool
	Seccomp        bool // a system call filter is on
	Umask          int
	ThreadGroup    int
	InnerNamespace bool // it lives in a pid namespace below ours
}

// Status reads the process's credentials and confinement.
func (p *Process) Status() (Status, error) {
	data, err := p.read("status")
	if err != nil {
		return Status{}, err
	}
	st, err := parseStatus(string(data))
	return st, p.wrap("status", err)
}

func parseStatus(text string) (Status, error) {
	st := Status{Umask: -1}
	missing := map[string]bool{"Uid": true, "Gid": true, "Groups": true, "CapBnd": true, "NoNewPrivs": true}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		f := strings.Fields(value)
		var err error
		switch key {
		case "Uid":
			st.UID, err = fourIDs(f)
		case "Gid":
			st.GID, err = fourIDs(f)
		case "Groups":
			for _, s := range f {
				id, err := strconv.Atoi(s)
				if err != nil {
					return Status{}, err
				}
				st.Groups = append(st.Groups, id)
			}
		case "CapBnd":
			st.Bounding, err = strconv.ParseUint(strings.Join(f, ""), 16, 64)
		case "NoNewPrivs":
			st.NoNewPrivs = strings.Join(f, "") != "0"
		case "Seccomp":
			st.Seccomp = strings.Join(f, "") != "0"
		case "Umask":
			var mask uint64
			mask, err = strconv.ParseUint(strings.Join(f, ""), 8, 16)
			st.Umask = int(mask)
		case "Tgid":
			st.ThreadGroup, err = strconv.Atoi(strings.Join(f, ""))
		case "NSpid":
			st.InnerNamespace = len(f) > 1
		default:
			continue
		}
		if err != nil {
			return Status{}, fmt.Errorf("field %s: %w", key, err)
		}
		delete(missing, key)
	}
	// A field that is missing must not read as "not confined".
	if len(missing) > 0 {
		return Status{}, errors.New("fields are missing")
	}
	return st, nil
}

func fourIDs(f []string) (ids [4]int, err error) {
	if len(f) != 4 {
		return ids, errors.New("not four ids")
	}
	for i := range ids {
		if ids[i], err = strconv.Atoi(f[i]); err != nil {
			return ids, err
		}
	}
	return ids, nil
}

// Namespace is the inode number of one of the process's namespaces: "mnt",
// "user", "pid", "net", "ipc", "uts", "cgroup". Equal numbers mean one namespace.
func (p *Process) Namespace(kind string) (uint64, error) {
	link, err := p.readlink("ns/" + kind)
	if err != nil {
		return 0, err
	}
	digits := strings.TrimSuffix(strings.TrimPrefix(link, kind+":["), "]")
	ino, err := strconv.ParseUint(digits, 10, 64)
	return ino, p.wrap("ns/"+kind, err)
}

// Executable is the path of the running program as the process's own mount
// namespace has it; a program that was replaced on disk ends in " (deleted)".
func (p *Process) Executable() (string, error) { return p.readlink("exe") }

// Directory is the process's working directory.
func (p *Process) Directory() (string, error) { return p.readlink("cwd") }

// Command is what the process shows as its command line; it may say anything.
func (p *Process) Command() ([]string, error) {
	data, err := p.read("cmdline")
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), nil
}

// Cgroup is the process's path in the unified control group tree, else in
// systemd's own; "/" if it is in none.
func (p *Process) Cgroup() (string, error) {
	data, err := p.read("cgroup")
	if err != nil {
		return "", err
	}
	found := "/"
	for line := range strings.Lines(string(data)) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if id == "0" && group != "/" {
			return group, nil
		}
		if controllers == "name=systemd" {
			found = group
		}
	}
	return found, nil
}

// Unit is the systemd unit that a control group path belongs to: the innermost
// service or scope, "" if there is none.
func Unit(cgroup string) string {
	for cgroup != "/" && cgroup != "." && cgroup != "" {
		name := path.Base(cgroup)
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return name
		}
		cgroup = path.Dir(cgroup)
	}
	return ""
}

// MountPoint is one line of mountinfo.
type MountPoint struct {
	ID, Parent int
	Device     Device
	Root       string // the part of the file system that is mounted
	Path       string
	Type       string
	Source     string
}

// Mounts lists the mounts of the process's mount namespace for which keep is
// true, in the kernel's order; keep nil means all.
func (p *Process) Mounts(keep func(*MountPoint) bool) ([]MountPoint, error) {
	fd, err := p.open("mountinfo")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	list, err := parseMounts(f, keep)
	return list, p.wrap("mountinfo", err)
}

// ReadMounts reads what once was a process's mountinfo, as Process.Mounts does.
func ReadMounts(r io.Reader, keep func(*MountPoint) bool) ([]MountPoint, error) {
	return parseMounts(r, keep)
}

func parseMounts(r io.Reader, keep func(*MountPoint) bool) ([]MountPoint, error) {
	var list []MountPoint
	_, err := mountinfo.GetMountsFromReader(r, func(i *mountinfo.Info) (skip, stop bool) {
		m := MountPoint{
			ID: i.ID, Parent: i.Parent,
			Device: Device{uint32(i.Major), uint32(i.Minor)},
			Root:   i.Root, Path: i.Mountpoint, Type: i.FSType, Source: i.Source,
		}
		if keep == nil || keep(&m) {
			list = append(list, m)
		}
		return true, false
	})
	return list, err
}

// OwnMounts lists the mounts that the calling thread sees.
func OwnMounts(keep func(*MountPoint) bool) ([]MountPoint, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	defer f.Close()
	list, err := parseMounts(f, keep)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return list, nil
}
