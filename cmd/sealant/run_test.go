package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/running"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

// standIn makes this test binary the real program.
const standIn = "SEALANT_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(standIn) != "" || len(os.Args) > 1 && os.Args[1] == launch.ChildCommand {
		main()
		return
	}
	namespace.Main(m)
}

// kiosk is a device with an improvement staged and the app "reader".
type kiosk struct {
	*rig.Device
	t       *testing.T
	program string // a copy of this binary that everybody may execute
	web     string // the app's content
}

func newKiosk(t *testing.T) *kiosk {
	t.Helper()
	d := rig.New(t, rig.NewVendor(t))
	k := &kiosk{d, t, filepath.Join(d.Root, "sealant"), d.Store.MountPoint("web")}
	_, err := activate.Boot(t.Context(), d.Root)
	k.must(err)
	k.must(activate.Stage(t.Context(), d.Store, d.Improve("SI-2026-0001", 1), nil))
	data, err := os.ReadFile("/proc/self/exe")
	k.must(err)
	k.must(os.WriteFile(k.program, data, 0o755))
	k.must(os.MkdirAll(filepath.Join(d.Store.ConfigDir(), "apps.d"), 0o755))
	k.app("reader", "cryptexes = [\"web\"]\ncommand = [\""+k.web+"/run\", \"1000\"]\n")
	k.app("service", "cryptexes = [\"web\"]\nunit = \"no-such.service\"\n")
	return k
}

func (k *kiosk) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *kiosk) app(id, text string) {
	k.must(os.WriteFile(filepath.Join(k.Store.ConfigDir(), "apps.d", id+".toml"), []byte(text), 0o644))
}

func (k *kiosk) command(args ...string) *exec.Cmd {
	cmd := exec.Command(k.program, append([]string{"--root", k.Root}, args...)...)
	cmd.Env = append(os.Environ(), standIn+"=1", "LC_ALL=C.UTF-8")
	return cmd
}

// says runs the program and returns what it printed and its exit code.
func (k *kiosk) says(cmd *exec.Cmd) (stdout, stderr string, code int) {
	k.t.Helper()
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		k.t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func user(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 2345}}
	return cmd
}

func (k *kiosk) agent() {
	k.t.Helper()
	cmd := k.command("agent")
	cmd.Stderr = os.Stderr
	k.must(cmd.Start())
	k.t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	k.eventually("the agent listens", func() bool {
		_, err := os.Stat(k.Store.LaunchSocketPath())
		return err == nil
	})
}

func (k *kiosk) eventually(what string, ok func() bool) {
	k.t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	k.t.Fatalf("it never came to this: %s", what)
}

func TestRun(t *testing.T) {
	k := newKiosk(t)
	for _, who := range []func(*exec.Cmd) *exec.Cmd{func(c *exec.Cmd) *exec.Cmd { return c }, user} {
		if out, _, code := k.says(who(k.command("run", "--", "cat", k.web+"/version"))); code != 0 && out == "" {
			k.agent() // an ordinary user needs it
		}
		out, text, code := k.says(who(k.command("run", "--", "cat", k.web+"/version")))
		if out != "web (a)" || code != 0 {
			t.Errorf("content: %d %q %q", code, out, text)
		}
		if out, _, code = k.says(who(k.command("run", "--", "sh", "-c", "echo --json $0 -q; exit 9", "--yes"))); code != 9 || out != "--json --yes -q\n" {
			t.Errorf("exit code and flags: %d %q", code, out)
		}
		for name, tt := range map[string]struct {
			args []string
			code int
			text string
		}{
			"app with arguments": {[]string{"run", "reader", "--", "0.01"}, 0, ""},
			"no such app":        {[]string{"run", "mail"}, 2, "apps: reader, service"},
			"a service":          {[]string{"run", "service"}, 2, "sealant relaunch service"},
			"no such command":    {[]string{"run", "--", "no-such-command"}, 2, "no-such-command"},
			"no dash":            {[]string{"run", "reader", "0.01"}, 2, "run APP -- ARGS"},
			"nothing":            {[]string{"run"}, 2, ""},
		} {
			if _, text, code := k.says(who(k.command(tt.args...))); code != tt.code || !strings.Contains(text, tt.text) {
				t.Errorf("%s: %d %q", name, code, text)
			}
		}
	}
	k.app("broken", "command = 7\n")
	if out, text, code := k.says(k.command("run", "--", "echo", "works")); code != 0 || out != "works\n" {
		t.Errorf("a mistake in apps.d is in the way: %d %s", code, text)
	}
	if _, text, code := k.says(k.command("run", "reader", "--", "0")); code == 0 || !strings.Contains(text, "broken.toml") {
		t.Errorf("%d %s", code, text)
	}
}

