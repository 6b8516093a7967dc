package publish

import (
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/signer"
)

// file is one file of a test tree.
type file struct {
	content string
	mode    uint32
	uid     uint32
	target  string // of a symbolic link
	xattr   string
}

type tree map[string]file

// with is the tree with some files replaced; an empty file{} takes one away.
func (tr tree) with(changes tree) tree {
	out := tree{}
	for name, f := range tr {
		out[name] = f
	}
	for name, f := range changes {
		if f == (file{}) {
			delete(out, name)
		} else {
			out[name] = f
		}
	}
	return out
}

// node makes the tree that erofs writes.
func (tr tree) node() *erofs.Node {
	root := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
	folders := map[string]*erofs.Node{".": root}
	var folder func(name string) *erofs.Node
	folder = func(name string) *erofs.Node {
		if n := folders[name]; n != nil {
			return n
		}
		n := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
		folders[name] = n
		above := folder(filepath.Dir(name))
		above.Children = append(above.Children, erofs.Child{Name: filepath.Base(name), Node: n})
		return n
	}
	for name, f := range tr {
		n := &erofs.Node{Mode: erofs.ModeRegular | f.mode, UID: f.uid, Size: int64(len(f.content))}
		n.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(f.content)), nil }
		if f.target != "" {
			n = &erofs.Node{Mode: erofs.ModeSymlink | 0o777, Target: f.target}
		}
		if f.xattr != "" {
			n.Xattrs = []erofs.Xattr{{Name: "user.x", Value: []byte(f.xattr)}}
		}
		above := folder(filepath.Dir(name))
		above.Children = append(above.Children, erofs.Child{Name: filepath.Base(name), Node: n})
	}
	return root
}

