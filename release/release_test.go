package release

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func digest(b byte) Digest {
	var d Digest
	for i := range d {
		d[i] = b
	}
	return d
}

func image(name string, b byte) Image {
	return Image{
		Name: name, Subtype: SubtypeOS, Digest: digest(b), Size: 64 * 4096,
		Seal:       Seal{Root: Hash{b}, Salt: Hash{1}, DataBlocks: 60, Digest: digest(b + 1)},
		TrustCache: digest(b + 2),
	}
}

func baseline() Baseline {
	return Baseline{
		Schema: BaselineSchema, Product: "ExampleOS", OSVersion: "42.3.0",
		Cryptexes: []Image{image("os", 0x10), image("web", 0x20)},
	}
}

func manifest() Manifest {
	return Manifest{
		Schema: ManifestSchema, ID: "SI-2026-0007", Level: 2, Product: "ExampleOS", OSVersion: "42.3.0",
		Baseline: baseline().Digest(), Previous: "SI-2026-0006", Published: time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC),
		Severity: "critical", Title: "Web content could run code", Text: "Two flaws.\nOne is exploited.",
		CVEs: []CVE{
			{ID: "CVE-2026-1101", Since: "SI-2026-0006", Text: "memory could be read", Credit: "A. Finder"},
			{ID: "CVE-2026-1142", Since: "SI-2026-0007", Text: "code could run", Exploited: true},
		},
		Cryptexes: []Change{{
			Name: "web", Subtype: SubtypeOS, From: image("web", 0x20).State(), To: image("web", 0x30).State(),
			Patch: File{digest(0x40), 3400}, Antipatch: File{digest(0x41), 3300},
			Changed: 1, Files: []FileChange{{Path: "usr/lib/libweb.so.1", Change: Content, Before: 10, After: 12, Build: &Build{"8d1e", "41fa"}}},
		}},
	}
}

func recallList() RecallList {
	return RecallList{
		Schema: RecallSchema, Version: 3, Product: "ExampleOS",
		Entries: []Recall{{Release: "SI-2026-0007", To: "SI-2026-0006", Reason: "Mail closes on attachments", Date: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)}},
	}
}

func adviceList() AdviceList {
	return AdviceList{
		Schema: AdviceSchema, Version: 1, Product: "ExampleOS",
		Entries: []Advice{{
			Release: "SI-2026-0007", App: "org.example.Mail", OSVersions: []string{}, AppVersions: []string{"3.1", "3.2"},
			Scope: ScopeMain, MinEvidence: 20, TextKey: "crash", Date: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC),
		}},
	}
}

func rollout() Rollout {
	return Rollout{
		Schema: RolloutSchema, Version: 9, Product: "ExampleOS",
		Entries: []Ring{{Release: "SI-2026-0007", Percent: 10, Salt: "000102030405060708090a0b0c0d0e0f"}},
	}
}

// kinds are all documents, each with its parser reduced to "accepted or not".
var kinds = []struct {
	name   string
	encode func() ([]byte, error)
	parse  func([]byte) (again []byte, err error)
}{
	{"baseline", baseline().Encode, func(d []byte) ([]byte, error) { return reencode(ParseBaseline(d)) }},
	{"manifest", manifest().Encode, func(d []byte) ([]byte, error) { return reencode(ParseManifest(d)) }},
	{"recall", recallList().Encode, func(d []byte) ([]byte, error) { return reencode(ParseRecallList(d)) }},
	{"advice", adviceList().Encode, func(d []byte) ([]byte, error) { return reencode(ParseAdviceList(d)) }},
	{"rollout", rollout().Encode, func(d []byte) ([]byte, error) { return reencode(ParseRollout(d)) }},
}

func reencode[T interface{ Encode() ([]byte, error) }](v T, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return v.Encode()
}

func TestRoundTrip(t *testing.T) {
	for _, k := range kinds {
		data, err := k.encode()
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		again, err := k.parse(data)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%s: changed by a round trip", k.name)
		}
	}
}

