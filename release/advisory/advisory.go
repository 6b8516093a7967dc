// Package advisory tells the public what was fixed: from release manifests and
// the recall list it makes a static page "Security releases" with one page for
// each improvement, CSAF 2.0 and OSV documents for machines, and an Atom feed.
//
// The manifests are signed and never change. Words that come later (a credit, a
// better description, the end of an embargo) stand in Words, one document for
// each improvement; where it says nothing the manifest's own words are used.
//
// Everything is a pure function of its input: the same releases, words and
// publisher give the same bytes, so pages can be compared and mirrored. A
// recalled improvement stays on every page, marked with the reason.
package advisory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/pattern"
	"github.com/sealant-os/sealant/release"
)

// WordsSchema names the form of Words.
const WordsSchema = "sealant.advisory/1"

// MaxWords is the largest document of words, in bytes.
const MaxWords = 1 << 20

// Publisher is who speaks.
type Publisher struct {
	Name    string `json:"name"`          // "Example Corp"
	URL     string `json:"url"`           // where the pages are served, https
	Contact string `json:"contact"`       // for people who found a flaw: mailto: or https:
	Support string `json:"support_until"` // "2031-06" or "2031-06-30", "" if unsaid
}

// Words are what is said about an improvement beside its manifest. Empty fields
// leave the manifest's own words.
type Words struct {
	Schema  string     `json:"schema"`
	ID      string     `json:"id"`
	Title   string     `json:"title"`
	Text    string     `json:"text"`
	Embargo *time.Time `json:"embargo,omitempty"` // details are shown from then on
	CVEs    []CVEWords `json:"cves"`
}

// CVEWords are what is said about one flaw.
type CVEWords struct {
	ID          string `json:"id"`
	Component   string `json:"component"` // "WebKit"
	Impact      string `json:"impact"`    // what an attacker could do
	Description string `json:"description"`
	Credit      string `json:"credit"`
	CVSS        string `json:"cvss"`  // a vector of CVSS 3.1, "" if not rated
	Score       string `json:"score"` // its base score, "8.8"
}

// Entry is one improvement as the public sees it.
type Entry struct {
	Manifest release.Manifest
	Words    Words
	Recall   *release.Recall // nil unless it was taken back
}

// Bulletin is all that a publisher has to tell, newest first.
type Bulletin struct {
	Publisher Publisher
	Product   string
	Entries   []Entry
	Now       time.Time // decides what is still under embargo
}

// New gathers a bulletin. Words of improvements that were never published are an
// error: they would be shown nowhere.
func New(p Publisher, product string, manifests []release.Manifest, recalls release.RecallList, words []Words, now time.Time) (*Bulletin, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	b := &Bulletin{Publisher: p, Product: product, Now: release.Time(now)}
	for _, m := range manifests {
		e := Entry{Manifest: m}
		if r, ok := recalls.Find(m.ID); ok {
			e.Recall = &r
		}
		b.Entries = append(b.Entries, e)
	}
	for _, w := range words {
		i := slices.IndexFunc(b.Entries, func(e Entry) bool { return e.Manifest.ID == w.ID })
		if i < 0 {
			return nil, fmt.Errorf("there are words about %s, which was not published", w.ID)
		}
		if err := w.check(b.Entries[i].Manifest); err != nil {
			return nil, err
		}
		b.Entries[i].Words = w
	}
	slices.SortFunc(b.Entries, func(x, y Entry) int {
		if c := y.Manifest.Published.Compare(x.Manifest.Published); c != 0 {
			return c
		}
		return strings.Compare(y.Manifest.ID, x.Manifest.ID)
	})
	return b, nil
}

var supportPattern = pattern.Lazy(`^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$`)

