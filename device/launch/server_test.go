package launch

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

// look prints all that a program can inherit.
const look = `id -u; id -g; id -G; umask; pwd; echo "$MARK"; echo "args: $*"
ulimit -a; ulimit -Ha; nice; cat /proc/self/oom_score_adj /proc/self/cgroup
grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Cpus_allowed|SigIgn|SigBlk):' /proc/self/status
readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/user /proc/self/ns/uts /proc/self/ns/ipc
ls -l /proc/self/fd | sed 's/.*-> //; s/pipe:.*/pipe/; s/.proc.*//' | sort -u
env | sort | grep -v ^_= ; cat`

// A program started by the agent is as if its caller had started it.
func TestCallerStaysTheSame(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	run := func(cmd *exec.Cmd) string {
		cmd.Env = []string{"MARK=some thing", "PATH=/usr/bin:/bin"}
		cmd.Dir = "/usr/share"
		cmd.Stdin = strings.NewReader("standard input\n")
		text, code := output(t, nobody(cmd))
		if code != 0 {
			t.Fatalf("%d %s", code, text)
		}
		return text
	}
	// The wrapper gives both the same limits, mask and niceness to pass on, and
	// takes away what this test itself was given beyond the standard streams.
	const wrap = `for f in /proc/$$/fd/*; do n=${f##*/}; [ $n -gt 2 ] && [ $n -ne 255 ] && eval "exec $n>&-"; done; umask 027; ulimit -n 333; ulimit -c 0; ulimit -v 9000000; exec nice -n 3 "$@"`
	shell := []string{"-c", look, "sh", "one", "two words", "", "\xff"}
	want := run(exec.Command("/bin/bash", append([]string{"-c", wrap, "wrap", "/bin/bash"}, shell...)...))
	got := run(exec.Command("/bin/bash", append([]string{"-c", wrap, "wrap", binary(t, d), "run-by-agent", d.Root, "/bin/bash"}, shell...)...))
	if got != want {
		t.Errorf("by the agent:\n%s\ndirectly:\n%s", diff(got, want), diff(want, got))
	}
	for _, line := range []string{"1234", "some thing", "args: one two words  \xff", "0027", "CapEff:\t0000000000000000", "standard input"} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not there:\n%s", line, got)
		}
	}
}

// binary is a copy of this test binary that everybody may execute.
func binary(t *testing.T, d *rig.Device) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	path := filepath.Join(d.Root, "sealant")
	must(t, os.WriteFile(path, data, 0o755))
	return path
}

// diff is the lines of a that b doesn't have.
func diff(a, b string) string {
	have := strings.Split(b, "\n")
	var only []string
	for _, line := range strings.Split(a, "\n") {
		if !slices.Contains(have, line) {
			only = append(only, line)
		}
	}
	return strings.Join(only, "\n")
}

func TestAgentLaunches(t *testing.T) {
	d, a := booted(t)
	agent(t, d, policy.App{ID: "reader", Command: []string{"/bin/sh", "-c", "true"}, Cryptexes: []string{"web"}})
	web := d.Store.MountPoint("web") + "/version"
	for _, tt := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"content", []string{"/bin/cat", web}, 0, "web (a)"},
		{"exit code", []string{"/bin/sh", "-c", "echo said; exit 7"}, 7, "said\n"},
		{"signal", []string{"/bin/sh", "-c", "kill -ABRT $$"}, 128 + 6, ""},
		{"no program", []string{"/bin/none"}, 200, "cannot execute /bin/none: no such file or directory\n"},
		{"no permission", []string{"/etc/shadow"}, 200, "cannot execute /etc/shadow: permission denied\n"},
	} {
		if text, code := output(t, nobody(as("run-by-agent", d, tt.args...))); code != tt.code || text != tt.text {
			t.Errorf("%s: %d %q", tt.name, code, text)
		}
	}
	closed := filepath.Join(d.Root, "closed")
	must(t, os.Mkdir(closed, 0o700))
	away := exec.Command("setpriv", "--reuid", "1234", "--regid", "2345", "--clear-groups", binary(t, d), "run-by-agent", d.Root, "/bin/pwd")
	away.Dir = closed
	if text, code := output(t, away); code != 200 || !strings.Contains(text, "permission denied") {
		t.Errorf("a folder that the caller may not enter: %d %q", code, text)
	}
	list, err := List(d.Store)
	must(t, err)
	if len(list) != 3 {
		t.Errorf("%d records of 3 programs: %+v", len(list), list)
	}
	for _, r := range list {
		if r.UID != 1234 || r.Set != a.ID {
			t.Errorf("%+v", r)
		}
	}
}

// A program that ends at once is told of like any other.
func TestShortPrograms(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	for range 40 {
		if text, code := output(t, nobody(as("run-by-agent", d, "/bin/true"))); code != 0 || text != "" {
			t.Fatalf("%d %q", code, text)
		}
	}
}

// started runs a command whose program says "ready" when it is.
func started(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return r
}

const waiter = `trap 'exit 7' TERM; trap 'echo hup; exit 9' HUP; trap 'echo int' INT; echo ready; while :; do sleep 0.02; done`