// TestOnlyCanonical spells the same document in other ways: each is refused.
func TestOnlyCanonical(t *testing.T) {
	for _, k := range kinds {
		data, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, data, "", " "); err != nil {
			t.Fatal(err)
		}
		text := string(data)
		others := map[string]string{
			"indented":       indented.String(),
			"final newline":  text + "\n",
			"leading space":  " " + text,
			"two documents":  text + text,
			"duplicate":      `{"product":"Other",` + text[1:],
			"same twice":     `{"product":"ExampleOS",` + text[1:],
			"unknown member": text[:len(text)-1] + `,"zz":1}`,
			"null member":    text[:len(text)-1] + `,"schema":null}`,
			"other case":     strings.Replace(text, `"product"`, `"Product"`, 1),
			"other schema":   strings.Replace(text, `/1"`, `/2"`, 1),
			"escaped":        strings.Replace(text, "ExampleOS", `\u0045xampleOS`, 1),
			"bad utf-8":      strings.Replace(text, "ExampleOS", "Example\xffS", 1),
			"empty":          "", "null": "null", "list": "[]", "nothing": "{}",
			"nul": text + "\x00",
		}
		for what, other := range others {
			if other == text {
				t.Fatalf("%s: %s: not another spelling", k.name, what)
			}
			if _, err := k.parse([]byte(other)); err == nil {
				t.Errorf("%s: %s: accepted", k.name, what)
			}
		}
		for n := range data {
			if _, err := k.parse(data[:n]); err == nil {
				t.Errorf("%s: accepted when cut after %d bytes", k.name, n)
			}
		}
	}
}

