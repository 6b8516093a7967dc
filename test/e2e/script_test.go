package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the real command against a device, as a person would. The
// scripts have commands of their own:
//
//	release N PERCENT   the vendor publishes the n-th improvement
//	recall N            and takes it back
//	restart             the device restarts
//	offline, online     the device's network
//	exits CODE COMMAND  runs a command that must end with that exit code
func TestScripts(t *testing.T) {
	bin := command(t)
	type key struct{}
	at := func(ts *testscript.TestScript) *machine { return ts.Value(key{}).(*machine) }
	number := func(ts *testscript.TestScript, s string) int {
		n, err := strconv.Atoi(s)
		ts.Check(err)
		return n
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			tb := e.T().(testing.TB)
			v := newVendor(tb)
			m := v.machine("")
			e.Values[key{}] = m
			// The real binary, always told where the device is.
			wrapper := filepath.Join(e.WorkDir, "bin", "sealant")
			if err := os.MkdirAll(filepath.Dir(wrapper), 0o755); err != nil {
				return err
			}
			script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s \"$@\"\n", bin, m.root)
			if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
				return err
			}
			for _, dir := range []string{"etc/sealant/policy.d", "sys/class/power_supply/BAT0", "sys/class/power_supply/AC"} {
				if err := os.MkdirAll(filepath.Join(m.root, dir), 0o755); err != nil {
					return err
				}
			}
			e.Setenv("PATH", filepath.Dir(wrapper)+":"+os.Getenv("PATH"))
			e.Setenv("LANG", "C.UTF-8")
			e.Setenv("ROOT", m.root)
			e.Setenv("TOKEN", v.node.Token(1))
			e.Setenv("URL", v.url)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"release": func(ts *testscript.TestScript, _ bool, args []string) {
				at(ts).v.release(number(ts, args[0]), number(ts, args[1]))
			},
			"recall":  func(ts *testscript.TestScript, _ bool, args []string) { at(ts).v.recall(number(ts, args[0])) },
			"restart": func(ts *testscript.TestScript, _ bool, args []string) { at(ts).boot() },
			"offline": func(ts *testscript.TestScript, _ bool, args []string) { at(ts).v.hostile(hangUp) },
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				code := 0
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if code != number(ts, args[0]) {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			"online": func(ts *testscript.TestScript, _ bool, args []string) { at(ts).v.hostile(nil) },
		},
	})
}

// command builds the real command, once.
var command = func() func(testing.TB) string {
	build := sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "sealant-e2e-")
		if err != nil {
			return "", err
		}
		out, err := exec.Command("go", "build", "-o", dir, "../../cmd/sealant").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		built = dir
		return filepath.Join(dir, "sealant"), nil
	})
	return func(t testing.TB) string {
		t.Helper()
		path, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
}()

// built is the folder of the built command, to be removed at the end.
var built string
