//go:build slow

package verity

import (
	"fmt"
	"math/rand/v2"
	"os"
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
	{"boot-next", "base", time.Second},
	{"confirm", "base", 2 * time.Second},
	{"remove", "any", 3 * time.Second},
	{"boot-base", "any", time.Second},
	{"confirm-base", "any", 2 * time.Second},
	{"reapply", "any", 4 * time.Second},
}

// tour goes once around, from whatever state the device is in. Before it, the
// device must have healed: the boot attaches what is wanted, whole, and all that
// it relies on verifies.
const tour = `
	say() { echo "$*" >/dev/ttyS0; }
	boot; say "healed: boot $?, $(content)"
	serve
	sealant confirm -q; say "healed: confirm $?"
	sealant verify >/tmp/verify; say "healed: verify $?$(grep "^x" /tmp/verify)"
	step() { say "step $1"; }
	if [ $from = base ] && ! grep -q base $D/usr/lib/cryptexes/web/version; then
		sealant remove --yes -q; boot; sealant confirm -q
	fi
	if grep -q base $D/usr/lib/cryptexes/web/version; then
		step install; sealant install SI-2026-0001 -q || sealant reapply -q; say "done $?"
		step boot-next; boot; step confirm; sealant confirm -q; say "done $?"
	fi
	step remove; sealant remove --yes -q; say "done $?"
	step boot-base; boot; step confirm-base; sealant confirm -q; say "done $?"
	step reapply; sealant reapply -q; say "done $?"
	boot; sealant confirm -q
	sync; say "end: $(content)"
`

// TestPowerCut cuts the power at many moments of every journey. Whatever was
// under way, the next start finds a whole device: the old set or the new one,
// every byte as it should be, and goes on. SEALANT_VM_CUTS is the number of cuts.
func TestPowerCut(t *testing.T) {
	vm.Proves(t, "cut at any moment of install, boot, confirm, remove and reapply, a device comes up whole, old or new, and goes on")
	cuts := 7
	if n, err := strconv.Atoi(os.Getenv("SEALANT_VM_CUTS")); err == nil {
		cuts = n
	}
	w := newWorld(t, "")
	disk := w.disk(t)
	random := rand.New(rand.NewPCG(uint64(cuts), 42))
	for n := range cuts + 1 {
		o := vm.Options{Data: disk}
		what, from := "no cut", "any"
		if n < cuts {
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
			} else if strings.HasPrefix(line, "step ") || strings.HasPrefix(line, "done ") {
				steps = append(steps, line)
			}
		}
		t.Logf("%d: %s; before: %s; steps: %s", n, what, strings.Join(healed, "; "), strings.Join(steps, ", "))
		whole := len(healed) == 3 && healed[1] == "confirm 0" && healed[2] == "verify 0" &&
			(healed[0] == "boot 0, os base, web base" || healed[0] == "boot 0, os a, web a")
		if !whole {
			t.Fatalf("not healed: %q\n%s\n%s", healed, r.Out, r.Console)
		}
		for _, step := range steps {
			if code, ok := strings.CutPrefix(step, "done "); ok && code != "0" {
				t.Errorf("a journey failed: %q\n%s", steps, r.Out)
			}
		}
		if n == cuts && !strings.Contains(r.Console, "end: os a, web a") {
			t.Errorf("the tour did not end:\n%s\n%s", r.Out, r.Console)
		}
	}
}
