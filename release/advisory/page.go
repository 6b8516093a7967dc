package advisory

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"strings"
	"sync"
	"time"

	"github.com/sealant-os/sealant/release"
)

//go:embed site
var site embed.FS

// templates are parsed at their first use: most programs that link them show no
// page.
var templates = sync.OnceValue(func() *template.Template { return template.Must(template.ParseFS(site, "site/*.html")) })

// row is what the list and the head of a page show of an improvement.
type row struct {
	ID, Name, Title, AvailableFor string
	Date, Machine                 string
	Exploited                     bool
	Recall                        *release.Recall
}

func (b *Bulletin) row(e Entry) row {
	m := e.Manifest
	r := row{
		ID: m.ID, Name: m.Product + " " + m.Name(), Title: e.title(), AvailableFor: m.Product + " " + release.DisplayVersion(m.OSVersion),
		Date: day(m.Published), Machine: m.Published.UTC().Format(time.DateOnly), Exploited: m.Exploited(), Recall: e.Recall,
	}
	if b.embargoed(e) {
		r.Title = "Details on " + day(*e.Words.Embargo)
		r.Exploited = false
	}
	return r
}

// frame is what every page shows.
type frame struct {
	Title, Product, Support string
	Publisher               Publisher
}

func (b *Bulletin) frame(title string) frame {
	f := frame{Title: title, Product: b.Product, Publisher: b.Publisher, Support: b.Publisher.Support}
	for _, layout := range []struct{ in, out string }{{"2006-01", "January 2006"}, {time.DateOnly, "2 January 2006"}} {
		if t, err := time.Parse(layout.in, b.Publisher.Support); err == nil {
			f.Support = t.Format(layout.out)
		}
	}
	return f
}

// index is the list of all improvements.
func (b *Bulletin) index() ([]byte, error) {
	page := struct {
		frame
		Rows []row
	}{frame: b.frame(b.Product + " security releases")}
	for _, e := range b.Entries {
		page.Rows = append(page.Rows, b.row(e))
	}
	return render("index.html", page)
}

// releasePage is the page of one improvement.
type releasePage struct {
	frame
	Row                  row
	Severity, Changes    string
	Components           string
	Embargo              string
	RecallDate, RecallTo string
	Paragraphs           []string
	Flaws                []flaw
	Earlier              []release.CVE
	CSAF, OSV            string
}

func (b *Bulletin) page(e Entry) ([]byte, error) {
	m := e.Manifest
	p := releasePage{
		Row: b.row(e), Severity: m.Severity, CSAF: csafPath(m.ID), OSV: osvPath(m.ID), Flaws: b.flaws(e),
	}
	p.frame = b.frame("About the security content of " + p.Row.Name)
	var names []string
	files := 0
	for _, c := range m.Cryptexes {
		names = append(names, c.Name)
		files += c.Changed
	}
	p.Components = strings.Join(names, ", ")
	p.Changes = fmt.Sprintf("%d files in %s", files, p.Components)
	if files == 1 {
		p.Changes = "1 file in " + p.Components
	}
	for _, c := range m.CVEs {
		if c.Since != m.ID && b.published(c.Since) {
			p.Earlier = append(p.Earlier, c)
		}
	}
	if t := e.text(); t != "" {
		for _, par := range strings.Split(t, "\n") {
			if par = strings.TrimSpace(par); par != "" {
				p.Paragraphs = append(p.Paragraphs, par)
			}
		}
	}
	if b.embargoed(e) {
		p.Embargo = day(*e.Words.Embargo)
	}
	if r := e.Recall; r != nil {
		p.RecallDate = day(r.Date)
		p.RecallTo = "Devices that have it go back to " + b.landing(m, r.To) + "."
	}
	return render("release.html", p)
}

// landing names the state that a recall leads back to.
func (b *Bulletin) landing(m release.Manifest, to string) string {
	for _, e := range b.Entries {
		if to != "" && e.Manifest.ID == to {
			return e.Manifest.Product + " " + e.Manifest.Name()
		}
	}
	return m.Product + " " + release.DisplayVersion(m.OSVersion)
}

func (b *Bulletin) published(id string) bool {
	for _, e := range b.Entries {
		if e.Manifest.ID == id && !b.embargoed(e) {
			return true
		}
	}
	return false
}

func render(name string, page any) ([]byte, error) {
	var out bytes.Buffer
	err := templates().ExecuteTemplate(&out, name, page)
	return out.Bytes(), err
}

func style() ([]byte, error) { return site.ReadFile("site/style.css") }
