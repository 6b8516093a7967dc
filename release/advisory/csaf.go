package advisory

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/sealant-os/sealant/release"
)

// The parts of CSAF 2.0 (OASIS, profile "security advisory") that are written.
// Product status makes each document a VEX statement too.
type csafDocument struct {
	Document        csafHead   `json:"document"`
	ProductTree     csafTree   `json:"product_tree"`
	Vulnerabilities []csafFlaw `json:"vulnerabilities"`
}

type csafHead struct {
	Category  string `json:"category"`
	Version   string `json:"csaf_version"`
	Title     string `json:"title"`
	Lang      string `json:"lang"`
	Publisher struct {
		Category  string `json:"category"`
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Contact   string `json:"contact_details,omitempty"`
	} `json:"publisher"`
	Distribution struct {
		TLP struct {
			Label string `json:"label"`
		} `json:"tlp"`
	} `json:"distribution"`
	Severity struct {
		Text string `json:"text"`
	} `json:"aggregate_severity"`
	Notes      []csafNote      `json:"notes"`
	References []csafReference `json:"references"`
	Tracking   csafTracking    `json:"tracking"`
}

type csafTracking struct {
	ID       string         `json:"id"`
	Status   string         `json:"status"`
	Version  string         `json:"version"`
	Initial  string         `json:"initial_release_date"`
	Current  string         `json:"current_release_date"`
	Revision []csafRevision `json:"revision_history"`
}

type csafRevision struct {
	Number  string `json:"number"`
	Date    string `json:"date"`
	Summary string `json:"summary"`
}

type csafNote struct {
	Category string `json:"category"`
	Title    string `json:"title,omitempty"`
	Text     string `json:"text"`
}

type csafReference struct {
	Category string `json:"category"`
	Summary  string `json:"summary"`
	URL      string `json:"url"`
}

type csafTree struct {
	Branches []csafBranch `json:"branches"`
}

type csafBranch struct {
	Category string       `json:"category"`
	Name     string       `json:"name"`
	Branches []csafBranch `json:"branches,omitempty"`
	Product  *csafProduct `json:"product,omitempty"`
}

type csafProduct struct {
	ID   string `json:"product_id"`
	Name string `json:"name"`
}

type csafFlaw struct {
	CVE             string               `json:"cve"`
	Notes           []csafNote           `json:"notes"`
	Acknowledgments []csafAcknowledgment `json:"acknowledgments,omitempty"`
	Status          csafStatus           `json:"product_status"`
	Remediations    []csafRemediation    `json:"remediations"`
	Threats         []csafThreat         `json:"threats,omitempty"`
	Scores          []csafScore          `json:"scores,omitempty"`
}

type csafAcknowledgment struct {
	Names []string `json:"names"`
}

type csafStatus struct {
	Fixed    []string `json:"fixed,omitempty"`
	Affected []string `json:"known_affected"`
}

type csafRemediation struct {
	Category string       `json:"category"`
	Details  string       `json:"details"`
	Products []string     `json:"product_ids"`
	URL      string       `json:"url,omitempty"`
	Restart  *csafRestart `json:"restart_required,omitempty"`
}

type csafRestart struct {
	Category string `json:"category"`
	Details  string `json:"details"`
}

type csafThreat struct {
	Category string `json:"category"`
	Details  string `json:"details"`
}

type csafScore struct {
	Products []string `json:"products"`
	CVSS     csafCVSS `json:"cvss_v3"`
}

type csafCVSS struct {
	Version  string      `json:"version"`
	Vector   string      `json:"vectorString"`
	Score    json.Number `json:"baseScore"`
	Severity string      `json:"baseSeverity"`
}

// CSAF is the improvement's CSAF 2.0 document. Its revisions are the release,
// the end of an embargo, and the recall.
func (b *Bulletin) CSAF(e Entry) ([]byte, error) {
	m := e.Manifest
	doc := csafDocument{Vulnerabilities: []csafFlaw{}}
	h := &doc.Document
	h.Category, h.Version, h.Title, h.Lang = "csaf_security_advisory", "2.0", fmt.Sprintf("%s %s: %s", m.Product, m.Name(), e.title()), "en"
	h.Publisher.Category, h.Publisher.Name, h.Publisher.Namespace, h.Publisher.Contact = "vendor", b.Publisher.Name, b.Publisher.URL, b.Publisher.Contact
	h.Distribution.TLP.Label = "WHITE"
	h.Severity.Text = m.Severity
	h.Notes = []csafNote{{Category: "summary", Text: e.title()}}
	if e.text() != "" {
		h.Notes = append(h.Notes, csafNote{Category: "description", Text: e.text()})
	}
	h.References = []csafReference{
		{"self", "This document", b.address(csafPath(m.ID))},
		{"self", "The page for people", b.address(m.ID + ".html")},
	}
	h.Tracking = b.tracking(e)

	// The states of the product: the baseline, each improvement, this one.
	before, after := b.states(m)
	doc.ProductTree.Branches = []csafBranch{{Category: "vendor", Name: b.Publisher.Name, Branches: []csafBranch{{
		Category: "product_name", Name: m.Product,
	}}}}
	versions := &doc.ProductTree.Branches[0].Branches[0].Branches
	for _, s := range append(before, after) {
		*versions = append(*versions, csafBranch{Category: "product_version", Name: s.Name, Product: &csafProduct{ID: s.ID, Name: m.Product + " " + s.Name}})
	}
	affected := make([]string, 0, len(before))
	for _, s := range before {
		affected = append(affected, s.ID)
	}
	for _, f := range b.flaws(e) {
		doc.Vulnerabilities = append(doc.Vulnerabilities, b.csafFlaw(e, f, affected, after.ID))
	}
	return document(doc)
}

