package activate

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
	"github.com/sealant-os/sealant/trust/ticket"
)

func stagedVersion(t testing.TB, d *rig.Device) string {
	return rig.Version(t, d.Store.StagedLink("web"))
}

func TestStage(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	before := namespace.Counted(t, d.Root)
	a := d.Improve("SI-2026-0001", 1)
	var last, total int64
	for range 3 { // staging again is allowed
		must(t, Stage(t.Context(), d.Store, a, func(done, of int64) { last, total = done, of }))
		if got := stagedVersion(t, d); got != "web (a)" {
			t.Errorf("staged %q", got)
		}
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if d.Versions() != baseContent {
		t.Errorf("staging changed what runs: %q", d.Versions())
	}
	during := namespace.Counted(t, d.Root)
	if during.Mounts != before.Mounts+len(rig.Names) || during.Files != before.Files {
		t.Errorf("%+v while staged, %+v before", during, before)
	}
	for range 2 {
		must(t, Unstage(d.Store))
		if got := stagedVersion(t, d); got != "web base" {
			t.Errorf("after unstaging %q", got)
		}
		if after := namespace.Settled(t, d.Root, before); after != before {
			t.Errorf("%+v after, %+v before", after, before)
		}
	}
}

// Lesson 1 and 2: what can't be used is refused, and the set staged before stays.
func TestStageRefuses(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	must(t, Stage(t.Context(), d.Store, a, nil))
	before := namespace.Counted(t, d.Root)
	change := func(f func(*store.Set)) store.Set {
		b := d.Improve("SI-2026-0002", 2)
		f(&b)
		return b
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx  context.Context
		set  store.Set
		kind fault.Kind
	}{
		"no ticket":           {t.Context(), change(func(s *store.Set) { s.Ticket = nil }), fault.Ticket},
		"another's ticket":    {t.Context(), change(func(s *store.Set) { d.Sign(s, [32]byte{1}, d.Preroll()) }), fault.Ticket},
		"another nonce":       {t.Context(), change(func(s *store.Set) { d.Sign(s, d.ID, [48]byte{1}) }), fault.Ticket},
		"ticket of other set": {t.Context(), change(func(s *store.Set) { s.Ticket = a.Ticket }), fault.Ticket},
		"other release":       {t.Context(), change(func(s *store.Set) { s.Release = "SI-2026-0003" }), fault.Ticket},
		"other baseline":      {t.Context(), change(func(s *store.Set) { s.Baseline[0]++; d.Sign(s, d.ID, d.Preroll()) }), fault.NotEligible},
		"another salt": {t.Context(), change(func(s *store.Set) {
			s.Cryptexes = append([]store.Cryptex(nil), s.Cryptexes...)
			s.Cryptexes[1].Seal.Salt[0]++
			d.Sign(s, d.ID, d.Preroll())
		}), fault.Seal},
		"the baseline's image of web as os": {t.Context(), change(func(s *store.Set) {
			s.Cryptexes = append([]store.Cryptex(nil), s.Cryptexes...)
			name := s.Cryptexes[0].Name
			s.Cryptexes[0] = s.Cryptexes[1]
			s.Cryptexes[0].Name, s.Cryptexes[0].Subtype = name, 1
			d.Sign(s, d.ID, d.Preroll())
		}), fault.Seal},
		"canceled": {canceled, change(func(*store.Set) {}), fault.Failed},
	}
	for name, tt := range tests {
		if err := Stage(tt.ctx, d.Store, tt.set, nil); err == nil || fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %v of kind %v", name, err, fault.KindOf(err))
		}
		if got := stagedVersion(t, d); got != "web (a)" {
			t.Errorf("%s: staged is %q", name, got)
		}
		if after := namespace.Settled(t, d.Root, before); after != before {
			t.Errorf("%s: %+v after, %+v before", name, after, before)
		}
		if err := Verify(tt.ctx, d.Store, tt.set, nil); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
	damaged := change(func(*store.Set) {})
	rig.Damage(t, imageOf(t, d, damaged, "web"), 100)
	if err := Stage(t.Context(), d.Store, damaged, nil); fault.KindOf(err) != fault.Seal || stagedVersion(t, d) != "web (a)" {
		t.Errorf("damaged: %v, staged is %q", err, stagedVersion(t, d))
	}
	must(t, Verify(t.Context(), d.Store, a, nil))
}

// Lesson 27: staging, switching and unstaging leave nothing behind.
func TestCyclesLeakNothing(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	sets := []store.Set{d.Improve("SI-2026-0001", 1), d.Improve("SI-2026-0002", 2)}
	before := namespace.Counted(t, d.Root)
	for i := range cycles(60) {
		must(t, Stage(t.Context(), d.Store, sets[i%2], nil))
		if i%3 == 0 {
			must(t, Unstage(d.Store))
		}
	}
	must(t, Unstage(d.Store))
	if after := namespace.Settled(t, d.Root, before); after != before {
		t.Errorf("after the cycles %+v, before %+v", after, before)
	}
	entries, err := os.ReadDir(d.Store.SetMounts(""))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d sets stay mounted, %v", len(entries), err)
	}
}

