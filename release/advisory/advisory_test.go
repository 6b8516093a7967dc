package advisory

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gocsaf/csaf/v3/csaf"

	"github.com/sealant-os/sealant/release"
)

var now = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

func on(month, day int) time.Time {
	return time.Date(2026, time.Month(month), day, 18, 0, 0, 0, time.UTC)
}

var baseline = release.DigestOf([]byte("a baseline"))

func manifest(id string, level int, published time.Time, title string, cves ...release.CVE) release.Manifest {
	m := release.Manifest{
		Schema: release.ManifestSchema, ID: id, Level: level, Product: "ExampleOS", OSVersion: "42.3.0", Baseline: baseline,
		Published: published, Severity: "high", Title: title, CVEs: []release.CVE{},
		Cryptexes: []release.Change{{Name: "web", Changed: 3}},
	}
	for _, c := range cves {
		if c.Since == "" {
			c.Since = id
		}
		m.CVEs = append(m.CVEs, c)
	}
	return m
}

// evil would be markup if anybody forgot to escape it.
const evil = `<script>alert("x")</script> & 'more'`

func sample(t *testing.T) *Bulletin {
	t.Helper()
	first := release.CVE{ID: "CVE-2026-1101", Text: "Processing web content may lead to arbitrary code execution.", Credit: "A. Finder of Example Lab", Exploited: true}
	carried := first
	carried.Since = "SI-2026-0005"
	embargo := on(12, 24)
	manifests := []release.Manifest{
		manifest("SI-2026-0005", 1, on(10, 6), "Web content could run code", first),
		manifest("SI-2026-0006", 2, on(10, 28), "Mail could read any file", carried,
			release.CVE{ID: "CVE-2026-1142", Text: "A message could read any file of the person who opens it."}),
		manifest("SI-2026-0007", 3, on(11, 24), evil, carried,
			release.CVE{ID: "CVE-2026-1190", Text: evil, Credit: evil},
			release.CVE{ID: "CVE-2026-1191", Text: "An attacker in a privileged network position may decrypt traffic.", Exploited: true}),
		manifest("SI-2026-0008", 4, on(11, 29), "Not yet told", carried, release.CVE{ID: "CVE-2026-1200", Text: "secret"}),
	}
	manifests[2].Text = "Two flaws in the TLS library.\nBoth need no interaction."
	recalls := release.RecallList{Entries: []release.Recall{{Release: "SI-2026-0006", To: "SI-2026-0005", Reason: "Mail closes on attachments", Text: "The correction is being tested.", Date: on(10, 30)}}}
	words := []Words{
		{Schema: WordsSchema, ID: "SI-2026-0008", Embargo: &embargo, CVEs: []CVEWords{}},
		{Schema: WordsSchema, ID: "SI-2026-0007", CVEs: []CVEWords{{
			ID: "CVE-2026-1191", Component: "TLS", Description: "A memory corruption issue was addressed with improved bounds checks.",
			Credit: "an anonymous researcher", CVSS: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:N", Score: "9.1",
		}}},
	}
	b, err := New(Publisher{Name: "Example Corp", URL: "https://example.com/security/", Contact: "mailto:security@example.com", Support: "2031-06"},
		"ExampleOS", manifests, recalls, words, now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func files(t *testing.T, b *Bulletin) map[string][]byte {
	t.Helper()
	all, err := b.Files()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPages(t *testing.T) {
	all := files(t, sample(t))
	index := string(all["index.html"])
	order := []string{"SI-2026-0008", "SI-2026-0007", "SI-2026-0006", "SI-2026-0005"}
	at := -1
	for _, id := range order {
		i := strings.Index(index, id+".html")
		if i < at {
			t.Errorf("%s is not in its place", id)
		}
		at = i
	}
	for page, want := range map[string][]string{
		"index.html":        {"<h1>Security releases</h1>", "Taken back: Mail closes on attachments", "Details on 24 December 2026", "28 October 2026", "until June 2031", "mailto:security@example.com"},
		"SI-2026-0006.html": {"Recalled on 30 October 2026", "Mail closes on attachments", "The correction is being tested.", "go back to ExampleOS 42.3 (a)", `SI-2026-0005.html#CVE-2026-1101`},
		"SI-2026-0007.html": {"Two flaws in the TLS library.", "may have been exploited", "an anonymous researcher", ">TLS</h2>", "9.1", "3 files in web", "csaf/si-2026-0007.json"},
		"SI-2026-0008.html": {"Details on 24 December 2026"},
	} {
		for _, w := range want {
			if !strings.Contains(string(all[page]), w) {
				t.Errorf("%s does not say %q", page, w)
			}
		}
	}
	for name, data := range all {
		for _, no := range []string{"Not yet told", "CVE-2026-1200", "secret"} {
			if bytes.Contains(data, []byte(no)) {
				t.Errorf("%s tells %q, which is under embargo", name, no)
			}
		}
		if strings.HasSuffix(name, ".html") {
			if bytes.Contains(data, []byte("<script")) || bytes.Contains(data, []byte("style=")) {
				t.Errorf("%s has a script or an inline style", name)
			}
		}
	}
	for _, no := range []string{"csaf/si-2026-0008.json", "osv/SI-2026-0008.json"} {
		if _, ok := all[no]; ok {
			t.Errorf("%s is there in spite of the embargo", no)
		}
	}
}

var (
	links = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	void  = regexp.MustCompile(`(<(?:meta|link)[^>]*)>`)
	ids   = regexp.MustCompile(` id="([^"]*)"`)
)

// TestPagesHoldTogether follows every link within the site, and checks what
// people who can't see the page rely on.
func TestPagesHoldTogether(t *testing.T) {
	all := files(t, sample(t))
	for name, data := range all {
		if !strings.HasSuffix(name, ".html") {
			continue
		}
		text := string(data)
		wellFormed(t, name, data)
		for _, m := range links.FindAllStringSubmatch(text, -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, ":") {
				continue
			}
			if to == "" {
				to = name
			}
			target, ok := all[path.Clean(to)]
			if !ok {
				t.Errorf("%s links to %s, which is not there", name, to)
			}
			if anchor != "" && !bytes.Contains(target, []byte(` id="`+anchor+`"`)) {
				t.Errorf("%s links to %s, which has no %q", name, to, anchor)
			}
		}
		seen := map[string]bool{}
		for _, m := range ids.FindAllStringSubmatch(text, -1) {
			if seen[m[1]] {
				t.Errorf("%s: id %q stands twice", name, m[1])
			}
			seen[m[1]] = true
		}
		for _, must := range []string{`<html lang="en">`, `<meta charset="utf-8">`, `name="viewport"`, `name="color-scheme"`, `<main id="`, "<h1>", "</footer>"} {
			if strings.Count(text, must) != 1 {
				t.Errorf("%s has %d %s", name, strings.Count(text, must), must)
			}
		}
	}
}

// wellFormed reads the page as XML, with HTML's void elements closed for it.
func wellFormed(t *testing.T, name string, data []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(void.ReplaceAll(data, []byte("$1/>"))))
	d.Entity = xml.HTMLEntity
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%s is not well-formed: %v", name, err)
			return
		}
	}
}

