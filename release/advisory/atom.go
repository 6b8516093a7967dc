package advisory

import (
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/gorilla/feeds"
)

// Atom is the feed of all improvements, newest first. A recall changes the
// entry's title and date, so that readers show it again.
func (b *Bulletin) Atom() ([]byte, error) {
	f := &feeds.Feed{
		Title:   b.Product + " security releases",
		Link:    &feeds.Link{Href: b.address("feed.atom"), Rel: "self"},
		Id:      b.address("feed.atom"),
		Author:  &feeds.Author{Name: b.Publisher.Name},
		Updated: b.updated(),
	}
	for _, e := range b.Entries {
		m := e.Manifest
		title := fmt.Sprintf("%s %s (%s): %s", m.Product, m.Name(), m.ID, b.row(e).Title)
		if e.Recall != nil {
			title = "Recalled: " + title
		}
		f.Items = append(f.Items, &feeds.Item{
			Title: title, Id: b.address(m.ID + ".html"), Link: &feeds.Link{Href: b.address(m.ID + ".html")},
			Created: m.Published, Updated: b.changed(e), Content: b.summary(e),
		})
	}
	atom, err := f.ToAtom()
	return []byte(atom + "\n"), err
}

// updated is when the bulletin last changed: the same input gives the same feed.
func (b *Bulletin) updated() time.Time {
	var t time.Time
	for _, e := range b.Entries {
		if c := b.changed(e); c.After(t) {
			t = c
		}
	}
	if t.IsZero() {
		return b.Now
	}
	return t
}

// summary is an entry in a few lines of HTML.
func (b *Bulletin) summary(e Entry) string {
	var s strings.Builder
	if e.Recall != nil {
		fmt.Fprintf(&s, "<p><strong>Recalled on %s: %s</strong></p>", day(e.Recall.Date), html.EscapeString(e.Recall.Reason))
	}
	if b.embargoed(e) {
		fmt.Fprintf(&s, "<p>Details on %s.</p>", day(*e.Words.Embargo))
		return s.String()
	}
	fmt.Fprintf(&s, "<p>%s</p><ul>", html.EscapeString(e.title()))
	for _, f := range b.flaws(e) {
		exploited := ""
		if f.Exploited {
			exploited = " (attacks are known)"
		}
		fmt.Fprintf(&s, "<li>%s%s: %s</li>", f.ID, exploited, html.EscapeString(or(f.Impact, e.title())))
	}
	s.WriteString("</ul>")
	return s.String()
}

func day(t time.Time) string { return t.UTC().Format("2 January 2006") }
