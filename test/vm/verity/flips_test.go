//go:build slow

package verity

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// place is a byte of an image's file.
type place struct {
	name string
	at   int64
	late bool // only who reads the file meets it, no boot
}

// places names a byte in every part and every field of an image, see
// spec/cryptex.md, spec/seal.md, spec/trustcache.md.
func places(t *testing.T, path string) []place {
	t.Helper()
	c := opened(t, path)
	b, err := os.ReadFile(path)
	must(t, err)
	find := func(what string) int64 {
		t.Helper()
		at := bytes.Index(b, []byte(what))
		if at < 0 {
			t.Fatalf("%s holds no %q", path, what)
		}
		return int64(at)
	}
	meta := int64(binary.LittleEndian.Uint32(b[1024+40:])) * 4096
	root := meta + 32*int64(binary.LittleEndian.Uint16(b[1024+14:]))
	tree, cache, footer := c.TreeOffset(), c.TrustCacheOffset(), c.Size-4096
	if cache-tree < 3*4096 {
		t.Fatalf("the hash tree of %s has but %d bytes: no two levels", path, cache-tree)
	}
	return []place{
		{"erofs-zeros", 3, false},
		{"erofs-magic", 1024, false},
		{"erofs-metadata", 1024 + 40, false},
		{"program", find("\x7fELF") + 200, true},
		{"file", find("30000 "), true},
		{"names", find("numbers"), false},
		{"root-inode", root + 4, false},
		{"last-inode", c.DataSize - 4096 + 40, false},

		{"verity-magic", c.DataSize, false},
		{"verity-uuid", c.DataSize + 20, false},
		{"verity-hash", c.DataSize + 33, false},
		{"verity-blocks", c.DataSize + 73, false},
		{"verity-salt", c.DataSize + 100, false},
		{"verity-zeros", c.DataSize + 4000, false},
		{"tree-top", tree + 1, false},
		{"tree-padding", tree + 4000, false},
		{"tree-leaves", tree + 4096 + 64, false},
		{"tree-end", cache - 1, false},
		{"cache-begin", cache, false},
		{"cache-entry", cache + c.TrustCacheSize/2, false},
		{"cache-padding", footer - 1, false},

		{"footer-magic", footer + 2, false},
		{"footer-version", footer + 16, false},
		{"footer-subtype", footer + 20, false},
		{"footer-name", footer + 22, false},
		{"footer-data", footer + 57, false},
		{"footer-cache-size", footer + 80, false},
		{"footer-root", footer + 100, false},
		{"footer-salt", footer + 130, false},
		{"footer-cache-hash", footer + 170, false},
		{"footer-zeros", footer + 2000, false},
		{"footer-hash", footer + 4090, false},
	}
}

// improveAgain has the vendor of a world publish a second improvement, b.
func (w *world) improveAgain(t *testing.T) {
	t.Helper()
	w.script(t, `
		mkdir tree $IMAGES/b
		for c in os web; do
			fsck.erofs --extract=tree/$c --overwrite $IMAGES/a/$c.cryptex >/dev/null
			echo "$c b" >tree/$c/version
			subtype=app; [ $c = web ] || subtype=os
			sealpub image build --in tree/$c --out $IMAGES/b/$c.cryptex --name $c --subtype $subtype >/dev/null
		done
		rm -r tree
		sealpub release --dir vendor --id SI-2026-0002 --level 2 --previous SI-2026-0001 --cve CVE-2026-1102='Another flaw' --severity high --title More \
			--cryptex os=$IMAGES/base/os.cryptex:$IMAGES/b/os.cryptex --cryptex web=$IMAGES/base/web.cryptex:$IMAGES/b/web.cryptex >/dev/null`)
}

// attacking is what the scripts of flipped bytes begin with: the set a is in force, and
// a whole copy of what it holds lies beside it.
const attacking = `
	boot 2>/dev/null; serve
	sealant install SI-2026-0001 -q; boot 2>/dev/null; sealant confirm -q
	mkdir /d/whole; cp -r $D/usr/lib/cryptexes/. /d/whole
	# exact: whether what can be read of both cryptexes is what it should be.
	exact() {
		for f in os/run os/numbers web/run web/numbers; do cmp $D/usr/lib/cryptexes/$f /d/whole/$f 2>&1; done >/tmp/cmp
		if grep -q differ /tmp/cmp; then echo wrong; elif [ -s /tmp/cmp ]; then echo unreadable; else echo whole; fi
	}
	# attack NAME FILE BYTE: what a boot makes of it.
	attack() {
		flip $2 $3; boot >/dev/null 2>&1; echo "$1: $? $(content), $(exact) $(record)"; flip $2 $3
		[ -z "$tries" ] || echo "$tries" >$D/var/lib/sealant/tries.json
		echo "$1" >/dev/ttyS0
	}
`