func TestPsAndRelaunch(t *testing.T) {
	k := newKiosk(t)
	old := exec.Command(k.web+"/run", "1000")
	k.must(old.Start())
	ended := make(chan error, 1)
	go func() { ended <- old.Wait() }()
	t.Cleanup(func() { old.Process.Kill() })
	pid := strconv.Itoa(old.Process.Pid)
	line := func(args ...string) string {
		out, text, code := k.says(k.command(args...))
		if code != 0 {
			t.Errorf("%q: %d %s", args, code, text)
		}
		return out
	}
	k.eventually("ps names the process", func() bool {
		return regexp.MustCompile(`(?m)^ *` + pid + ` reader +web +42\.3 base ○ sealant relaunch reader$`).MatchString(line("ps"))
	})
	if out := line("ps", "--proof"); !strings.Contains(out, k.web+"/run\n") || !strings.Contains(out, "mapped") {
		t.Errorf("no proof:\n%s", out)
	}
	var doc struct {
		Schema string
		Uses   []running.Use
	}
	if err := json.Unmarshal([]byte(line("ps", "--json")), &doc); err != nil || doc.Schema != "sealant.ps/1" || len(doc.Uses) != 1 || doc.Uses[0].Todo != "sealant relaunch reader" {
		t.Errorf("%+v, %v", doc, err)
	}
	_, text, code := k.says(k.command("relaunch", "reader", "--dry-run"))
	if code != 0 || !strings.Contains(text, pid+" (run)") {
		t.Errorf("%d %q", code, text)
	}
	select {
	case <-ended:
		t.Fatal("a dry run ended the process")
	default:
	}
	out, text, code := k.says(k.command("relaunch", "reader", "--json"))
	var r relaunched
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.PID == 0 || len(r.Ended) != 1 || len(r.Remain) != 0 {
		t.Fatalf("%d %s %s %v", code, out, text, err)
	}
	t.Cleanup(func() { syscall.Kill(r.PID, syscall.SIGKILL) })
	<-ended
	if out := line("ps"); !regexp.MustCompile(`(?m)^ *` + strconv.Itoa(r.PID) + ` reader +web +42\.3 \(a\) +● –$`).MatchString(out) {
		t.Errorf("after the relaunch:\n%s", out)
	}
	if _, text, code := k.says(k.command("relaunch", "reader")); code != 0 || !strings.Contains(text, "nothing of it runs on old content") {
		t.Errorf("%d %q", code, text)
	}
	if _, _, code := k.says(k.command("relaunch", "mail")); code != 2 {
		t.Errorf("exit code %d for an unknown app", code)
	}
}

func TestRelaunchOfAUser(t *testing.T) {
	k := newKiosk(t)
	old := user(exec.Command(k.web+"/run", "1000"))
	k.must(old.Start())
	ended := make(chan error, 1)
	go func() { ended <- old.Wait() }()
	t.Cleanup(func() { old.Process.Kill() })
	pid := strconv.Itoa(old.Process.Pid)
	k.eventually("root is told whose it is", func() bool {
		_, text, code := k.says(k.command("relaunch", "reader"))
		return code == 11 && strings.Contains(text, "of other users") && strings.Contains(text, pid)
	})
	k.agent()
	out, text, code := k.says(user(k.command("relaunch", "reader", "--json")))
	var r relaunched
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.PID == 0 {
		t.Fatalf("%d %s %s %v", code, out, text, err)
	}
	t.Cleanup(func() { syscall.Kill(r.PID, syscall.SIGKILL) })
	<-ended
	status, err := os.ReadFile("/proc/" + strconv.Itoa(r.PID) + "/status")
	if err != nil || !strings.Contains(string(status), "Uid:\t1234\t1234\t1234\t1234") {
		t.Errorf("it runs as another user: %s %v", status, err)
	}
}
