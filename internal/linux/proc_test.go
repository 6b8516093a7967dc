package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/test/namespace"
)

// start runs a program until the test ends.
func start(t testing.TB, name string, args ...string) (*Process, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	// The kernel tells of a started program a moment before it is laid out whole.
	for {
		if args, err := p.Command(); err != nil || args[0] != "" {
			return p, cmd
		}
	}
}

func TestProcess(t *testing.T) {
	p, cmd := start(t, "/bin/sleep", "1000")
	pids, err := Processes()
	if err != nil || !slices.Contains(pids, p.PID) || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("processes %v, %v", pids, err)
	}
	st, err := p.Stat()
	if err != nil || st.Parent != os.Getpid() || st.Kernel || st.Start == 0 {
		t.Errorf("stat %+v, %v", st, err)
	}
	status, err := p.Status()
	if err != nil || status.UID != [4]int{} || status.NoNewPrivs || status.Seccomp || status.ThreadGroup != p.PID || status.InnerNamespace {
		t.Errorf("status %+v, %v", status, err)
	}
	if exe, err := p.Executable(); err != nil || filepath.Base(exe) == "" {
		t.Errorf("executable %q, %v", exe, err)
	}
	if args, err := p.Command(); err != nil || !slices.Equal(args, []string{"/bin/sleep", "1000"}) {
		t.Errorf("command %q, %v", args, err)
	}
	mine, id, err := OwnMountNamespace()
	if err != nil {
		t.Fatal(err)
	}
	if its, err := p.MountNamespaceID(); err != nil || its != id || AtLeast("6.12") && id == 0 {
		t.Errorf("mount namespace id %d, mine %d, %v", its, id, err)
	}
	if same, err := p.SameNamespaces("mnt", "user", "pid", "net"); err != nil || !same {
		t.Errorf("same namespaces %v, %v", same, err)
	}
	if its, err := p.Namespace("mnt"); err != nil || its != mine {
		t.Errorf("mount namespace %d, mine %d, %v", its, mine, err)
	}
	if same, err := p.SameRoot(); err != nil || !same {
		t.Errorf("same root %v, %v", same, err)
	}
	if _, err := p.Cgroup(); err != nil {
		t.Error(err)
	}

	cmd.Process.Kill()
	cmd.Wait()
	for name, f := range map[string]func() error{
		"stat":      func() error { _, err := p.Stat(); return err },
		"status":    func() error { _, err := p.Status(); return err },
		"namespace": func() error { _, err := p.Namespace("mnt"); return err },
		"mounts":    func() error { _, err := p.Mounts(nil); return err },
		"maps":      func() error { _, err := new(MapReader).Mapped(p, func(Device) bool { return true }); return err },
	} {
		if err := f(); !Gone(err) {
			t.Errorf("%s of an ended process: %v", name, err)
		}
	}
	if _, err := OpenProcess(p.PID); !Gone(err) {
		t.Errorf("opening an ended process: %v", err)
	}
}

// A process may give itself any name; the numbers behind it stay readable.
func TestParseStat(t *testing.T) {
	rest := " S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	for _, name := range []string{"plain", "a) R 1 1", "((", "x y\nz", ""} {
		st, err := parseStat([]byte("5 (" + name + ")" + rest))
		want := Stat{Command: name, State: 'S', Parent: 7, Session: 9, Start: 4711}
		if err != nil || st != want {
			t.Errorf("%q: %+v, %v", name, st, err)
		}
	}
	for _, bad := range []string{"", "5", "5 (x", "5 )x(", "5 (x)", "5 (x) S 1 2", "5 (x)" + strings.Replace(rest, "4711", "-1", 1)} {
		if st, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, st)
		}
	}
}

func TestParseStatus(t *testing.T) {
	good := "Name:\tx\nUmask:\t0027\nTgid:\t5\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nNSpid:\t5\t1\nCapBnd:\t00000000000000ff\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	st, err := parseStatus(good)
	if err != nil || st.UID != [4]int{1, 2, 3, 4} || st.Bounding != 0xff || !st.NoNewPrivs || !st.Seccomp || st.Umask != 0o27 ||
		!slices.Equal(st.Groups, []int{9, 10}) || !st.InnerNamespace {
		t.Errorf("%+v, %v", st, err)
	}
	for _, key := range []string{"Uid", "Gid", "Groups", "CapBnd", "NoNewPrivs"} {
		if st, err := parseStatus(strings.Replace(good, key, "Xxx", 1)); err == nil {
			t.Errorf("without %s: %+v", key, st)
		}
	}
	for _, bad := range []string{"Uid:\t1\t2\t3\n", "Uid:\ta\t2\t3\t4\n", "Groups:\tx\n", "CapBnd:\tzz\n"} {
		if st, err := parseStatus(good + bad); err == nil {
			t.Errorf("%q: %+v", bad, st)
		}
	}
}

