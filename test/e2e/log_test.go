package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

// thief answers requests for tickets in place of the signing service, with its
// own leaf's key and for sets that are published; the server learns nothing.
func (v *vendor) thief() hostility {
	v.t.Helper()
	file, err := signing.OpenLeaf(v.world.LeafFile(), v.world.Root)
	v.must(err)
	leaf, err := file.Leaf(v.world.Now())
	v.must(err)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/tickets" {
			return false
		}
		var req struct{ Release, Nonce string }
		err := json.NewDecoder(r.Body).Decode(&req)
		id, iderr := identity.ParseID(r.Header.Get(identity.DeviceHeader))
		nonce, nerr := hex.DecodeString(req.Nonce)
		if err != nil || iderr != nil || nerr != nil {
			v.t.Error(err, iderr, nerr)
			return false
		}
		der, err := ticket.Issue(rand.Reader, leaf, v.claims(id, req.Release, [48]byte(nonce)))
		if err != nil {
			v.t.Error(err)
		}
		json.NewEncoder(w).Encode(map[string][]byte{"ticket": der})
		return true
	}
}

// claims are what a ticket for a published set says.
func (v *vendor) claims(id identity.ID, rel string, nonce [48]byte) ticket.Claims {
	v.t.Helper()
	view, err := v.node.Source.View(v.t.Context())
	v.must(err)
	set, ok := view.Set(servertest.Product, v.base.Digest(), rel)
	if !ok {
		v.t.Fatalf("%q is not published", rel)
	}
	return ticket.Claims{
		Device: id, Product: set.Product, Baseline: set.Baseline, Release: rel, Domain: ticket.Domain, Nonce: nonce, Cryptexes: set.Cryptexes,
	}
}

// otherLog is a log with the vendor's key that holds the sets of the given
// releases (0 is the baseline) and serves them at /log.
func (v *vendor) otherLog(releases ...int) *servertest.Node {
	v.t.Helper()
	n := v.world.Start(filepath.Join(v.t.TempDir(), "other.db"))
	view, err := n.Source.View(v.t.Context())
	v.must(err)
	for _, level := range releases {
		id := ""
		if level > 0 {
			id = servertest.ID(level)
		}
		set, ok := view.Set(servertest.Product, v.base.Digest(), id)
		if !ok {
			v.t.Fatalf("%q is not published", id)
		}
		v.must(n.SetLog.Include(v.t.Context(), set))
	}
	return n
}

// from answers what lies below a path from another server.
func from(n *servertest.Node, path string) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		n.Server.ServeHTTP(w, r)
		return true
	}
}

// only is a hostility for what lies below a path.
func only(path string, h hostility) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, path) && h(w, r)
	}
}

func wantRefusal(t *testing.T, err error, kind fault.Kind, words string) {
	t.Helper()
	wantKind(t, err, kind)
	if err != nil && !strings.Contains(err.Error(), words) {
		t.Errorf("%q does not say %q", err, words)
	}
}

// finding is what verify says of the log.
func (m *machine) finding() device.Finding {
	m.t.Helper()
	for _, f := range m.verify().Checks {
		if f.What == "log" {
			return f
		}
	}
	return device.Finding{}
}

func (m *machine) symptom() device.Symptom {
	m.t.Helper()
	g, err := m.open().Doctor(m.t.Context())
	m.v.must(err)
	for _, f := range g.Findings {
		if f.Code == "L1" {
			return f
		}
	}
	m.t.Error("doctor says nothing of the log")
	return device.Symptom{}
}

