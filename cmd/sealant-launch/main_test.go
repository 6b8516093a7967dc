package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

func TestMain(m *testing.M) { namespace.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// install makes what this process sees a device on which sealant is installed as the
// package does it, with improvement (a) staged and the launcher on its socket.
func install(t testing.TB) {
	t.Helper()
	d := rig.New(t, rig.NewVendor(t))
	_, err := activate.Boot(t.Context(), d.Root)
	must(t, err)
	must(t, activate.Stage(t.Context(), d.Store, d.Improve("SI-2026-0001", 1), nil))
	layer := namespace.Dir(t)
	must(t, syscall.Mount("tmpfs", layer, "tmpfs", 0, "mode=755"))
	must(t, errors.Join(os.Mkdir(layer+"/upper", 0o755), os.Mkdir(layer+"/work", 0o755)))
	mount := func(source, target, kind string, flags uintptr, options string) {
		t.Helper()
		must(t, syscall.Mount(source, target, kind, flags, options))
		t.Cleanup(func() { must(t, syscall.Unmount(target, syscall.MNT_DETACH)) })
	}
	const rbind = syscall.MS_BIND | syscall.MS_REC
	mount("overlay", "/usr", "overlay", 0, "lowerdir=/usr,upperdir="+layer+"/upper,workdir="+layer+"/work")
	must(t, os.MkdirAll("/usr/lib/sealant", 0o755))
	for _, name := range []string{"os", "web"} {
		must(t, os.MkdirAll("/usr/lib/cryptexes/"+name, 0o755))
		mount(d.Store.MountPoint(name), "/usr/lib/cryptexes/"+name, "", rbind, "")
	}
	mount(d.Root+"/run", "/run", "", rbind, "")
	mount(d.Root+"/var", "/var", "", rbind, "")
	must(t, os.MkdirAll(d.Root+"/etc/sealant/apps.d", 0o755))
	must(t, os.MkdirAll("/etc/sealant", 0o755))
	mount(d.Root+"/etc/sealant", "/etc/sealant", "", rbind, "")

	build(t, "/usr/lib/sealant/", "github.com/sealant-os/sealant/cmd/sealant", "github.com/sealant-os/sealant/cmd/sealant-launch")
	must(t, os.RemoveAll("/usr/bin/sealant"))
	must(t, os.Symlink("../lib/sealant/sealant-launch", "/usr/bin/sealant"))

	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.Store.LaunchSocketPath(), Net: "unix"})
	must(t, err)
	defer socket.Close()
	must(t, os.Chmod(d.Store.LaunchSocketPath(), 0o666))
	file, err := socket.File()
	must(t, err)
	defer file.Close()
	socket.SetUnlinkOnClose(false)
	launcher := exec.Command("/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec /usr/lib/sealant/sealant launcher")
	launcher.ExtraFiles = []*os.File{file}
	launcher.Stderr = os.Stderr
	must(t, launcher.Start())
	t.Cleanup(func() { _ = launcher.Process.Signal(syscall.SIGTERM); _ = launcher.Wait() })
}