func TestMapped(t *testing.T) {
	dir := namespace.Dir(t)
	at := mountPoint(t, dir, "at")
	program, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	image := imageFile(t, dir, "image", "one")
	attach(t, image, at, false)
	list, err := OwnMounts(func(m *MountPoint) bool { return m.Path == at })
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	dev := list[0].Device
	copied := filepath.Join(dir, "sleep")
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	outside, _ := start(t, copied, "1000")
	var r MapReader
	if maps, err := r.Mapped(outside, func(d Device) bool { return d == dev }); err != nil || len(maps) != 0 {
		t.Errorf("%v, %v", maps, err)
	}
	everything, err := r.Mapped(outside, func(Device) bool { return true })
	if err != nil || !slices.ContainsFunc(everything, func(m Mapping) bool { return m.Path == copied && m.Exec }) {
		t.Errorf("%v, %v", everything, err)
	}
	// With the smallest buffer a line still fits in, the answer is the same.
	small := MapReader{buf: make([]byte, 300)}
	if again, err := small.Mapped(outside, func(Device) bool { return true }); err != nil || !slices.Equal(again, everything) {
		t.Errorf("small buffer: %v, %v", again, err)
	}
	if everything[0].OnErofs(outside) {
		t.Error("a file of /tmp counts as EROFS")
	}

	// A process that maps a file of the image keeps showing it after the
	// mount has been taken away.
	f, err := os.Open(filepath.Join(at, "version"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	memory, err := unix.Mmap(int(f.Fd()), 0, 3, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	if err := Unmount(at); err != nil {
		t.Fatal(err)
	}
	self, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	maps, err := r.Mapped(self, func(d Device) bool { return d == dev })
	if err != nil || len(maps) != 1 || maps[0].Exec || !maps[0].OnErofs(self) {
		t.Errorf("%v, %v", maps, err)
	}
	if devs, err := self.OpenFiles(func(d Device) bool { return d == dev }); err != nil || len(devs) != 1 {
		t.Errorf("open files on %v, %v", devs, err)
	}
}

func TestUnit(t *testing.T) {
	for group, want := range map[string]string{
		"/":                                "",
		"/system.slice/nginx.service":      "nginx.service",
		"/system.slice/a.service/inner/x":  "a.service",
		"/user.slice/app-gnome-mail.scope": "app-gnome-mail.scope",
		"/user.slice":                      "",
	} {
		if got := Unit(group); got != want {
			t.Errorf("%s: %q", group, got)
		}
	}
}

func TestCgroupDirectory(t *testing.T) {
	mounts := []MountPoint{
		{Root: "/", Path: "/sys/fs/cgroup/cpu,cpuacct", Type: "cgroup"},
		{Root: "/", Path: "/sys/fs/cgroup/systemd", Type: "cgroup"},
		{Root: "/below", Path: "/sys/fs/cgroup/unified", Type: "cgroup2"},
	}
	for line, want := range map[string]string{
		"3:cpuacct,cpu:/a":          "/sys/fs/cgroup/cpu,cpuacct/a",
		"1:name=systemd:/b/c":       "/sys/fs/cgroup/systemd/b/c",
		"0::/below/d":               "/sys/fs/cgroup/unified/d",
		"0::/elsewhere":             "",
		"2:memory:/a":               "",
		"1:name=systemd:/../../../": "/sys/fs/cgroup/systemd",
	} {
		got, _ := cgroupLines(line + "\n")[0].directory(mounts)
		if got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestPidfd(t *testing.T) {
	p, cmd := start(t, "/bin/sleep", "1000")
	handle, err := OpenPidfd(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	if handle.Ended() {
		t.Error("ended at once")
	}
	if AtLeast("6.9") && handle.Inode() == 0 {
		t.Error("no inode on Linux " + Release())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Millisecond)
	defer cancel()
	if err := handle.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited: %v", err)
	}
	if err := handle.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := handle.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := handle.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
	if id, err := BootID(); err != nil || len(id) != 36 {
		t.Errorf("boot id %q, %v", id, err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9\nCapBnd:\tff\nNoNewPrivs:\t1\n")
	f.Fuzz(func(t *testing.T, text string) { parseStatus(text) })
}

func FuzzScanMaps(f *testing.F) {
	f.Add([]byte("00400000-00452000 r-xp 00000000 fe:00 173521 /usr/bin/x y\n"))
	f.Add([]byte("7f-8f rw-p 00000000 00:00 0 \n\n- - - :\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(data, '\n')
		for _, m := range scanMaps(nil, data, func(Device) bool { return true }) {
			if m.Device == (Device{}) {
				t.Error("a mapping without a device")
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (x) S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"))
	f.Fuzz(func(t *testing.T, data []byte) { parseStat(data) })
}

func ExampleDevice() {
	fmt.Println(Device{0, 47})
	// Output: 0:47
}
