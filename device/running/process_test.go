package running

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

// TestMain also lets this binary stand in for `sealant run`, as root.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "run-as-root" {
		p := launch.Program{Path: os.Args[3], Args: os.Args[3:], Env: os.Environ(), Dir: "/"}
		fmt.Fprintln(os.Stderr, launch.Exec(store.Below(os.Args[2]), func(linux.Pidfd, bool, linux.Pidfd) error { return nil }, p))
		os.Exit(1)
	}
	namespace.Main(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// booted is a device that has booted its baseline, with improvement (a) staged.
func booted(t testing.TB) *rig.Device {
	t.Helper()
	d := rig.New(t, rig.NewVendor(t))
	_, err := activate.Boot(t.Context(), d.Root)
	must(t, err)
	must(t, activate.Stage(t.Context(), d.Store, d.Improve("SI-2026-0001", 1), nil))
	return d
}

// launched is a program as `sealant run` starts it.
func launched(d *rig.Device, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{"run-as-root", d.Root}, args...)...)
}

// nobody makes a command an ordinary user's.
func nobody(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 2345, Groups: []uint32{2345, 3456}}}
	return cmd
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

// running starts a program until the test ends.
func running(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

// content is the program of a cryptex, sleeping.
func sleeper(d *rig.Device, cryptex string) *exec.Cmd {
	return exec.Command(filepath.Join(d.Store.MountPoint(cryptex), "run"), "1000")
}

func launchedSleeper(d *rig.Device, cryptex string) *exec.Cmd {
	return launched(d, filepath.Join(d.Store.MountPoint(cryptex), "run"), "1000")
}

// appOf describes the program of "web" as an app, under a name that leads into
// the cryptex by a link, as `image split` leaves it.
func appOf(t testing.TB, d *rig.Device) policy.App {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(d.Root, "usr/bin"), 0o755))
	must(t, os.Symlink(filepath.Join(d.Store.MountPoint("web"), "run"), filepath.Join(d.Root, "usr/bin/reader")))
	return policy.App{ID: "reader", Name: "Reader", Cryptexes: []string{"web"}, Command: []string{"/usr/bin/reader", "1000"}}
}

// found is what a scan says about one process: "CRYPTEX LABEL STATE TODO…".
func found(t testing.TB, d *rig.Device, pid int, apps ...policy.App) []string {
	t.Helper()
	scan, err := Processes(d.Store, apps)
	must(t, err)
	var list []string
	for _, u := range scan.Uses {
		if u.PID == pid {
			list = append(list, strings.Join([]string{u.App, u.Cryptex, u.Label, string(u.State), u.Todo}, "|"))
		}
	}
	return list
}

func TestProcesses(t *testing.T) {
	d := booted(t)
	app := appOf(t, d)
	check := func(when string, pid int, want ...string) {
		t.Helper()
		eventually(t, when, func() bool { return slices.Equal(found(t, d, pid, app), want) })
	}
	old := running(t, sleeper(d, "web"))
	base := running(t, sleeper(d, "os"))
	fresh := running(t, launchedSleeper(d, "web"))
	other := running(t, exec.Command("/bin/sleep", "1000"))
	check("an app on the baseline", old, "reader|web|base|base|sealant relaunch reader")
	check("a program on content that (a) leaves as it is", base, "|os|(a)|active|")
	check("a launched app on the staged content", fresh, "reader|web|(a)|active|")
	check("a program that uses nothing", other)
	scan, err := Processes(d.Store, []policy.App{app})
	must(t, err)
	if scan.Seen["web"] != 2 || scan.Seen["os"] != 1 || len(scan.Uses) != 3 {
		t.Errorf("%+v", scan)
	}
	for _, u := range scan.Uses {
		if !u.Proof.Mounted || len(u.Proof.Files) == 0 || u.Proof.Device == "" || u.Proof.Namespace == 0 {
			t.Errorf("no proof: %+v", u)
		}
	}

	b := d.Improve("SI-2026-0002", 2)
	must(t, activate.Stage(t.Context(), d.Store, b, nil))
	check("(a) while (b) is staged", fresh, "reader|web|(a)|older|sealant relaunch reader")

	// The system is switched under the running programs: what they have is
	// mounted nowhere any more, and is still told.
	must(t, d.Store.Stage(b.ID))
	_, err = activate.Boot(t.Context(), d.Root)
	must(t, err)
	check("the baseline after a switch", old, "reader|web|base|base|sealant relaunch reader")
	check("(a) after a switch", fresh, "reader|web|(a)|older|sealant relaunch reader")
	scan, err = Processes(d.Store, []policy.App{app})
	must(t, err)
	for _, u := range scan.Uses {
		if u.PID == old && u.Proof.Mounted {
			t.Error("unmounted content counts as mounted")
		}
	}

	// Removal: the baseline is what a launch gets.
	d.Confirm()
	d.Preroll()
	removal, err := d.Store.Slot(store.Base)
	must(t, err)
	must(t, activate.Stage(t.Context(), d.Store, removal, nil))
	check("(a) while the baseline is staged", fresh, "reader|web|(a)|older|sealant relaunch reader")
	check("the baseline while it is staged", old, "reader|web|base|active|")
}

// A script has nothing of its cryptex mapped; its launch tells.
func TestLaunchedScript(t *testing.T) {
	d := booted(t)
	app := policy.App{ID: "script", Cryptexes: []string{"web"}, Command: []string{"/bin/sh"}, Match: []string{"/usr/bin/tail"}}
	cmd := launched(d, "/usr/bin/tail", "-f", "/dev/null")
	pid := running(t, cmd)
	eventually(t, "the stamp of a launch is told", func() bool {
		// run-as-root knows no apps: give the record its app.
		list, _ := launch.List(d.Store)
		if len(list) != 1 || list[0].PID != pid {
			return false
		}
		r := list[0]
		r.App = "script"
		data, err := json.Marshal(r)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(d.Store.LaunchDir(), fmt.Sprintf("%d.json", pid)), data, 0o644))
		return slices.Equal(found(t, d, pid, app), []string{"script|web|(a)|active|"})
	})
}

