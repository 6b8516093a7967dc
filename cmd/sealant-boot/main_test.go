package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

func TestMain(m *testing.M) { namespace.Main(m) }

func TestRun(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	set := d.Improve("SI-2026-0007", 2)
	if err := d.Store.Stage(set.ID); err != nil {
		t.Fatal(err)
	}
	say := func(args ...string) (int, string) {
		var stderr strings.Builder
		code := run(args, &stderr)
		return code, stderr.String()
	}
	code, text := say("--root", d.Root)
	want := fmt.Sprintf("sealant-boot: attached 42.3 (b) SI-2026-0007 (%s) from next: os, web; tries left: 2\n", activate.Enforced())
	if code != 0 || text != want {
		t.Errorf("%d\n%s", code, text)
	}
	web, _ := set.Cryptex("web")
	file := d.Store.ImagePath(web.Image)
	rig.DamageTree(t, file)
	code, text = say("--root", d.Root)
	if code != 32 || !strings.Contains(text, "refused next SI-2026-0007: web ("+file+")") || !strings.Contains(text, fmt.Sprintf("attached 42.3 baseline (%s) from current: os, web\n", activate.Enforced())) {
		t.Errorf("%d\n%s", code, text)
	}
	if err := os.RemoveAll(d.Store.BaselinePath()); err != nil {
		t.Fatal(err)
	}
	if code, text = say("--root", d.Root); code != 1 || !strings.Contains(text, "nothing is attached") {
		t.Errorf("%d\n%s", code, text)
	}
	for _, args := range [][]string{{"--what"}, {"x"}, {"--root"}} {
		if code, text := say(args...); code != 2 || !strings.Contains(text, "usage:") {
			t.Errorf("%v: %d\n%s", args, code, text)
		}
	}
	if code, _ := say("--help"); code != 0 {
		t.Errorf("--help: %d", code)
	}
	if d.Store.SlotID(store.Next) != set.ID {
		t.Error("the state was changed")
	}
}

// TestRunOfInitrd: what a restart forgets goes into the initrd's own /run,
// nothing below the future root's, which will be covered.
func TestRunOfInitrd(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	initrd := d.Root + "/initrd"
	var stderr strings.Builder
	if code := run([]string{"--root", d.Root, "--run", initrd}, &stderr); code != 0 {
		t.Fatalf("%d\n%s", code, stderr.String())
	}
	if _, err := os.Stat(d.Root + "/run/sealant"); !os.IsNotExist(err) {
		t.Error("something was written below the future root's /run")
	}
	for _, path := range []string{initrd + "/sealant/boot.json", initrd + "/sealant/booted/web/.", d.Root + "/usr/lib/cryptexes/web/."} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if mounted, err := linux.Mounted(initrd + "/sealant/booted/web"); err != nil || !mounted {
		t.Errorf("not mounted in the initrd's /run: %v", err)
	}
}