// TestEveryMember takes each member away, and sets it to null, to a value of
// every other type, and to an extreme one.
func TestEveryMember(t *testing.T) {
	for _, k := range kinds {
		data, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(data, &tree); err != nil {
			t.Fatal(err)
		}
		spoil(tree, func(what string) {
			dec := json.NewDecoder(bytes.NewReader(mustJSON(t, tree)))
			dec.UseNumber()
			var v any
			if err := dec.Decode(&v); err != nil {
				t.Fatal(err)
			}
			bad, err := appendCanonical(nil, v)
			if err != nil || bytes.Equal(bad, data) {
				return
			}
			if _, err := k.parse(bad); err == nil {
				t.Errorf("%s: accepted with %s: %s", k.name, what, bad)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// spoil changes one member of tree at a time, calls try, and puts it back.
func spoil(tree any, try func(what string)) {
	switch v := tree.(type) {
	case map[string]any:
		for name, old := range v {
			optional := name == "build_id"
			if !optional {
				delete(v, name)
				try("no " + name)
			}
			for _, bad := range []any{nil, []any{}, []any{nil}, map[string]any{"a": 1}, -1, 1 << 62, "\u202e", "a\x00b", strings.Repeat("x", MaxText+1)} {
				empty, isList := bad.([]any)
				if _, wasList := old.([]any); wasList && isList && len(empty) == 0 && name != "cryptexes" {
					continue // an empty list is fine
				}
				v[name] = bad
				try(name + " spoiled")
			}
			v[name] = old
			spoil(old, try)
		}
	case []any:
		for i, old := range v {
			v[i] = nil
			try("null in a list")
			v[i] = old
			spoil(old, try)
		}
		if len(v) > 1 {
			v[0], v[1] = v[1], v[0]
			try("other order")
			v[0], v[1] = v[1], v[0]
			old := v[1]
			v[1] = v[0]
			try("one twice")
			v[1] = old
		}
	}
}

func TestManifestRules(t *testing.T) {
	change := func(f func(*Manifest)) error {
		m := manifest()
		f(&m)
		_, err := m.Encode()
		return err
	}
	refused := map[string]func(*Manifest){
		"level 0":              func(m *Manifest) { m.Level = 0 },
		"level 27":             func(m *Manifest) { m.Level = 27 },
		"no previous":          func(m *Manifest) { m.Previous = "" },
		"own previous":         func(m *Manifest) { m.Previous = m.ID },
		"level 1 and previous": func(m *Manifest) { m.Level = 1 },
		"severity":             func(m *Manifest) { m.Severity = "Critical" },
		"title of two lines":   func(m *Manifest) { m.Title = "a\nb" },
		"title with an escape": func(m *Manifest) { m.Title = "a\x1b[2Jb" },
		"title reordered":      func(m *Manifest) { m.Title = "a\u202eb" },
		"local time":           func(m *Manifest) { m.Published = m.Published.In(time.FixedZone("", 3600)) },
		"nanoseconds":          func(m *Manifest) { m.Published = m.Published.Add(1) },
		"no cryptex":           func(m *Manifest) { m.Cryptexes = nil },
		"same image":           func(m *Manifest) { m.Cryptexes[0].To = m.Cryptexes[0].From },
		"odd size":             func(m *Manifest) { m.Cryptexes[0].To.Size++ },
		"huge size":            func(m *Manifest) { m.Cryptexes[0].To.Size = MaxImageSize + 4096 },
		"too many blocks":      func(m *Manifest) { m.Cryptexes[0].To.Seal.DataBlocks = 64 },
		"no patch":             func(m *Manifest) { m.Cryptexes[0].Patch = File{} },
		"empty antipatch":      func(m *Manifest) { m.Cryptexes[0].Antipatch.Size = 0 },
		"half a shortcut":      func(m *Manifest) { m.Cryptexes[0].Shortcut = &File{digest(1), 1} },
		"absolute path":        func(m *Manifest) { m.Cryptexes[0].Files[0].Path = "/etc/passwd" },
		"build-id":             func(m *Manifest) { m.Cryptexes[0].Files[0].Build.After = "41F" },
		"cves not sorted":      func(m *Manifest) { m.CVEs[0], m.CVEs[1] = m.CVEs[1], m.CVEs[0] },
		"id":                   func(m *Manifest) { m.ID = "SI-2026-7" },
		"id with a path":       func(m *Manifest) { m.ID = "SI-2026-0007/../x" },
		"zero baseline":        func(m *Manifest) { m.Baseline = Digest{} },
	}
	for what, f := range refused {
		if change(f) == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if err := change(func(*Manifest) {}); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	m := manifest()
	if got := m.Name(); got != "42.3 (b)" {
		t.Errorf("Name() = %q", got)
	}
	for v, want := range map[string]string{"42.3.0": "42.3", "42.0": "42.0", "42.3.1": "42.3.1", "12": "12", "42.0.0": "42.0"} {
		if got := DisplayVersion(v); got != want {
			t.Errorf("DisplayVersion(%q) = %q, want %q", v, got, want)
		}
	}
	if !m.Exploited() || len(m.New()) != 1 || m.New()[0].ID != "CVE-2026-1142" {
		t.Errorf("New() = %v", m.New())
	}
	if Label(0) != "" || Label(1) != "(a)" || Label(26) != "(z)" || Label(27) != "" {
		t.Error("labels")
	}
}

func TestSet(t *testing.T) {
	b := baseline()
	set, err := manifest().Set(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(set) != 2 || set[0] != image("os", 0x10) || set[1] != image("web", 0x30) {
		t.Errorf("set = %v", set)
	}
	if b.Cryptexes[1] != image("web", 0x20) {
		t.Error("Set changed the baseline")
	}
	other := baseline()
	other.Cryptexes[0].Size += 4096
	if _, err := manifest().Set(other); err == nil {
		t.Error("another baseline was accepted")
	}
	m := manifest()
	m.Cryptexes[0].Name = "mail"
	if _, err := m.Set(b); err == nil {
		t.Error("a cryptex that the baseline lacks was accepted")
	}
	m = manifest()
	m.Cryptexes[0].From = image("web", 0x50).State()
	if _, err := m.Set(b); err == nil {
		t.Error("a cryptex that starts elsewhere was accepted")
	}
}

func TestLanding(t *testing.T) {
	l := recallList().With(Recall{Release: "SI-2026-0006", Reason: "also", Date: manifest().Published})
	if l.Version != 4 || len(l.Entries) != 2 {
		t.Fatalf("With: %+v", l)
	}
	for id, want := range map[string]string{"SI-2026-0008": "SI-2026-0008", "SI-2026-0007": "", "SI-2026-0006": ""} {
		if got := l.Landing(id); got != want {
			t.Errorf("Landing(%s) = %q, want %q", id, got, want)
		}
	}
	if got := recallList().Landing("SI-2026-0007"); got != "SI-2026-0006" {
		t.Errorf("Landing = %q", got)
	}
	circle := recallList().With(Recall{Release: "SI-2026-0006", To: "SI-2026-0007", Reason: "also", Date: manifest().Published})
	if _, err := circle.Encode(); err == nil {
		t.Error("a circle of recalls was accepted")
	}
}

func TestRolloutIsMonotonicAndFair(t *testing.T) {
	const n = 4000
	for _, percent := range []int{0, 1, 10, 50, 99, 100} {
		in := 0
		for i := range n {
			device := [32]byte{byte(i), byte(i >> 8), 7}
			now := InRollout(device, "SI-2026-0007", "aa", percent)
			if now {
				in++
			}
			if now && !InRollout(device, "SI-2026-0007", "aa", percent+1) {
				t.Fatalf("device %d is in at %d %% and out above", i, percent)
			}
		}
		if want := n * percent / 100; in < want-n*3/100 || in > want+n*3/100 {
			t.Errorf("%d %%: %d of %d devices", percent, in, n)
		}
		if (percent == 0 && in != 0) || (percent == 100 && in != n) {
			t.Errorf("%d %%: %d of %d devices", percent, in, n)
		}
	}
	same := 0
	for i := range n {
		device := [32]byte{byte(i), byte(i >> 8)}
		if InRollout(device, "SI-2026-0007", "aa", 50) == InRollout(device, "SI-2026-0007", "bb", 50) {
			same++
		}
	}
	if same < n*45/100 || same > n*55/100 {
		t.Errorf("another salt moves only %d of %d devices", n-same, n)
	}
}

func TestOffers(t *testing.T) {
	r := rollout().With(Ring{Release: "SI-2026-0008", Percent: 100, Salt: rollout().Entries[0].Salt})
	if !r.Offers([32]byte{1}, "SI-2026-0008") || r.Offers([32]byte{1}, "SI-2026-0009") {
		t.Error("Offers: all, or none")
	}
	r = r.With(Ring{Release: "SI-2026-0008", Percent: 100, Salt: rollout().Entries[0].Salt, Halted: true})
	if len(r.Entries) != 2 || r.Offers([32]byte{1}, "SI-2026-0008") {
		t.Error("a halted rollout is offered")
	}
}

func TestAdvice(t *testing.T) {
	l := adviceList()
	e, ok := l.Find("SI-2026-0007", "org.example.Mail")
	if !ok || !e.Applies("42.3.0", "3.1") || e.Applies("42.3.0", "3.3") || len(l.For("SI-2026-0007")) != 1 {
		t.Error("Find, Applies")
	}
	e.MinEvidence = 9
	if _, err := l.With(e).Encode(); err == nil {
		t.Error("evidence below 10 was accepted")
	}
	if l = l.Without("SI-2026-0007", "org.example.Mail"); len(l.Entries) != 0 || l.Version != 2 {
		t.Error("Without")
	}
	if _, err := l.Encode(); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for i, k := range kinds {
		data, err := k.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, data)
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		k := kinds[uint(i)%uint(len(kinds))]
		again, err := k.parse(data)
		if err == nil && !bytes.Equal(again, data) {
			t.Errorf("%s: accepted, but encodes to other bytes:\n%s\n%s", k.name, data, again)
		}
	})
}

func TestRevokedLeaves(t *testing.T) {
	leaf := func(b byte) RevokedLeaf {
		return RevokedLeaf{ID: Hash{b}, Reason: "the server was stolen", Date: manifest().Published}
	}
	l := recallList().WithLeaf(leaf(2)).WithLeaf(leaf(1)).WithLeaf(leaf(2))
	if l.Version != recallList().Version+3 || len(l.Leaves) != 2 || len(recallList().Leaves) != 0 {
		t.Errorf("version %d, leaves %v", l.Version, l.Leaves)
	}
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecallList(data)
	if err != nil {
		t.Fatal(err)
	}
	if ids := got.Revoked(); len(ids) != 2 || ids[0] != [32]byte{1} || ids[1] != [32]byte{2} {
		t.Errorf("revoked: %x", ids)
	}
	for name, e := range map[string]RevokedLeaf{
		"no id":         {Reason: "x", Date: manifest().Published},
		"no reason":     {ID: Hash{3}, Date: manifest().Published},
		"reason of two": {ID: Hash{3}, Reason: "a\nb", Date: manifest().Published},
		"no date":       {ID: Hash{3}, Reason: "x"},
	} {
		if _, err := recallList().WithLeaf(e).Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	l.Leaves[0], l.Leaves[1] = l.Leaves[1], l.Leaves[0]
	if _, err := l.Encode(); err == nil {
		t.Error("encoded out of order")
	}
	// An empty list has one form only: none.
	before, after, _ := strings.Cut(string(data), `"leaves":[`)
	_, after, _ = strings.Cut(after, "]")
	if _, err := ParseRecallList([]byte(before + `"leaves":[]` + after)); err == nil {
		t.Error("accepted an empty list of leaves")
	}
}
