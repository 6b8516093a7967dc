package publish

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/signer"
)

var day = 24 * time.Hour

// desk is a vendor at work.
type desk struct {
	*Vendor
	t     *testing.T
	clock time.Time
	base  release.Baseline
	old   string // the baseline's image
}

func open(t *testing.T) Opener {
	t.Helper()
	return func(file string) (crypto.Signer, error) {
		k, err := readKey(file)
		if err != nil {
			return nil, err
		}
		return k.Unlock([]byte("a passphrase"))
	}
}

func newDesk(t *testing.T, owners ...string) *desk {
	t.Helper()
	d := &desk{t: t, clock: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	var err error
	d.Vendor, err = Init(filepath.Join(t.TempDir(), "vendor"), Setup{
		Product: "ExampleOS", OSVersion: "42.3.0", Owners: owners, Throwaway: true, Now: func() time.Time { return d.clock },
	})
	d.must(err)
	d.old = base.build(t, "web")
	var b *Bundle
	d.base, b, err = d.PrepareBaseline(context.Background(), []string{d.old}, "", nil)
	d.must(err)
	d.sign(b)
	return d
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// sign has every owner sign, and publishes.
func (d *desk) sign(b *Bundle) Published {
	d.t.Helper()
	signers, err := d.Signers(nil, open(d.t))
	d.must(err)
	_, err = b.Sign(signers...)
	d.must(err)
	p, err := d.Publish(b)
	d.must(err)
	return p
}

func (d *desk) order(id, image string) Order {
	return Order{
		ID: id, Baseline: d.base.Digest(), Severity: "high", Title: "Web content could run code",
		Cryptexes: []Pair{{Name: "web", Old: d.old, New: image}},
		CVEs:      []release.CVE{{ID: "CVE-2026-1101", Text: "code could run", Exploited: true}},
	}
}

func (d *desk) prepare(o Order) (*Account, *Bundle) {
	d.t.Helper()
	a, b, err := d.Prepare(context.Background(), o, nil)
	d.must(err)
	return a, b
}

func (d *desk) refuse(what string, kind fault.Kind, o Order, says string) {
	d.t.Helper()
	_, _, err := d.Prepare(context.Background(), o, nil)
	if err == nil {
		d.t.Fatalf("%s: accepted", what)
	}
	if fault.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		d.t.Errorf("%s: %v (%v), want %v and %q", what, err, fault.KindOf(err), kind, says)
	}
	if left, _ := filepath.Glob(d.path(preparedName, "*")); len(left) > 0 {
		d.t.Errorf("%s: left %v", what, left)
	}
}

// TestJourney publishes (a) and (b), and takes a device's way through what was
// published: patch, antipatch, shortcut, whole image.
func TestJourney(t *testing.T) {
	d := newDesk(t)
	account, bundle := d.prepare(d.order("SI-2026-0001", fixed.build(t, "web")))
	if account.Cryptexes[0].Patch == 0 || account.Cryptexes[0].Antipatch == 0 || account.Cryptexes[0].Shortcut != 0 {
		t.Errorf("%+v", account.Cryptexes[0])
	}
	c := account.Cryptexes[0].Comparison
	if len(c.Findings) != 0 || len(c.Files) != 1 || c.Exports != (Exports{Same: 2}) || c.Files[0].Build == nil || c.Files[0].Build.After != "41fa" {
		t.Errorf("%+v", c)
	}
	if p := d.sign(bundle); !p.Shown || p.Version != 3 {
		t.Errorf("%+v", p)
	}
	if left, _ := filepath.Glob(d.path(preparedName, "*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}

	d.clock = d.clock.Add(day)
	better := fixed.with(tree{"usr/bin/browser": {content: "#!/bin/sh\nexec libweb --safe\n", mode: 0o755}})
	o := d.order("SI-2026-0002", better.build(t, "web"))
	o.Previous, o.CVEs = "SI-2026-0001", []release.CVE{{ID: "CVE-2026-1142", Text: "more"}, {ID: "CVE-2026-1101", Credit: "A. Finder"}}
	_, bundle = d.prepare(o)
	d.sign(bundle)

	client, err := catalog.New(catalog.Config{Root: bundle.root, Dir: t.TempDir(), Remote: catalog.Folder(d.path(repoName)), Now: func() time.Time { return d.clock }})
	d.must(err)
	d.must(client.Refresh(context.Background()))
	all, err := client.Manifests(context.Background(), d.base.Digest())
	d.must(err)
	if len(all) != 2 || all[0].Label() != "(a)" || all[1].Label() != "(b)" {
		t.Fatalf("%+v", all)
	}
	m := all[1]
	if len(m.CVEs) != 2 || m.CVEs[0].Since != "SI-2026-0001" || m.CVEs[0].Credit != "A. Finder" || !m.CVEs[0].Exploited || m.CVEs[1].Since != m.ID {
		t.Errorf("%+v", m.CVEs)
	}
	change := m.Cryptexes[0]
	if change.Shortcut == nil || *change.PreviousDigest != all[0].Cryptexes[0].To.Digest {
		t.Errorf("no shortcut: %+v", change)
	}
	fetch := func(path string) []byte {
		target, err := client.Locate(path)
		d.must(err)
		body, err := client.Open(context.Background(), target, 0)
		d.must(err)
		defer body.Close()
		data, err := io.ReadAll(body)
		d.must(err)
		return data
	}
	whole := fetch(release.ImagePath(change.To.Digest))
	baseline := fetch(release.ImagePath(change.From.Digest))
	before := fetch(release.ImagePath(*change.PreviousDigest))
	for what, tt := range map[string]struct {
		from, to []byte
		file     release.File
	}{
		"patch": {baseline, whole, change.Patch}, "antipatch": {whole, baseline, change.Antipatch}, "shortcut": {before, whole, *change.Shortcut},
	} {
		p := fetch(release.PatchPath(tt.file.Digest))
		if release.DigestOf(p) != tt.file.Digest || int64(len(p)) != tt.file.Size {
			t.Errorf("%s: not the file that the manifest names", what)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		d.must(err)
		_, err = patch.Apply(out, bytes.NewReader(tt.from), bytes.NewReader(p), patch.ApplyOptions{})
		d.must(err)
		got, err := os.ReadFile(out.Name())
		d.must(err)
		if !bytes.Equal(got, tt.to) {
			t.Errorf("%s leads elsewhere", what)
		}
	}
	set, err := m.Set(d.base)
	d.must(err)
	if len(set) != 1 || set[0].Digest != release.DigestOf(whole) {
		t.Errorf("set %+v", set)
	}
}

func TestOrdersAreChecked(t *testing.T) {
	d := newDesk(t)
	good := fixed.build(t, "web")
	o := d.order("SI-2026-0001", good)
	bad := func(f func(*Order)) Order {
		b := o
		b.Cryptexes = slices.Clone(o.Cryptexes)
		f(&b)
		return b
	}
	ctx := context.Background()
	garbage := filepath.Join(t.TempDir(), "garbage")
	d.must(os.WriteFile(garbage, bytes.Repeat([]byte("x"), 9000), 0o644))
	flipped := filepath.Join(t.TempDir(), "flipped")
	data, err := os.ReadFile(good)
	d.must(err)
	data[5000] ^= 1
	d.must(os.WriteFile(flipped, data, 0o644))
	for what, tt := range map[string]struct {
		order Order
		kind  fault.Kind
		says  string
	}{
		"id":               {bad(func(o *Order) { o.ID = "SI-1" }), fault.Usage, "SI-1"},
		"no cryptex":       {bad(func(o *Order) { o.Cryptexes = nil }), fault.Usage, "no cryptex"},
		"unknown cryptex":  {bad(func(o *Order) { o.Cryptexes[0].Name = "mail" }), fault.Usage, "mail"},
		"unknown baseline": {bad(func(o *Order) { o.Baseline[0]++ }), fault.Usage, "baseline"},
		"unknown code":     {bad(func(o *Order) { o.Acknowledge = []string{"everything"} }), fault.Usage, "everything"},
		"severity":         {bad(func(o *Order) { o.Severity = "grave" }), fault.Failed, "severity"},
		"previous":         {bad(func(o *Order) { o.Previous = "SI-2026-0000" }), fault.Usage, "SI-2026-0000"},
		"level":            {bad(func(o *Order) { o.Level = 2 }), fault.Usage, "level 2"},
		"CVE twice":        {bad(func(o *Order) { o.CVEs = append(o.CVEs, o.CVEs[0]) }), fault.Usage, "twice"},
		"missing file":     {bad(func(o *Order) { o.Cryptexes[0].New = "/nowhere" }), fault.Usage, "/nowhere"},
		"a folder":         {bad(func(o *Order) { o.Cryptexes[0].New = "/" }), fault.Usage, "regular"},
		"no image":         {bad(func(o *Order) { o.Cryptexes[0].New = garbage }), fault.Seal, "new image"},
		"flipped bit":      {bad(func(o *Order) { o.Cryptexes[0].New = flipped }), fault.Seal, "new image"},
		"other old image":  {bad(func(o *Order) { o.Cryptexes[0].Old = good }), fault.Seal, "not the baseline's"},
		"the same image":   {bad(func(o *Order) { o.Cryptexes[0].New = d.old }), fault.Usage, "same"},
		"other name":       {bad(func(o *Order) { o.Cryptexes[0].New = fixed.build(t, "mail") }), fault.Usage, "mail"},
	} {
		d.refuse(what, tt.kind, tt.order, tt.says)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := d.Prepare(cancelled, o, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_, b := d.prepare(o)
	d.sign(b)
	d.refuse("published already", fault.Usage, o, "already")
	next := d.order("SI-2026-0002", fixed.with(tree{"usr/bin/browser": {content: "#!/bin/sh\n", mode: 0o755}}).build(t, "web"))
	d.refuse("without the previous", fault.Usage, next, "must be named")
	next.Previous, next.Level = "SI-2026-0001", 1
	d.refuse("level taken", fault.Usage, next, "taken")

	repo, err := d.Repository()
	d.must(err)
	l, err := repo.RecallList("ExampleOS")
	d.must(err)
	key, err := readKey(d.path(keysName, "recall.key"))
	d.must(err)
	recall, err := key.Unlock(nil)
	d.must(err)
	d.must(repo.PublishRecall(l.With(release.Recall{Release: "SI-2026-0001", Reason: "it broke", Date: d.clock}), []crypto.Signer{recall}, d.clock))
	next.Level = 0
	d.refuse("previous was recalled", fault.Usage, next, "it broke")
}

// TestThreshold sends a bundle round three owners' machines.
func TestThreshold(t *testing.T) {
	d := newDesk(t, "alice", "bob", "carol")
	_, b := d.prepare(d.order("SI-2026-0001", fixed.build(t, "web")))
	if _, err := d.Publish(b); fault.KindOf(err) != fault.Refused {
		t.Errorf("unsigned: %v", err)
	}
	stick, err := b.Encode()
	d.must(err)
	sign := func(b *Bundle, owners ...string) *Bundle {
		t.Helper()
		data, err := b.Encode() // the stick
		d.must(err)
		there, err := ParseBundle(data)
		d.must(err)
		if there.Manifest == nil || there.Manifest.ID != "SI-2026-0001" {
			t.Fatal("the signer does not see what is signed")
		}
		added, removed := there.Changes()
		if len(added) != 4 || len(removed) != 0 {
			t.Errorf("changes: %v, %v", added, removed)
		}
		signers, err := d.Signers(owners, open(t))
		d.must(err)
		_, err = there.Sign(signers...)
		d.must(err)
		return there
	}
	b = sign(b, "carol")
	b = sign(b, "carol")
	if _, err := d.Publish(b); fault.KindOf(err) != fault.Refused {
		t.Errorf("one owner, twice: %v", err)
	}
	if s := b.Signed(); s.Valid != 1 || s.Threshold != 2 || s.Keys != 3 || d.Owner(s.By[0]) != "carol" {
		t.Errorf("%+v", s)
	}
	b = sign(b, "alice")
	// What was prepared is changed before it is published.
	files, err := filepath.Glob(d.path(preparedName, b.Name, "targets", "patches", "*"))
	d.must(err)
	good, err := os.ReadFile(files[0])
	d.must(err)
	d.must(os.WriteFile(files[0], append(good[:len(good)-1:len(good)-1], 'x'), 0o644))
	if _, err := d.Publish(b); fault.KindOf(err) != fault.Seal {
		t.Errorf("a changed patch: %v", err)
	}
	d.must(os.Remove(files[0]))
	if _, err := d.Publish(b); err == nil {
		t.Error("a lost patch: published")
	}
	d.must(os.WriteFile(files[0], good, 0o644))
	if p, err := d.Publish(b); err != nil || !p.Shown {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := d.Publish(b); err != nil || !p.Shown || p.State.Changed {
		t.Errorf("published again: %+v, %v", p, err) // as after a crash: nothing is left to do
	}
	older, err := ParseBundle(stick)
	d.must(err)
	if _, err := d.Publish(older); fault.KindOf(err) != fault.Usage {
		t.Errorf("an overtaken bundle: %v", err)
	}
	if err := d.Withdraw("SI-2026-0001"); fault.KindOf(err) != fault.Refused {
		t.Errorf("withdrawn after publication: %v", err)
	}
	if err := d.Withdraw("SI-2026-0009"); fault.KindOf(err) != fault.Usage {
		t.Errorf("withdrawn what isn't there: %v", err)
	}
}

// TestBundlesDoNotLie: a bundle that shows one thing and signs another.
func TestBundlesDoNotLie(t *testing.T) {
	d := newDesk(t)
	_, b := d.prepare(d.order("SI-2026-0001", fixed.build(t, "web")))
	data, err := b.Encode()
	d.must(err)
	for what, lie := range map[string][2]string{
		"another title":    {"Web content could run code", "A harmless change of texts"},
		"another severity": {`\"severity\":\"high\"`, `\"severity\":\"low\"`},
		"another name":     {`"name": "SI-2026-0001"`, `"name": "../../x"`},
		"another schema":   {bundleSchema, "sealant.bundle/2"},
	} {
		lied := bytes.Replace(data, []byte(lie[0]), []byte(lie[1]), 1)
		if bytes.Equal(lied, data) {
			t.Fatalf("%s: nothing changed", what)
		}
		if _, err := ParseBundle(lied); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	for n := 0; n < len(data); n += 97 {
		if _, err := ParseBundle(data[:n]); err == nil {
			t.Errorf("accepted when cut after %d bytes", n)
		}
	}
	root, err := os.ReadFile(d.path(rootName))
	d.must(err)
	if same, err := b.BuildsOn(root); !same || err != nil {
		t.Errorf("builds on another root: %v", err)
	}
	if same, err := b.BuildsOn([]byte(`{}`)); same || err != nil {
		t.Errorf("builds on any root: %v", err)
	}
}

func TestBaseline(t *testing.T) {
	d := newDesk(t)
	if _, b, err := d.PrepareBaseline(context.Background(), []string{d.old}, "", nil); err != nil || b != nil {
		t.Errorf("the same again: %v, %v", b, err)
	}
	written, err := d.Vendor.Baseline("")
	d.must(err)
	if written.Digest() != d.base.Digest() {
		t.Error("base.json is another baseline")
	}
	for what, files := range map[string][]string{
		"none": {}, "missing": {"/nowhere"}, "twice": {d.old, d.old}, "no image": {d.path(rootName)},
	} {
		if _, _, err := d.PrepareBaseline(context.Background(), files, "", nil); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	mail := base.build(t, "mail")
	next, b, err := d.PrepareBaseline(context.Background(), []string{d.old, mail}, "42.4.0", nil)
	d.must(err)
	d.sign(b)
	if next.Cryptexes[0].Name != "mail" || next.OSVersion != "42.4.0" {
		t.Errorf("%+v", next)
	}
	again, err := Open(d.Dir)
	d.must(err)
	if again.OSVersion != "42.4.0" {
		t.Errorf("vendor.json says %s", again.OSVersion)
	}
	// An improvement of the old baseline is none of the new one.
	o := d.order("SI-2026-0001", fixed.build(t, "web"))
	o.Baseline = next.Digest()
	_, b2 := d.prepare(o)
	if b2.Manifest.OSVersion != "42.4.0" || b2.Manifest.Baseline != next.Digest() {
		t.Errorf("%+v", b2.Manifest)
	}
}

func TestInit(t *testing.T) {
	good := Setup{Product: "ExampleOS", OSVersion: "42.3.0", Owners: []string{"alice", "bob"}, Passphrase: func(string) ([]byte, error) { return []byte("a passphrase"), nil }}
	for what, f := range map[string]func(*Setup){
		"product":    func(s *Setup) { s.Product = "Example OS" },
		"version":    func(s *Setup) { s.OSVersion = "" },
		"threshold":  func(s *Setup) { s.Threshold = 3 },
		"owner":      func(s *Setup) { s.Owners = []string{"../x"} },
		"same owner": func(s *Setup) { s.Owners = []string{"a", "a"} },
		"address":    func(s *Setup) { s.Publisher.URL = "nowhere" },
		"passphrase": func(s *Setup) { s.Passphrase = func(string) ([]byte, error) { return []byte("short"), nil } },
		"no answer":  func(s *Setup) { s.Passphrase = func(string) ([]byte, error) { return nil, errors.New("no terminal") } },
	} {
		s := good
		f(&s)
		dir := filepath.Join(t.TempDir(), "vendor")
		if _, err := Init(dir, s); err == nil {
			t.Errorf("%s: accepted", what)
		}
		if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
	dir := filepath.Join(t.TempDir(), "vendor")
	good.Owners = []string{"alice"} // each key costs a second: that is its protection
	v, err := Init(dir, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, good); fault.KindOf(err) != fault.Usage {
		t.Errorf("over another: %v", err)
	}
	for _, name := range []string{"root-alice", "targets-alice", "recall", "advice", "ticket-root"} {
		k, err := readKey(v.path(keysName, name+".key"))
		if err != nil || !k.Encrypted() {
			t.Errorf("%s: %v, or not encrypted", name, err)
		}
		if st, err := os.Stat(v.path(keysName, name+".key")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if _, err := v.Signers(nil, func(file string) (crypto.Signer, error) {
		k, err := readKey(file)
		if err != nil {
			return nil, err
		}
		return k.Unlock([]byte("another passphrase"))
	}); !errors.Is(err, signer.ErrPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if s, err := v.Signers(nil, func(string) (crypto.Signer, error) { return nil, nil }); err != nil || len(s) != 0 {
		t.Errorf("skipped keys: %v, %v", s, err)
	}
	if _, err := v.Signers([]string{"mallory"}, open(t)); fault.KindOf(err) != fault.Usage {
		t.Errorf("an unknown owner: %v", err)
	}
	if _, err := Open(t.TempDir()); fault.KindOf(err) != fault.Usage {
		t.Errorf("no folder: %v", err)
	}
}

// TestOnlineKeysElsewhere: without them publishing waits for the server.
func TestOnlineKeysElsewhere(t *testing.T) {
	d := newDesk(t)
	keys := d.path(onlineName)
	away := filepath.Join(t.TempDir(), "online")
	d.must(os.Rename(keys, away))
	_, b := d.prepare(d.order("SI-2026-0001", fixed.build(t, "web")))
	if p := d.sign(b); p.Shown {
		t.Errorf("%+v", p)
	}
	d.must(os.Rename(away, keys))
	repo, err := d.Repository()
	d.must(err)
	online, err := d.online()
	d.must(err)
	if st, err := repo.Refresh(online, d.clock); err != nil || !st.Changed {
		t.Errorf("%+v, %v", st, err)
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.bundle/1","name":"SI-2026-0001","manifest":"","root":{},"present":{},"draft":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := ParseBundle(data); err == nil {
			if _, err := b.Encode(); err != nil {
				t.Error(err)
			}
		}
	})
}