// build builds programs as packages have them.
func build(t testing.TB, to string, what ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", to}, what...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// as makes a command an ordinary user's, or root's.
func as(uid uint32, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

func says(t *testing.T, cmd *exec.Cmd) (text string, code int) {
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

// What stands at /usr/bin/sealant does all that sealant does.
func TestInstalled(t *testing.T) {
	install(t)
	must(t, os.WriteFile("/etc/sealant/apps.d/reader.toml", []byte("cryptexes = [\"web\"]\ncommand = [\"/usr/bin/cat\", \"/usr/lib/cryptexes/web/version\"]\n"), 0o644))
	must(t, os.WriteFile("/etc/sealant/apps.d/strict.toml", []byte("cryptexes = [\"web\"]\ncommand = [\"/usr/bin/false\"]\nstrict = true\n"), 0o644))
	for _, uid := range []uint32{0, 1234} {
		for _, tt := range []struct {
			args string
			code int
			text string
		}{
			{"run reader", 0, "web (a)"},
			{"run reader -- /usr/lib/cryptexes/web/version /usr/lib/cryptexes/os/version", 0, "web (a)os base"},
			{"run -- cat /usr/lib/cryptexes/web/version", 0, "web (a)"},
			{"run -- sh -c exit\t7", 7, ""},
			{"run -- echo --json -q", 0, "--json -q\n"},
			{"--version", 0, "sealant version"},
			{"run --help", 0, "Usage:"},
			{"run", 2, "hint: sealant run --help"},
			{"run mail", 2, "x cannot find the app \"mail\" in apps.d\n  hint: apps: reader, strict;"},
			{"run reader 1", 2, "hint: sealant run APP -- ARGS"},
			{"run -- no-such-command", 2, "x cannot find the command: "},
			{"run strict", 21, "x cannot launch a strict app"},
			{"run -- /usr/bin/false", 21, "x cannot launch a strict app"},
		} {
			args := append([]string{"/usr/bin/sealant"}, strings.Fields(tt.args)...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "exit", "exit 7")
			}
			if text, code := says(t, as(uid, args...)); code != tt.code || !strings.Contains(text, tt.text) {
				t.Errorf("user %d, %s: %d %q", uid, tt.args, code, text)
			}
		}
	}
}

func TestPlainRun(t *testing.T) {
	for _, tt := range []struct {
		args, app, rest string
		ok              bool
	}{
		{"run reader", "reader", "", true},
		{"run reader --", "reader", "", true},
		{"run reader -- a --json", "reader", "a --json", true},
		{"run -- cat -n", "", "cat -n", true},
		{args: "run"},
		{args: "run --"},
		{args: "run -q reader"},
		{args: "run reader -q"},
		{args: "run reader a"},
		{args: "run --desktop-entries reader"},
		{args: "--root /x run reader"},
		{args: "status"},
		{args: ""},
	} {
		app, rest, ok := plainRun(strings.Fields(tt.args))
		if ok != tt.ok || ok && (app != tt.app || strings.Join(rest, " ") != tt.rest) {
			t.Errorf("%q: %q %q %v", tt.args, app, rest, ok)
		}
	}
}

// BenchmarkRun is what sealant run costs beyond the start of the program itself: each
// launch beside one without it, in milliseconds. Of the differences the median is
// reported, of the quiet moments that of the lowest tenths. What a Go program that does
// nothing costs is reported too: sealant run is one.
func BenchmarkRun(b *testing.B) {
	install(b)
	idle := "/usr/lib/sealant/idle"
	source := filepath.Join(b.TempDir(), "main.go")
	must(b, os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644))
	build(b, idle, source)
	took := func(cmd *exec.Cmd) float64 {
		start := time.Now()
		must(b, cmd.Run())
		return float64(time.Since(start)) / float64(time.Millisecond)
	}
	for _, who := range []struct {
		name string
		uid  uint32
	}{{"user", 1234}, {"root", 0}} {
		b.Run(who.name, func(b *testing.B) {
			var plain, empty, launched, beyond []float64
			for b.Loop() {
				bare := took(as(who.uid, "/usr/bin/true"))
				plain = append(plain, bare)
				empty = append(empty, took(as(who.uid, idle)))
				launched = append(launched, took(as(who.uid, "/usr/bin/sealant", "run", "--", "/usr/bin/true")))
				beyond = append(beyond, launched[len(launched)-1]-bare)
				time.Sleep(30 * time.Millisecond) // meanwhile the agent prepares for the next
			}
			b.ReportMetric(part(plain, 0.5), "ms-plain")
			b.ReportMetric(part(beyond, 0.5), "ms-beyond")
			b.ReportMetric(part(launched, 0.1)-part(plain, 0.1), "ms-beyond-quiet")
			b.ReportMetric(part(empty, 0.1)-part(plain, 0.1), "ms-go-quiet")
		})
	}
}

// part is the number below which a part of the list lies.
func part(list []float64, of float64) float64 {
	slices.Sort(list)
	return list[int(float64(len(list))*of)]
}