// TestThiefOutsideTheLog: who has the ticket leaf's key and signs for one
// device alone is refused, because the set is not in the public log.
func TestThiefOutsideTheLog(t *testing.T) {
	v := newVendor(t)
	m, unpinned := v.enrolled(""), v.enrolled("")
	v.release(1, 100)
	// The baseline's set was looked up when the device enrolled.
	if s := m.symptom(); s.Level != "ok" || !strings.Contains(s.Text, "1 sets when last proven") {
		t.Errorf("doctor at first: %+v", s)
	}
	if f := m.finding(); f.Level != "ok" {
		t.Errorf("verify at first: %+v", f)
	}
	before := m.snapshot()
	v.hostile(v.thief())
	_, err := m.install("")
	wantRefusal(t, err, fault.Refused, "public log does not have this set")
	if s := m.status(); s.State == device.StateStaged {
		t.Errorf("staged nevertheless: %+v", s)
	}
	if after := m.snapshot(); strings.Contains(after, "sets/SI-") || strings.Contains(after, "next sets/") != strings.Contains(before, "next sets/") {
		t.Errorf("something stayed:\n%s", after)
	}

	// A log of the thief's own, under the same name.
	stranger, err := signer.New(rand.Reader, signer.Ed25519)
	v.must(err)
	honest := v.world.LogKey
	v.world.LogKey = stranger
	own := v.otherLog(0, 1)
	v.world.LogKey = honest
	v.hostile(both(v.thief(), from(own, "/log/")))
	_, err = m.install("")
	wantRefusal(t, err, fault.Stale, "does not hold")

	// It is the log that stops the thief: an OS that pins none says so.
	v.must(os.Remove(filepath.Join(unpinned.root, "usr/lib/sealant/log-key.txt")))
	if s := unpinned.symptom(); s.Level != "warn" || !strings.Contains(s.Text, "no public log is pinned") {
		t.Errorf("doctor without a log: %+v", s)
	}
	if f := unpinned.finding(); f.What != "" {
		t.Errorf("verify without a log: %+v", f)
	}
	v.hostile(v.thief())
	if r, err := unpinned.install(""); err != nil || r.State != device.StateStaged {
		t.Errorf("without a log: %+v, %v", r, err)
	}

	v.hostile(nil)
	if r, err := m.install(""); err != nil || r.State != device.StateStaged {
		t.Fatalf("from the real server: %+v, %v", r, err)
	}
	if f := m.finding(); !f.OK || !strings.HasPrefix(f.Text, "ExampleOS, 2 sets") {
		t.Errorf("verify at the end: %+v", f)
	}
	if s := m.symptom(); s.Level != "ok" || !strings.Contains(s.Text, "2 sets") {
		t.Errorf("doctor at the end: %+v", s)
	}
}

// TestEnrolOutsideTheLog: nobody becomes a device of a server whose log does not
// have the baseline that it authorised.
func TestEnrolOutsideTheLog(t *testing.T) {
	v := newVendor(t)
	m := v.machine("")
	token := v.node.Token(1)
	v.hostile(refuse("/log/", 404, ""))
	_, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: token}, user, nil)
	wantRefusal(t, err, fault.Refused, "does not have this set")
	if _, err := m.open().Store.Enrolment(); err == nil {
		t.Error("enrolled nevertheless")
	}
	v.hostile(nil)
	if _, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: token}, user, nil); err != nil {
		t.Errorf("a moment later: %v", err)
	}
}

