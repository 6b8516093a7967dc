package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CopyLimits gives this process what is inherited on the way from a parent to
// a child and is no credential: the resource limits, nice value, allowed
// processors and the out-of-memory score of another process. It needs privilege
// and so comes before BecomeUser.
func CopyLimits(p *Process) error {
	limits, err := p.limits()
	if err != nil {
		return err
	}
	for resource, limit := range limits {
		// Not unix.Setrlimit: the Go runtime must know of the file limit, or it
		// puts its own back at exec; syscall does that bookkeeping.
		if err := syscall.Setrlimit(resource, &limit); err != nil {
			return fmt.Errorf("cannot take over a resource limit: %w", err)
		}
	}
	// The raw call answers 20 - nice.
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, p.PID)
	if err != nil {
		return p.wrap("nice value", err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 20-raw); err != nil {
		return fmt.Errorf("cannot take over the nice value: %w", err)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(p.PID, &cpus); err != nil {
		return p.wrap("allowed processors", err)
	}
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("cannot take over the allowed processors: %w", err)
	}
	score, err := p.read("oom_score_adj")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", score, 0); err != nil {
		return fmt.Errorf("cannot take over the out-of-memory score: %w", err)
	}
	return p.copyLogin()
}

// LockAnyMemory takes away this process's limit on locked memory.
func LockAnyMemory() error {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("cannot lift the limit on locked memory: %w", err)
	}
	return nil
}

// limitNames are the lines of /proc/PID/limits.
var limitNames = map[string]int{
	"Max cpu time":          unix.RLIMIT_CPU,
	"Max file size":         unix.RLIMIT_FSIZE,
	"Max data size":         unix.RLIMIT_DATA,
	"Max stack size":        unix.RLIMIT_STACK,
	"Max core file size":    unix.RLIMIT_CORE,
	"Max resident set":      unix.RLIMIT_RSS,
	"Max processes":         unix.RLIMIT_NPROC,
	"Max open files":        unix.RLIMIT_NOFILE,
	"Max locked memory":     unix.RLIMIT_MEMLOCK,
	"Max address space":     unix.RLIMIT_AS,
	"Max file locks":        unix.RLIMIT_LOCKS,
	"Max pending signals":   unix.RLIMIT_SIGPENDING,
	"Max msgqueue size":     unix.RLIMIT_MSGQUEUE,
	"Max nice priority":     unix.RLIMIT_NICE,
	"Max realtime priority": unix.RLIMIT_RTPRIO,
	"Max realtime timeout":  unix.RLIMIT_RTTIME,
}

// limits reads the process's resource limits. (The call prlimit would need one
// privilege more.)
func (p *Process) limits() (map[int]syscall.Rlimit, error) {
	data, err := p.read("limits")
	if err != nil {
		return nil, err
	}
	limits, err := parseLimits(string(data))
	return limits, p.wrap("limits", err)
}

// parseLimits reads a table whose first column is 26 characters wide.
func parseLimits(text string) (map[int]syscall.Rlimit, error) {
	const name = 26
	limits := map[int]syscall.Rlimit{}
	for line := range strings.Lines(text) {
		if len(line) < name {
			continue
		}
		resource, ok := limitNames[strings.TrimSpace(line[:name])]
		f := strings.Fields(line[name:])
		if !ok || len(f) < 2 {
			continue
		}
		soft, err1 := parseLimit(f[0])
		hard, err2 := parseLimit(f[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		limits[resource] = syscall.Rlimit{Cur: soft, Max: hard}
	}
	if len(limits) != len(limitNames) {
		return nil, errors.New("limits are missing")
	}
	return limits, nil
}

func parseLimit(s string) (uint64, error) {
	if s == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// copyLogin takes over who logged in, for the audit trail, where that is kept.
func (p *Process) copyLogin() error {
	uid, err := p.read("loginuid")
	if Gone(err) {
		return nil // a kernel without audit, or the process has ended: found out elsewhere
	}
	if err != nil {
		return err
	}
	own, err := os.ReadFile("/proc/thread-self/loginuid")
	if err != nil || string(own) == string(uid) {
		return nil
	}
	// A kernel may hold the login id for immutable once set; then it stays.
	if err := os.WriteFile("/proc/thread-self/loginuid", uid, 0); err != nil && !Denied(err) {
		return fmt.Errorf("cannot take over the login id: %w", err)
	}
	return nil
}

// Label is the security label (SELinux, AppArmor) of the process, "" if there
// is none or it says "unconfined".
func (p *Process) Label() (string, error) {
	data, err := p.read("attr/current")
	if err != nil {
		// Without a security module the kernel answers EINVAL.
		if errors.Is(err, unix.EINVAL) || Gone(err) {
			return "", nil
		}
		return "", err
	}
	label := strings.TrimRight(string(data), "\x00\n")
	if label == "unconfined" || strings.HasPrefix(label, "unconfined (") {
		return "", nil
	}
	return label, nil
}

// LabelNext makes the next program that this thread executes bear an SELinux label.
func LabelNext(label string) error {
	if err := os.WriteFile("/proc/thread-self/attr/exec", []byte(label), 0); err != nil {
		return fmt.Errorf("cannot take over the security label: %w", err)
	}
	return nil
}

// User is whom a process acts for.
type User struct {
	UID, GID int
	Groups   []int
}

// BecomeUser drops every privilege of the calling thread that the user doesn't have,
// for good: capabilities outside bounding can't come back even through a
// set-user-id program. It must be the thread that goes on to execute a program, which
// ends all others; until then these stay as they are, and nobody but root can look into
// the process or trace it.
func BecomeUser(u User, bounding uint64) error {
	// Keys of the session that started this process are none of the user's business.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	for c := 0; c <= 63; c++ {
		if bounding&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // past the last capability of this kernel
		}
		if err != nil {
			return fmt.Errorf("cannot limit the capabilities: %w", err)
		}
	}
	if err := unix.Setgroups(u.Groups); err != nil {
		return fmt.Errorf("cannot set the groups: %w", err)
	}
	// Not unix.Setresgid, which has all threads of the process do it.
	g, id := uintptr(u.GID), uintptr(u.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); errno != 0 {
		return fmt.Errorf("cannot become group %d: %w", u.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); errno != 0 {
		return fmt.Errorf("cannot become user %d: %w", u.UID, errno)
	}
	if u.UID == 0 {
		return nil
	}
	// So it is after a change of user, unless fs.suid_dumpable says otherwise.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot keep others from looking into this process: %w", err)
	}
	// The change of user emptied all sets but the inheritable one.
	var none [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("cannot drop the capabilities: %w", err)
	}
	return nil
}

// Execute replaces this process by the program at path, started from the
// calling thread with its namespaces and credentials. It returns only if that
// failed.
func Execute(path string, args, env []string) error {
	return fmt.Errorf("cannot execute %s: %w", path, syscall.Exec(path, args, env))
}

// KeepStandardStreamsOnly makes every descriptor but the standard streams end
// with the next execution, also those that this process itself was given.
func KeepStandardStreamsOnly() error {
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot keep descriptors from a program: %w", lacking(err, "close_range", "5.11"))
	}
	return nil
}

// TakeStandardStreams puts open files in the place of this process's standard
// streams.
func TakeStandardStreams(files [3]*os.File) error {
	for i, f := range files {
		if err := unix.Dup3(int(f.Fd()), i, 0); err != nil {
			return fmt.Errorf("cannot take over the standard streams: %w", err)
		}
	}
	return nil
}