func TestSignalsReachTheProgram(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	cmd := nobody(as("run-by-agent", d, "/bin/bash", "-c", waiter))
	out := started(t, cmd)
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if line, err := out.ReadString('\n'); line != "int\n" {
		t.Errorf("%q, %v", line, err)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	rest, _ := io.ReadAll(out)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 || len(rest) > 0 {
		t.Errorf("exit code %d, said %q", code, rest)
	}
}

func TestCallerKilled(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	cmd := nobody(as("run-by-agent", d, "/bin/bash", "-c", waiter))
	out := started(t, cmd)
	must(t, cmd.Process.Kill())
	if line, err := out.ReadString('\n'); line != "hup\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestDetached(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	if text, code := output(t, nobody(as("start-by-agent", d, "/bin/bash", "-c", waiter))); code != 0 || text != "" {
		t.Fatalf("%d %q", code, text)
	}
	list, err := List(d.Store)
	must(t, err)
	if len(list) != 1 || !list[0].Running() {
		t.Fatalf("%+v", list)
	}
	handle, err := linux.OpenPidfd(list[0].PID)
	must(t, err)
	defer handle.Close()
	must(t, handle.Signal(syscall.SIGTERM))
	must(t, handle.Wait(t.Context()))
	if text, code := output(t, nobody(as("start-by-agent", d, "/bin/none"))); code != 200 || !strings.Contains(text, "cannot execute") {
		t.Errorf("%d %q", code, text)
	}
}

// A restart of the agent doesn't end what it has launched.
func TestAgentRestarts(t *testing.T) {
	d, _ := booted(t)
	stop := agent(t, d)
	cmd := nobody(as("run-by-agent", d, "/bin/bash", "-c", waiter))
	out := started(t, cmd)
	for range 2 {
		must(t, cmd.Process.Signal(syscall.SIGINT))
		if line, err := out.ReadString('\n'); line != "int\n" {
			t.Errorf("%q, %v", line, err)
		}
		stop() // the caller has heard of the start, or it could not pass signals on
	}
	agent(t, d)
	if text, code := output(t, nobody(as("run-by-agent", d, "/bin/echo", "again"))); code != 0 || text != "again\n" {
		t.Errorf("%d %q", code, text)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 200+int(fault.Undetermined) {
		t.Errorf("exit code %d", code)
	}
}

func TestNoAgent(t *testing.T) {
	d, _ := booted(t)
	if text, code := output(t, nobody(as("run-by-agent", d, "/bin/true"))); code != 200 || !strings.Contains(text, "agent doesn't answer") {
		t.Errorf("%d %q", code, text)
	}
}

// Whoever is confined would escape by a launch, and is refused.
func TestSandboxedCallersAreRefused(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	me := binary(t, d)
	try := []string{me, "run-by-agent", d.Root, "/usr/bin/id"}
	for name, tt := range map[string]struct {
		wrap []string
		root bool
		text string
	}{
		"no_new_privs":     {wrap: []string{"setpriv", "--no-new-privs"}, text: "no_new_privs"},
		"pid namespace":    {wrap: []string{"unshare", "--pid", "--fork"}, root: true, text: "container"},
		"user namespace":   {wrap: []string{"unshare", "--user"}, text: "container"},
		"root directory":   {wrap: []string{"unshare", "--mount", "sh", "-c", `mkdir -p "$0/jail/proc" && mount --rbind / "$0/jail" && exec chroot "$0/jail" "$@"`, d.Root}, root: true, text: "root directory"},
		"group transition": {wrap: []string{"setpriv", "--keep-groups", "--egid", "2346"}, root: true, text: "transition"},
	} {
		cmd := exec.Command(tt.wrap[0], append(tt.wrap[1:], try...)...)
		if !tt.root {
			nobody(cmd)
		}
		if text, code := output(t, cmd); code != 200+int(fault.Policy) || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	list, err := List(d.Store)
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// A caller in a mount namespace of its own keeps it, with the staged content.
func TestCallerInANamespace(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	at := filepath.Join(d.Root, "at")
	must(t, os.Mkdir(at, 0o755))
	script := `mount -t tmpfs tmpfs "$0" && echo mine >"$0/f" && exec setpriv --reuid 1234 --regid 2345 --clear-groups "$@"`
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-c", script, at,
		binary(t, d), "run-by-agent", d.Root, "/bin/cat", at+"/f", d.Store.MountPoint("web")+"/version")
	if text, code := output(t, cmd); code != 0 || text != "mine\nweb (a)" {
		t.Errorf("%d %q", code, text)
	}
}

func TestHostileRequests(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	said := func(change func(*request)) string {
		q := request{Args: []string{"/bin/true"}, Dir: "/", Terminal: -1}
		change(&q)
		text, err := q.message()
		must(t, err)
		return string(text)
	}
	good := said(func(*request) {})
	streams := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	null := devNull(t)
	before := namespace.Counted(t, d.Root).Files
	for name, tt := range map[string]struct {
		text  string
		files []*os.File
	}{
		"no request":          {"", streams},
		"half a request":      {good[:len(good)-3], streams},
		"more than a request": {good + "x\x00", streams},
		"another schema":      {strings.Replace(good, "request/2", "request/9", 1), streams},
		"no streams":          {good, nil},
		"too many streams":    {good, append(streams, os.Stdin)},
		"no such terminal":    {said(func(q *request) { q.Terminal = 7 }), streams},
		"not a terminal":      {said(func(q *request) { q.Terminal = 0 }), []*os.File{null, os.Stdout, os.Stderr}},
		"no program":          {said(func(q *request) { q.Args = nil }), streams},
		"a program by name":   {said(func(q *request) { q.Args[0] = "true" }), streams},
		"a relative folder":   {said(func(q *request) { q.Dir = "x" }), streams},
		"a zero byte":         {strings.Replace(good, "/bin/true", "/bin\x00true", 1), streams},
		"no such app":         {said(func(q *request) { q.App = "x" }), streams},
		"too many arguments":  {said(func(q *request) { q.Env = slices.Repeat([]string{"x"}, maxArgs+1) }), streams},
	} {
		conn, err := dial(d.Store)
		must(t, err)
		if err := linux.Send(conn, []byte(tt.text), tt.files...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if a, _, err := hear(conn); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
		conn.Close()
	}
	t.Run("too long", func(t *testing.T) {
		conn, err := dial(d.Store)
		must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte{0xff, 0xff, 0xff, 0xff})
		must(t, err)
		if _, _, err := hear(conn); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Error(err)
		}
	})
	t.Run("gone at once", func(t *testing.T) {
		for range 50 {
			conn, err := dial(d.Store)
			must(t, err)
			conn.Close()
		}
	})
	eventually(t, "no descriptor stays open", func() bool { return namespace.Counted(t, d.Root).Files <= before })
	if text, code := output(t, nobody(as("run-by-agent", d, "/bin/echo", "still here"))); code != 0 || text != "still here\n" {
		t.Errorf("%d %q", code, text)
	}
	if list, err := List(d.Store); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func devNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// On a terminal the program has one too: its size, its keys, its job control.
func TestTerminal(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	user, program, err := linux.OpenTerminal()
	must(t, err)
	defer user.Close()
	defer program.Close()
	must(t, program.Chown(1234, 2345))
	out, err := exec.Command("stty", "-F", program.Name(), "rows", "33", "cols", "111").CombinedOutput()
	if err != nil {
		t.Fatal(string(out))
	}
	script := `stty size; tty >/dev/null && echo a-terminal; echo to-tty >/dev/tty; trap 'echo interrupted; exit 5' INT; echo ready; read x; echo "read $x"; while :; do sleep 0.02; done`
	cmd := as("run-by-agent", d, "/bin/bash", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, nobody(cmd).Start())
	program.Close()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(user)
	want := func(text string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for %q: %q, %v", text, line, err)
			}
			if strings.Contains(line, text) {
				return
			}
		}
	}
	want("33 111")
	want("a-terminal")
	want("to-tty")
	want("ready")
	_, err = user.WriteString("typed\n")
	must(t, err)
	want("read typed")
	_, err = user.WriteString("\x03")
	must(t, err)
	want("interrupted")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d", code)
	}
}