// Ordinary users see their own processes, and how many they don't see.
func TestProcessesOfOthers(t *testing.T) {
	d := booted(t)
	app := appOf(t, d)
	mine := running(t, nobody(sleeper(d, "web")))
	theirs := running(t, sleeper(d, "web"))
	eventually(t, "both run", func() bool { return len(found(t, d, mine, app)) == 1 && len(found(t, d, theirs, app)) == 1 })
	// A thread of its own takes on another user.
	var scan *Scan
	must(t, linux.Isolated(func() (err error) {
		_, _, gid := syscall.RawSyscall(syscall.SYS_SETRESGID, 2345, 2345, 2345)
		_, _, uid := syscall.RawSyscall(syscall.SYS_SETRESUID, 1234, 1234, 1234)
		if uid != 0 || gid != 0 {
			t.Error(uid, gid)
		}
		s, err := newScan(d.Store, []policy.App{app})
		if err != nil {
			return err
		}
		pids, err := linux.Processes()
		if err != nil {
			return err
		}
		scan = &s.result
		return s.all(pids, 1) // on this thread
	}))
	if scan == nil {
		t.Fatal("no scan")
	}
	if len(scan.Uses) != 1 || scan.Uses[0].PID != mine || scan.Uses[0].UID != 1234 || scan.Hidden == 0 {
		t.Errorf("%+v", scan)
	}
}

// A device that is not ours, in its own folder, doesn't show.
func TestAnotherDevicesProcesses(t *testing.T) {
	d := booted(t)
	other := booted(t)
	pid := running(t, sleeper(other, "web"))
	eventually(t, "the other device sees it", func() bool { return len(found(t, other, pid)) == 1 })
	if got := found(t, d, pid); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestRelaunchPlan(t *testing.T) {
	d := booted(t)
	app := appOf(t, d)
	apps := []policy.App{app, {ID: "other", Cryptexes: []string{"os"}, Command: []string{"/bin/none"}}}
	old := running(t, sleeper(d, "web"))
	second := running(t, sleeper(d, "web"))
	foreign := running(t, nobody(sleeper(d, "web")))
	running(t, sleeper(d, "os"))
	fresh := running(t, launchedSleeper(d, "web"))
	var plan *Plan
	eventually(t, "the plan names the old processes", func() bool {
		var err error
		plan, err = NewPlan(d.Store, apps, "reader")
		must(t, err)
		return len(plan.Old) == 2 && len(plan.Foreign) == 1 && len(found(t, d, fresh, apps...)) == 1
	})
	if plan.Old[0].PID != max(old, second) || plan.Foreign[0].PID != foreign {
		t.Errorf("%+v", plan)
	}
	must(t, plan.End(t.Context(), 10*time.Second, false))
	for _, pid := range []int{old, second} {
		if h, err := linux.OpenPidfd(pid); err == nil && !h.Ended() {
			t.Errorf("process %d still runs", pid)
		}
	}
	for _, pid := range []int{fresh, foreign} {
		if h, err := linux.OpenPidfd(pid); err != nil || h.Ended() {
			t.Errorf("process %d was ended", pid)
		}
	}
	must(t, plan.End(t.Context(), time.Second, false)) // they have ended: nothing to do
	if _, err := NewPlan(d.Store, apps, "mail"); fault.KindOf(err) != fault.Usage {
		t.Error(err)
	}
}

// A process that doesn't listen is named, and killed only by force.
func TestRelaunchOfTheStubborn(t *testing.T) {
	d := booted(t)
	app := appOf(t, d)
	cmd := exec.Command("/bin/sh", "-c", `trap "" TERM; exec "$0" 1000`, filepath.Join(d.Store.MountPoint("web"), "run"))
	pid := running(t, cmd)
	var plan *Plan
	eventually(t, "it is found", func() bool {
		plan, _ = NewPlan(d.Store, []policy.App{app}, "reader")
		return plan != nil && len(plan.Old) == 1
	})
	err := plan.End(t.Context(), 100*time.Millisecond, false)
	if fault.KindOf(err) != fault.Relaunch || !strings.Contains(err.Error(), Names(plan.Old)) || !strings.Contains(fault.HintOf(err), "--force") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	h, err := linux.OpenPidfd(pid)
	must(t, err)
	defer h.Close()
	if h.Ended() {
		t.Error("it was killed")
	}
	must(t, plan.End(t.Context(), 100*time.Millisecond, true))
	must(t, h.Wait(t.Context()))
}

// A process number that was used again is not the process that was found.
func TestAimMissesAnotherProcess(t *testing.T) {
	pid := running(t, exec.Command("/bin/sleep", "1000"))
	if target, err := aim(Use{PID: pid, start: 1}); target != nil || err != nil {
		t.Errorf("aimed at %+v, %v", target, err)
	}
}

// BenchmarkProcesses looks at 2000 processes, every fifth of which uses content.
func BenchmarkProcesses(b *testing.B) {
	d := booted(b)
	app := appOf(b, d)
	for i := range 2000 {
		cmd := exec.Command("/bin/sleep", "1000")
		if i%5 == 0 {
			cmd = sleeper(d, "web")
		}
		running(b, cmd)
	}
	for b.Loop() {
		scan, err := Processes(d.Store, []policy.App{app})
		must(b, err)
		if scan.Seen["web"] != 400 {
			b.Fatalf("%d processes found", scan.Seen["web"])
		}
	}
}
