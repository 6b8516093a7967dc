package activate

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/rig"
)

// admissions notes who was admitted, and what could be executed at that moment.
type admissions struct {
	mu    sync.Mutex
	t     *testing.T
	names []string
	fail  string
}

func (a *admissions) admit(c Attached) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, c.Want.Name)
	if c.Want.Name == a.fail {
		return errors.New("not this one")
	}
	tree, err := erofs.Open(c.Data, c.Image.DataSize)
	if err != nil {
		return err
	}
	fi, err := c.Root.Stat()
	must(a.t, err)
	found := false
	must(a.t, tree.Walk(func(path string, n *erofs.Inode) error {
		found = found || path == "run"
		return nil
	}))
	cache, err := c.Image.TrustCache()
	must(a.t, err)
	if !found || !fi.IsDir() || len(cache.Entries) != 1 || cache.Entries[0].Path != "run" {
		a.t.Errorf("%s: %+v", c.Want.Name, cache)
	}
	return nil
}

// Whoever decides what executes is told before an image has a place; if it
// refuses one, none of the set is used and nothing is left.
func TestStageAdmitted(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	set := d.Improve("SI-2026-0001", 1)
	a := &admissions{t: t, fail: "web"}
	if err := StageAdmitted(t.Context(), d.Store, set, a.admit, nil); err == nil {
		t.Fatal("staged although web was not admitted")
	}
	if id, err := present.Staged(d.Store); id == set.ID || err != nil {
		t.Errorf("staged is %q, %v", id, err)
	}
	if _, err := os.Stat(d.Store.SetMounts(set.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its mounts have a place: %v", err)
	}
	a = &admissions{t: t}
	must(t, StageAdmitted(t.Context(), d.Store, set, func(c Attached) error {
		// Nobody can execute anything of it yet.
		if taken, err := linux.Mounted(d.Store.SetMount(set.ID, c.Want.Name)); err == nil && taken {
			t.Errorf("%s has a place before it was admitted", c.Want.Name)
		}
		return a.admit(c)
	}, nil))
	slices.Sort(a.names)
	if !slices.Equal(a.names, []string{"os", "web"}) {
		t.Errorf("%q", a.names)
	}
}

// What is mounted already is verified again, by the tickets; what can't be is
// told with the reason.
func TestAdmitMounted(t *testing.T) {
	d := rig.New(t, rig.NewVendor(t))
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	set := d.Improve("SI-2026-0001", 1)
	must(t, Stage(t.Context(), d.Store, set, nil))
	nobody := func(*os.File) bool { return false }
	var refused []string
	refuse := func(name string, root *os.File, err error) error {
		if _, derr := root.ReadDir(1); derr != nil && derr != io.EOF || err == nil {
			t.Errorf("%s: %v %v", name, derr, err)
		}
		refused = append(refused, name)
		return nil
	}
	a := &admissions{t: t}
	must(t, AdmitMounted(t.Context(), d.Store, nobody, a.admit, refuse))
	slices.Sort(a.names)
	if !slices.Equal(a.names, []string{"os", "os", "web", "web"}) || len(refused) != 0 {
		t.Errorf("admitted %q, refused %q", a.names, refused)
	}
	a = &admissions{t: t}
	must(t, AdmitMounted(t.Context(), d.Store, func(*os.File) bool { return true }, a.admit, refuse))
	if len(a.names) != 0 {
		t.Errorf("known ones are admitted again: %q", a.names)
	}
	// The ticket of what is staged was taken away.
	must(t, os.RemoveAll(filepath.Join(d.Root, "var/lib/sealant/sets", set.ID)))
	must(t, AdmitMounted(t.Context(), d.Store, nobody, a.admit, refuse))
	slices.Sort(refused)
	if !slices.Equal(refused, []string{"os", "web"}) || len(a.names) != 2 {
		t.Errorf("admitted %q, refused %q", a.names, refused)
	}
}