// build writes the tree as an image.
func (tr tree) build(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name+".cryptex"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := image.BuildTree(context.Background(), f, tr.node(), image.Options{Name: name, Subtype: image.App}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// elfFile is the smallest shared library that says what it exports.
func elfFile(id string, text string, exports ...string) string {
	const header, section = 64, 64
	names := "\x00.dynsym\x00.dynstr\x00.note\x00.shstrtab\x00"
	dynstr := "\x00"
	dynsym := make([]byte, 24)
	for _, e := range exports {
		s := make([]byte, 24)
		binary.LittleEndian.PutUint32(s, uint32(len(dynstr)))
		s[4] = 1<<4 | 2                            // global, function
		binary.LittleEndian.PutUint16(s[6:], 1)    // defined in section 1
		binary.LittleEndian.PutUint64(s[8:], 4096) // value
		dynsym = append(dynsym, s...)
		dynstr += e + "\x00"
	}
	note := binary.LittleEndian.AppendUint32(nil, 4)
	note = binary.LittleEndian.AppendUint32(note, uint32(len(id)))
	note = binary.LittleEndian.AppendUint32(note, 3)
	note = append(append(note, "GNU\x00"...), id...)
	body := append(append(append(append([]byte{}, dynsym...), dynstr...), note...), names...)
	offset := func(i int) uint64 {
		at := header
		for _, part := range []int{len(dynsym), len(dynstr), len(note)}[:i] {
			at += part
		}
		return uint64(at)
	}
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	for _, v := range []any{
		uint16(3), uint16(62), uint32(1), uint64(0), uint64(0), uint64(header + len(body)),
		uint32(0), uint16(header), uint16(0), uint16(0), uint16(section), uint16(5), uint16(4),
	} {
		binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(body)
	add := func(name, kind uint32, off uint64, size int, link uint32, entry uint64) {
		for _, v := range []any{name, kind, uint64(0), uint64(0), off, uint64(size), link, uint32(1), uint64(1), entry} {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	add(0, 0, 0, 0, 0, 0)
	add(1, 11, offset(0), len(dynsym), 2, 24)
	add(9, 3, offset(1), len(dynstr), 0, 0)
	add(17, 7, offset(2), len(note), 0, 0)
	add(23, 3, offset(3), len(names), 0, 0)
	b.WriteString(text)
	return b.String()
}

var base = tree{
	"usr/lib/libweb.so.1": {content: elfFile("\x8d\x1e", strings.Repeat("some machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), mode: 0o644},
	"usr/bin/browser":     {content: "#!/bin/sh\nexec libweb\n", mode: 0o755},
	"usr/share/web/index": {content: strings.Repeat("text\n", 2000), mode: 0o644},
	"usr/lib/libweb.so":   {target: "libweb.so.1"},
}

// fixed is what a security fix should look like: one file, nothing else.
var fixed = base.with(tree{
	"usr/lib/libweb.so.1": {content: elfFile("\x41\xfa", strings.Repeat("same machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), mode: 0o644},
})

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

// TestFindings makes one change after the other that a fix should not make.
func TestFindings(t *testing.T) {
	d := newDesk(t)
	lib := func(id, text string, exports ...string) tree {
		return fixed.with(tree{"usr/lib/libweb.so.1": {content: elfFile(id, text, exports...), mode: 0o644}})
	}
	same := strings.Repeat("same machine code ", 900)
	for what, tt := range map[string]struct {
		tree tree
		code string
		says string
	}{
		"added":          {fixed.with(tree{"usr/lib/new.so": {content: "x", mode: 0o644}}), FileAdded, "not in the baseline"},
		"removed":        {fixed.with(tree{"usr/share/web/index": {}}), FileRemoved, "missing"},
		"mode":           {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o4755}}), ModeChanged, "mode was 0755, is 4755"},
		"owner":          {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o755, uid: 7}}), ModeChanged, "owner was 0:0, is 7:0"},
		"attributes":     {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o755, xattr: "y"}}), ModeChanged, "extended attributes"},
		"type":           {fixed.with(tree{"usr/bin/browser": {target: "../lib/x"}}), ModeChanged, "was a file, is a symbolic link"},
		"symbol":         {lib("\x41\xfa", same+"\x00libweb/4.1 (x86)\x00", "web_open"), SymbolRemoved, "web_close"},
		"version":        {lib("\x41\xfa", same+"\x00libweb/4.1.1 (x86)\x00", "web_open", "web_close"), VersionChanged, `"libweb/4.1" became "libweb/4.1.1"`},
		"version id":     {fixed.with(tree{"usr/bin/browser": {content: "VERSION=\"1.2.3\"\n", mode: 0o755}}), "", ""},
		"label":          {lib("\x41\xfa", same+"\x00libweb/4.1 (x86) 42.3 (a)\x00", "web_open", "web_close"), LabelLeaked, "42.3 (a)"},
		"id":             {fixed.with(tree{"usr/bin/browser": {content: "# SI-2026-0001\n", mode: 0o755}}), LabelLeaked, "SI-2026-0001"},
		"symbol added":   {lib("\x41\xfa", same+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close", "web_new"), "", ""},
		"link's target":  {fixed.with(tree{"usr/lib/libweb.so": {target: "libweb.so.2"}}), "", ""},
		"build-id alone": {lib("\x00\x01", strings.Repeat("some machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), "", ""},
	} {
		o := d.order("SI-2026-0001", tt.tree.build(t, "web"))
		account, _, err := d.Prepare(context.Background(), o, nil)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			d.must(d.Withdraw(o.ID))
			continue
		}
		if !errors.Is(err, ErrFindings) || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		all, open := account.Findings(nil)
		if len(all) != len(open) || !slices.ContainsFunc(all, func(f Finding) bool { return f.Code == tt.code && strings.Contains(f.Text, tt.says) }) {
			t.Errorf("%s: %+v", what, all)
		}
		o.Acknowledge = []string{tt.code}
		if _, _, err := d.Prepare(context.Background(), o, nil); err != nil {
			t.Errorf("%s: acknowledged, and yet: %v", what, err)
		}
		d.must(d.Withdraw(o.ID))
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		before, after string
		found         bool
	}{
		{"OpenSSL 3.0.17 1 Jul 2025", "OpenSSL 3.0.20 7 Apr 2026", true},
		{"VERSION_ID=42.3", "VERSION_ID=42.4", true},
		{`{"version": "42.3"}`, `{"version": "42.4"}`, true},
		{"Mozilla/5.0 Browser/42.3", "Mozilla/5.0 Browser/42.3.1", true},
		{"tool v1.2.3", "tool v1.2.4", true},
		{"needs GLIBC_2.34 only", "needs GLIBC_2.38 only", false},
		{"width: 1.5em", "width: 1.6em", false},
		{"it took 0.25 s", "it took 0.50 s", false},
		{"OpenSSL 3.0.17", "OpenSSL 3.0.17 fixed", false},
		{"nothing here", "tool v1.2.4", false},
	} {
		c := &comparer{result: &Comparison{}}
		section := func(s string) *io.SectionReader { return io.NewSectionReader(strings.NewReader(s), 0, int64(len(s))) }
		if err := c.versions("x", section("\x01"+tt.before+"\x00"), section("\x02"+tt.after+"\x00")); err != nil {
			t.Fatal(err)
		}
		if (len(c.result.Findings) > 0) != tt.found {
			t.Errorf("%q to %q: %+v", tt.before, tt.after, c.result.Findings)
		}
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
	if _, err := d.Publish(b); err == nil {
		t.Error("published twice")
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

func TestReadELFIsBounded(t *testing.T) {
	whole := elfFile("\x8d\x1e", "text", "a", "b")
	facts, ok := readELF(io.NewSectionReader(strings.NewReader(whole), 0, int64(len(whole))))
	if !ok || facts.buildID != "8d1e" || len(facts.exports) != 2 {
		t.Fatalf("%+v, %v", facts, ok)
	}
	for i := range whole {
		for _, x := range []byte{0xff, 0x80, 1} {
			b := []byte(whole)
			b[i] ^= x
			readELF(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
		}
		readELF(io.NewSectionReader(strings.NewReader(whole[:i]), 0, int64(i)))
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
