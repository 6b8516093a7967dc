//go:build vm || slow

package verity

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// TestBootTime measures what sealant-boot adds to a boot beside what the kernel
// needs: beside veritysetup and mount of the same images. The figures are those
// of a translated processor, some twenty times slower than a real one; what is
// held is only that sealant-boot is no slower than the two programs.
func TestBootTime(t *testing.T) {
	vm.Proves(t, "attaching at boot was measured beside veritysetup and mount")
	w := newWorld(t, "")
	var open strings.Builder
	for i, name := range []string{"os", "web"} {
		file := "$D/usr/lib/sealant/base/" + name + ".cryptex"
		c := opened(t, filepath.Join(w.images, "base", name+".cryptex"))
		n := strconv.Itoa(i)
		open.WriteString("\t\t\tveritysetup open " + file + " v" + n + " " + file + " " + c.Seal.String() + " --hash-offset=" + strconv.FormatInt(c.DataSize, 10) + " && mount -t erofs -o ro /dev/mapper/v" + n + " /tmp/m" + n + " || exit 7\n")
	}
	r := w.run(t, vm.Options{Data: w.disk(t)}, `
		now() { read -r up _ </proc/uptime; echo "${up%.*}${up#*.}0"; }
		mkdir -p /tmp/m0 /tmp/m1
		peers() {
`+open.String()+`
		}
		unpeers() { umount /tmp/m0 /tmp/m1; veritysetup close v0; veritysetup close v1; }
		peers; unpeers; boot 2>/dev/null # everything has been read once
		a=$(now); for i in 1 2 3 4 5 6 7 8 9 10; do /x/sealant-boot --help 2>/dev/null; done; b=$(now)
		echo "start: $(((b - a) / 10))"
		peers=0; boot=0
		for i in 1 2 3 4 5; do
			a=$(now); peers; b=$(now); peers=$((peers + b - a)); unpeers
			a=$(now); /x/sealant-boot --root $D 2>/dev/null; b=$(now); boot=$((boot + b - a))
		done
		echo "peers: $((peers / 5))"; echo "boot: $((boot / 5))"
		dmsetup ls 2>/dev/null; devices
	`)
	number := func(line string) int {
		n, err := strconv.Atoi(r.Line(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	start, peers, boot := number("start"), number("peers"), number("boot")
	t.Logf("two cryptexes: sealant-boot %d ms, of which %d to start; veritysetup and mount %d ms: %.2f times", boot, start, peers, float64(boot)/float64(peers))
}
