//go:build vm || slow

package verity

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/test/vm"
)

// opened opens an image of this machine.
func opened(t *testing.T, path string) *image.Cryptex {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := image.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parts are the offsets, in an image's file, of a byte in each of its parts.
func parts(t *testing.T, path string) map[string]int64 {
	t.Helper()
	c := opened(t, path)
	return map[string]int64{
		"data": c.DataSize / 2, "superblock": c.DataSize + 100, "tree": c.TreeOffset() + 64,
		"cache": c.TrustCacheOffset() + 10, "footer": c.Size - 4000, "digest": c.Size - 3,
	}
}

// TestDevice installs an improvement on a kernel with dm-verity and attacks
// what was installed: an exec loop runs during every switch, a byte is flipped
// in every part of the image and in the ticket, another device's state is put
// in place, the disk is full.
func TestDevice(t *testing.T) {
	vm.Proves(t, "a flipped byte in each part of image and ticket, another device's state: refused, the baseline runs; no exec or read fails during a switch; damage is repaired; removal works offline on a full disk")
	w := newWorld(t, "")
	var flips strings.Builder
	for part, at := range parts(t, filepath.Join(w.images, "a/web.cryptex")) {
		fmt.Fprintf(&flips, "attack %s $image %d\n", part, at)
	}
	r := w.run(t, vm.Options{Data: w.disk(t)}, `
		boot; content
		# A program is started and a file read, again and again, until the end of the story.
		loop() {
			while [ ! -e /tmp/stop ]; do
				$D/usr/lib/cryptexes/web/run || echo "run failed: $?" >>/tmp/errors
				cat $D/usr/lib/cryptexes/web/version >/tmp/seen 2>>/tmp/errors || echo "read failed" >>/tmp/errors
				echo >>/tmp/count
			done
		}
		loop & looping=$!
		serve
		sealant install -q; echo "install: $?"
		echo "staged: $(content)"
		boot; echo "booted: $(content)"
		sealant confirm
		sealant remove --yes -q; echo "remove: $?"
		boot; echo "removed: $(content)"
		sealant confirm
		sealant reapply -q; boot; sealant confirm
		echo "again: $(content)"
		touch /tmp/stop; wait $looping
		echo "rounds: $(wc -l </tmp/count)"; echo "errors: $(cat /tmp/errors 2>&1 | head -3)"
		sealant status | grep Enforcement

		image=$(grep -l "^web a" $D/var/lib/sealant/images/* | head -1)
		attack() {
			[ "$1" = none ] || flip $2 $3
			boot >/dev/null 2>&1; rc=$?
			read=$(tail -n +2 $D/usr/lib/cryptexes/web/numbers 2>/dev/null | md5sum | cut -c1-8)
			echo "$1: $rc, $(content), $read, $(record | grep -o '"reason":"[a-z-]*"' | head -1)"
			[ "$1" = none ] || flip $2 $3
		}
		attack none
		`+flips.String()+`
		set=$D/var/lib/sealant/$(readlink $D/var/lib/sealant/current)
		# A byte in the ticket's head, its claims, its certificate, its signature.
		n=$(stat -c %s $set/ticket.im4m)
		for at in 2 40 300 $((n / 2)) $((n * 3 / 4)) $((n - 2)); do attack "ticket $at of $n" $set/ticket.im4m $at; done
		ls $set

		# What was damaged is found, and made anew.
		at=`+fmt.Sprint(parts(t, filepath.Join(w.images, "a/web.cryptex"))["data"])+`
		flip $image $at; boot >/dev/null 2>&1
		sealant verify >/dev/null; echo "verify damaged: $?"
		cat $D/usr/lib/cryptexes/web/numbers >/dev/null 2>&1; echo "read damaged: $?"
		echo "status damaged: $(sealant status | grep -c "web is damaged") $(sealant doctor | grep -c "damaged blocks of web")"
		sealant install -q; echo "repair: $?"
		sealant verify >/dev/null; echo "verify repaired: $?"
		cat $D/usr/lib/cryptexes/web/numbers >/dev/null; echo "read repaired: $?"
		echo "status repaired: $(sealant status | grep -c damaged)"

		# The agent hears of it by itself.
		/x/sealant --root $D agent >out/agent.log 2>&1 & agent=$!
		until [ -e $D/run/sealant/agent.sock ]; do sleep 0.2; done; sleep 1
		flip $image $at
		cat $D/usr/lib/cryptexes/web/numbers >/dev/null 2>&1; echo "read damaged again: $?"
		i=0; until sealant history | grep -q repaired.*auto || [ $((i=i+1)) -gt 30 ]; do sleep 1; done
		sleep 1; cat $D/usr/lib/cryptexes/web/numbers >/dev/null; echo "read mended: $?"
		sealant history | tail -3; kill $agent; wait $agent; cat out/agent.log

		# Another device's sets and tickets, and its own key.
		cp -a $D /d/other; rm -r /d/other/var/lib/sealant; D=/d/other
		mount -t tmpfs run $D/run
		/x/sealant-boot --root $D 2>/dev/null
		sealant enroll --token "$(/x/sealsrv enroll token new --dir /d/vendor -q)" --identity file -q
		for f in images sets current next previous tries; do
			[ ! -e /d/dev/var/lib/sealant/$f ] || { rm -rf $D/var/lib/sealant/$f; cp -a /d/dev/var/lib/sealant/$f $D/var/lib/sealant/$f; }
		done
		boot 2>/dev/null; echo "other device: $?, $(content), $(record | grep -o '"reason":"[a-z-]*"' | head -1)"
		umount $D/usr/lib/cryptexes/*; umount -l $D/run; rm -rf /d/other; D=/d/dev

		# Removal, offline, with a full disk.
		boot >/dev/null 2>&1; kill $server; wait $server
		# Whatever becomes free on the way, somebody else takes it.
		fill() { for size in 1M 512; do dd if=/dev/zero bs=$size >>/d/full 2>/dev/null; done; }
		fill
		echo "free: $(df --output=avail /d | tail -1)"
		sealant remove --yes -q; echo "remove full: $?"
		fill; boot; echo "removed full: $(content)"
		fill; sealant confirm; echo "confirm full: $?"
		fill; boot; echo "then full: $(content)"
		rm /d/full

		# Damage of the delivered image, when there is nothing else: it is not attached.
		delivered=$D/usr/lib/sealant/base/web.cryptex
		flip $delivered `+fmt.Sprint(parts(t, filepath.Join(w.images, "base/web.cryptex"))["superblock"])+`
		boot 2>/dev/null; echo "delivered damaged: $?, $($D/usr/lib/cryptexes/web/run && echo runs)"
		flip $delivered `+fmt.Sprint(parts(t, filepath.Join(w.images, "base/web.cryptex"))["superblock"])+`
		boot; echo "delivered mended: $?, $(content)"

		umount $D/usr/lib/cryptexes/*; umount -l $D/run; sleep 1
		echo "left: $(devices)"
	`)
	want := map[string]string{
		"install": "0", "staged": "os base, web base", "booted": "os a, web a", "remove": "0", "removed": "os base, web base",
		"again": "os a, web a", "errors": "", "Enforcement kernel (dm-verity)  Recall none  Advice none": "",
		"verify damaged": "32", "read damaged": "1", "status damaged": "1 1", "status repaired": "0", "read damaged again": "1", "read mended": "0", "repair": "0", "verify repaired": "0", "read repaired": "0",
		"other device": `31, os base, web base, "reason":"ticket-invalid"`,
		"free":         "0", "remove full": "0", "removed full": "os base, web base", "confirm full": "0", "then full": "os base, web base", "left": "0 0 0",
	}
	for line, text := range want {
		if text == "" && line != "errors" {
			if !strings.Contains(r.Out, line) {
				t.Errorf("no line %q", line)
			}
		} else if got := r.Line(line); got != text {
			t.Errorf("%s: %q, want %q", line, got, text)
		}
	}
	whole := strings.Split(r.Line("none"), ", ")
	if len(whole) < 4 || whole[0] != "0" {
		t.Fatalf("an undamaged device: %q", r.Line("none"))
	}
	for part := range parts(t, filepath.Join(w.images, "a/web.cryptex")) {
		got := r.Line(part)
		if part == "data" {
			// The kernel refuses to read it: what was read is less than all.
			if !strings.HasPrefix(got, "0, os a, web a, ") || strings.Contains(got, whole[3]) {
				t.Errorf("%s: %q", part, got)
			}
		} else if !strings.HasPrefix(got, "32, os base, web base, ") || !strings.HasSuffix(got, `"reason":"seal-mismatch"`) {
			t.Errorf("%s: %q", part, got)
		}
	}
	tickets := 0
	for line := range strings.Lines(r.Out) {
		if name, got, _ := strings.Cut(line, ": "); strings.HasPrefix(name, "ticket ") {
			if tickets++; !strings.HasPrefix(got, "31, os base, web base, ") {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	if tickets != 6 {
		t.Errorf("%d bytes of the ticket were flipped", tickets)
	}
}