func (b *Bulletin) csafFlaw(e Entry, f flaw, affected []string, fixed string) csafFlaw {
	impact := or(f.Impact, e.title())
	v := csafFlaw{CVE: f.ID, Notes: []csafNote{{Category: "summary", Text: impact}}}
	if f.Description != "" {
		v.Notes = append(v.Notes, csafNote{Category: "description", Text: f.Description})
	}
	if f.Component != "" {
		v.Notes = append(v.Notes, csafNote{Category: "details", Title: "Component", Text: f.Component})
	}
	if f.Credit != "" {
		v.Acknowledgments = []csafAcknowledgment{{Names: []string{f.Credit}}}
	}
	v.Status = csafStatus{Affected: affected, Fixed: []string{fixed}}
	v.Remediations = []csafRemediation{{
		Category: "vendor_fix", Details: fmt.Sprintf("Install %s (%s).", e.Manifest.ID, e.Manifest.Name()), Products: affected, URL: b.address(e.Manifest.ID + ".html"),
		Restart: &csafRestart{"system", "In an app that is relaunched the fix is in force at once; everywhere after a restart."},
	}}
	if e.Recall != nil {
		v.Remediations = []csafRemediation{{
			Category: "none_available", Details: fmt.Sprintf("%s was taken back: %s. A corrected version will follow.", e.Manifest.ID, e.Recall.Reason), Products: affected,
		}}
	}
	if f.Exploited {
		v.Threats = []csafThreat{{Category: "exploit_status", Details: "Attacks are known."}}
	}
	if f.CVSS != "" {
		v.Scores = []csafScore{{Products: affected, CVSS: csafCVSS{Version: "3.1", Vector: f.CVSS, Score: json.Number(plainScore(f.Score)), Severity: severityOf(f.Score)}}}
	}
	return v
}

// plainScore writes "9.0" as JSON's 9.
func plainScore(s string) string {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return "0"
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// severityOf is CVSS 3.1's word for a score.
func severityOf(score string) string {
	f, _ := strconv.ParseFloat(score, 64)
	switch {
	case f >= 9:
		return "CRITICAL"
	case f >= 7:
		return "HIGH"
	case f >= 4:
		return "MEDIUM"
	case f > 0:
		return "LOW"
	}
	return "NONE"
}

func (b *Bulletin) tracking(e Entry) csafTracking {
	t := csafTracking{ID: e.Manifest.ID, Status: "final", Initial: rfc3339(e.Manifest.Published)}
	add := func(at time.Time, summary string) {
		t.Version = strconv.Itoa(len(t.Revision) + 1)
		t.Current = rfc3339(at)
		t.Revision = append(t.Revision, csafRevision{Number: t.Version, Date: rfc3339(at), Summary: summary})
	}
	add(e.Manifest.Published, "Released")
	if w := e.Words.Embargo; w != nil && w.After(e.Manifest.Published) {
		add(*w, "Details published")
	}
	if e.Recall != nil {
		add(later(e.Recall.Date, e.Manifest.Published), "Taken back: "+e.Recall.Reason)
	}
	return t
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (b *Bulletin) address(path string) string { return b.Publisher.URL + "/" + path }

// state is one state of the product that a device can be in.
type state struct{ Name, ID string }

// states are those that an improvement is an improvement of (the baseline and
// the published ones before it), and its own.
func (b *Bulletin) states(m release.Manifest) (before []state, own state) {
	of := func(m release.Manifest) state {
		return state{Name: fmt.Sprintf("%s with %s", m.OSVersion, m.ID), ID: fmt.Sprintf("%s-%s-%s", m.Product, m.OSVersion, m.ID)}
	}
	before = []state{{Name: m.OSVersion, ID: fmt.Sprintf("%s-%s", m.Product, m.OSVersion)}}
	for i := len(b.Entries) - 1; i >= 0; i-- { // oldest first
		if o := b.Entries[i].Manifest; o.Baseline == m.Baseline && o.Level < m.Level {
			before = append(before, of(o))
		}
	}
	return before, of(m)
}
