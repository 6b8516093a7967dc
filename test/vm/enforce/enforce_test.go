//go:build vm || slow

// Package enforce tests device/enforce, and the device with it, on a real kernel
// that has BPF among its security modules.
package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// line ends the test when the script did not print what is wanted.
func line(t *testing.T, r *vm.Result, name, want string) {
	t.Helper()
	if got := r.Line(name); !strings.Contains(got, want) || want == "" && got != "" {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

// compiled is a package's test binary, or a program.
func compiled(t *testing.T, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", append(args[:len(args)-1:len(args)-1], "-o", out, args[len(args)-1])...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Dir = "../../.."
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, text)
	}
	return out
}

// TestKernel runs the tests of device/enforce in the machine.
func TestKernel(t *testing.T) {
	vm.Proves(t, "the BPF LSM program refuses what no trust cache lists, on a kernel that runs it")
	tests := compiled(t, "test", "-c", "./device/enforce")
	r := vm.Run(t, vm.Options{Boot: vm.ResumedBare}, vm.Files{"enforce.test": tests}, `
		./enforce.test -test.v -test.bench . -test.benchtime 20x 2>&1
		code=$?
		dmesg | grep -iE 'BUG|oops|bpf' | tail -5
		exit $code`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	if r.Code != 0 || strings.Contains(r.Out, "--- SKIP") {
		t.Fatalf("code %d\n%s", r.Code, r.Console)
	}
}

// TestDevice boots a device whose web cryptex has files that its trust cache does
// not list, by the delivered images, and takes it through what a person and a
// restarted agent do.
func TestDevice(t *testing.T) {
	vm.Proves(t, "an unlisted file, library or preload of a cryptex does not execute, whether the agent runs, was killed or restarted; strict apps execute nothing else")
	root := t.TempDir()
	deliver(t, root)
	files := vm.Files{
		"root":         root,
		"sealant":      compiled(t, "build", "./cmd/sealant"),
		"sealant-boot": compiled(t, "build", "./cmd/sealant-boot"),
	}
	r := vm.Run(t, vm.Options{}, files, `
		cp -a root/. / && cp sealant sealant-boot /usr/bin/ && mkdir -p /etc/sealant/apps.d /etc/sealant/policy.d
		W=/usr/lib/cryptexes/web
		try() { # prints "NAME: ok", or what it was told
			name=$1; shift
			if out=$("$@" 2>&1); then echo "$name: ok"; else echo "$name: $? $out"; fi
		}
		try boot sealant-boot
		try before $W/unlisted
		try load sealant enforce load
		try listed $W/listed
		try unlisted $W/unlisted
		try ld.so /lib64/ld-linux-x86-64.so.2 $W/unlisted
		try data /lib64/ld-linux-x86-64.so.2 $W/data.bin
		try preload sh -c "LD_PRELOAD=$W/unlisted.so /usr/bin/true 2>&1 | grep -q 'cannot be preloaded'"
		try listed-preload sh -c "! LD_PRELOAD=$W/listed.so /usr/bin/true 2>&1 | grep 'cannot be preloaded'"
		try again sealant enforce load
		echo "enforcement: $(sealant status --json | grep -o '"enforced_text": *"[^"]*"')"
		sealant doctor | grep X1

		printf 'cryptexes=["web"]\ncommand=["/bin/sh"]\nstrict=true\n' >/etc/sealant/apps.d/strict.toml
		printf 'cryptexes=["web"]\ncommand=["/bin/dash"]\n' >/etc/sealant/apps.d/free.toml
		cp /usr/bin/true /tmp/x; cp /usr/bin/true /var/tmp/x
		try strict-usr sealant run strict -- -c /usr/bin/true
		try strict-listed sealant run strict -- -c $W/listed
		try strict-tmp sealant run strict -- -c /tmp/x
		try strict-child sealant run strict -- -c 'sh -c "true; /var/tmp/x"'
		try free-tmp sealant run free -- -c 'sh -c /tmp/x'
		try others-tmp /tmp/x

		sealant agent >agent.txt 2>&1 & agent=$!
		for i in 1 2 3 4 5 6 7 8 9 10; do [ -S /run/sealant/agent.sock ] && break; sleep 1; done
		sleep 2; kill -9 $agent
		try killed $W/unlisted
		sealant agent >>agent.txt 2>&1 & agent=$!
		sleep 6
		try restarted $W/unlisted
		echo "denied: $(journalctl -o json SEALANT_EVENT=denied | wc -l)"
		journalctl -o cat SEALANT_EVENT=denied | head -3
		kill $agent

		printf 'owner="Example"\n[trust]\nexecution="audit"\n' >/etc/sealant/policy.d/site.toml
		try audit-load sealant enforce load
		try audit $W/unlisted
		try audit-strict sealant run strict -- -c /tmp/x
		sealant enforce status
		echo "enforcement audited: $(sealant status --json | grep -o '"enforced_text": *"[^"]*"')"
		printf 'owner="Example"\n[trust]\nexecution="off"\n' >/etc/sealant/policy.d/site.toml
		try off-load sealant enforce load
		try off $W/unlisted
		rm /etc/sealant/policy.d/site.toml
		try on-load sealant enforce load
		try on $W/unlisted
		try unload sealant enforce unload
		sleep 1
		try unloaded $W/unlisted
		try unloaded-too $W/listed
		try no-strict sealant run strict -- -c /usr/bin/true
		dmesg | grep -iE 'BUG|oops' | grep -v bug: ; cat agent.txt
		true`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for _, c := range []struct{ name, want string }{
		{"boot", "ok"},
		{"before", "ok"},
		{"load", "ok"},
		{"listed", "ok"},
		{"unlisted", "126"},
		{"ld.so", "127"},
		{"data", "127"},
		{"preload", "ok"},
		{"listed-preload", "ok"},
		{"again", "ok"},
		{"enforcement", "kernel (dm-verity, trust cache)"},
		{"strict-usr", "ok"},
		{"strict-listed", "ok"},
		{"strict-tmp", "126"},
		{"strict-child", "126"},
		{"free-tmp", "ok"},
		{"others-tmp", "ok"},
		{"killed", "126"},
		{"restarted", "126"},
		{"audit-load", "ok"},
		{"audit", "ok"},
		{"audit-strict", "ok"},
		{"enforcement audited", "trust cache audited"},
		{"off-load", "ok"},
		{"off", "ok"},
		{"on-load", "ok"},
		{"on", "126"},
		{"unload", "ok"},
		{"unloaded", "ok"},
		{"no-strict", "strict"},
	} {
		line(t, r, c.name, c.want)
	}
	if n := r.Line("denied"); n == "" || n == "0" {
		t.Errorf("%q refusals in the journal", n)
	}
}
