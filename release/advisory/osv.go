package advisory

import (
	"github.com/sealant-os/sealant/release"
)

// The parts of the OSV format (schema 1.7) that are written. The product is its
// own ecosystem; its versions are OS versions, with the improvement's id after
// a plus sign.
type osvDocument struct {
	Schema     string         `json:"schema_version"`
	ID         string         `json:"id"`
	Modified   string         `json:"modified"`
	Published  string         `json:"published"`
	Upstream   []string       `json:"upstream,omitempty"`
	Summary    string         `json:"summary"`
	Details    string         `json:"details"`
	Severity   []osvSeverity  `json:"severity,omitempty"`
	Affected   []osvAffected  `json:"affected"`
	References []osvReference `json:"references"`
	Credits    []osvCredit    `json:"credits,omitempty"`
	Specific   osvSpecific    `json:"database_specific"`
}

type osvSeverity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type osvAffected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Versions []string `json:"versions"`
	Specific osvFixed `json:"ecosystem_specific"`
}

type osvFixed struct {
	FixedBy  string         `json:"fixed_by"`
	Baseline release.Digest `json:"baseline"`
}

type osvReference struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

type osvCredit struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type osvSpecific struct {
	Severity  string     `json:"severity"`
	Level     int        `json:"level"`
	Exploited bool       `json:"exploited"`
	Recalled  *osvRecall `json:"recalled,omitempty"`
}

type osvRecall struct {
	Date   string `json:"date"`
	Reason string `json:"reason"`
}

// OSV is the improvement's OSV document.
func (b *Bulletin) OSV(e Entry) ([]byte, error) {
	m := e.Manifest
	doc := osvDocument{
		Schema: "1.7.0", ID: m.ID, Modified: rfc3339(b.changed(e)), Published: rfc3339(m.Published),
		Summary: e.title(), Details: or(e.text(), e.title()),
		References: []osvReference{{"ADVISORY", b.address(m.ID + ".html")}, {"ADVISORY", b.address(csafPath(m.ID))}},
		Specific:   osvSpecific{Severity: m.Severity, Level: m.Level, Exploited: m.Exploited()},
	}
	for _, f := range b.flaws(e) {
		doc.Upstream = append(doc.Upstream, f.ID)
		if f.Credit != "" {
			doc.Credits = append(doc.Credits, osvCredit{f.Credit, "FINDER"})
		}
		if f.CVSS != "" && len(doc.Severity) == 0 {
			doc.Severity = []osvSeverity{{"CVSS_V3", f.CVSS}}
		}
	}
	versions := []string{m.OSVersion}
	for i := len(b.Entries) - 1; i >= 0; i-- {
		if o := b.Entries[i].Manifest; o.Baseline == m.Baseline && o.Level < m.Level {
			versions = append(versions, o.OSVersion+"+"+o.ID)
		}
	}
	for _, c := range m.Cryptexes {
		a := osvAffected{Versions: versions, Specific: osvFixed{FixedBy: m.ID, Baseline: m.Baseline}}
		a.Package.Ecosystem, a.Package.Name = m.Product, c.Name
		doc.Affected = append(doc.Affected, a)
	}
	if e.Recall != nil {
		doc.Specific.Recalled = &osvRecall{Date: rfc3339(e.Recall.Date), Reason: e.Recall.Reason}
	}
	return document(doc)
}
