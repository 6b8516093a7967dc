package exits

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// each runs a test on every source that this machine must have.
func each(t *testing.T, test func(*testing.T, Source)) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	for _, open := range []func() (Source, error){
		func() (Source, error) { return OpenBPF() },
		func() (Source, error) { return OpenConnector() },
	} {
		source, err := open()
		var lacks *fault.Unsupported
		if errors.As(err, &lacks) && (lacks.Kernel == "" || !linux.AtLeast(lacks.Kernel)) {
			t.Logf("not tested: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Run(source.Name(), func(t *testing.T) {
			defer source.Close()
			test(t, source)
		})
	}
}

// collect reads until done accepts an exit, and returns every exit it saw.
func collect(t *testing.T, source Source, done func(Exit) bool) []Exit {
	t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() { source.Close() })
	defer timeout.Stop()
	var all []Exit
	for {
		exit, err := source.Read()
		if err != nil {
			t.Fatalf("after %d exits: %v", len(all), err)
		}
		all = append(all, exit)
		if done(exit) {
			return all
		}
	}
}

// shell starts a shell that waits for a line before it runs the script, so that
// it can be tracked before it has children.
func shell(t *testing.T, source Source, script string) (pid int, wait func() error) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; ulimit -c 0; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := source.Track(cmd.Process.Pid, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	return cmd.Process.Pid, cmd.Wait
}

func TestEnds(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		for _, c := range []struct {
			script string
			signal syscall.Signal
			crash  bool
		}{
			{"exit 0", 0, false},
			{"exit 11", 0, false},
			{"kill -SEGV $$", syscall.SIGSEGV, true},
			{"kill -ABRT $$", syscall.SIGABRT, true},
			{"kill -BUS $$", syscall.SIGBUS, true},
			{"kill -ILL $$", syscall.SIGILL, true},
			{"kill -FPE $$", syscall.SIGFPE, true},
			{"kill -TRAP $$", syscall.SIGTRAP, true},
			{"kill -SYS $$", syscall.SIGSYS, true},
			{"kill -KILL $$", syscall.SIGKILL, false},
			{"kill -TERM $$", syscall.SIGTERM, false},
			{"kill -HUP $$", syscall.SIGHUP, false},
		} {
			before := linux.Monotonic()
			pid, wait := shell(t, source, c.script)
			wait()
			seen := collect(t, source, func(e Exit) bool { return e.PID == pid })
			e := seen[len(seen)-1]
			if e.Signal != c.signal || e.Crash() != c.crash || e.Root != pid || e.Parent != os.Getpid() && e.Parent != 0 {
				t.Errorf("%s: %+v", c.script, e)
			}
			if e.At < before || e.At > linux.Monotonic() {
				t.Errorf("%s: at %v, now %v", c.script, e.At, linux.Monotonic())
			}
		}
	})
}

// Grandchildren belong to the root, whatever happened to the process between.
func TestDescendants(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		pid, wait := shell(t, source, `sh -c 'sh -c "kill -SEGV \$\$"; true' ; true`)
		seen := collect(t, source, func(e Exit) bool { return e.PID == pid })
		wait()
		var crashed []Exit
		for _, e := range seen {
			if e.Crash() && e.Root == pid {
				crashed = append(crashed, e)
			}
			if e.Root == pid && e.PID != pid && !e.Crash() {
				t.Errorf("a harmless child is told: %+v", e)
			}
		}
		if len(crashed) != 1 || crashed[0].PID == pid || crashed[0].Signal != syscall.SIGSEGV {
			t.Errorf("crashes below %d: %+v", pid, crashed)
		}
	})
}