// Who calls is known from the kernel.
func TestExamineMyself(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	l, err := Listen(d.Store)
	must(t, err)
	defer l.Close()
	conn, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	must(t, err)
	defer conn.Close()
	other, err := l.AcceptUnix()
	must(t, err)
	defer other.Close()
	peer, err := linux.PeerOf(other)
	must(t, err)
	defer peer.Close()
	c, h, err := examine(peer)
	must(t, err)
	defer h.close()
	if c.User.UID != 0 || c.PID != os.Getpid() || len(h.files()) != 1+linux.NamespaceFiles {
		t.Errorf("%+v", c)
	}
}

// One user can't fill the agent's memory with requests, nor keep others from asking.
func TestOneUserHasItsShareOfRequests(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	var calls []*net.UnixConn
	must(t, linux.Isolated(func() error {
		const uid = 1234 // this thread's alone
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0)); errno != 0 {
			return errno
		}
		for range userRequests + 1 {
			c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.Store.LaunchSocketPath(), Net: "unix"})
			if err != nil {
				return err
			}
			calls = append(calls, c)
		}
		return nil
	}))
	var refused error
	eventually(t, "one too many is refused", func() bool {
		for _, c := range calls {
			must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
			if _, _, err := hear(c); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				refused = err
			}
		}
		return refused != nil
	})
	if fault.KindOf(refused) != fault.Busy {
		t.Error(refused)
	}
	other := as("run-by-agent", d, "/bin/true")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1235, Gid: 1235}}
	if text, code := output(t, other); code != 0 {
		t.Errorf("another user: %d %s", code, text)
	}
	for _, c := range calls {
		c.Close()
	}
	eventually(t, "there is room again", func() bool {
		_, code := output(t, nobody(as("run-by-agent", d, "/bin/true")))
		return code == 0
	})
}
