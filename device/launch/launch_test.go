package launch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

// TestMain also lets this binary stand in for sealant: as the child of a
// launch, and as the command that root or another user types.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ChildCommand:
			if err := Child(os.Args[2]); err != nil {
				os.Exit(1)
			}
		case "run-as-root":
			finish(Status{}, Exec(store.Below(os.Args[2]), free, programOf(os.Args[3:])))
		case "take-terminal":
			finish(Status{}, takeTerminal(store.Below(os.Args[2])))
		case "run-by-agent", "start-by-agent":
			p := programOf(os.Args[3:])
			r := Request{Args: p.Args, Env: p.Env, Dir: p.Dir, Detached: os.Args[1] == "start-by-agent"}
			_, status, err := Through(context.Background(), store.Below(os.Args[2]), r)
			finish(status, err)
		}
	}
	namespace.Main(m)
}

func programOf(args []string) Program {
	dir, err := os.Getwd()
	if err != nil {
		finish(Status{}, err)
	}
	return Program{Path: args[0], Args: args, Env: os.Environ(), Dir: dir}
}

func finish(status Status, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(200 + int(fault.KindOf(err)))
	}
	os.Exit(status.ExitCode())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// booted is a device that has booted its baseline, with improvement (a) staged.
func booted(t testing.TB) (*rig.Device, store.Set) {
	t.Helper()
	d := rig.New(t, rig.NewVendor(t))
	_, err := activate.Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	must(t, activate.Stage(t.Context(), d.Store, a, nil))
	return d, a
}

// as is this binary standing in for sealant.
func as(role string, d *rig.Device, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{role, d.Root}, args...)...)
	cmd.Dir = "/"
	return cmd
}

// nobody makes a command an ordinary user's.
func nobody(cmd *exec.Cmd) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1234, Gid: 2345, Groups: []uint32{2345, 3456}}
	return cmd
}

