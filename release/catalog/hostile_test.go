package catalog

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// hostile is a server that shows whatever it likes: the files of a folder as
// they were when it looked, with any of them replaced.
type hostile struct {
	mu     sync.Mutex
	files  map[string][]byte
	broken func(name string, data []byte) (io.Reader, error) // nil: honest
	read   int64                                             // bytes that clients took
	asked  map[string]bool                                   // files that clients asked for
}

// look copies what a vendor shows now.
func look(t *testing.T, v *vendor) *hostile {
	t.Helper()
	h := &hostile{files: map[string][]byte{}}
	err := filepath.WalkDir(v.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(v.dir, name)
		h.files[filepath.ToSlash(rel)], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Fetch implements Fetcher.
func (h *hostile) Fetch(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked == nil {
		h.asked = map[string]bool{}
	}
	h.asked[name] = true
	data, ok := h.files[name]
	var r io.Reader = bytes.NewReader(data)
	if h.broken != nil {
		var err error
		if r, err = h.broken(name, data); err != nil {
			return nil, err
		}
		ok = ok || r != nil
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, err
	}
	return io.NopCloser(io.TeeReader(r, counter{h})), nil
}

type counter struct{ h *hostile }

func (c counter) Write(p []byte) (int, error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.read += int64(len(p))
	return len(p), nil
}

// replace shows other bytes for one file.
func (h *hostile) replace(file string, other []byte) {
	h.files[file] = other
}

// serve changes what a device fetches from.
func (d *device) serve(f Fetcher) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remote = f
}

// history makes a vendor with three states and a device that knows the second.
func history(t *testing.T) (v *vendor, states []*hostile, d *device) {
	t.Helper()
	v = newVendor(t)
	v.publish(map[string]string{"patches/one": "1"})
	states = append(states, look(t, v))
	v.recall("SI-2026-0001")
	states = append(states, look(t, v))
	d = v.device(states[1])
	d.refresh(t)
	v.publish(map[string]string{"patches/two": "2"})
	v.recall("SI-2026-0002")
	return v, append(states, look(t, v)), d
}

func TestRollback(t *testing.T) {
	_, states, d := history(t)
	d.serve(states[0])
	d.refused(t, fault.Stale, "timestamp", "older than what this device has seen", "operator")
	d.serve(states[2])
	d.refresh(t)
	for _, old := range states[:2] {
		d.serve(old)
		d.refused(t, fault.Stale, "older")
	}
	// After a restart as well.
	d.open(&vendor{t: t}, d.config.Root, states[0])
	d.refused(t, fault.Stale, "older")
}

func TestFreeze(t *testing.T) {
	v, states, d := history(t)
	d.now = d.now.Add(6 * day)
	d.refresh(t) // an old state that is still valid
	d.now = d.now.Add(2 * day)
	d.refused(t, fault.Stale, "timestamp metadata has expired", "this device's clock says 2026-12-01 12:00 UTC")
	d.serve(states[2])
	d.refused(t, fault.Stale, "timestamp metadata has expired")
	v.now = d.now
	v.refresh()
	d.serve(v.folder())
	d.refresh(t)
}

// TestExpiry lets each role alone expire.
func TestExpiry(t *testing.T) {
	for _, role := range []string{Root, Targets, Recall, Advice, Rollout, Snapshot, Timestamp} {
		v := newVendor(t)
		// Sign this one role for an hour, everything else for long.
		v.Lifetimes = Lifetimes{Root: 9e3 * day, Targets: 9e3 * day, Recall: 9e3 * day, Advice: 9e3 * day, Rollout: 9e3 * day, Snapshot: 9e3 * day, Timestamp: 9e3 * day}
		v.Lifetimes[role] = time.Hour
		all := slices.Concat(owners, lists, online)
		draft, err := v.DraftRoot(nil, v.now)
		v.must(err)
		_, err = draft.Sign(all...)
		v.must(err)
		v.must(v.Publish(draft))
		for _, r := range []string{Targets, Recall, Advice, Rollout} {
			draft, err := v.Draft(r, v.now)
			v.must(err)
			_, err = draft.Sign(all...)
			v.must(err)
			v.must(v.Publish(draft))
		}
		v.must(os.Remove(v.metadata("timestamp.json")))
		v.must(os.Remove(v.metadata("1.snapshot.json")))
		v.refresh()
		d := v.device(v.folder())
		d.refresh(t)
		if !d.Expires().Equal(v.now.Add(time.Hour)) {
			t.Errorf("%s: the state expires %v", role, d.Expires())
		}
		d.now = d.now.Add(2 * time.Hour)
		d.refused(t, fault.Stale, role, "expired", "clock says 2026-11-23 14:00 UTC")
		// A new device is refused as well.
		fresh := &device{dir: t.TempDir(), now: d.now}
		fresh.open(v, v.rootBytes(), v.folder())
		fresh.refused(t, fault.Stale, role, "expired")
	}
}

// TestMixAndMatch shows every file of one state under the name that another
// state's metadata asks for.
func TestMixAndMatch(t *testing.T) {
	v, states, _ := history(t)
	now := states[2]
	roles := []string{"snapshot", "targets", "recall", "advice", "rollout"}
	newest := func(role string) string {
		n, err := v.latest(role)
		v.must(err)
		return "metadata/" + metadataName(role, n)
	}
	for _, asked := range roles {
		for _, given := range roles {
			for _, state := range states {
				for name, data := range state.files {
					if !strings.HasSuffix(name, "."+given+".json") || bytes.Equal(data, now.files[newest(asked)]) {
						continue
					}
					h := look(t, v)
					h.replace(newest(asked), data)
					d := v.device(h)
					d.refused(t, fault.Stale)
				}
			}
		}
	}
}

func TestEndlessData(t *testing.T) {
	v, states, d := history(t)
	for name := range states[2].files {
		h := look(t, v)
		h.broken = func(asked string, data []byte) (io.Reader, error) {
			if asked != name {
				return bytes.NewReader(data), nil
			}
			return io.MultiReader(bytes.NewReader(data), zeros{}), nil
		}
		fresh := v.device(h)
		err := fresh.Refresh(context.Background())
		if h.read > 18<<20 {
			t.Errorf("%s: %d bytes were read", name, h.read)
		}
		if err != nil && fault.KindOf(err) != fault.Stale {
			t.Errorf("%s: %v", name, err)
		}
		used := strings.HasPrefix(name, "metadata/") && !strings.HasPrefix(name, "metadata/1.root")
		if used && err == nil {
			n, _ := v.latest(Recall)
			if strings.Contains(name, metadataName(Recall, n)) {
				t.Errorf("%s: endless, and accepted", name)
			}
		}
	}
	// Roots that never end, one after the other.
	endless := look(t, v)
	endless.broken = func(asked string, data []byte) (io.Reader, error) {
		if strings.HasSuffix(asked, ".root.json") {
			return zeros{}, nil
		}
		return bytes.NewReader(data), nil
	}
	d.serve(endless)
	d.refused(t, fault.Stale, "more than")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestWrongContent(t *testing.T) {
	v, _, d := history(t)
	target, err := v.Target(release.RecallPath)
	v.must(err)
	h := look(t, v)
	good := h.files[target.Remote]
	for what, bad := range map[string][]byte{
		"changed": bytes.Replace(good, []byte("0002"), []byte("0003"), 1),
		"shorter": good[:len(good)-1],
		"longer":  append(bytes.Clone(good), '\n'),
		"empty":   {},
	} {
		h.replace(target.Remote, bad)
		d.serve(h)
		d.refused(t, fault.Stale, "list.json")
		if l, err := d.RecallList(context.Background()); err != nil || len(l.Entries) != 1 {
			t.Errorf("%s: the old list is gone: %+v, %v", what, l, err)
		}
	}
	delete(h.files, target.Remote)
	d.refused(t, fault.Unreachable, "incomplete")
}

// TestForeignKeys has a thief who holds some of the keys sign what he likes.
func TestForeignKeys(t *testing.T) {
	all := slices.Concat(owners, lists, online)
	thief := keys("thief-1", "thief-2")
	for what, stolen := range map[string][]crypto.Signer{
		"nothing":               thief,
		"the online keys":       append(keys("snapshot", "timestamp", "rollout"), thief...),
		"one owner's keys":      append(keys("root-a", "targets-a", "snapshot", "timestamp"), thief...),
		"recall's, half":        append(keys("recall-a", "snapshot", "timestamp"), thief...),
		"advice's and rollouts": append(keys("advice", "rollout", "snapshot", "timestamp"), thief...),
	} {
		v := newVendor(t)
		d := v.device(v.folder())
		d.refresh(t)
		for _, role := range []string{Root, Targets, Recall} {
			h := look(t, v)
			forge(t, v, h, role, stolen)
			d.serve(h)
			d.refused(t, fault.Stale)
			v.device(h).refused(t, fault.Stale)
			if t.Failed() {
				t.Fatalf("with %s, as %s", what, role)
			}
		}
	}
	// The forger himself is sound: with all the keys it is believed.
	v := newVendor(t)
	d := v.device(nil)
	for _, role := range []string{Root, Targets, Recall} {
		h := look(t, v)
		forge(t, v, h, role, all)
		d.serve(h)
		d.refresh(t)
	}
}

// forge adds version 2 of a role and the snapshot and timestamp that name it,
// signed by whoever can.
func forge(t *testing.T, v *vendor, h *hostile, role string, signers []crypto.Signer) {
	t.Helper()
	root, err := v.root()
	v.must(err)
	var data []byte
	if role == Root {
		root.Signed.Version = 2
		root.ClearSignatures()
		_, err = sign(root, idsOf(t, signers), signers)
		v.must(err)
		data, err = root.ToBytes(false)
		v.must(err)
		h.replace("metadata/2.root.json", data)
		return
	}
	m, _, err := v.targets(role)
	v.must(err)
	m.Signed.Version = 2
	m.ClearSignatures()
	_, err = sign(m, idsOf(t, signers), signers)
	v.must(err)
	data, err = m.ToBytes(false)
	v.must(err)
	h.replace("metadata/2."+role+".json", data)
	var snapshot metadata.Metadata[metadata.SnapshotType]
	v.must(json.Unmarshal(h.files["metadata/1.snapshot.json"], &snapshot))
	snapshot.Signed.Version = 2
	snapshot.Signed.Meta[role+".json"] = metaFile(2, data)
	snapshot.ClearSignatures()
	_, err = sign(&snapshot, idsOf(t, signers), signers)
	v.must(err)
	data, err = snapshot.ToBytes(false)
	v.must(err)
	h.replace("metadata/2.snapshot.json", data)
	var stamp metadata.Metadata[metadata.TimestampType]
	v.must(json.Unmarshal(h.files["metadata/timestamp.json"], &stamp))
	stamp.Signed.Version = 2
	stamp.Signed.Meta["snapshot.json"] = metaFile(2, data)
	stamp.ClearSignatures()
	_, err = sign(&stamp, idsOf(t, signers), signers)
	v.must(err)
	data, err = stamp.ToBytes(false)
	v.must(err)
	h.replace("metadata/timestamp.json", data)
}

// idsOf lets a thief sign with any key he has.
func idsOf(t *testing.T, signers []crypto.Signer) []string {
	t.Helper()
	var ids []string
	for _, s := range signers {
		id, err := KeyID(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// TestSignaturesAreCountedOnce takes signatures away, repeats them and renames
// them: two owners stay two.
func TestSignaturesAreCountedOnce(t *testing.T) {
	v := newVendor(t)
	data, err := v.Metadata(Targets)
	v.must(err)
	var m metadata.Metadata[metadata.TargetsType]
	v.must(json.Unmarshal(data, &m))
	a, b := m.Signatures[0], m.Signatures[1]
	for what, sigs := range map[string][]metadata.Signature{
		"none": {}, "one": {a}, "one twice": {a, a}, "one under two names": {a, {KeyID: b.KeyID, Signature: a.Signature}},
		"one in other case": {a, {KeyID: strings.ToUpper(a.KeyID), Signature: a.Signature}},
	} {
		m.Signatures = sigs
		h := look(t, v)
		changed, err := m.ToBytes(false)
		v.must(err)
		h.replace("metadata/1.targets.json", changed)
		// The thief has the online keys and makes the rest fit.
		refit(t, v, h, Targets, changed)
		v.device(h).refused(t, fault.Stale, "targets")
		if t.Failed() {
			t.Fatal(what)
		}
	}
}

// refit signs snapshot and timestamp for changed metadata with the online keys.
func refit(t *testing.T, v *vendor, h *hostile, role string, data []byte) {
	t.Helper()
	var snapshot metadata.Metadata[metadata.SnapshotType]
	v.must(json.Unmarshal(h.files["metadata/1.snapshot.json"], &snapshot))
	snapshot.Signed.Meta[role+".json"] = metaFile(1, data)
	snapshot.ClearSignatures()
	_, err := sign(&snapshot, idsOf(t, online), online)
	v.must(err)
	data, err = snapshot.ToBytes(false)
	v.must(err)
	h.replace("metadata/1.snapshot.json", data)
	stamp(t, v, h, 1, metaFile(1, data))
}

// TestAnyBitFlip flips bits of everything that is served: it is refused, or it
// was in a part that says nothing (a signature more than needed).
func TestAnyBitFlip(t *testing.T) {
	v, states, _ := history(t)
	step := 3
	if testing.Short() {
		step = 13
	}
	honest := v.device(states[2])
	honest.refresh(t)
	dir := t.TempDir()
	want, err := honest.Locate("patches/two")
	v.must(err)
	for name, data := range states[2].files {
		if !states[2].asked[name] {
			continue
		}
		for i := 0; i < len(data); i += step {
			flipped := bytes.Clone(data)
			flipped[i] ^= 1 << (i % 7)
			h := &hostile{files: maps.Clone(states[2].files)}
			h.replace(name, flipped)
			d := &device{dir: filepath.Join(dir, fmt.Sprint(filepath.Base(name), i)), now: v.now}
			d.open(v, states[2].files["metadata/1.root.json"], h)
			if err := d.Refresh(context.Background()); err != nil {
				if k := fault.KindOf(err); k != fault.Stale && k != fault.Unreachable {
					t.Fatalf("%s, byte %d: %v", name, i, err)
				}
				continue
			}
			got, err := d.Locate("patches/two")
			if err != nil || got.SHA256 != want.SHA256 || got.Length != want.Length {
				t.Fatalf("%s, byte %d: accepted another catalog: %+v, %v", name, i, got, err)
			}
			os.RemoveAll(d.dir)
		}
	}
}

func TestServersThatDoNotAnswer(t *testing.T) {
	v, states, d := history(t)
	for what, tt := range map[string]struct {
		err  error
		kind fault.Kind
	}{
		"no network": {fault.New(fault.Unreachable, "no route to host"), fault.Unreachable},
		"busy":       {fault.New(fault.Busy, "503"), fault.Busy},
		"other":      {errors.New("something"), fault.Unreachable},
	} {
		for name := range states[2].files {
			if !strings.HasPrefix(name, "metadata/") && !strings.Contains(name, "list.json") {
				continue
			}
			h := look(t, v)
			asked := false
			h.broken = func(n string, data []byte) (io.Reader, error) {
				if n != name {
					if data == nil {
						return nil, fs.ErrNotExist
					}
					return bytes.NewReader(data), nil
				}
				asked = true
				return nil, tt.err
			}
			d.serve(h)
			before := d.Version()
			err := d.Refresh(context.Background())
			if !asked {
				continue
			}
			if fault.KindOf(err) != tt.kind || err == nil {
				t.Errorf("%s, %s: %v", what, name, err)
			}
			if d.Version() != before {
				t.Errorf("%s, %s: the state moved", what, name)
			}
		}
	}
	// A portal that answers everything with its own page.
	portal := &hostile{files: map[string][]byte{}, broken: func(string, []byte) (io.Reader, error) {
		return strings.NewReader("<html>Welcome to our wireless network</html>"), nil
	}}
	d.serve(portal)
	d.refused(t, fault.Stale, "root")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d.serve(Folder(v.dir))
	if err := d.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