// Lesson 7: no byte of an image may change.
func TestEveryByteCounts(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	set := d.BaselineSet()
	want := contents(set)[1]
	path := filepath.Join(d.Root, "copy")
	data, err := os.ReadFile(d.Store.BaseImagePath("web"))
	must(t, err)
	check := func(what string) {
		t.Helper()
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		if err := verify(t.Context(), f, want, nil); fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, os.WriteFile(path, data, 0o644))
	for at := int64(0); at < int64(len(data)); at += 499 {
		rig.Damage(t, path, at)
		check("one bit flipped")
		rig.Damage(t, path, at)
	}
	for size := 0; size < len(data); size += 4096 {
		must(t, os.WriteFile(path, data[:size], 0o644))
		check("cut short")
	}
	must(t, os.WriteFile(path, append(data, make([]byte, 4096)...), 0o644))
	check("a block more")
}

// Lesson 8: the file that was verified is mounted, whatever its name means by then.
func TestAttachesTheVerifiedFile(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	list, errs := newGuard(d.Store).attachAll(t.Context(), contents(a), func(want ticket.Cryptex) (*os.File, error) {
		path := d.Store.ImagePath(want.Image)
		f, err := os.Open(path)
		must(t, err)
		if want.Name == "web" {
			must(t, os.Rename(d.Store.BaseImagePath("web"), path))
		}
		return f, nil
	}, nil)
	defer closeAll(list)
	must(t, errors.Join(errs...))
	must(t, placeSet(d.Store, a.ID, list))
	if got := rig.Version(t, d.Store.SetMount(a.ID, "web")); got != "web (a)" {
		t.Errorf("mounted %q", got)
	}
}

