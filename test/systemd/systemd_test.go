package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/gate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/units"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
	"github.com/sealant-os/sealant/test/vm"
)

// inside is the first argument by which this test binary, in the machine, does
// what an installation does at its end.
const inside = "stage-inside"

func TestMain(m *testing.M) {
	var err error
	switch word := append(os.Args, "")[1]; {
	case word == inside:
		err = stage(os.Args[2])
	case word == "force-inside":
		err = force(os.Args[2])
	case word == "metered-inside":
		fmt.Println(gate.Metered(context.Background(), "/", "auto"))
	default:
		namespace.Main(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// force has policy force what it does so many minutes from now.
func force(minutes string) error {
	d, err := device.Open("/")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(minutes)
	if err != nil {
		return err
	}
	d.Now = func() time.Time { return time.Now().Add(time.Duration(n) * time.Minute) }
	wait, err := d.Force(context.Background(), nil)
	if wait != "" {
		fmt.Println("wait", wait)
	}
	if _, err := os.Stat(d.Store.RestartPlanPath()); err == nil {
		fmt.Println("planned in 15m")
	}
	return err
}

// stage attaches a set of the state, as an installation does; "-" takes what is
// staged back.
func stage(id string) error {
	ctx := context.Background()
	d, err := device.Open("/")
	if err != nil {
		return err
	}
	follow := func() error { return units.Follow(ctx, d.Store, d.Config.Apps) }
	if id == "-" {
		if err := d.Store.Point(store.Next, ""); err != nil {
			return err
		}
		return activate.Unstage(d.Store, follow)
	}
	set, err := d.Store.SetByID(id)
	if err != nil {
		return err
	}
	if err := d.Store.Stage(id); err != nil {
		return err
	}
	return activate.Stage(ctx, d.Store, set, nil, follow)
}

// programs are built once for all tests.
func programs(t testing.TB) map[string]string {
	t.Helper()
	dir := filepath.Join(vm.Cache(), "systemd-programs")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "built"), nil, 0o644)) // it is no unfinished machine
	built := map[string]string{}
	for _, name := range []string{"sealant", "sealant-boot", "sealant-launch"} {
		out := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, "../../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		built["usr/lib/sealant/"+name] = out
	}
	built["usr/bin/sealant"] = filepath.Join(dir, "sealant-launch")
	return built
}

// device is a machine that has the project installed, with a rig's device in it:
// the baseline is booted, two improvements are in its state.
type kiosk struct {
	*Machine
	a, b store.Set // improvements of web, not staged
}

// files are what a test adds to the machine, by path.
type files map[string]string

func newKiosk(t *testing.T, add files) *kiosk {
	t.Helper()
	tree := extended(t)
	built := programs(t)
	k := &kiosk{}
	k.Machine = Boot(t, tree, func(root string) {
		d := rig.New(t, rig.NewVendor(t))
		// Both belong to the nonce that comes next, as two attempts at an
		// installation do.
		k.a = d.Improve("SI-2026-0001", 1)
		k.b = d.Improve("SI-2026-0002", 2)
		for _, dir := range []string{"usr", "var"} {
			copyTree(t, filepath.Join(d.Root, dir), root)
		}
		for at, from := range built {
			copyFile(t, from, filepath.Join(root, at), 0o755)
		}
		self, err := os.Executable()
		must(t, err)
		copyFile(t, self, filepath.Join(root, "usr/lib/sealant-test"), 0o755)
		install(t, root)
		for path, text := range add {
			put(t, filepath.Join(root, path), text)
		}
	})
	return k
}

// install lays out what the package installs.
func install(t testing.TB, root string) {
	for from, to := range map[string]string{
		"systemd/*.service": "usr/lib/systemd/system",
		"systemd/*.socket":  "usr/lib/systemd/system",
		"systemd/*.preset":  "usr/lib/systemd/system-preset",
		"dbus/*.conf":       "usr/share/dbus-1/system.d",
		"dbus/*.service":    "usr/share/dbus-1/system-services",
		"polkit/*.policy":   "usr/share/polkit-1/actions",
	} {
		found, err := filepath.Glob(filepath.Join("../../packaging", from))
		must(t, err)
		if len(found) == 0 {
			t.Fatalf("no %s in packaging", from)
		}
		for _, f := range found {
			copyFile(t, f, filepath.Join(root, to, filepath.Base(f)), 0o644)
		}
	}
	for target, list := range map[string][]string{
		"sysinit.target":    {"sealant-boot.service"},
		"multi-user.target": {"sealant.service", "sealant-confirm.service"},
		"sockets.target":    {"sealant-launch.socket"},
	} {
		for _, u := range list {
			enable(t, root, target, u)
		}
	}
}

func enable(t testing.TB, root, target, unit string) {
	dir := filepath.Join(root, "etc/systemd/system", target+".wants")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.Symlink("/usr/lib/systemd/system/"+unit, filepath.Join(dir, unit)))
}

func put(t testing.TB, path, text string) {
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	must(t, os.WriteFile(to, data, mode))
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (k *kiosk) stage(id string) {
	k.t.Helper()
	k.Run("/usr/lib/sealant-test " + inside + " " + id)
}

// content is what a service of the machine reads from the cryptex. systemd says
// that a service was started before its program is.
func (k *kiosk) content(unit string) string {
	k.t.Helper()
	return strings.TrimSpace(k.Eventually(unit+" has started", `
		pid=$(systemctl show -P MainPID `+unit+`)
		[[ $(readlink /proc/$pid/exe) != */systemd* ]]
		nsenter -t $pid -m cat /usr/lib/cryptexes/web/version`))
}

// active fails the test if a unit does not run, with what it said.
func (k *kiosk) active(units ...string) {
	k.t.Helper()
	for _, u := range units {
		if _, err := k.Try("for i in $(seq 50); do systemctl is-active " + u + " && exit; sleep 0.2; done; exit 1"); err != nil {
			said, _ := k.Try("systemctl status --no-pager --full " + u + "; journalctl --no-pager -u " + u + " | tail -20")
			k.t.Fatalf("%s does not run:\n%s", u, said)
		}
	}
}