// A watched program that anybody starts is told when it begins, is tracked from
// its first instruction on, and its children belong to it.
func TestBegan(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	source, err := OpenBPF()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	dir := t.TempDir()
	program := func(name string) (string, Program) {
		data, err := os.ReadFile("/bin/sh")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		device, err := linux.DeviceAt(path)
		if err != nil {
			t.Fatal(err)
		}
		return path, Program{device, fi.Sys().(*syscall.Stat_t).Ino}
	}
	app, id := program("app")
	other, _ := program("other")
	if err := source.Watch([]Program{id}); err != nil {
		t.Fatal(err)
	}
	run := func(path, script string) int {
		cmd := exec.Command(path, "-c", "ulimit -c 0; "+script)
		cmd.Run()
		return cmd.Process.Pid
	}
	run(other, "true")
	pid := run(app, "/bin/sh -c 'kill -SEGV $$'; "+app+" -c true; exit 0")
	end := run(app, "kill -ABRT $$")
	var told []string
	for _, e := range collect(t, source, func(e Exit) bool { return e.PID == end && !e.Began }) {
		switch {
		case e.Began && e.Program == id && e.Root == e.PID && e.Start != 0 && !e.Crash():
			told = append(told, fmt.Sprintf("%d began", e.PID))
		case e.Crash() && e.Root == pid && e.PID != pid:
			told = append(told, fmt.Sprintf("a child of %d crashed", pid))
		case e.Crash():
			told = append(told, fmt.Sprintf("%d crashed", e.PID))
		default:
			told = append(told, fmt.Sprintf("%d ended", e.PID))
		}
	}
	want := []string{
		fmt.Sprintf("%d began", pid), fmt.Sprintf("a child of %d crashed", pid), fmt.Sprintf("%d ended", pid),
		fmt.Sprintf("%d began", end), fmt.Sprintf("%d crashed", end),
	}
	if !slices.Equal(told, want) {
		t.Errorf("%q\nwant %q", told, want)
	}
	// No longer watched.
	if err := source.Watch(nil); err != nil {
		t.Fatal(err)
	}
	run(app, "true")
	end = run(other, "kill -SEGV $$")
	for _, e := range collect(t, source, func(e Exit) bool { return e.PID == end }) {
		if e.Began || e.PID != end {
			t.Errorf("%+v", e)
		}
	}
	if err := source.Watch(make([]Program, MaxPrograms+1)); err == nil {
		t.Error("too many programs")
	}
}

// A crash of a process that nobody tracks is told too, without a root.
func TestUntracked(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		cmd := exec.Command("sh", "-c", "ulimit -c 0; kill -SEGV $$")
		cmd.Run()
		e := collect(t, source, func(e Exit) bool { return e.PID == cmd.Process.Pid })
		if got := e[len(e)-1]; got.Root != 0 || !got.Crash() {
			t.Errorf("%+v", got)
		}
	})
}

// What BPF knows beyond the connector must be what /proc says.
func TestIdentity(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	source, err := OpenBPF()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	cmd := exec.Command("sh", "-c", "read go; ulimit -c 0; kill -SEGV $$")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := linux.OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stat, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := p.Namespace("mnt")
	if err != nil {
		t.Fatal(err)
	}
	own, _, err := linux.OwnMountNamespace()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	cmd.Wait()
	seen := collect(t, source, func(e Exit) bool { return e.PID == cmd.Process.Pid })
	e := seen[len(seen)-1]
	if e.Start != stat.Start || e.MountNamespace != namespace || namespace == own || e.Command != "sh" || e.Cgroup == 0 {
		t.Errorf("%+v; /proc says start %d, namespace %d (ours %d)", e, stat.Start, namespace, own)
	}
}