// TestCSAF has the reference implementation's schema check every document.
func TestCSAF(t *testing.T) {
	b := sample(t)
	for _, e := range b.Entries {
		data, err := b.CSAF(e)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		problems, err := csaf.ValidateCSAF(doc)
		if err != nil || len(problems) > 0 {
			t.Errorf("%s: %v %v\n%s", e.Manifest.ID, problems, err, data)
		}
		var adv csaf.Advisory
		if err := json.Unmarshal(data, &adv); err != nil {
			t.Fatalf("%s: %v", e.Manifest.ID, err)
		}
		if err := adv.Validate(); err != nil {
			t.Errorf("%s: %v", e.Manifest.ID, err)
		}
		mandatory(t, &adv)
	}
}

// mandatory are those tests of CSAF 2.0, section 6.1, that a schema can't do
// and that our documents could fail.
func mandatory(t *testing.T, adv *csaf.Advisory) {
	t.Helper()
	id := *adv.Document.Tracking.ID
	defined := map[string]bool{} // 6.1.1, 6.1.2
	var walk func(branches csaf.Branches)
	walk = func(branches csaf.Branches) {
		for _, br := range branches {
			if br.Product != nil {
				p := string(*br.Product.ProductID)
				if defined[p] {
					t.Errorf("%s: product %s is defined twice", id, p)
				}
				defined[p] = true
			}
			walk(br.Branches)
		}
	}
	walk(adv.ProductTree.Branches)
	cves := map[csaf.CVE]bool{}
	for _, v := range adv.Vulnerabilities {
		if cves[*v.CVE] { // 6.1.23
			t.Errorf("%s: %s stands twice", id, *v.CVE)
		}
		cves[*v.CVE] = true
		if len(v.Notes) == 0 || v.ProductStatus == nil { // 6.1.27.5, 6.1.27.6
			t.Errorf("%s: %s has no notes or status", id, *v.CVE)
		}
		status := map[string]int{} // 6.1.6
		for _, list := range []*csaf.Products{v.ProductStatus.Fixed, v.ProductStatus.KnownAffected} {
			if list == nil {
				continue
			}
			for _, p := range *list {
				status[string(*p)]++
				if !defined[string(*p)] || status[string(*p)] > 1 {
					t.Errorf("%s: product %s is undefined or has two states", id, *p)
				}
			}
		}
	}
	tracking := adv.Document.Tracking
	last := tracking.RevisionHistory[len(tracking.RevisionHistory)-1]
	if *last.Number != *tracking.Version || *last.Date != *tracking.CurrentReleaseDate { // 6.1.16
		t.Errorf("%s: the last revision is not the document's version", id)
	}
	for i := 1; i < len(tracking.RevisionHistory); i++ { // 6.1.14
		if *tracking.RevisionHistory[i-1].Date > *tracking.RevisionHistory[i].Date {
			t.Errorf("%s: revisions are not in order", id)
		}
	}
}