// Check says whether the publisher can speak: a name in one line, an address,
// a contact that a person can use.
func (p *Publisher) Check() error {
	if p.Name == "" || strings.ContainsAny(p.Name, "\n\r\t") {
		return fmt.Errorf("the publisher's name %q is empty or has several lines", p.Name)
	}
	u, err := url.Parse(p.URL)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return fmt.Errorf("the publisher's address %q is no https address", p.URL)
	}
	p.URL = strings.TrimSuffix(p.URL, "/")
	if p.Contact != "" {
		c, err := url.Parse(p.Contact)
		if err != nil || (c.Scheme != "mailto" && c.Scheme != "https") {
			return fmt.Errorf("the contact %q is no mailto: or https: address", p.Contact)
		}
	}
	if p.Support != "" && !supportPattern.MatchString(p.Support) {
		return fmt.Errorf("the end of support %q is no date (2031-06)", p.Support)
	}
	return nil
}

// Draft is the words with which an editor begins: the manifest's own.
func Draft(m release.Manifest) Words {
	w := Words{Schema: WordsSchema, ID: m.ID, Title: m.Title, Text: m.Text, CVEs: []CVEWords{}}
	for _, c := range m.New() {
		w.CVEs = append(w.CVEs, CVEWords{ID: c.ID, Impact: c.Text, Credit: c.Credit})
	}
	return w
}

// Encode writes the words for an editor: indented, one field a line.
func (w Words) Encode() ([]byte, error) { return document(w) }

// ParseWords reads a document of words, strictly but in any layout: people
// write it.
func ParseWords(data []byte) (Words, error) {
	var w Words
	if len(data) > MaxWords {
		return w, fmt.Errorf("cannot read the advisory: %d bytes, the limit is %d", len(data), MaxWords)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return Words{}, fmt.Errorf("cannot read the advisory: %w", err)
	}
	if dec.More() {
		return Words{}, fmt.Errorf("cannot read the advisory: more text after the document")
	}
	if w.Schema != WordsSchema {
		return Words{}, fmt.Errorf("cannot read the advisory: schema is %q, not %q", w.Schema, WordsSchema)
	}
	if err := release.CheckID(w.ID); err != nil {
		return Words{}, fmt.Errorf("cannot read the advisory: %w", err)
	}
	return w, nil
}

var (
	vectorPattern = pattern.Lazy(`^CVSS:3\.1/AV:[NALP]/AC:[LH]/PR:[NLH]/UI:[NR]/S:[UC]/C:[NLH]/I:[NLH]/A:[NLH]$`)
	scorePattern  = pattern.Lazy(`^(10\.0|[0-9]\.[0-9])$`)
)

// check says whether the words fit the manifest.
func (w Words) check(m release.Manifest) error {
	for _, c := range w.CVEs {
		i := slices.IndexFunc(m.CVEs, func(f release.CVE) bool { return f.ID == c.ID })
		if i < 0 || m.CVEs[i].Since != m.ID {
			return fmt.Errorf("the words about %s speak of %s, which it is not the first to fix", w.ID, c.ID)
		}
		if c.CVSS != "" && !vectorPattern.MatchString(c.CVSS) {
			return fmt.Errorf("%s: %s: %q is no CVSS 3.1 base vector", w.ID, c.ID, c.CVSS)
		}
		if (c.CVSS == "") != (c.Score == "") || c.Score != "" && !scorePattern.MatchString(c.Score) {
			return fmt.Errorf("%s: %s: a CVSS vector and its score belong together", w.ID, c.ID)
		}
	}
	return nil
}

// Remark is something that an editor should know before publishing.
type Remark struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// Lint says what readers will miss.
func (b *Bulletin) Lint() []Remark {
	remarks := []Remark{}
	add := func(id, format string, args ...any) {
		remarks = append(remarks, Remark{ID: id, Text: fmt.Sprintf(format, args...)})
	}
	if b.Publisher.Contact == "" {
		add("", "there is no contact for people who find a flaw")
	}
	if b.Publisher.Support == "" {
		add("", "the page does not say for how long the product is supported")
	}
	for _, e := range b.Entries {
		id := e.Manifest.ID
		if len(e.Manifest.New()) == 0 {
			add(id, "fixes no flaw with a CVE of its own")
		}
		for _, f := range b.flaws(e) {
			if f.Impact == "" {
				add(id, "%s: nothing says what could happen", f.ID)
			}
			if f.Credit == "" {
				add(id, "%s: nobody is credited", f.ID)
			}
		}
		if e.Words.Embargo != nil && e.Words.Embargo.After(e.Manifest.Published.AddDate(0, 3, 0)) {
			add(id, "the embargo lasts longer than 90 days")
		}
	}
	return remarks
}

