//go:build slow

package verity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// sources are programs of TestExecLoop. hammer starts the two others, again and
// again, until a file is there: hammer TINY LINKED STOP. It says how often, how
// fast, and what went wrong.
var sources = map[string]string{
	"hammer.c": `
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(int n, char **arg) {
	struct timespec a, b;
	long count = 0, errors = 0;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (; access(arg[3], F_OK); count++) {
		char *run[] = {arg[1 + (count % 8 == 7)], 0}, *none[] = {0};
		pid_t pid;
		int status, err = posix_spawn(&pid, run[0], 0, 0, run, none);
		if (!err && (waitpid(pid, &status, 0) != pid || status)) err = 1000 + status;
		if (err && errors++ < 5) printf("error: %s after %ld: %d %s\n", run[0], count, err, err < 1000 ? strerror(err) : "status");
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("hammered: %ld, errors %ld\nrate: %ld\n", count, errors, count / (b.tv_sec - a.tv_sec + 1));
	return errors != 0;
}`,
	// tiny is in the cryptex. Without a C library it starts as fast as anything can.
	"tiny.c":   `void _start(void) { __asm__("mov $231, %eax; xor %edi, %edi; syscall"); }`,
	"value.c":  `int value(void) { return VALUE; }`,
	"linked.c": `int value(void); int main(void) { return value() > 2; }`,
}

// compile makes them, for a device whose content is at that place.
func compile(t *testing.T, dir, place string) {
	t.Helper()
	for name, text := range sources {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	for _, line := range []string{
		"-static -O1 -o hammer hammer.c", "-static -nostdlib -o tiny tiny.c",
		"-shared -fPIC -nostdlib -DVALUE=1 -o base.so value.c", "-shared -fPIC -nostdlib -DVALUE=2 -o a.so value.c",
		"-o linked linked.c -L. -l:base.so -Wl,-rpath," + place,
	} {
		run := exec.Command("gcc", strings.Fields(line)...)
		run.Dir = dir
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("gcc %s: %v\n%s", line, err, out)
		}
	}
}

// TestExecLoop starts programs of a cryptex, and one outside of it that links a
// library of it, as fast as the machine can, while everything happens that ever
// changes what is attached: install, relaunch, restart, removal, repair.
func TestExecLoop(t *testing.T) {
	t.Parallel()
	vm.Proves(t, "no exec and no load of a library fails while content is staged, relaunched, switched, removed and repaired, as fast as the machine starts programs")
	w := newWorld(t, "")
	dir := t.TempDir()
	compile(t, dir, "/d/dev/usr/lib/cryptexes/web")
	w.script(t, `
		dir=`+dir+`
		for v in base a; do
			mkdir -p tree/$v; cp $dir/tiny tree/$v/; cp $dir/$v.so tree/$v/base.so; echo "web $v" >tree/$v/version
			cp $IMAGES/base/os.cryptex os.cryptex
			sealpub image build --in tree/$v --out $IMAGES/loop-$v.cryptex --name web --subtype app >/dev/null
		done
		# A baseline of its own, and its improvement.
		sealpub release baseline --dir vendor --os-version 42.5.0 os.cryptex $IMAGES/loop-base.cryptex >/dev/null
		sealpub release --dir vendor --id SI-2026-0005 --level 1 --severity high --title Loop --cryptex web=$IMAGES/loop-base.cryptex:$IMAGES/loop-a.cryptex >/dev/null
		sealsrv rollout start SI-2026-0005 --dir vendor --percent 100 >/dev/null
		cp vendor/base.json dev/usr/lib/sealant/; cp $IMAGES/loop-base.cryptex dev/usr/lib/sealant/base/web.cryptex; cp os.cryptex dev/usr/lib/sealant/base/
		rm -r tree os.cryptex
		mkdir -p dev/etc/sealant/apps.d; cp $dir/hammer $dir/linked .
		printf 'cryptexes = ["web"]\ncommand = ["/d/hammer", "/d/dev/usr/lib/cryptexes/web/tiny", "/d/linked", "/tmp/stop"]\n' >dev/etc/sealant/apps.d/hammer.toml`)
	r := w.run(t, vm.Options{Data: w.disk(t)}, `
		boot; serve; sealant check -q; boot; sealant confirm -q; echo "base: $(content)"
		web=$D/usr/lib/cryptexes/web
		/d/hammer $web/tiny /d/linked /tmp/stop >out/everybody & everybody=$!
		sealant install -q; echo "install: $?"
		sealant agent 2>out/agent.log & agent=$!
		until [ -S $D/run/sealant/agent.sock ]; do sleep 0.1; done
		sealant run hammer >out/relaunched 2>&1 & relaunched=$!
		sleep 1; kill $agent; wait $agent
		for n in 1 2 3; do
			/x/sealant-boot --root $D; echo "boot $n: $(content)"; sealant confirm -q
			sealant remove --yes -q; echo "remove $n: $?"
			/x/sealant-boot --root $D; echo "removed $n: $(content)"; sealant confirm -q
			sealant reapply -q; echo "reapply $n: $?"
		done
		touch /tmp/stop; wait $everybody; echo "everybody: $?"; wait $relaunched; echo "relaunched: $?"
		cat out/everybody out/relaunched; grep -v level=INFO out/agent.log | tail -3`)
	want := map[string]string{"base": "os base, web base", "install": "0", "everybody": "0", "relaunched": "0"}
	for _, n := range []string{"1", "2", "3"} {
		want["boot "+n], want["removed "+n], want["remove "+n], want["reapply "+n] = "os base, web a", "os base, web base", "0", "0"
	}
	for name, want := range want {
		if got := r.Line(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"everybody", "relaunched"} {
		if said := string(r.File(t, name)); !strings.Contains(said, ", errors 0\n") || strings.Contains(said, "hammered: 0,") {
			t.Errorf("%s: %s", name, said)
		}
	}
}