// Lesson 2: opening and executing what is staged never fails while sets are
// staged and unstaged and the system is switched.
func TestNoMomentWithoutContent(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	sets := []store.Set{d.Improve("SI-2026-0001", 1), d.Improve("SI-2026-0002", 2)}
	var stop atomic.Bool
	var wg sync.WaitGroup
	seen := map[string]int{}
	wg.Go(func() {
		for !stop.Load() {
			data, err := os.ReadFile(filepath.Join(d.Store.MountPoint("web"), "version"))
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			seen[string(data)]++
		}
	})
	var execs atomic.Int64
	for range 4 {
		wg.Go(func() {
			for ; !stop.Load(); execs.Add(1) {
				if err := exec.Command(filepath.Join(d.Store.MountPoint("web"), "run"), "0").Run(); err != nil {
					t.Errorf("exec: %v", err)
					return
				}
			}
		})
	}
	began := time.Now()
	for i := range cycles(20) {
		set := sets[i%2]
		must(t, Stage(t.Context(), d.Store, set, nil))
		list, err := newGuard(d.Store).attachSet(t.Context(), d.Store, set, contents(set), nil)
		must(t, err)
		must(t, placeSet(d.Store, set.ID, list))
		must(t, exposeSet(d.Store, set.ID, rig.Names))
		closeAll(list)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d execs, %.0f a second", execs.Load(), float64(execs.Load())/time.Since(began).Seconds())
	if seen["web (a)"] == 0 || seen["web (b)"] == 0 {
		t.Errorf("seen %v", seen)
	}
}

// If one cryptex of a set can't get its place, everything is as before.
func TestExposeIsWholeOrNotAtAll(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	must(t, Stage(t.Context(), d.Store, a, nil))
	before := namespace.Counted(t, d.Root)
	must(t, linux.Unmount(d.Store.SetMount(a.ID, "web")))
	must(t, os.Remove(d.Store.SetMount(a.ID, "web")))
	if err := exposeSet(d.Store, a.ID, []string{"os", "web"}); err == nil {
		t.Fatal("exposed half a set")
	}
	if d.Versions() != baseContent {
		t.Errorf("shows %q", d.Versions())
	}
	before.Mounts--
	if Enforced() == Kernel {
		before.Loops--
	}
	if after := namespace.Settled(t, d.Root, before); after != before {
		t.Errorf("%+v after, %+v before", after, before)
	}
}

// Lesson 31: an image is in use as long as anybody has it mounted, mapped or open.
func TestInUse(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	a := d.Improve("SI-2026-0001", 1)
	cryptex, _ := a.Cryptex("web")
	uses := func(want bool, when string) {
		t.Helper()
		used, err := InUse(d.Store)
		must(t, err)
		if used[cryptex.Image] != want {
			t.Errorf("%s: in use %v", when, used[cryptex.Image])
		}
		base, _ := d.Baseline.Cryptex("os")
		if !used[store.Digest(base.Digest)] {
			t.Errorf("%s: the baseline counts as unused", when)
		}
	}
	stage := func() string {
		must(t, Stage(t.Context(), d.Store, a, nil))
		return d.Store.SetMount(a.ID, "web")
	}
	uses(false, "before")
	stage()
	uses(true, "mounted")
	must(t, Unstage(d.Store))
	uses(false, "unmounted")

	cmd := exec.Command(filepath.Join(stage(), "run"), "1000")
	must(t, cmd.Start())
	must(t, Unstage(d.Store))
	uses(true, "a program runs")
	cmd.Process.Kill()
	cmd.Wait()
	uses(false, "the program ended")

	f, err := os.Open(filepath.Join(stage(), "version"))
	must(t, err)
	must(t, Unstage(d.Store))
	uses(true, "a file is open")
	f.Close()
	uses(false, "the file was closed")

	// A namespace elsewhere keeps its own mounts.
	mine := filepath.Join(d.Root, "mine")
	must(t, os.Mkdir(mine, 0o755))
	hold := exec.Command("unshare", "-m", "--propagation", "private", "/bin/sh", "-c",
		`mount --bind "$0" "$1" && exec sleep 1000`, stage(), mine)
	must(t, hold.Start())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		exe, _ := os.Readlink("/proc/" + pid(hold) + "/exe")
		if strings.HasSuffix(exe, "/sleep") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process in the namespace did not start")
		}
	}
	must(t, Unstage(d.Store))
	uses(true, "mounted in another namespace")
	hold.Process.Kill()
	hold.Wait()
	uses(false, "the namespace ended")
}

func pid(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }

func BenchmarkStage(b *testing.B) {
	d := rig.New(b, rig.NewVendor(b))
	_, err := Boot(b.Context(), d.Root)
	must(b, err)
	a := d.Improve("SI-2026-0001", 1)
	for b.Loop() {
		must(b, Stage(b.Context(), d.Store, a, nil))
	}
}