// TestFlippedBeforeBoot flips a byte in each part of what the next boot wants, while
// the device is off: of the staged set, then of the one in force. The boot takes the
// next best and says why; or, where nobody but dm-verity looks, the wrong byte is
// never read.
func TestFlippedBeforeBoot(t *testing.T) {
	t.Parallel()
	vm.Proves(t, "a byte flipped in any field of image, trust cache or ticket, of the next or the current set: the boot takes the next best and says why, or nobody reads it")
	w := newWorld(t, "")
	w.improveAgain(t)
	var script strings.Builder
	all := map[string][]place{}
	for _, name := range []string{"a/web", "b/web", "b/os"} {
		file := filepath.Join(w.images, name+".cryptex")
		all[name] = places(t, file)
		fmt.Fprintf(&script, "%s=$D/var/lib/sealant/images/%x\n", strings.ReplaceAll(name, "/", "_"), digest(t, file))
	}
	script.WriteString(`
		/x/sealsrv rollout start SI-2026-0002 --dir /d/vendor --percent 100 >/dev/null; sealant install -q
		tries=$(cat $D/var/lib/sealant/tries.json)
		# A byte in every eighth part of a slot's ticket.
		tickets() {
			f=$D/var/lib/sealant/$(readlink $D/var/lib/sealant/$1)/ticket.im4m; n=$(stat -c %s $f)
			for i in 0 1 2 3 4 5 6 7; do attack $1-ticket-$i $f $((1 + i * (n - 3) / 7)); done
		}
		tickets next
	`)
	want := map[string]string{}
	refused := func(name, slot, reason string) {
		want[name] = fmt.Sprintf("%s %s %s", map[string]string{"next": "a", "current": "base"}[slot], slot, reason)
	}
	for i := range 8 {
		refused(fmt.Sprintf("next-ticket-%d", i), "next", "ticket-invalid")
		refused(fmt.Sprintf("current-ticket-%d", i), "current", "ticket-invalid")
	}
	attack := func(slot, image string, p place) {
		name := slot + "-" + p.name
		fmt.Fprintf(&script, "attack %s $%s %d\n", name, image, p.at)
		refused(name, slot, "seal-mismatch")
		if p.late {
			want[name] = map[string]string{"next": "b", "current": "a"}[slot] + "  unreadable"
		}
	}
	for _, p := range all["b/web"] {
		attack("next", "b_web", p)
	}
	for _, p := range all["b/os"] {
		if p.name == "program" || p.name == "file" {
			p.late = p.name == "file" // process 1 may need the program
			p.name = "os-" + p.name
			attack("next", "b_os", p)
		}
	}
	script.WriteString("rm $D/var/lib/sealant/next; tries=\ntickets current\n")
	for i, p := range all["a/web"] {
		if i%3 == 0 {
			attack("current", "a_web", p)
		}
	}
	script.WriteString("boot 2>/dev/null; echo \"after: $? $(content), $(exact)\"; sealant status\n")
	r := w.run(t, vm.Options{Data: w.disk(t)}, attacking+script.String())

	for name, want := range want {
		code, rest, _ := strings.Cut(r.Line(name), " ")
		got, text, _ := strings.Cut(rest, " {")
		var record struct {
			Refused []struct{ Slot, Reason string }
		}
		must(t, json.Unmarshal([]byte("{"+text), &record))
		content, slot, reason := strings.Fields(want + " -")[0], "", ""
		if len(record.Refused) > 0 {
			slot, reason = record.Refused[0].Slot, record.Refused[0].Reason
		}
		read := strings.TrimPrefix(got, fmt.Sprintf("os %s, web %[1]s, ", content))
		said := fmt.Sprintf("%s %s %s", content, slot, reason)
		if reason == "" {
			said += read
		}
		if said != want || read == got || read == "wrong" && content == "a" || (code == "0") != (reason == "") {
			t.Errorf("%s: %s, want %q", name, r.Line(name), want)
		}
	}
	if got := r.Line("after"); got != "0 os a, web a, whole" {
		t.Errorf("after all: %q", got)
	}
	t.Logf("%d bytes", len(want))
}

