package catalog

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// newRoot publishes the next root with other keys for some roles.
func (v *vendor) newRoot(change map[string]Role, signers []crypto.Signer) {
	v.t.Helper()
	d, err := v.DraftRoot(change, v.now)
	v.must(err)
	_, err = d.Sign(signers...)
	v.must(err)
	v.must(v.Publish(d))
}

// sleeper is a vendor whose root changed 30 times, each time with another of
// its keys, while a device slept.
func sleeper(t *testing.T) (*vendor, []byte) {
	t.Helper()
	v := newVendor(t)
	pinned := v.rootBytes()
	holders := []string{"root-a", "root-b", "root-c"}
	for i := range 30 {
		v.now = v.now.AddDate(0, 1, 6)
		next := append(slices.Clone(holders[1:]), fmt.Sprint("root-", i))
		v.newRoot(map[string]Role{Root: role(2, next...)}, keys(slices.Concat(holders, next)...))
		holders = next
	}
	for _, r := range []string{Targets, Recall, Advice, Rollout} {
		d, err := v.Draft(r, v.now)
		v.must(err)
		_, err = d.Sign(slices.Concat(owners, lists)...)
		v.must(err)
		v.must(v.Publish(d))
	}
	v.refresh()
	return v, pinned
}

func TestAsleepForThreeYearsAnd30Roots(t *testing.T) {
	v, pinned := sleeper(t)
	d := &device{dir: t.TempDir(), now: v.now}
	d.open(v, pinned, v.folder())
	d.refresh(t)
	if d.RootVersion() != 31 {
		t.Errorf("root %d", d.RootVersion())
	}
	// The chain is verified from the pinned root again at every start.
	d.open(v, pinned, nil)
	if d.RootVersion() != 31 || d.Version() == 0 {
		t.Errorf("after a restart: root %d, catalog %d", d.RootVersion(), d.Version())
	}
	// A root that was changed on the disk ends the chain there; the rest
	// comes anew from the server.
	file := filepath.Join(d.dir, "17.root.json")
	data, err := os.ReadFile(file)
	v.must(err)
	v.must(os.WriteFile(file, []byte(strings.Replace(string(data), `"version":17`, `"version":18`, 1)), 0o644))
	d.open(v, pinned, v.folder())
	if d.RootVersion() != 16 {
		t.Errorf("root %d", d.RootVersion())
	}
	d.refresh(t)
	if d.RootVersion() != 31 {
		t.Errorf("root %d", d.RootVersion())
	}
}