// TestLyingLog: whatever the log's server does, nothing is staged that is not
// proven, and a moment later everything goes on.
func TestLyingLog(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	v.release(1, 100)
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for _, c := range []struct {
		name  string
		lie   hostility
		kind  fault.Kind
		words string
	}{
		{"unreachable", only("/log/", hangUp), fault.Unreachable, "cannot reach the public log"},
		{"tiles unreachable", only("/log/tile/", hangUp), fault.Unreachable, "cannot reach the public log"},
		{"busy", refuse("/log/", 503, "busy"), fault.Busy, "can't be read at the moment"},
		{"a wall", refuse("/log/", 403, "refused"), fault.Unreachable, "403"},
		{"no log", refuse("/log/", 404, ""), fault.Refused, "does not have this set"},
		{"no tiles", refuse("/log/tile/", 404, ""), fault.Stale, "no longer has"},
		{"truncated tiles", v.rewrite("/log/tile/", cut), fault.Stale, "bytes instead of"},
		{"empty tiles", v.rewrite("/log/tile/", func([]byte) []byte { return nil }), fault.Stale, "bytes instead of"},
		{"endless tiles", v.rewrite("/log/tile/", func([]byte) []byte { return make([]byte, 1<<20) }), fault.Stale, "more than"},
		{"changed tiles", v.rewrite("/log/tile/", flipped), fault.Stale, "does not hold"},
		{"truncated answer", v.rewrite("/log/lookup/", cut), fault.Stale, "does not hold"},
		{"changed answer", v.rewrite("/log/lookup/", flipped), fault.Stale, "does not hold"},
		{"empty answer", v.rewrite("/log/lookup/", func([]byte) []byte { return nil }), fault.Stale, "does not hold"},
		{"absent", from(v.otherLog(0), "/log/"), fault.Refused, "does not have this set"},
	} {
		v.hostile(c.lie)
		_, err := m.install("")
		t.Logf("%s: %v", c.name, err)
		wantRefusal(t, err, c.kind, c.words)
		if s := m.snapshot(); strings.Contains(s, "sets/SI-") || strings.Contains(s, "journal/") {
			t.Errorf("%s: something stayed:\n%s", c.name, s)
		}
	}
	v.hostile(nil)
	if r, err := m.install(""); err != nil || r.State != device.StateStaged {
		t.Fatalf("%+v, %v", r, err)
	}
	m.boot()
	if m.level("web") != 1 {
		t.Errorf("level %d", m.level("web"))
	}
}

// TestForkedLog: a log that the right key signed, but that is not the one the
// device saw before.
func TestForkedLog(t *testing.T) {
	v := newVendor(t)
	m, other := v.enrolled(""), v.enrolled("")
	v.release(1, 100)
	if _, err := m.install(""); err != nil { // sees the baseline and 1
		t.Fatal(err)
	}
	m.boot()
	v.release(2, 100)

	v.hostile(from(v.otherLog(0, 2), "/log/")) // as long as what was seen
	_, err := m.install("")
	wantRefusal(t, err, fault.Stale, "different histories")
	v.hostile(from(v.otherLog(2, 0, 1), "/log/")) // longer
	_, err = m.install("")
	wantRefusal(t, err, fault.Stale, "different histories")
	if s := m.status(); s.State == device.StateStaged {
		t.Errorf("staged nevertheless: %+v", s)
	}
	// Both heads are kept, and shown.
	if f := m.finding(); f.OK || f.Code != fault.Stale.String() || !strings.Contains(f.Text, "heads of 2 and 3 sets") {
		t.Errorf("verify: %+v", f)
	}
	if s := m.symptom(); s.Level != "bad" {
		t.Errorf("doctor: %+v", s)
	}
	var kept struct{ Head, Fork string }
	data, err := os.ReadFile(filepath.Join(m.root, "var/lib/sealant/log.json"))
	v.must(err)
	v.must(json.Unmarshal(data, &kept))
	for _, head := range []string{kept.Head, kept.Fork} {
		if !strings.Contains(head, "— ExampleOS ") {
			t.Errorf("kept without a signature: %q", head)
		}
	}

	// A device that saw no more than the baseline's record can't know what comes
	// after it; it remembers what it is shown.
	v.hostile(from(v.otherLog(2, 0), "/log/"))
	_, err = other.install("")
	wantRefusal(t, err, fault.Stale, "different histories")
	v.hostile(from(v.otherLog(0, 2), "/log/"))
	if r, err := other.install(""); err != nil || r.State != device.StateStaged {
		t.Errorf("%+v, %v", r, err)
	}
	v.hostile(nil)
	if _, err := m.install(""); err != nil {
		t.Errorf("from the real log: %v", err)
	}
	other.boot()
	v.release(3, 100)
	_, err = other.install("")
	wantRefusal(t, err, fault.Stale, "different histories")
}

