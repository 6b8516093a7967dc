//go:build slow

package verity

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/test/vm"
)

// journeys are what the power is cut in, with about how long each takes in the
// machine.
var journeys = []struct {
	name, from string // from: the content it begins with
	length     time.Duration
}{
	{"install", "base", 6 * time.Second},
	{"relaunch", "base", 3 * time.Second},
	{"boot-next", "base", time.Second},
	{"first-try", "base", 4 * time.Second},
	{"confirm", "base", 2 * time.Second},
	{"remove", "any", 3 * time.Second},
	{"boot-base", "any", time.Second},
	{"confirm-base", "any", 2 * time.Second},
	{"reapply", "any", 4 * time.Second},
	{"os-update", "any", 4 * time.Second},
	{"boot-os", "any", time.Second},
	{"adopt-os", "any", 5 * time.Second},
}

// tour goes once around, from whatever state the device is in. Before it, the
// device must have healed: the boot attaches what is wanted, whole, and all that
// it relies on verifies.
const tour = `
	say() { echo "$*" >/dev/ttyS0; }
	boot; say "healed: boot $?, $(content)"
	serve
	sealant confirm -q; say "healed: confirm $?"
	# An updated system is adopted; then the old one comes back, by hand.
	if grep -q c $D/usr/lib/cryptexes/web/version; then
		sealant check -q
		sealant verify >/tmp/verify; say "healed: verify $?$(grep "^x" /tmp/verify)"
		sealant base install /d/baselines/base.json /d/baselines/base/*.cryptex -q; boot; sealant check -q; sealant confirm -q
	else
		sealant verify >/tmp/verify; say "healed: verify $?$(grep "^x" /tmp/verify)"
	fi
	sealant status --json >/tmp/status; say "healed: status $(grep -c '"schema"' /tmp/status)"
	sealant history >/tmp/history; say "healed: history $?"
	step() { say "step $1"; }
	if [ $from = base ] && ! grep -q base $D/usr/lib/cryptexes/web/version; then
		sealant remove --yes -q; boot; sealant confirm -q
	fi
	if grep -q base $D/usr/lib/cryptexes/web/version; then
		step install; sealant install SI-2026-0001 -q || sealant reapply -q; say "done $?"
		step relaunch; sealant agent 2>/dev/null & agent=$!
		until [ -S $D/run/sealant/agent.sock ]; do sleep 0.1; done
		say "launched $(sealant run reader 2>&1)"; kill $agent; wait $agent
		step boot-next; boot
		step first-try; boot
		step confirm; sealant confirm -q; say "done $?"
	fi
	step remove; sealant remove --yes -q; say "done $?"
	step boot-base; boot; step confirm-base; sealant confirm -q; say "done $?"
	step reapply; sealant reapply -q; say "done $?"
	boot; sealant confirm -q; say "improved: $(content)"
	step os-update; sealant base install /d/baselines/c.json /d/baselines/c/*.cryptex -q; say "done $?"
	step boot-os; boot; sealant confirm -q
	step adopt-os; sealant check -q; say "done $?"
	sync; say "end: $(content)"
`

// updated gives a world a second baseline, c, of the same product; and an app.
func (w *world) updated(t *testing.T) {
	t.Helper()
	w.script(t, `
		mkdir -p baselines/base baselines/c tree
		cp vendor/base.json baselines/base.json; cp $IMAGES/base/*.cryptex baselines/base/
		for c in os web; do
			mkdir tree/$c; cp /bin/true tree/$c/run; echo "$c c" >tree/$c/version
			subtype=app; [ $c = web ] || subtype=os
			sealpub image build --in tree/$c --out baselines/c/$c.cryptex --name $c --subtype $subtype >/dev/null
		done
		sealpub release baseline --dir vendor --os-version 42.4.0 baselines/c/os.cryptex baselines/c/web.cryptex >/dev/null
		mv vendor/base.json baselines/c.json; cp baselines/base.json vendor/
		rm -r tree
		mkdir -p dev/etc/sealant/apps.d
		printf 'cryptexes = ["web"]\ncommand = ["/bin/cat", "/d/dev/usr/lib/cryptexes/web/version"]\n' >dev/etc/sealant/apps.d/reader.toml`)
}