func TestWakingIsInterrupted(t *testing.T) {
	v, pinned := sleeper(t)
	d := &device{dir: t.TempDir(), now: v.now}
	for cut := 2; cut <= 31; cut += 4 {
		h := look(t, v)
		h.broken = func(name string, data []byte) (io.Reader, error) {
			if strings.HasPrefix(name, fmt.Sprintf("metadata/%d.root", cut)) {
				return nil, fault.New(fault.Unreachable, "gone")
			}
			if data == nil {
				return nil, fs.ErrNotExist
			}
			return strings.NewReader(string(data)), nil
		}
		d.open(v, pinned, h)
		if err := d.Refresh(context.Background()); fault.KindOf(err) != fault.Unreachable {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := d.RootVersion(); got != int64(cut-1) {
			t.Errorf("cut at %d: root %d", cut, got)
		}
	}
	d.open(v, pinned, v.folder())
	d.refresh(t)
}

// TestBrokenChain shows roots that do not follow each other.
func TestBrokenChain(t *testing.T) {
	v, pinned := sleeper(t)
	for what, change := range map[string]func(h *hostile){
		"skips one":       func(h *hostile) { h.files["metadata/2.root.json"] = h.files["metadata/3.root.json"] },
		"an old one":      func(h *hostile) { h.files["metadata/5.root.json"] = h.files["metadata/4.root.json"] },
		"later unsigned":  func(h *hostile) { h.files["metadata/9.root.json"] = h.files["metadata/20.root.json"] },
		"another type":    func(h *hostile) { h.files["metadata/2.root.json"] = h.files["metadata/1.targets.json"] },
		"not json":        func(h *hostile) { h.files["metadata/2.root.json"] = []byte("{") },
		"the pinned one":  func(h *hostile) { h.files["metadata/2.root.json"] = h.files["metadata/1.root.json"] },
		"empty":           func(h *hostile) { h.files["metadata/2.root.json"] = nil },
		"stops, expired":  func(h *hostile) { delete(h.files, "metadata/4.root.json") },
		"stops, too soon": func(h *hostile) { delete(h.files, "metadata/31.root.json"); delete(h.files, "metadata/30.root.json") },
	} {
		h := look(t, v)
		change(h)
		d := &device{dir: t.TempDir(), now: v.now}
		d.open(v, pinned, h)
		err := d.Refresh(context.Background())
		if what == "stops, too soon" {
			// Roots 29 and 31 share the online keys: nothing is wrong yet but
			// that a newer root is hidden, which ends when root 29 expires.
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if fault.KindOf(err) != fault.Stale {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestFastForward: a thief of the online keys takes versions to their end. New
// keys make the device forget what the thief signed.
func TestFastForward(t *testing.T) {
	v := newVendor(t)
	d := v.device(v.folder())
	d.refresh(t)
	thief := newThief(t, v, 1<<40)
	d.serve(thief)
	d.refresh(t)
	if d.Version() != 1<<40 {
		t.Fatalf("version %d", d.Version())
	}
	v.publish(map[string]string{"patches/aa": "x"})
	d.serve(v.folder())
	d.refused(t, fault.Stale, "older than what this device has seen")
	// The vendor takes new online keys; one of the two is not enough.
	v.newRoot(map[string]Role{Timestamp: role(1, "timestamp-2"), Snapshot: role(1, "snapshot-2")}, owners)
	if _, err := v.Refresh(online, v.now); fault.KindOf(err) != fault.Refused {
		t.Errorf("the old online keys still sign: %v", err)
	}
	if _, err := v.Refresh(keys("snapshot-2", "timestamp-2"), v.now); err != nil {
		t.Fatal(err)
	}
	d.open(v, d.config.Root, v.folder())
	d.refresh(t)
	if _, err := d.Locate("patches/aa"); err != nil || d.Version() > 1000 {
		t.Errorf("version %d, %v", d.Version(), err)
	}
	d.serve(thief)
	d.refused(t, fault.Stale)
}

// newThief serves the vendor's catalog with snapshot and timestamp versions far
// ahead, signed with the stolen online keys.
func newThief(t *testing.T, v *vendor, version int64) *hostile {
	t.Helper()
	h := look(t, v)
	var snapshot metadata.Metadata[metadata.SnapshotType]
	v.must(json.Unmarshal(h.files["metadata/1.snapshot.json"], &snapshot))
	snapshot.Signed.Version = version
	snapshot.ClearSignatures()
	_, err := sign(&snapshot, idsOf(t, online), online)
	v.must(err)
	data, err := snapshot.ToBytes(false)
	v.must(err)
	h.replace("metadata/"+metadataName(Snapshot, version), data)
	stamp(t, v, h, version, metaFile(version, data))
	return h
}

// stamp signs a timestamp with the online keys.
func stamp(t *testing.T, v *vendor, h *hostile, version int64, snapshot *metadata.MetaFiles) {
	t.Helper()
	var m metadata.Metadata[metadata.TimestampType]
	v.must(json.Unmarshal(h.files["metadata/timestamp.json"], &m))
	m.Signed.Version = version
	m.Signed.Meta["snapshot.json"] = snapshot
	m.ClearSignatures()
	_, err := sign(&m, idsOf(t, online), online)
	v.must(err)
	data, err := m.ToBytes(false)
	v.must(err)
	h.replace("metadata/timestamp.json", data)
}

func TestClock(t *testing.T) {
	v := newVendor(t)
	v.publish(map[string]string{"patches/aa": "x"})
	d := v.device(v.folder())
	d.now = time.Date(1970, 1, 1, 0, 3, 0, 0, time.UTC)
	d.refresh(t) // the build time is what it goes by
	if want := start.AddDate(0, -1, 0); !d.Clock().Equal(want) || !d.Checked().Equal(want) {
		t.Errorf("clock %v, checked %v, want %v", d.Clock(), d.Checked(), want)
	}
	d.now = start.Add(time.Hour)
	d.refresh(t)
	d.now = start.Add(-2 * day) // turned back
	if !d.Clock().Equal(start.Add(time.Hour)) {
		t.Errorf("clock %v", d.Clock())
	}
	d.open(v, v.rootBytes(), v.folder()) // and after a restart
	if !d.Clock().Equal(start.Add(time.Hour)) {
		t.Errorf("clock %v", d.Clock())
	}
	d.now = start.AddDate(50, 0, 0)
	d.refused(t, fault.Stale, "root metadata has expired", "clock says 2076-11-23", "operator")
	d.now = start.Add(time.Hour)
	d.refresh(t) // the wrong clock left nothing behind

	// A state that is over by the lower bound, on a device that is at 1970.
	d.now = start.Add(6 * day)
	d.refresh(t)
	d.now = time.Unix(0, 0)
	d.Client.verified = start.Add(8 * day)
	d.refused(t, fault.Stale, "has expired by 2026-12-01 12:00 UTC, before which this device can't be", "1970-01-01", "set the clock")
}

// TestDiskIsNotTrusted changes, cuts and removes each file that the client
// keeps. It must start, show nothing that was not signed, and heal.
func TestDiskIsNotTrusted(t *testing.T) {
	v := newVendor(t)
	v.publish(map[string]string{"patches/aa": "x"})
	v.recall("SI-2026-0001")
	v.newRoot(map[string]Role{}, owners)
	d := v.device(v.folder())
	pinned := look(t, v).files["metadata/1.root.json"]
	d.open(v, pinned, v.folder())
	d.refresh(t)
	version := d.Version()
	var kept []string
	err := filepath.WalkDir(d.dir, func(name string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			kept = append(kept, name)
		}
		return err
	})
	v.must(err)
	if len(kept) < 9 {
		t.Fatalf("kept %v", kept)
	}
	for _, name := range kept {
		for what, damage := range map[string]func([]byte) []byte{
			"removed": nil,
			"empty":   func([]byte) []byte { return []byte{} },
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
			"huge":    func([]byte) []byte { return make([]byte, 20<<20) },
		} {
			dir := t.TempDir()
			copyTree(t, d.dir, dir, "")
			rel, _ := filepath.Rel(d.dir, name)
			file := filepath.Join(dir, rel)
			if damage == nil {
				v.must(os.Remove(file))
			} else {
				data, err := os.ReadFile(file)
				v.must(err)
				v.must(os.WriteFile(file, damage(data), 0o644))
			}
			hurt := &device{dir: dir, now: v.now}
			hurt.open(v, pinned, v.folder())
			if got := hurt.Version(); got != 0 && got != version {
				t.Errorf("%s %s: version %d", rel, what, got)
			}
			if l, err := hurt.RecallList(context.Background()); err == nil && len(l.Entries) != 1 {
				t.Errorf("%s %s: recalls %+v", rel, what, l)
			}
			if err := hurt.Refresh(context.Background()); err != nil || hurt.Version() != version {
				t.Errorf("%s %s: %v, version %d", rel, what, err, hurt.Version())
			}
		}
	}
}

// TestOSUpdateBringsAnotherRoot: the pinned root may be newer or older than
// what the device knows.
func TestOSUpdateBringsAnotherRoot(t *testing.T) {
	v := newVendor(t)
	first := v.rootBytes()
	d := v.device(v.folder())
	d.refresh(t)
	v.newRoot(map[string]Role{Timestamp: role(1, "timestamp-2"), Snapshot: role(1, "snapshot-2")}, owners)
	_, err := v.Refresh(keys("snapshot-2", "timestamp-2"), v.now)
	v.must(err)
	second := v.rootBytes()
	d.open(v, second, v.folder())
	if d.RootVersion() != 2 || d.Version() != 0 {
		t.Errorf("root %d, version %d: a state signed by keys that count no more", d.RootVersion(), d.Version())
	}
	d.refresh(t)
	d.open(v, first, v.folder()) // the old OS is booted again
	if d.RootVersion() != 2 || d.Version() == 0 {
		t.Errorf("root %d, version %d", d.RootVersion(), d.Version())
	}
	if _, err := New(Config{Root: []byte("{}"), Dir: t.TempDir()}); fault.KindOf(err) != fault.Stale {
		t.Errorf("a broken pinned root: %v", err)
	}
	other := newVendor(t)
	thief, err := Create(t.TempDir(), Roles{
		Root: role(1, "x"), Targets: role(1, "x"), Recall: role(1, "x"), Advice: role(1, "x"), Rollout: role(1, "x"), Snapshot: role(1, "x"), Timestamp: role(1, "x"),
	}, start, keys("x")...)
	other.must(err)
	d.open(v, first, Folder(thief.dir))
	d.refused(t, fault.Stale)
}

func TestConcurrentUse(t *testing.T) {
	v := newVendor(t)
	v.publish(map[string]string{"patches/aa": "x"})
	d := v.device(v.folder())
	d.refresh(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				if err := d.Refresh(context.Background()); err != nil {
					t.Error(err)
				}
				if _, err := d.Locate("patches/aa"); err != nil {
					t.Error(err)
				}
				if _, err := d.RecallList(context.Background()); err != nil {
					t.Error(err)
				}
				d.Expires()
			}
		})
	}
	wg.Wait()
}

func TestManifests(t *testing.T) {
	v := newVendor(t)
	base := release.DigestOf([]byte("base"))
	draft, err := v.Draft(Targets, v.now)
	v.must(err)
	for i, level := range []int{2, 1, 3} {
		m := manifest(fmt.Sprintf("SI-2026-000%d", i+1), level, base)
		if level == 3 {
			m.Baseline = release.DigestOf([]byte("another"))
		}
		data, err := m.Encode()
		v.must(err)
		target, err := v.Store(release.ManifestPath(m.ID), strings.NewReader(string(data)))
		v.must(err)
		target.Custom = Note(m)
		v.must(draft.Set(target))
	}
	_, err = draft.Sign(owners...)
	v.must(err)
	v.must(v.Publish(draft))
	v.refresh()
	d := v.device(v.folder())
	if _, err := d.Manifests(context.Background(), base); fault.KindOf(err) != fault.Stale {
		t.Errorf("before the first refresh: %v", err)
	}
	d.refresh(t)
	all, err := d.Manifests(context.Background(), base)
	if err != nil || len(all) != 2 || all[0].ID != "SI-2026-0002" || all[1].ID != "SI-2026-0001" {
		t.Errorf("%+v, %v", all, err)
	}
	kept, _ := filepath.Glob(filepath.Join(d.dir, "documents", "*"))
	if len(kept) != 2 {
		t.Errorf("%d documents were fetched: the one for another baseline need not be", len(kept))
	}
	if _, err := d.Manifest(context.Background(), "SI-2026-0099"); fault.KindOf(err) != fault.NotEligible {
		t.Errorf("an unknown improvement: %v", err)
	}
	if _, err := d.Manifest(context.Background(), "../x"); fault.KindOf(err) != fault.Usage {
		t.Errorf("no id: %v", err)
	}
	if got := d.Paths("releases/"); len(got) != 3 {
		t.Errorf("paths %v", got)
	}
}

func manifest(id string, level int, base release.Digest) release.Manifest {
	state := func(b byte) release.State {
		d := release.DigestOf([]byte{b})
		return release.State{Digest: d, Size: 8 << 12, Seal: release.Seal{Root: release.Hash{b}, DataBlocks: 4, Digest: d}, TrustCache: d}
	}
	m := release.Manifest{
		Schema: release.ManifestSchema, ID: id, Level: level, Product: "ExampleOS", OSVersion: "42.3.0", Baseline: base,
		Published: start, Severity: "high", Title: "x", CVEs: []release.CVE{},
		Cryptexes: []release.Change{{
			Name: "web", Subtype: release.SubtypeApp, From: state(1), To: state(2), Files: []release.FileChange{},
			Patch: release.File{Digest: release.DigestOf(nil), Size: 1}, Antipatch: release.File{Digest: release.DigestOf(nil), Size: 1},
		}},
	}
	if level > 1 {
		m.Previous = "SI-2026-0000"
	}
	return m
}

// TestHTTP fetches over a real server that misbehaves.
func TestHTTP(t *testing.T) {
	v := newVendor(t)
	v.publish(map[string]string{"patches/aa": strings.Repeat("0123456789", 1000)})
	mode := "honest"
	honest := http.StripPrefix("/tuf/", http.FileServer(http.Dir(v.dir)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode {
		case "ignores ranges":
			r.Header.Del("Range")
		case "wrong range":
			r.Header.Set("Range", "bytes=5-")
		case "busy":
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
			return
		case "hides", "hides by 403":
			w.WriteHeader(map[string]int{"hides": 404, "hides by 403": 403}[mode])
			return
		case "cuts":
			w.Header().Set("Content-Length", "100000")
			w.Write([]byte("{"))
			return
		case "silent":
			<-r.Context().Done()
			return
		case "drips":
			for range 1000 {
				if _, err := w.Write([]byte("{")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
			return
		}
		honest.ServeHTTP(w, r)
	}))
	defer server.Close()
	fetcher := &HTTP{Base: server.URL + "/tuf", MinRate: 1000, Patience: 300 * time.Millisecond}
	d := v.device(fetcher)
	d.refresh(t)
	target, err := d.Locate("patches/aa")
	v.must(err)
	whole := strings.Repeat("0123456789", 1000)
	for _, mode = range []string{"honest", "ignores ranges"} {
		for _, offset := range []int64{0, 1, 9999, 10000} {
			body, err := d.Open(context.Background(), target, offset)
			if err != nil {
				if offset == 10000 && mode == "honest" {
					continue // no byte is left to ask for: the server says 416
				}
				t.Fatalf("%s, from %d: %v", mode, offset, err)
			}
			got, err := io.ReadAll(body)
			body.Close()
			if err != nil || string(got) != whole[offset:] {
				t.Errorf("%s, from %d: %d bytes, %v", mode, offset, len(got), err)
			}
		}
	}
	mode = "wrong range"
	if _, err := d.Open(context.Background(), target, 7); fault.KindOf(err) != fault.Unreachable {
		t.Errorf("%s: %v", mode, err)
	}
	for m, kind := range map[string]fault.Kind{
		"busy": fault.Busy, "broken": fault.Unreachable, "hides": fault.Unreachable, "hides by 403": fault.Unreachable,
		"cuts": fault.Unreachable, "silent": fault.Unreachable, "drips": fault.Unreachable,
	} {
		mode = m
		d.refused(t, kind)
	}
	mode = "honest"
	d.refresh(t)
	mode = "silent"
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := d.Refresh(ctx); fault.KindOf(err) != fault.Unreachable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: %v", err)
	}
	server.Close()
	d.refused(t, fault.Unreachable)
	for _, bad := range []string{"../x", "/x", ""} {
		if _, err := fetcher.Fetch(context.Background(), bad, 0); err == nil {
			t.Errorf("fetched %q", bad)
		}
	}
	// A reader that takes its time is no slow server.
	slow := httptest.NewServer(honest)
	defer slow.Close()
	body, err := (&HTTP{Base: slow.URL + "/tuf", MinRate: 1 << 20, Patience: 200 * time.Millisecond}).Fetch(context.Background(), target.Remote, 0)
	v.must(err)
	time.Sleep(400 * time.Millisecond)
	if got, err := io.ReadAll(body); err != nil || string(got) != whole {
		t.Errorf("after a pause: %d bytes, %v", len(got), err)
	}
	body.Close()
}

func TestFolderStaysInside(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("x"), 0o600), os.Symlink(secret, filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "../secret", secret, "sub", "absent"} {
		if _, err := Folder(dir).Fetch(context.Background(), name, 0); err == nil {
			t.Errorf("fetched %s", name)
		}
	}
}