// embargoed reports whether details are still to come.
func (b *Bulletin) embargoed(e Entry) bool {
	return e.Words.Embargo != nil && e.Words.Embargo.After(b.Now)
}

// flaw is a CVE with all that is said about it.
type flaw struct {
	CVEWords
	Exploited bool
}

// flaws are what an improvement is the first to fix, in the order of their ids.
func (b *Bulletin) flaws(e Entry) []flaw {
	var all []flaw
	for _, c := range e.Manifest.New() {
		f := flaw{CVEWords: CVEWords{ID: c.ID, Impact: c.Text, Credit: c.Credit}, Exploited: c.Exploited}
		for _, w := range e.Words.CVEs {
			if w.ID == c.ID {
				w.Impact, w.Credit = or(w.Impact, f.Impact), or(w.Credit, f.Credit)
				f.CVEWords = w
			}
		}
		all = append(all, f)
	}
	return all
}

func or(s, other string) string {
	if s != "" {
		return s
	}
	return other
}

func (e Entry) title() string { return or(e.Words.Title, e.Manifest.Title) }

func (e Entry) text() string { return or(e.Words.Text, e.Manifest.Text) }

// changed is when an entry last changed for a reader.
func (b *Bulletin) changed(e Entry) time.Time {
	t := e.Manifest.Published
	if w := e.Words.Embargo; w != nil && w.After(t) && !w.After(b.Now) {
		t = *w
	}
	if e.Recall != nil && e.Recall.Date.After(t) {
		t = e.Recall.Date
	}
	return t
}

// Files are all files of the site by their paths.
func (b *Bulletin) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	var err error
	if files["index.html"], err = b.index(); err != nil {
		return nil, fmt.Errorf("cannot write the page: %w", err)
	}
	if files["style.css"], err = style(); err != nil {
		return nil, fmt.Errorf("cannot write the style: %w", err)
	}
	if files["feed.atom"], err = b.Atom(); err != nil {
		return nil, fmt.Errorf("cannot write the feed: %w", err)
	}
	for _, e := range b.Entries {
		id := e.Manifest.ID
		if files[id+".html"], err = b.page(e); err != nil {
			return nil, fmt.Errorf("cannot write the page of %s: %w", id, err)
		}
		if b.embargoed(e) {
			continue // machines get it when people do
		}
		if files[csafPath(id)], err = b.CSAF(e); err != nil {
			return nil, fmt.Errorf("cannot write CSAF of %s: %w", id, err)
		}
		if files[osvPath(id)], err = b.OSV(e); err != nil {
			return nil, fmt.Errorf("cannot write OSV of %s: %w", id, err)
		}
	}
	if b.Publisher.Contact != "" {
		files[".well-known/security.txt"] = b.securityTxt()
	}
	return files, nil
}

func csafPath(id string) string { return "csaf/" + strings.ToLower(id) + ".json" }

func osvPath(id string) string { return "osv/" + id + ".json" }

// securityTxt is RFC 9116's file: whom to tell of a flaw.
func (b *Bulletin) securityTxt() []byte {
	return fmt.Appendf(nil, "Contact: %s\nExpires: %s\nCanonical: %s/.well-known/security.txt\nPreferred-Languages: en\n",
		b.Publisher.Contact, b.Now.AddDate(1, 0, 0).Format(time.RFC3339), b.Publisher.URL)
}

func document(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return out.Bytes(), err
}
