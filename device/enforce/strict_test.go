package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
)

// strictly runs a shell script as a strict app and says what it printed.
func strictly(t *testing.T, g *Guard, script string) string {
	t.Helper()
	out, _ := exec.Command("/proc/self/exe", "as-app", g.dir, "/bin/sh", "-c", script).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func usr(t *testing.T, g *Guard) {
	t.Helper()
	folder, err := os.Open("/usr")
	must(t, err)
	defer folder.Close()
	must(t, g.Base(folder))
}

// copied is a program outside of everything that is sealed.
func copied(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/usr/bin/true")
	must(t, err)
	path := filepath.Join(namespace.Dir(t), "x")
	must(t, os.WriteFile(path, data, 0o755))
	return path
}

func TestStrictApps(t *testing.T) {
	g := guard(t)
	usr(t, g)
	c := build(t, "web")
	must(t, g.Admit(c.root, c.list))
	x := copied(t)
	try := func(command string) string { return command + " 2>/dev/null && echo yes || echo no; " }
	script := try("/usr/bin/true") + try(c.path("listed")) + try(c.path("unlisted")) +
		try(x) + try("sh -c 'sh -c "+x+"'") + try(loader(t)+" "+x) + try("LD_PRELOAD="+x+" /usr/bin/true") +
		try("setsid "+x) + try("(sleep 0; exec "+x+")")
	must(t, g.SetMode(Enforce))
	// A library that can't be preloaded is left out, with a word about it.
	if got := strings.Fields(strictly(t, g, script)); strings.Join(got, " ") != "yes yes no no no no yes no no" {
		t.Errorf("%q", got)
	}
	// Others are not concerned.
	if !run(t, x) {
		t.Error("an app that isn't strict is refused what lies outside")
	}
	must(t, g.SetMode(Audit))
	if got := strings.Fields(strictly(t, g, script)); strings.Contains(strings.Join(got, " "), "no") {
		t.Errorf("auditing: %q", got)
	}
	// The program itself must be sealed too.
	must(t, g.SetMode(Enforce))
	out, err := exec.Command("/proc/self/exe", "as-app", g.dir, x).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("%v %s", err, out)
	}
}

// A strict app that is alive when nothing is enforced is one when it is again.
func TestStrictStaysStrict(t *testing.T) {
	g := guard(t)
	usr(t, g)
	x := copied(t)
	cmd := exec.Command("/proc/self/exe", "as-app", g.dir, "/bin/sh", "-c", "read go; sh -c "+x+" 2>/dev/null && echo yes || echo no")
	in, err := cmd.StdinPipe()
	must(t, err)
	var out strings.Builder
	cmd.Stdout = &out
	must(t, cmd.Start())
	must(t, g.SetMode(Enforce))
	_, err = in.Write([]byte("go\n"))
	must(t, err)
	must(t, cmd.Wait())
	if strings.TrimSpace(out.String()) != "no" {
		t.Errorf("%q", out.String())
	}
}

// What is in a strict service's control group is marked when it executes, and
// stays marked outside: also where the first program is a cryptex's own, as systemd
// before 255 starts it, without a program of systemd's before it.
func TestStrictServices(t *testing.T) {
	g := guard(t)
	usr(t, g)
	c := build(t, "web")
	must(t, g.Admit(c.root, c.list))
	x := copied(t)
	group := "/sys/fs/cgroup/sealant-test"
	must(t, os.Mkdir(group, 0o755))
	defer os.Remove(group)
	fi, err := os.Stat(group)
	must(t, err)
	id := fi.Sys().(*syscall.Stat_t).Ino
	must(t, g.MarkGroup(id, func(uint64) bool { return true }))
	must(t, g.SetMode(Enforce))
	for _, first := range []string{"/bin/sh", c.path("sh")} {
		script := "echo $$ >" + group + "/cgroup.procs; exec " + first + " -c 'echo $$ >/sys/fs/cgroup/cgroup.procs; " + x + " 2>/dev/null && echo yes || echo no'"
		out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput()
		if strings.TrimSpace(string(out)) != "no" {
			t.Errorf("a service that begins with %s: %v %s", first, err, out)
		}
	}
	if !run(t, x) {
		t.Error("another group is refused")
	}
}

func TestGroupsAreForgotten(t *testing.T) {
	g := guard(t)
	for id := range uint64(maxGroups + 10) {
		must(t, g.MarkGroup(1000+id, func(id uint64) bool { return id%2 == 0 }))
	}
}

// Who starts something for a strict app can know that it is one.
func TestMarked(t *testing.T) {
	g := guard(t)
	self, err := linux.OpenPidfd(os.Getpid())
	must(t, err)
	defer self.Close()
	if marked, err := g.Marked(self); err != nil || marked {
		t.Errorf("%v %v", marked, err)
	}
	cmd := exec.Command("/proc/self/exe", "as-app", g.dir, "/bin/sh", "-c", "sh -c 'echo; read word'; true")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	app, err := linux.OpenPidfd(cmd.Process.Pid)
	must(t, err)
	defer app.Close()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if marked, err := g.Marked(app); err != nil || !marked {
		t.Errorf("a strict app: %v %v", marked, err)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	if marked, err := g.Marked(app); err == nil && marked {
		t.Error("an app that has ended is strict")
	}
}
