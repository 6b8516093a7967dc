package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
)

// brought copies what an OS update would bring to a place of its own, and
// returns the description and the images.
func (v *vendor) brought() (document string, images []string) {
	v.t.Helper()
	dir := v.t.TempDir()
	v.must(os.CopyFS(dir, os.DirFS(filepath.Join(v.os, "usr/lib/sealant"))))
	for _, c := range v.base.Cryptexes {
		images = append(images, filepath.Join(dir, "base", c.Name+".cryptex"))
	}
	return filepath.Join(dir, "base.json"), images
}

// TestBaseByHand: a baseline that is brought by hand replaces the installed
// one whole; what runs stays until the restart, which finds the improvement of
// the old one inert.
func TestBaseByHand(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if m.level("web") != 1 {
		t.Fatal("the improvement is not active")
	}

	v.update("42.4.0")
	document, images := v.brought()
	install := func(o device.BaseOptions) (device.BaseInstalled, error) {
		return m.open().InstallBase(t.Context(), o, m.log)
	}
	r, err := install(device.BaseOptions{Document: document, Images: images, DryRun: true})
	if err != nil || r.OSVersion != "42.4.0" || m.status().OSVersion == "42.4.0" {
		t.Fatalf("%+v %v", r, err)
	}
	r, err = install(device.BaseOptions{Document: document, Images: images})
	if err != nil || !r.Listed || !r.Changed || !r.Restart || r.Was != "42.3.0" {
		t.Fatalf("%+v %v", r, err)
	}
	if m.level("web") != 1 {
		t.Error("what runs was touched")
	}
	if s := m.status(); s.State != device.StateInert {
		t.Errorf("%+v", s)
	}
	if rec := m.boot(); rec.Release != "" || m.level("web") != 5 {
		t.Fatalf("%+v, level %d", rec, m.level("web"))
	}
	if c := m.check(); c.State != device.StateNone {
		t.Errorf("%+v", c)
	}
	if s := m.snapshot(); strings.Contains(s, "SI-2026-0001") {
		t.Errorf("not reclaimed:\n%s", s)
	}
	if vf := m.verify(); !vf.OK {
		t.Errorf("%s", findings(vf))
	}
	// Only the installed one takes room.
	left, err := filepath.Glob(filepath.Join(m.root, "usr/lib/sealant/baselines/*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != v.base.Digest().String() {
		t.Errorf("%v %v", left, err)
	}
	// Again: nothing to do; with its images it is put in place again, whole.
	if r, err := install(device.BaseOptions{Document: document}); err != nil || r.Changed {
		t.Errorf("%+v %v", r, err)
	}
	v.must(os.Truncate(m.open().Store.BaseImagePath("web"), 4096))
	if _, err := install(device.BaseOptions{Document: document}); err == nil {
		t.Error("a damaged installed image was taken")
	}
	if r, err := install(device.BaseOptions{Document: document, Images: images}); err != nil || !r.Changed {
		t.Errorf("%+v %v", r, err)
	}
	if rec := m.boot(); len(rec.Refused) != 0 || m.level("web") != 5 {
		t.Errorf("%+v", rec)
	}
}

// TestBaseRefused: what the catalog does not list, what is for another product,
// and images that are not the described ones change nothing.
func TestBaseRefused(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	v.update("42.4.0")
	document, images := v.brought()
	before := tree(t, filepath.Join(m.root, "usr/lib/sealant"))
	refused := func(what string, o device.BaseOptions, kind fault.Kind) {
		t.Helper()
		_, err := m.open().InstallBase(t.Context(), o, m.log)
		if err == nil || fault.KindOf(err) != kind {
			t.Errorf("%s: %v", what, err)
		}
		if after := tree(t, filepath.Join(m.root, "usr/lib/sealant")); after != before {
			t.Errorf("%s changed something:\n%s\nbefore:\n%s", what, after, before)
		}
	}
	rewrite := func(change func(text string) string) string {
		data, err := os.ReadFile(document)
		v.must(err)
		path := filepath.Join(t.TempDir(), "base.json")
		v.must(os.WriteFile(path, []byte(change(string(data))), 0o644))
		return path
	}
	refused("an unlisted baseline", device.BaseOptions{
		Document: rewrite(func(s string) string { return strings.Replace(s, "42.4.0", "42.5.0", 1) }), Images: images,
	}, fault.Refused)
	refused("another product", device.BaseOptions{
		Document: rewrite(func(s string) string { return strings.Replace(s, v.base.Product, "Other"+v.base.Product, 1) }), Images: images, Unlisted: true,
	}, fault.NotEligible)
	refused("half a document", device.BaseOptions{Document: rewrite(func(s string) string { return s[:len(s)/2] }), Images: images}, fault.Failed)
	refused("no document", device.BaseOptions{Document: document + "x"}, fault.Usage)
	refused("the old image of web", device.BaseOptions{Document: document}, fault.Seal)
	refused("an image twice", device.BaseOptions{Document: document, Images: append(images, images[0])}, fault.Usage)
	for _, path := range images {
		data, err := os.ReadFile(path)
		v.must(err)
		for at := 100; at < len(data); at += len(data) / 9 {
			data[at] ^= 1
			v.must(os.WriteFile(path, data, 0o644))
			refused("a flipped bit", device.BaseOptions{Document: document, Images: images}, fault.Seal)
			data[at] ^= 1
		}
		v.must(os.WriteFile(path, data[:len(data)-4096], 0o644))
		refused("a shorter image", device.BaseOptions{Document: document, Images: images}, fault.Seal)
		v.must(os.WriteFile(path, data, 0o644))
	}
	// Offline, the catalog that was verified before is enough for what it lists.
	v.hostile(hangUp)
	refused("an unlisted baseline, offline", device.BaseOptions{
		Document: rewrite(func(s string) string { return strings.Replace(s, "42.4.0", "42.5.0", 1) }), Images: images,
	}, fault.Refused)
	if r, err := m.open().InstallBase(t.Context(), device.BaseOptions{Document: document, Images: images}, m.log); err != nil || !r.Listed {
		t.Errorf("%+v %v", r, err)
	}
}

// TestBaseInto: the inactive half of an A/B device gets the baseline; this
// device's own stays.
func TestBaseInto(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	v.update("42.4.0")
	document, images := v.brought()
	other := t.TempDir()
	r, err := m.open().InstallBase(t.Context(), device.BaseOptions{Document: document, Images: images, Into: other}, m.log)
	if err != nil || r.Restart {
		t.Fatalf("%+v %v", r, err)
	}
	data, err := os.ReadFile(filepath.Join(other, "usr/lib/sealant/base.json"))
	want, _ := v.base.Encode()
	if err != nil || string(data) != string(want) {
		t.Errorf("%v", err)
	}
	for _, c := range v.base.Cryptexes {
		if fi, err := os.Stat(filepath.Join(other, "usr/lib/sealant/base", c.Name+".cryptex")); err != nil || fi.Size() != c.Size {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	if s := m.status(); s.OSVersion != "42.3.0" {
		t.Errorf("%+v", s)
	}
}

// tree lists a folder: names, links and the first bytes of every file.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		all.WriteString(strings.TrimPrefix(path, dir) + " " + fi.Mode().String() + " " + fi.ModTime().String() + " " + target + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