// output runs a command to its end.
func output(t testing.TB, cmd *exec.Cmd) (text string, code int) {
	t.Helper()
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// agent serves launches for the device until the test ends.
func agent(t testing.TB, d *rig.Device, apps ...policy.App) (stop func()) {
	t.Helper()
	return serve(t, d, &Server{Confine: free, Apps: func() ([]policy.App, error) { return apps, nil }})
}

func serve(t testing.TB, d *rig.Device, s *Server) (stop func()) {
	t.Helper()
	l, err := Listen(d.Store)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.Store = d.Store
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// eventually waits for something that another process does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("it never came to this: %s", what)
}

func TestRootLaunchesOnStagedContent(t *testing.T) {
	d, a := booted(t)
	show := "cat " + d.Store.MountPoint("web") + "/version; echo; cat " + d.Store.MountPoint("os") + "/version; echo; sh -c 'cat " + d.Store.MountPoint("web") + "/version'"
	text, code := output(t, as("run-as-root", d, "/bin/sh", "-c", show))
	if code != 0 || text != "web (a)\nos base\nweb (a)" {
		t.Errorf("%d %q", code, text)
	}
	if got := d.Versions(); got != [2]string{"os base", "web base"} {
		t.Errorf("the system shows %q", got)
	}
	must(t, activate.Unstage(d.Store))
	if text, code = output(t, as("run-as-root", d, "/bin/sh", "-c", show)); code != 0 || !strings.HasPrefix(text, "web base") {
		t.Errorf("%d %q", code, text)
	}
	if text, code = output(t, as("run-as-root", d, "/bin/no-such-program")); code != 200 || !strings.Contains(text, "cannot execute /bin/no-such-program") {
		t.Errorf("%d %q", code, text)
	}
	list, err := List(d.Store)
	if err != nil || len(list) != 2 {
		t.Errorf("%d records of 2 launches, %v", len(list), err)
	}
	for _, r := range list {
		if r.Running() {
			t.Errorf("%+v counts as running", r)
		}
	}
	if list[0].Set != a.ID && list[1].Set != a.ID {
		t.Error("no record names the set")
	}
}

// What is mounted beside the set's content is seen in a launch too, and under the
// content there is nothing of what the system shows.
func TestMountsBesideTheSet(t *testing.T) {
	d, _ := booted(t)
	other := filepath.Join(d.Store.CryptexDir(), "other")
	must(t, os.MkdirAll(other, 0o755))
	must(t, linux.Tmpfs(other))
	t.Cleanup(func() { must(t, linux.Unmount(other)) })
	must(t, os.WriteFile(other+"/version", []byte("other"), 0o644))
	web := d.Store.MountPoint("web")
	text, code := output(t, as("run-as-root", d, "/bin/sh", "-c", "cat "+other+"/version; umount "+web+" && ls "+web))
	if code != 0 || text != "other" {
		t.Errorf("%d %q", code, text)
	}
}

// The set of a process is settled at its start, whatever happens around it.
func TestLaunchedKeepsItsSet(t *testing.T) {
	d, a := booted(t)
	cmd := as("run-as-root", d, "/bin/sh", "-c", "while read x; do cat "+d.Store.MountPoint("web")+"/version; echo; done")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewReader(out)
	says := func() string {
		t.Helper()
		_, err := in.Write([]byte("\n"))
		must(t, err)
		line, err := lines.ReadString('\n')
		must(t, err)
		return strings.TrimSpace(line)
	}
	if got := says(); got != "web (a)" {
		t.Errorf("at first %q", got)
	}
	r, ok, err := Find(d.Store, cmd.Process.Pid)
	if err != nil || !ok || r.Set != a.ID || r.Release != "SI-2026-0001" || r.Label != "(a)" || !r.Running() || len(r.Content) != 2 {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	b := d.Improve("SI-2026-0002", 2)
	must(t, activate.Stage(t.Context(), d.Store, b, nil))
	if got := says(); got != "web (a)" {
		t.Errorf("after another set was staged %q", got)
	}
	must(t, d.Store.Stage(b.ID))
	_, err = activate.Boot(t.Context(), d.Root) // restarts userspace only
	must(t, err)
	if got := says(); got != "web (a)" {
		t.Errorf("after the system was switched %q", got)
	}
	must(t, activate.Unstage(d.Store))
	if got := says(); got != "web (a)" {
		t.Errorf("in the end %q", got)
	}
	// A child is found by the namespace that it inherited.
	child := exec.Command("nsenter", "--mount=/proc/"+strconv.Itoa(cmd.Process.Pid)+"/ns/mnt", "/bin/sleep", "1000")
	must(t, child.Start())
	defer child.Wait()
	defer child.Process.Kill()
	eventually(t, "a process in the launch's namespace is found", func() bool {
		r, ok, err := Find(d.Store, child.Process.Pid)
		return err == nil && ok && r.Set == a.ID
	})
	if _, ok, err := Find(d.Store, os.Getpid()); ok || err != nil {
		t.Errorf("this process counts as launched: %v", err)
	}
}

// Launching while sets are staged and unstaged always gives one whole set.
func TestLaunchWhileStaging(t *testing.T) {
	d, a := booted(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 15 {
			if err := errors.Join(activate.Unstage(d.Store), activate.Stage(context.Background(), d.Store, a, nil)); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		text, code := output(t, as("run-as-root", d, "/bin/cat", d.Store.MountPoint("web")+"/version", d.Store.MountPoint("os")+"/version"))
		if code != 0 || text != "web (a)os base" && text != "web baseos base" {
			t.Fatalf("%d %q", code, text)
		}
	}
}

func TestLaunchWithoutContent(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	if text, code := output(t, as("run-as-root", d, "/bin/true")); code != 200 || !strings.Contains(text, "no content is attached") {
		t.Errorf("%d %q", code, text)
	}
}

func TestResolve(t *testing.T) {
	apps := []policy.App{
		{ID: "reader", Command: []string{"/usr/bin/reader", "--stay", "menu"}, Match: []string{"/opt/reader/"}},
		{ID: "web-server", Unit: "web.service"},
	}
	for _, tt := range []struct {
		app      string
		args     []string
		want     string // APP PATH ARGS…
		usage    bool
		hintHas  string
		isFailed bool
	}{
		{app: "reader", want: "reader /usr/bin/reader [/usr/bin/reader --stay menu]"},
		{app: "reader", args: []string{"doc"}, want: "reader /usr/bin/reader [/usr/bin/reader doc]"},
		{args: []string{"/usr/bin/reader", "x"}, want: "reader /usr/bin/reader [/usr/bin/reader x]"},
		{args: []string{"/opt/reader/helper"}, want: "reader /opt/reader/helper [/opt/reader/helper]"},
		{args: []string{"/bin/true"}, want: " /bin/true [/bin/true]"},
		{args: []string{"true"}, usage: true},
		{usage: true},
		{app: "web-server", usage: true, hintHas: "relaunch web-server"},
		{app: "mail", usage: true, hintHas: "reader, web-server"},
	} {
		p, err := Resolve(apps, tt.app, tt.args)
		if tt.usage {
			if fault.KindOf(err) != fault.Usage || !strings.Contains(fault.HintOf(err), tt.hintHas) {
				t.Errorf("%q %q: %v, hint %q", tt.app, tt.args, err, fault.HintOf(err))
			}
			continue
		}
		if got := fmt.Sprint(p.App, " ", p.Path, " ", p.Args); err != nil || got != tt.want {
			t.Errorf("%q %q: %s, %v", tt.app, tt.args, got, err)
		}
	}
}

func TestPrune(t *testing.T) {
	d, _ := booted(t)
	if text, code := output(t, as("run-as-root", d, "/bin/true")); code != 0 {
		t.Fatal(text)
	}
	cmd := as("run-as-root", d, "/bin/sleep", "1000")
	must(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	eventually(t, "two launches are recorded", func() bool { list, _ := List(d.Store); return len(list) == 2 })
	// At the moment in which a program takes over its process, that looks like one
	// that has ended; who prunes, prunes what is older.
	eventually(t, "it sleeps", func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(name) == "sleep\n"
	})
	must(t, Prune(d.Store, time.Now().Add(-time.Hour)))
	if list, err := List(d.Store); err != nil || len(list) != 2 {
		t.Errorf("young records are pruned: %v, %v", list, err)
	}
	must(t, Prune(d.Store, time.Now().Add(time.Hour)))
	list, err := List(d.Store)
	if err != nil || len(list) != 1 || list[0].PID != cmd.Process.Pid {
		t.Errorf("%v, %v", list, err)
	}
}

// A record that can't be written leaves nothing.
func TestRecordThatFails(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	dir, err := openRecords(d.Store)
	must(t, err)
	defer dir.Close()
	must(t, dir.Mkdir(recordName(5), 0o755))
	if err := (Record{PID: 5}).write(dir); err == nil {
		t.Error("written")
	}
	if n, err := count(d.Store); n != 1 || err != nil {
		t.Errorf("%d files, %v", n, err)
	}
}

// Whoever launches, and however: the folder of records stays small.
func TestRecordsHaveALimit(t *testing.T) {
	d, _ := booted(t)
	must(t, os.MkdirAll(d.Store.LaunchDir(), 0o755))
	boot, err := linux.BootID()
	must(t, err)
	fill := func(r Record) {
		data, err := json.Marshal(r)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(d.Store.LaunchDir(), recordName(r.PID)), data, 0o644))
	}
	const most, none = 8, 1 << 30 // no process has such a number
	for i := range most - 1 {
		fill(Record{Schema: RecordSchema, PID: none + i, Boot: boot, Namespace: 1, Time: time.Now().Add(-2 * settled)})
	}
	must(t, os.WriteFile(filepath.Join(d.Store.LaunchDir(), unfinished+recordName(none)), nil, 0o644))
	s := &Server{Store: d.Store, mostRecords: most}
	must(t, s.makeRoom())
	if n, err := count(d.Store); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	// Those of processes that run stay.
	self, err := linux.OpenProcess(os.Getpid())
	must(t, err)
	defer self.Close()
	stat, err := self.Stat()
	must(t, err)
	fill(Record{Schema: RecordSchema, PID: os.Getpid(), Start: stat.Start, Boot: boot, Time: time.Now().Add(-2 * settled)})
	s.mostRecords = 1
	if err := s.makeRoom(); fault.KindOf(err) != fault.Busy {
		t.Error(err)
	}
	if _, err := Read(d.Store, os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestParseRecord(t *testing.T) {
	good, err := json.Marshal(Record{Schema: RecordSchema, PID: 5})
	must(t, err)
	if _, err := parseRecord(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "{}", string(good) + "{}", strings.Replace(string(good), `"pid":5`, `"pid":-5`, 1),
		strings.Replace(string(good), "launch/1", "launch/2", 1), `{"more":1,` + string(good[1:]), strings.Repeat(" ", maxRecord) + string(good),
	} {
		if _, err := parseRecord([]byte(bad)); err == nil {
			t.Errorf("%.60q is a record", bad)
		}
	}
}

func TestRecordVectors(t *testing.T) {
	rig.DocumentVectors(t, "../../spec/vectors/run", "launch", func(name string, data []byte, ok bool) {
		if _, err := parseRecord(data); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	good, _ := json.Marshal(Record{Schema: RecordSchema, PID: 5, Content: []present.Content{{Name: "web"}}})
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecord(again); err != nil {
			t.Errorf("%q reads, but what it means doesn't: %v", data, err)
		}
	})
}

// BenchmarkLaunch is what a launch costs beyond the program itself.
func BenchmarkLaunch(b *testing.B) {
	d, _ := booted(b)
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			must(b, exec.Command("/bin/true").Run())
		}
	})
	b.Run("namespace", func(b *testing.B) {
		// What the kernel's part costs, without the start of another program.
		for b.Loop() {
			must(b, linux.Isolated(func() error {
				c, err := takeContent(d.Store)
				if err != nil {
					return err
				}
				defer c.close()
				if err := linux.PrivateMounts(); err != nil {
					return err
				}
				if err := c.bind(d.Store.CryptexDir()); err != nil {
					return err
				}
				return exec.Command("/bin/true").Run()
			}))
		}
	})
	b.Run("root", func(b *testing.B) {
		for b.Loop() {
			must(b, as("run-as-root", d, "/bin/true").Run())
		}
	})
	b.Run("agent", func(b *testing.B) {
		agent(b, d)
		for b.Loop() {
			must(b, nobody(as("run-by-agent", d, "/bin/true")).Run())
		}
	})
}