// TestFlippedWhileMounted flips a byte in each part of what is in force, under an agent
// that runs. What is read is right or can't be read; verify says that it is damaged,
// install makes it whole.
func TestFlippedWhileMounted(t *testing.T) {
	t.Parallel()
	vm.Proves(t, "a byte flipped in any part of a mounted image is never read; verify finds it, install repairs it")
	w := newWorld(t, "")
	var script strings.Builder
	names := []string{}
	for _, name := range []string{"os", "web"} {
		file := filepath.Join(w.images, "a", name+".cryptex")
		fmt.Fprintf(&script, "image=$D/var/lib/sealant/images/%x\n", digest(t, file))
		for i, p := range places(t, file) {
			if i%4 == len(name)%4 {
				fmt.Fprintf(&script, "harm %s-%s %d\n", name, p.name, p.at)
				names = append(names, name+"-"+p.name)
			}
		}
	}
	r := w.run(t, vm.Options{Data: w.disk(t)}, attacking+`
		sealant agent 2>out/agent.log & agent=$!
		until [ -S $D/run/sealant/agent.sock ]; do sleep 0.2; done
		harm() {
			flip $image $2; read=$(exact)
			sealant verify >/dev/null 2>&1; rc=$?
			repaired=50 # the agent mends what it heard of
			while [ $repaired = 50 ]; do sealant install -q >/dev/null 2>&1; repaired=$?; done
			sealant verify >/dev/null 2>&1
			echo "$1: $read, verify $rc, install $repaired, verify $?, $(exact)"
			echo "$1" >/dev/ttyS0
		}
	`+script.String()+`
		kill $agent; wait $agent
		sealant history | tail -20; grep -v level=INFO out/agent.log | tail -5`)
	for _, name := range names {
		got := r.Line(name)
		read, rest, _ := strings.Cut(got, ", ")
		if read != "whole" && read != "unreadable" || rest != "verify 32, install 0, verify 0, whole" && rest != "verify 0, install 0, verify 0, whole" {
			t.Errorf("%s: %s", name, got)
		}
		// The agent was quicker than the question.
		if strings.HasPrefix(rest, "verify 0") && read != "unreadable" {
			t.Errorf("%s: nobody noticed: %s", name, got)
		}
	}
	t.Logf("%d bytes", len(names))
}

// TestFlippedSources flips a byte in what an improvement is made of: the patch that is
// kept, and the image that it is for. Offline nothing changes; else what is damaged is
// brought anew.
func TestFlippedSources(t *testing.T) {
	t.Parallel()
	vm.Proves(t, "an improvement whose patch, or whose baseline's image, is damaged is not put back offline, and is whole when it is")
	w := newWorld(t, "")
	r := w.run(t, vm.Options{Data: w.disk(t)}, attacking+`
		sealant remove --yes -q; boot 2>/dev/null; sealant confirm -q
		patch=$D/var/lib/sealant/patches/SI-2026-0001/web.patch
		flip $patch $(($(stat -c %s $patch) / 2))
		kill $server; wait $server; sealant reapply >/tmp/said 2>&1; echo "patch offline: $? $(content)"; cat /tmp/said
		serve; sealant reapply -q; echo "patch: $?"; boot 2>/dev/null; sealant confirm -q; echo "patch then: $(content), $(exact)"
		sealant remove --yes -q; boot 2>/dev/null; sealant confirm -q
		flip $D/usr/lib/sealant/base/web.cryptex `+strconv.FormatInt(places(t, filepath.Join(w.images, "base/web.cryptex"))[4].at, 10)+`
		sealant reapply; echo "base: $?"; boot 2>/dev/null; sealant confirm -q; echo "base then: $(content), $(exact)"`)
	for name, want := range map[string]string{
		"patch": "0", "patch then": "os a, web a, whole", "base": "0", "base then": "os a, web a, whole",
	} {
		if got := r.Line(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := r.Line("patch offline"); strings.HasPrefix(got, "0 ") || !strings.HasSuffix(got, "os base, web base") {
		t.Errorf("patch offline: %q", got)
	}
}

func digest(t *testing.T, path string) []byte {
	t.Helper()
	c := opened(t, path)
	d, err := c.Digest()
	must(t, err)
	return d[:]
}
