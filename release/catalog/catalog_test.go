package catalog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// key is a throwaway key that is the same in every run.
func key(name string) crypto.Signer {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func role(threshold int, names ...string) Role {
	r := Role{Threshold: threshold}
	for _, n := range names {
		r.Keys = append(r.Keys, key(n).Public())
	}
	return r
}

func keys(names ...string) []crypto.Signer {
	var all []crypto.Signer
	for _, n := range names {
		all = append(all, key(n))
	}
	return all
}

var (
	owners = keys("root-a", "root-b", "root-c", "targets-a", "targets-b", "targets-c")
	lists  = keys("recall-a", "recall-b", "advice", "rollout")
	online = keys("snapshot", "timestamp")
)

func testRoles() Roles {
	return Roles{
		Root: role(2, "root-a", "root-b", "root-c"), Targets: role(2, "targets-a", "targets-b", "targets-c"),
		Recall: role(2, "recall-a", "recall-b"), Advice: role(1, "advice"), Rollout: role(1, "rollout"),
		Snapshot: role(1, "snapshot"), Timestamp: role(1, "timestamp"),
	}
}

// vendor is a catalog and its clock.
type vendor struct {
	*Repository
	t   *testing.T
	now time.Time
}

func newVendor(t *testing.T) *vendor {
	t.Helper()
	v := &vendor{t: t, now: start}
	all := append(append(append([]crypto.Signer{}, owners...), lists...), online...)
	var err error
	if v.Repository, err = Create(t.TempDir(), testRoles(), v.now, all...); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vendor) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// publish adds files to targets, as two owners would.
func (v *vendor) publish(files map[string]string) {
	v.t.Helper()
	d, err := v.Draft(Targets, v.now)
	v.must(err)
	for name, content := range files {
		t, err := v.Store(name, strings.NewReader(content))
		v.must(err)
		v.must(d.Set(t))
	}
	_, err = d.Sign(keys("targets-a", "targets-c")...)
	v.must(err)
	v.must(v.Publish(d))
	v.refresh()
}

func (v *vendor) refresh() State {
	v.t.Helper()
	st, err := v.Refresh(online, v.now)
	v.must(err)
	return st
}

func (v *vendor) recall(ids ...string) {
	v.t.Helper()
	l, err := v.RecallList("ExampleOS")
	v.must(err)
	for _, id := range ids {
		l = l.With(release.Recall{Release: id, Reason: "it broke", Date: v.now})
	}
	v.must(v.PublishRecall(l, lists, v.now))
	v.refresh()
}

func (v *vendor) rootBytes() []byte {
	v.t.Helper()
	data, err := v.RootBytes()
	v.must(err)
	return data
}

// device is a client in its own folder, with its own clock.
type device struct {
	*Client
	dir string
	now time.Time
}

func (v *vendor) device(remote Fetcher) *device {
	v.t.Helper()
	d := &device{dir: filepath.Join(v.t.TempDir(), "trust"), now: v.now}
	d.open(v, v.rootBytes(), remote)
	return d
}

// open is what a restart of the device does.
func (d *device) open(v *vendor, root []byte, remote Fetcher) {
	v.t.Helper()
	var err error
	d.Client, err = New(Config{Root: root, Dir: d.dir, Remote: remote, Now: func() time.Time { return d.now }, Built: start.AddDate(0, -1, 0)})
	v.must(err)
}

func (d *device) refresh(t *testing.T) {
	t.Helper()
	if err := d.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// refused expects a failing refresh that changes nothing, on disk neither.
func (d *device) refused(t *testing.T, kind fault.Kind, says ...string) {
	t.Helper()
	version, checked := d.Version(), d.Checked()
	err := d.Refresh(context.Background())
	if err == nil {
		t.Fatal("accepted")
	}
	if fault.KindOf(err) != kind {
		t.Errorf("%v is a %v, not a %v", err, fault.KindOf(err), kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error()+fault.HintOf(err), s) {
			t.Errorf("%q (%q) does not say %q", err, fault.HintOf(err), s)
		}
	}
	if d.Version() != version || !d.Checked().Equal(checked) {
		t.Errorf("state moved from %d to %d after %v", version, d.Version(), err)
	}
	again, err := New(Config{Root: d.config.Root, Dir: d.dir, Now: d.config.Now, Built: d.config.Built})
	if err != nil || again.Version() != version {
		t.Errorf("on disk the version is %d, not %d (%v)", again.Version(), version, err)
	}
}

func (v *vendor) folder() Folder { return Folder(v.dir) }

func TestPublishAndRead(t *testing.T) {
	v := newVendor(t)
	d := v.device(v.folder())
	if d.Version() != 0 || !d.Checked().IsZero() || !d.Expires().IsZero() {
		t.Error("a new device has a state")
	}
	if _, err := d.Locate("patches/aa"); fault.KindOf(err) != fault.Stale {
		t.Errorf("Locate without a state: %v", err)
	}
	v.publish(map[string]string{"patches/aa": "a patch", "releases/x.json": "{}"})
	d.refresh(t)
	if d.Version() != 2 || d.RootVersion() != 1 {
		t.Errorf("version %d, root %d", d.Version(), d.RootVersion())
	}
	if got, want := d.Expires(), v.now.Add(7*day); !got.Equal(want) {
		t.Errorf("expires %v, want %v", got, want)
	}
	for role, want := range map[string]Signed{Root: {3, 2, 3, nil}, Targets: {2, 2, 3, nil}, Recall: {2, 2, 2, nil}, Snapshot: {1, 1, 1, nil}, Timestamp: {1, 1, 1, nil}} {
		s, err := d.Signed(role)
		if err != nil || s.Valid != want.Valid || s.Threshold != want.Threshold || s.Keys != want.Keys || !s.Enough() || len(s.By) != s.Valid {
			t.Errorf("%s: signed %+v, %v", role, s, err)
		}
	}
	target, err := d.Locate("patches/aa")
	if err != nil || target.Length != 7 || target.SHA256 != sha256.Sum256([]byte("a patch")) {
		t.Fatalf("%+v, %v", target, err)
	}
	for offset := range int64(8) {
		body, err := d.Open(context.Background(), target, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(got) != "a patch"[offset:] {
			t.Errorf("from %d: %q, %v", offset, got, err)
		}
	}
	if _, err := d.Open(context.Background(), target, 8); err == nil {
		t.Error("opened past the end")
	}
	if _, err := d.Locate("patches/bb"); !errors.Is(err, ErrNoTarget) {
		t.Errorf("Locate of nothing: %v", err)
	}
}

func TestListsWorkOffline(t *testing.T) {
	v := newVendor(t)
	d := v.device(v.folder())
	d.refresh(t)
	if l, err := d.RecallList(context.Background()); err != nil || l.Version != 0 || len(l.Entries) != 0 {
		t.Errorf("first recall list: %+v, %v", l, err)
	}
	v.recall("SI-2026-0007")
	a, err := v.AdviceList("ExampleOS")
	v.must(err)
	v.must(v.PublishAdvice(a.With(release.Advice{
		Release: "SI-2026-0007", App: "reader", OSVersions: []string{}, AppVersions: []string{},
		Scope: release.ScopeMain, MinEvidence: 20, TextKey: "crash", Date: v.now,
	}), lists, v.now))
	r, err := v.Rollout("ExampleOS")
	v.must(err)
	v.must(v.PublishRollout(r.With(release.Ring{Release: "SI-2026-0007", Percent: 100, Salt: strings.Repeat("0", 32)}), lists, v.now))
	v.refresh()
	d.refresh(t)

	d.open(v, v.rootBytes(), nil) // restarted, no network
	recalls, err := d.RecallList(context.Background())
	if err != nil || len(recalls.Entries) != 1 || recalls.Version != 1 {
		t.Errorf("%+v, %v", recalls, err)
	}
	advice, err := d.AdviceList(context.Background())
	if err != nil || len(advice.Entries) != 1 {
		t.Errorf("%+v, %v", advice, err)
	}
	rings, err := d.Rollout(context.Background())
	if err != nil || !rings.Offers([32]byte{}, "SI-2026-0007") {
		t.Errorf("%+v, %v", rings, err)
	}
	if err := d.Refresh(context.Background()); fault.KindOf(err) != fault.Unreachable {
		t.Errorf("refresh without a server: %v", err)
	}
	// What has expired can still be read; it says when.
	d.now = d.now.AddDate(5, 0, 0)
	d.open(v, v.rootBytes(), nil)
	if _, err := d.RecallList(context.Background()); err != nil {
		t.Errorf("after five years: %v", err)
	}
	if !d.Expires().Before(d.now) {
		t.Error("an old state does not say that it has expired")
	}
}

// TestRolesKeepToTheirPaths lets each delegated role name files of others.
func TestRolesKeepToTheirPaths(t *testing.T) {
	v := newVendor(t)
	v.publish(map[string]string{"patches/aa": "the real one"})
	d, err := v.Draft(Rollout, v.now)
	v.must(err)
	for _, name := range []string{"patches/aa", "patches/bb", release.RecallPath, "rollout/deep/list.json"} {
		target, err := v.Store(name, strings.NewReader("planted"))
		v.must(err)
		v.must(d.Set(target))
	}
	_, err = d.Sign(lists...)
	v.must(err)
	v.must(v.Publish(d))
	v.refresh()
	dev := v.device(v.folder())
	dev.refresh(t)
	if target, err := dev.Locate("patches/aa"); err != nil || target.SHA256 != sha256.Sum256([]byte("the real one")) {
		t.Errorf("%+v, %v", target, err)
	}
	for _, name := range []string{"patches/bb", release.RecallPath, "rollout/deep/list.json"} {
		if _, err := dev.Locate(name); !errors.Is(err, ErrNoTarget) {
			t.Errorf("%s was found: %v", name, err)
		}
	}
}

func TestThresholds(t *testing.T) {
	v := newVendor(t)
	d, err := v.Draft(Targets, v.now)
	v.must(err)
	target, err := v.Store("patches/aa", strings.NewReader("x"))
	v.must(err)
	v.must(d.Set(target))
	refuse := func(what string) {
		t.Helper()
		if err := v.Publish(d); fault.KindOf(err) != fault.Refused {
			t.Errorf("%s: %v", what, err)
		}
	}
	refuse("unsigned")
	for _, signers := range [][]crypto.Signer{keys("root-a", "root-b"), keys("recall-a", "recall-b"), online, keys("stranger", "stranger2"), keys("targets-a", "targets-a")} {
		if _, err := d.Sign(signers...); err != nil {
			t.Fatal(err)
		}
		refuse(fmt.Sprint(len(signers), " wrong ones"))
	}
	// The second owner signs on another machine, which has only the draft.
	data, err := d.Encode()
	v.must(err)
	again, err := v.ReadDraft(Targets, data)
	v.must(err)
	added, removed := again.Changed()
	if len(added) != 1 || added[0].Path != "patches/aa" || len(removed) != 0 {
		t.Errorf("changed: %v, %v", added, removed)
	}
	if by, err := again.Sign(keys("targets-b", "root-a")...); err != nil || len(by) != 1 {
		t.Errorf("signed by %v, %v", by, err)
	}
	if s := again.Signed(); !s.Enough() || s.Valid != 2 {
		t.Errorf("%+v", s)
	}
	v.must(v.Publish(again))
	if err := v.Publish(again); fault.KindOf(err) != fault.Busy {
		t.Errorf("published twice: %v", err)
	}
	if _, err := v.ReadDraft(Targets, data); fault.KindOf(err) != fault.Usage {
		t.Errorf("an overtaken draft: %v", err)
	}
	// A change after signing voids the signatures.
	d, err = v.Draft(Targets, v.now)
	v.must(err)
	_, err = d.Sign(owners...)
	v.must(err)
	v.must(d.Set(target))
	refuse("changed after signing")
	_, err = d.Sign(owners...)
	v.must(err)
	d.Remove("patches/aa")
	refuse("removed after signing")
	if _, removed := d.Changed(); len(removed) != 1 {
		t.Errorf("removed: %v", removed)
	}
}

func TestCreateRefuses(t *testing.T) {
	all := append(append(append([]crypto.Signer{}, owners...), lists...), online...)
	bad := map[string]func(*Roles){
		"no keys":            func(r *Roles) { r.Root.Keys = nil },
		"threshold 0":        func(r *Roles) { r.Targets.Threshold = 0 },
		"threshold too high": func(r *Roles) { r.Recall.Threshold = 3 },
		"one key twice":      func(r *Roles) { r.Targets = role(2, "targets-a", "targets-a") },
		"keys not at hand":   func(r *Roles) { r.Targets = role(2, "targets-a", "elsewhere") },
	}
	for what, f := range bad {
		dir := t.TempDir()
		roles := testRoles()
		f(&roles)
		if _, err := Create(dir, roles, start, all...); err == nil {
			t.Errorf("%s: created", what)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "metadata", "*")); len(files) > 0 {
			t.Errorf("%s: left %v", what, files)
		}
	}
	v := newVendor(t)
	if _, err := Create(v.dir, testRoles(), start, all...); fault.KindOf(err) != fault.Usage {
		t.Errorf("created over a catalog: %v", err)
	}
	if _, err := OpenRepository(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened nothing: %v", err)
	}
	// Without the online keys there is a catalog that waits for them.
	r, err := Create(t.TempDir(), testRoles(), start, append(append([]crypto.Signer{}, owners...), lists...)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "metadata", "timestamp.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a timestamp without its key")
	}
	if st, err := r.Refresh(online, start); err != nil || st.Snapshot != 1 || !st.Changed {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestRefreshOnlyWhenNeeded(t *testing.T) {
	v := newVendor(t)
	if st := v.refresh(); st.Changed || st.Snapshot != 1 || st.Timestamp != 1 {
		t.Errorf("nothing new: %+v", st)
	}
	v.now = v.now.Add(3 * day)
	if st := v.refresh(); st.Changed {
		t.Errorf("after 3 days: %+v", st)
	}
	v.now = v.now.Add(day)
	if st := v.refresh(); !st.Changed || st.Snapshot != 1 || st.Timestamp != 2 {
		t.Errorf("after 4 days: %+v", st)
	}
	v.now = v.now.Add(4 * day)
	if st := v.refresh(); !st.Changed || st.Snapshot != 2 || st.Timestamp != 3 {
		t.Errorf("after 8 days: %+v", st)
	}
	v.recall("SI-2026-0001")
	if st := v.refresh(); st.Changed || st.Snapshot != 3 {
		t.Errorf("after a recall: %+v", st)
	}
	if _, err := v.Refresh(keys("stranger"), v.now); err != nil {
		t.Errorf("nothing to sign, and yet: %v", err)
	}
	v.now = v.now.Add(5 * day)
	if _, err := v.Refresh(keys("stranger"), v.now); fault.KindOf(err) != fault.Refused {
		t.Errorf("signed with a strange key: %v", err)
	}
}

// TestRefreshShowsNothingHalf copies a publication to a server in every order
// of its parts.
func TestRefreshShowsNothingHalf(t *testing.T) {
	v := newVendor(t)
	server := t.TempDir()
	copyTree(t, v.dir, server, "")
	v.publish(map[string]string{"patches/aa": "a patch", "images/bb": "an image"})
	r, err := OpenRepository(server)
	v.must(err)
	copyTree(t, v.dir, server, "targets.json") // metadata before content
	if _, err := r.Refresh(online, v.now); err == nil {
		t.Fatal("showed files that are not there")
	}
	for _, part := range []string{".aa", ".bb"} {
		if _, err := r.Refresh(online, v.now); err == nil {
			t.Fatal("showed files that are not there")
		}
		copyTree(t, v.dir, server, part)
	}
	if st, err := r.Refresh(online, v.now); err != nil || st.Snapshot != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	image, err := r.Target("images/bb")
	v.must(err)
	v.must(os.Truncate(filepath.Join(server, image.Remote), 3))
	if _, err := r.Refresh(online, v.now); fault.KindOf(err) != fault.Seal {
		t.Errorf("a short file: %v", err)
	}
}

func copyTree(t *testing.T, from, to, suffix string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(from, name)
		if err != nil || e.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(to, rel), 0o755))
		}
		if !strings.HasSuffix(name, suffix) {
			return nil
		}
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(filepath.Join(to, rel), data, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLostListIsNoEmptyList: a recall list whose bytes are gone must not be
// taken for a vendor who never recalled anything.
func TestLostListIsNoEmptyList(t *testing.T) {
	v := newVendor(t)
	v.recall("SI-2026-0007")
	target, err := v.Target(release.RecallPath)
	v.must(err)
	name := filepath.Join(v.dir, target.Remote)
	data, err := os.ReadFile(name)
	v.must(err)
	v.must(os.WriteFile(name, bytes.Replace(data, []byte("0007"), []byte("0008"), 1), 0o644))
	if _, err := v.RecallList("ExampleOS"); fault.KindOf(err) != fault.Seal {
		t.Errorf("a changed list: %v", err)
	}
	v.must(os.Remove(name))
	if l, err := v.RecallList("ExampleOS"); err == nil {
		t.Errorf("a lost list: %+v", l)
	}
}

// TestNoListIsLost: who changes a list that somebody else changed meanwhile is
// told so.
func TestNoListIsLost(t *testing.T) {
	v := newVendor(t)
	mine, err := v.RecallList("ExampleOS")
	v.must(err)
	v.recall("SI-2026-0001")
	mine = mine.With(release.Recall{Release: "SI-2026-0002", Reason: "mine", Date: v.now})
	if err := v.PublishRecall(mine, lists, v.now); fault.KindOf(err) != fault.Busy {
		t.Errorf("a list of old: %v", err)
	}
	now, err := v.RecallList("ExampleOS")
	v.must(err)
	if _, ok := now.Find("SI-2026-0001"); !ok {
		t.Error("the other recall is lost")
	}
}

func TestRolesAreRotated(t *testing.T) {
	v := newVendor(t)
	v.recall("SI-2026-0001")
	d := v.device(v.folder())
	d.refresh(t)

	// Recall gets another key: targets says so, the new key signs anew.
	draft, err := v.Draft(Targets, v.now)
	v.must(err)
	v.must(draft.Delegate(Recall, role(1, "recall-new")))
	_, err = draft.Sign(owners...)
	v.must(err)
	v.must(v.Publish(draft))
	if _, err := v.Refresh(online, v.now); err == nil {
		t.Error("the old recall keys still count")
	}
	draft, err = v.Draft(Recall, v.now)
	v.must(err)
	if by, err := draft.Sign(lists...); err != nil || len(by) != 0 {
		t.Errorf("the old recall keys still sign: %v, %v", by, err)
	}
	_, err = draft.Sign(keys("recall-new")...)
	v.must(err)
	v.must(v.Publish(draft))
	v.refresh()
	d.refresh(t)
	if l, err := d.RecallList(context.Background()); err != nil || len(l.Entries) != 1 {
		t.Errorf("%+v, %v", l, err)
	}

	// So does targets, by a new root.
	draft, err = v.DraftRoot(map[string]Role{Targets: role(1, "targets-new")}, v.now)
	v.must(err)
	_, err = draft.Sign(owners...)
	v.must(err)
	v.must(v.Publish(draft))
	draft, err = v.Draft(Targets, v.now)
	v.must(err)
	if by, err := draft.Sign(owners...); err != nil || len(by) != 0 {
		t.Errorf("the old targets keys still sign: %v, %v", by, err)
	}
	_, err = draft.Sign(keys("targets-new")...)
	v.must(err)
	v.must(v.Publish(draft))
	v.refresh()
	d.refresh(t)
	if d.RootVersion() != 2 {
		t.Errorf("root %d", d.RootVersion())
	}

	// And root itself, which needs the old owners and the new.
	draft, err = v.DraftRoot(map[string]Role{Root: role(2, "root-a", "root-x", "root-y")}, v.now)
	v.must(err)
	_, err = draft.Sign(keys("root-x", "root-y")...)
	v.must(err)
	if err := v.Publish(draft); fault.KindOf(err) != fault.Refused {
		t.Errorf("a root that the old owners did not sign: %v", err)
	}
	_, err = draft.Sign(keys("root-a")...)
	v.must(err)
	if s := draft.Signed(); s.Enough() {
		t.Errorf("%+v", s)
	}
	_, err = draft.Sign(keys("root-b")...)
	v.must(err)
	v.must(v.Publish(draft))
	v.refresh()
	d.refresh(t)
	if s, err := d.Signed(Root); err != nil || d.RootVersion() != 3 || !s.Enough() {
		t.Errorf("root %d, %+v, %v", d.RootVersion(), s, err)
	}
}