func TestOSV(t *testing.T) {
	b := sample(t)
	for _, e := range b.Entries {
		data, err := b.OSV(e)
		if err != nil {
			t.Fatal(err)
		}
		var doc osvDocument
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		if doc.ID != e.Manifest.ID || doc.Summary == "" || doc.Details == "" || doc.Modified < doc.Published || len(doc.Affected) != 1 {
			t.Errorf("%s", data)
		}
		if (doc.Specific.Recalled != nil) != (e.Recall != nil) {
			t.Errorf("%s: recalled: %+v", doc.ID, doc.Specific.Recalled)
		}
		if got := doc.Affected[0].Versions; len(got) != e.Manifest.Level || got[0] != "42.3.0" {
			t.Errorf("%s affects %v", doc.ID, got)
		}
	}
}

func TestAtom(t *testing.T) {
	data, err := sample(t).Atom()
	if err != nil {
		t.Fatal(err)
	}
	var feed struct {
		XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
		ID      string   `xml:"id"`
		Updated string   `xml:"updated"`
		Entries []struct {
			Title   string `xml:"title"`
			ID      string `xml:"id"`
			Updated string `xml:"updated"`
			Content string `xml:"content"`
		} `xml:"entry"`
	}
	if err := xml.Unmarshal(data, &feed); err != nil {
		t.Fatal(err)
	}
	if len(feed.Entries) != 4 || feed.Updated != "2026-11-29T18:00:00Z" || feed.ID != "https://example.com/security/feed.atom" {
		t.Errorf("%+v", feed)
	}
	recalled := feed.Entries[2]
	if !strings.HasPrefix(recalled.Title, "Recalled: ") || recalled.Updated != "2026-10-30T18:00:00Z" || !strings.Contains(recalled.Content, "Mail closes") {
		t.Errorf("%+v", recalled)
	}
	if evil := feed.Entries[1]; strings.Contains(evil.Content, "<script") {
		t.Errorf("markup got through: %s", evil.Content)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	a, b := files(t, sample(t)), files(t, sample(t))
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestEmpty(t *testing.T) {
	b, err := New(Publisher{Name: "Example", URL: "https://example.com"}, "ExampleOS", nil, release.RecallList{}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	all := files(t, b)
	if len(all) != 3 || !bytes.Contains(all["index.html"], []byte("No improvement has been released yet")) {
		t.Errorf("%d files", len(all))
	}
}

func TestWordsAreChecked(t *testing.T) {
	m := manifest("SI-2026-0007", 1, on(11, 24), "x", release.CVE{ID: "CVE-2026-1191"})
	p := Publisher{Name: "Example", URL: "https://example.com"}
	try := func(w Words) error {
		w.Schema = WordsSchema
		data, err := w.Encode()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseWords(data)
		if err != nil {
			return err
		}
		_, err = New(p, "ExampleOS", []release.Manifest{m}, release.RecallList{}, []Words{parsed}, now)
		return err
	}
	if err := try(Draft(m)); err != nil {
		t.Errorf("a draft: %v", err)
	}
	for what, w := range map[string]Words{
		"unknown release": {ID: "SI-2026-0009"},
		"foreign CVE":     {ID: m.ID, CVEs: []CVEWords{{ID: "CVE-2026-0001"}}},
		"bad vector":      {ID: m.ID, CVEs: []CVEWords{{ID: "CVE-2026-1191", CVSS: "CVSS:3.1/AV:N", Score: "1.0"}}},
		"no score":        {ID: m.ID, CVEs: []CVEWords{{ID: "CVE-2026-1191", CVSS: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:N"}}},
		"score of 11":     {ID: m.ID, CVEs: []CVEWords{{ID: "CVE-2026-1191", CVSS: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:N", Score: "11.0"}}},
		"no id":           {},
	} {
		if try(w) == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	for _, text := range []string{"", "{}", `{"schema":"sealant.advisory/1","id":"SI-2026-0007","extra":1}`, `{"schema":"sealant.advisory/2","id":"SI-2026-0007"}`, `{"schema":"sealant.advisory/1","id":"SI-2026-0007"} {}`} {
		if _, err := ParseWords([]byte(text)); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
	for _, bad := range []Publisher{{}, {Name: "x"}, {Name: "x", URL: "ftp://x"}, {Name: "x\ny", URL: "https://x"}, {Name: "x", URL: "https://x", Contact: "javascript:x"}, {Name: "x", URL: "https://x", Support: "soon"}} {
		if bad.Check() == nil {
			t.Errorf("%+v: accepted", bad)
		}
	}
}

func TestLint(t *testing.T) {
	var got []string
	for _, r := range sample(t).Lint() {
		got = append(got, r.ID+" "+r.Text)
	}
	want := []string{"SI-2026-0008 CVE-2026-1200: nobody is credited", "SI-2026-0006 CVE-2026-1142: nobody is credited"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
}

func FuzzParseWords(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.advisory/1","id":"SI-2026-0007","title":"","text":"","cves":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := ParseWords(data)
		if err != nil {
			return
		}
		again, err := w.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseWords(again); err != nil {
			t.Errorf("encodes to what is refused: %v", err)
		}
	})
}