// cutsAtLeast is how many cuts a run has, over both devices: most journeys twice.
const cutsAtLeast = 22

// TestPowerCut cuts the power at random moments of every journey. Whatever was
// under way, the next start finds a whole device: the old set or the new one,
// every byte as it should be, and goes on. SEALANT_VM_CUTS is another number of
// cuts; SEALANT_VM_SEED has the moments of another run again.
func TestPowerCut(t *testing.T) {
	cuts, seed := cutsAtLeast, rand.Uint64()
	if n, err := strconv.Atoi(os.Getenv("SEALANT_VM_CUTS")); err == nil {
		cuts = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SEALANT_VM_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEALANT_VM_SEED=%d SEALANT_VM_CUTS=%d", seed, cuts)
	vm.Proves(t, fmt.Sprintf("cut at %d random moments of install, relaunch, first boots, confirm, remove, reapply and OS update, a device comes up whole, old or new, and goes on (seed %d)", cuts, seed))
	w := newWorld(t, "")
	w.updated(t)
	// As many devices as machines that run at a time.
	const devices = 2
	for device := range devices {
		disk := w.disk(t)
		t.Run(strconv.Itoa(device), func(t *testing.T) {
			t.Parallel()
			w.cut(t, disk, rand.New(rand.NewPCG(seed, uint64(device))), device, devices, cuts)
		})
	}
}

// cut cuts every devices-th of the cuts, the first of them, beginning with device.
func (w *world) cut(t *testing.T, disk string, random *rand.Rand, device, devices, cuts int) {
	for n := device; ; n += devices {
		o := vm.Options{Data: disk}
		what, from, last := "no cut", "any", n >= cuts
		if !last {
			j := journeys[n%len(journeys)]
			from = j.from
			o.Cut = vm.Cut{At: "step " + j.name + "\r\n", After: time.Duration(random.Int64N(int64(j.length)))}
			what = fmt.Sprintf("cut %d ms into %s", o.Cut.After.Milliseconds(), j.name)
		}
		r := w.run(t, o, "from="+from+tour)
		healed, steps := []string{}, []string{}
		for line := range strings.Lines(r.Console) {
			line = strings.TrimSpace(line)
			if text, ok := strings.CutPrefix(line, "healed: "); ok {
				healed = append(healed, text)
			} else if strings.HasPrefix(line, "step ") || strings.HasPrefix(line, "done ") || strings.HasPrefix(line, "launched ") {
				steps = append(steps, line)
			}
		}
		t.Logf("%d: %s; before: %s; steps: %s", n, what, strings.Join(healed, "; "), strings.Join(steps, ", "))
		var whole bool
		for _, v := range []string{"base", "a", "c"} {
			whole = whole || slices.Equal(healed, []string{"boot 0, os " + v + ", web " + v, "confirm 0", "verify 0", "status 1", "history 0"})
		}
		if !whole {
			t.Fatalf("not healed: %q\n%s\n%s", healed, r.Out, r.Console)
		}
		for _, step := range steps {
			if strings.HasPrefix(step, "done ") && step != "done 0" || strings.HasPrefix(step, "launched ") && step != "launched web a" {
				t.Errorf("a journey failed: %q\n%s", steps, r.Out)
			}
		}
		vm.Extract(t, disk, "/dev/etc") // after e2fsck
		if last {
			if !strings.Contains(r.Console, "improved: os a, web a") || !strings.Contains(r.Console, "end: os c, web c") {
				t.Errorf("the tour did not end:\n%s\n%s", r.Out, r.Console)
			}
			return
		}
	}
}
