//go:build vm || slow

package verity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// toucher maps a file and reads all of it, as a program reads its libraries.
const toucher = `
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
int main(int n, char **arg) {
	struct stat s;
	int f = open(arg[1], O_RDONLY);
	if (f < 0 || fstat(f, &s)) return 3;
	volatile char *at = mmap(0, s.st_size, PROT_READ, MAP_PRIVATE, f, 0);
	long sum = 0;
	for (long i = 0; i < s.st_size; i++) sum += at[i];
	return sum == 0 ? 4 : 0;
}`

// A block that is damaged on the disk: the kernel refuses it, the app that maps it
// dies of SIGBUS, and the device says repair; nothing is counted against anybody.
func TestFault(t *testing.T) {
	vm.Proves(t, "a damaged block kills its reader by SIGBUS, is called damage to repair, and counts against nobody")
	w := newWorld(t, "")
	source, program := filepath.Join(t.TempDir(), "touch.c"), filepath.Join(t.TempDir(), "touch")
	if err := os.WriteFile(source, []byte(toucher), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-static", "-O1", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	w.script(t, `
		mkdir -p dev/etc/sealant/apps.d dev/usr/bin
		cp `+program+` dev/usr/bin/reader
		printf 'name = "Reader"\ncryptexes = ["web"]\ncommand = ["/d/dev/usr/bin/reader", "/d/dev/usr/lib/cryptexes/web/numbers"]\n' >dev/etc/sealant/apps.d/reader.toml
	`)
	r := w.run(t, vm.Options{Data: w.disk(t)}, `
		boot
		sealant agent 2>/x/out/agent.log &
		until [ -S $D/run/sealant/agent.sock ]; do sleep 0.2; done
		sealant run reader; echo "whole: $?"
		image=$D/usr/lib/sealant/base/web.cryptex
		flip $image $(grep -abo -m 1 '30000 web' $image | cut -d: -f1)
		sealant run reader; echo "damaged: $?"
		for n in $(seq 60); do
			sealant evidence --json >/x/out/evidence.json
			grep -q '"damage"' /x/out/evidence.json && break
			sleep 0.5
		done
		sealant evidence
		sealant history
		sealant doctor | grep -i crash
	`)
	evidence := string(r.File(t, "evidence.json"))
	for text, in := range map[string]string{
		"whole: 0": r.Out, "damaged: 135": r.Out, // 128 + SIGBUS
		"Repair it: sealant install": r.Out, "seal-mismatch": r.Out,
		`"damage": {`: evidence, `"pending": null`: evidence,
	} {
		if !strings.Contains(in, text) {
			t.Errorf("%q is not said:\n%s\n%s\n%s", text, r.Out, evidence, r.File(t, "agent.log"))
		}
	}
	if strings.Contains(evidence, `"x0": 1`) || strings.Contains(evidence, `"x1": 1`) {
		t.Errorf("the crash was counted:\n%s", evidence)
	}
}
