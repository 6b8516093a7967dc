package activate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/rig"
)

// without takes dm-verity away from this package.
func without(t *testing.T) {
	t.Helper()
	was := probe
	probe = func() error { return &fault.Unsupported{Feature: "the device mapper (/dev/mapper/control)"} }
	t.Cleanup(func() { probe = was })
}

func setPolicy(t *testing.T, d *rig.Device, text string) {
	t.Helper()
	path := filepath.Join(d.Store.ConfigDir(), "policy.d", "site.toml")
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// The weaker guard is never chosen silently: the boot record gives the reason.
func TestTheRecordSaysWhoGuards(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	if Enforced() == Kernel {
		r, err := Boot(t.Context(), d.Root)
		if err != nil || r.Enforcement != Kernel || len(r.Enforcing) != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	without(t)
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	r, err := ReadRecord(d.Store)
	must(t, err)
	if r.Enforcement != AtMount || len(r.Enforcing) != 1 || !strings.Contains(r.Enforcing[0], "/dev/mapper/control") {
		t.Errorf("%+v", r)
	}
}

// Policy can forbid the weaker guard: then no improvement is staged or booted
// on such a kernel, and the baseline still comes up.
func TestPolicyWantsTheKernel(t *testing.T) {
	for name, text := range map[string]string{
		"said":       "trust.enforcement = \"kernel\"\n",
		"unreadable": "trust.enforcemnt = \"any\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := rig.New(t, rig.NewVendor(t))
			a := d.Improve("SI-2026-0001", 1)
			without(t)
			setPolicy(t, d, text)
			err := Stage(t.Context(), d.Store, a, nil)
			var weak *unguarded
			if !errors.As(err, &weak) || fault.KindOf(err) != fault.Policy || !strings.Contains(err.Error(), "/dev/mapper/control") {
				t.Errorf("staged: %v", err)
			}
			must(t, d.Store.Stage(a.ID))
			r, err := Boot(t.Context(), d.Root)
			if fault.KindOf(err) != fault.Policy || r.Slot != store.Current || len(r.Refused) != 1 || r.Refused[0].Reason != ReasonGuard {
				t.Errorf("booted %+v, %v", r, err)
			}
			if d.Versions() != baseContent {
				t.Errorf("shows %q", d.Versions())
			}
			// A removal stages the baseline: nothing may stand in its way.
			must(t, Stage(t.Context(), d.Store, d.BaselineSet(), nil))
		})
	}
}

// kernel ends a test where the running kernel has no dm-verity: the tests in
// test/vm run these on one that has.
func kernel(t *testing.T) {
	t.Helper()
	if err := Lacking(); err != nil {
		t.Skipf("runs in test/vm/verity: %v", err)
	}
}

// What the kernel compares with is the ticket's root, and a block that was
// changed on the disk is never read.
func TestTheKernelGuards(t *testing.T) {
	kernel(t)
	d := rig.New(t, rig.NewVendor(t))
	a := d.Improve("SI-2026-0001", 1)
	must(t, d.Store.Stage(a.ID))
	web, _ := a.Cryptex("web")
	path := d.Store.ImagePath(web.Image)
	// Damage that was there before the boot is met when the block is read.
	program := filepath.Join(d.Store.MountPoint("web"), "run")
	middle := int64(web.Seal.DataBlocks/2) * 4096 // of the program
	rig.Damage(t, path, middle)
	r, err := Boot(t.Context(), d.Root)
	must(t, err)
	if got, err := os.ReadFile(program); err == nil {
		t.Errorf("read %d bytes of a damaged program", len(got))
	}
	rig.Damage(t, path, middle)
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	r, err = Boot(t.Context(), d.Root)
	must(t, err)
	if r.Slot != store.Next || r.Enforcement != Kernel {
		t.Fatalf("%+v", r)
	}
	for name, g := range shown(t, d) {
		c, _ := a.Cryptex(name)
		if g.Enforcement != Kernel || g.Root != c.Seal.Root || g.Image != c.Image || g.Corrupted {
			t.Errorf("%s: %+v, want root %s", name, g, c.Seal.Root)
		}
	}
	data, err := os.ReadFile(program)
	must(t, err)
	// The whole image is damaged behind the mount's back.
	for at := int64(4096); at < int64(web.Seal.DataBlocks)*4096; at += 4096 {
		rig.Damage(t, path, at+7)
	}
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
	again, err := os.ReadFile(program)
	if err == nil {
		t.Errorf("read %d bytes of a damaged image, %d before", len(again), len(data))
	}
	for name, g := range shown(t, d) {
		if g.Corrupted != (name == "web") {
			t.Errorf("%s: corrupted is %v", name, g.Corrupted)
		}
	}
}

// cycles is how often something is repeated: less with -short, for machines
// that are slow.
func cycles(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

// shown are the guards of what everybody sees.
func shown(t *testing.T, d *rig.Device) map[string]Guarded {
	t.Helper()
	list, err := Guards(d.Store)
	must(t, err)
	found := map[string]Guarded{}
	for _, name := range rig.Names {
		device, err := linux.DeviceAt(d.Store.MountPoint(name))
		must(t, err)
		for _, g := range list {
			if g.Device == device && g.Name == name {
				found[name] = g
			}
		}
	}
	if len(found) != len(rig.Names) {
		t.Fatalf("%+v of %+v", found, list)
	}
	return found
}