// TestRewoundLog: an older state of the log is no proof that nothing was taken
// away, and what the device saw does not go back.
func TestRewoundLog(t *testing.T) {
	v := newVendor(t)
	m, other := v.enrolled(""), v.enrolled("")
	v.release(1, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	v.release(2, 100)
	if _, err := other.install(""); err != nil { // the real log has 3 sets now
		t.Fatal(err)
	}
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	remove := func() {
		t.Helper()
		if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil {
			t.Fatal(err)
		}
		m.boot()
	}
	reapply := func() error {
		_, err := m.open().Reapply(t.Context(), device.ReapplyOptions{}, user, m.log)
		return err
	}
	remove()

	v.hostile(from(v.otherLog(0, 1), "/log/"))
	wantRefusal(t, reapply(), fault.Refused, "does not have this set")
	v.hostile(from(v.otherLog(2), "/log/"))
	wantRefusal(t, reapply(), fault.Stale, "no longer has")
	if f := m.finding(); !f.OK || !strings.Contains(f.Text, "3 sets") {
		t.Errorf("the head went back: %+v", f)
	}
	v.hostile(nil)
	if err := reapply(); err != nil {
		t.Errorf("from the real log: %v", err)
	}
}

// TestLogState: what the device keeps is read strictly, and another key begins
// anew.
func TestLogState(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	seen := v.enrolled("")
	if _, err := seen.install(""); err != nil {
		t.Fatal(err)
	}
	file := "var/lib/sealant/log.json"
	good, err := os.ReadFile(filepath.Join(seen.root, file))
	v.must(err)
	m := v.enrolled("")
	for name, text := range map[string]string{
		"empty":           "",
		"cut":             string(good[:len(good)/2]),
		"a further field": strings.Replace(string(good), `"key"`, `"more": 1, "key"`, 1),
		"another version": strings.Replace(string(good), "sealant.log/1", "sealant.log/2", 1),
		"a larger head":   strings.Replace(string(good), `tree\n2\n`, `tree\n9\n`, 1),
		"a forged fork":   strings.Replace(string(good), `"head"`, `"fork": "x", "head"`, 1),
		"bytes after it":  string(good) + "{}",
	} {
		if text == string(good) {
			t.Fatalf("%s: nothing was changed in %s", name, good)
		}
		v.must(os.WriteFile(filepath.Join(m.root, file), []byte(text), 0o644))
		_, err := m.install("")
		wantRefusal(t, err, fault.Stale, "what this device saw")
		if f := m.finding(); f.OK {
			t.Errorf("%s: %+v", name, f)
		}
	}
	// A broken key in the OS image stops installing rather than the check.
	v.must(os.WriteFile(filepath.Join(m.root, file), good, 0o644))
	pinned := filepath.Join(m.root, "usr/lib/sealant/log-key.txt")
	key, err := os.ReadFile(pinned)
	v.must(err)
	for _, bad := range []string{"", "\n", string(key[:len(key)-1]), string(key) + string(key), "ExampleOS+00000000+" + string(key[len(key)-45:]), strings.Repeat("x", 2000)} {
		v.must(os.WriteFile(pinned, []byte(bad), 0o644))
		_, err := m.install("")
		wantRefusal(t, err, fault.Stale, "cannot check the public log")
	}
	// The vendor replaced the log: the OS image pins another key.
	fresh, err := signer.New(rand.Reader, signer.Ed25519)
	v.must(err)
	s, err := setlog.NewSigner(servertest.Product, fresh)
	v.must(err)
	v.must(os.WriteFile(pinned, []byte(s.Key()+"\n"), 0o644))
	v.world.LogKey = fresh
	v.hostile(from(v.otherLog(1), "/log/"))
	if r, err := m.install(""); err != nil || r.State != device.StateStaged {
		t.Fatalf("%+v, %v", r, err)
	}
	if f := m.finding(); !f.OK || !strings.Contains(f.Text, "1 sets") {
		t.Errorf("%+v", f)
	}
}