// A storm: a thousand crashes as fast as the machine makes them, none lost, each
// told once, and while nobody reads, nobody waits.
func TestStorm(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		const crashes = 1000
		pid, wait := shell(t, source, fmt.Sprintf(`i=0; while [ $i -lt %d ]; do sh -c 'kill -SEGV $$'; i=$((i+1)); done 2>/dev/null`, crashes))
		if err := wait(); err != nil { // nothing was read yet: the storm must end all the same
			t.Logf("shell: %v", err) // it reports its last child's signal
		}
		told := make(map[int]int)
		for _, e := range collect(t, source, func(e Exit) bool { return e.PID == pid }) {
			if e.Crash() && e.Root == pid {
				told[e.PID]++
			}
		}
		if len(told) != crashes || source.Lost() != 0 {
			t.Errorf("%d of %d crashes told, %d lost", len(told), crashes, source.Lost())
		}
		for child, times := range told {
			if times != 1 {
				t.Errorf("process %d told %d times", child, times)
			}
		}
	})
}

// A program of many threads that crashes in one of them is one crash, told when
// its last thread has ended.
func TestThreads(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		cmd := exec.Command("sh", "-c", "ulimit -c 0; exec "+os.Args[0]+" -test.run=^$")
		cmd.Env = append(os.Environ(), "SEALANT_TEST_CRASH=1", "GOTRACEBACK=crash")
		cmd.Run()
		told := 0
		marker := exec.Command("sh", "-c", "ulimit -c 0; kill -SEGV $$")
		marker.Run()
		for _, e := range collect(t, source, func(e Exit) bool { return e.PID == marker.Process.Pid }) {
			if e.PID == cmd.Process.Pid {
				told++
				if e.Signal != syscall.SIGABRT || !e.Crash() {
					t.Errorf("%+v", e)
				}
			}
		}
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
}

func TestMain(m *testing.M) {
	if os.Getenv("SEALANT_TEST_CRASH") != "" {
		crashManyThreads()
	}
	os.Exit(m.Run())
}

// crashManyThreads dies of SIGABRT in a thread that is not the first.
func crashManyThreads() {
	for range 4 {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Hour)
		}()
	}
	go func() {
		runtime.LockOSThread()
		panic("on purpose")
	}()
	select {}
}

func TestCloseEndsRead(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		done := make(chan error, 1)
		go func() {
			for {
				if _, err := source.Read(); err != nil {
					done <- err
					return
				}
			}
		}()
		source.Close()
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
	})
}

// Close leaves nothing in the kernel.
func TestNothingLeft(t *testing.T) {
	if !linux.Root() {
		t.Skip("needs root")
	}
	open := func() (names []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && (strings.Contains(to, "bpf") || strings.Contains(to, "NETLINK")) {
				names = append(names, to)
			}
		}
		return names
	}
	before := open()
	for range 3 {
		source, _, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		source.Close()
	}
	if after := open(); len(after) > len(before) {
		t.Errorf("descriptors left: %v", after)
	}
}

func FuzzConnector(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 76))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newConnector(nil)
		c.roots[1] = 1
		for len(data) > 0 {
			event, rest, ok := cutMessage(data)
			if !ok {
				return
			}
			if len(rest) >= len(data) {
				t.Fatal("no progress")
			}
			c.event(event)
			data = rest
		}
	})
}

// What a debugger kills, or lets die, is no crash of the app.
func TestTraced(t *testing.T) {
	each(t, func(t *testing.T, source Source) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command("sh", "-c", "read go; ulimit -c 0; kill -SEGV $$")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		if err := source.Track(pid, pid); err != nil { // so that even what is no crash is told
			t.Fatal(err)
		}
		if err := syscall.PtraceAttach(pid); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in, "go")
		for {
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
				t.Fatal(err)
			}
			if status.Signaled() {
				break
			}
			deliver := 0
			if status.StopSignal() == syscall.SIGSEGV {
				deliver = int(syscall.SIGSEGV)
			}
			if err := syscall.PtraceCont(pid, deliver); err != nil {
				t.Fatal(err)
			}
		}
		seen := collect(t, source, func(e Exit) bool { return e.PID == pid })
		if e := seen[len(seen)-1]; e.Signal != syscall.SIGSEGV || !e.Traced || e.Crash() {
			t.Errorf("%+v", e)
		}
	})
}
