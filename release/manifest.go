package release

import (
	"fmt"
	"sort"
	"time"
)

// ManifestSchema names the form of Manifest.
const ManifestSchema = "sealant.release/1"

// Limits of a manifest.
const (
	MaxManifest = 1 << 20 // bytes of the document
	MaxLevel    = 26      // (a) to (z) on one baseline
	MaxCVEs     = 1000
	MaxChanges  = 1000 // files listed per cryptex
	maxChanged  = 10_000_000
	MaxPath     = 4096 // bytes of a path in a cryptex
)

// The severities, by rising weight.
var severities = []string{"low", "medium", "high", "critical"}

// Manifest is one improvement: what it brings every cryptex from and to, and
// what that fixes. It is cumulative: From is always the baseline's image, and
// CVEs lists everything that is fixed relative to the baseline.
type Manifest struct {
	Schema    string    `json:"schema"`
	ID        string    `json:"id"`         // SI-2026-0007
	Level     int       `json:"level"`      // 1 for (a), 2 for (b)
	Product   string    `json:"product"`    //
	OSVersion string    `json:"os_version"` //
	Baseline  Digest    `json:"baseline"`   // digest of the Baseline document
	Previous  string    `json:"previous"`   // id of the improvement before, "" for level 1
	Published time.Time `json:"published"`
	Severity  string    `json:"severity"` // low, medium, high, critical
	Title     string    `json:"title"`    // one line
	Text      string    `json:"text"`     // for people, may have several lines
	CVEs      []CVE     `json:"cves"`     // sorted by id
	Cryptexes []Change  `json:"cryptexes"`
}

// CVE is one flaw that the improvement fixes.
type CVE struct {
	ID        string `json:"id"`
	Since     string `json:"since"`     // the improvement that fixed it first
	Text      string `json:"text"`      // what could happen, for people
	Credit    string `json:"credit"`    // who found it, "" if unsaid
	Exploited bool   `json:"exploited"` // attacks are known
}

// Change is what the improvement does to one cryptex.
type Change struct {
	Name      string  `json:"name"`
	Subtype   Subtype `json:"subtype"`
	From      State   `json:"from"`      // the baseline's image
	To        State   `json:"to"`        // the improved image
	Patch     File    `json:"patch"`     // From → To
	Antipatch File    `json:"antipatch"` // To → From
	// Shortcut is an optional patch from the previous improvement's image,
	// whose digest is PreviousDigest; both are absent where there is none.
	Shortcut       *File        `json:"shortcut,omitempty"`
	PreviousDigest *Digest      `json:"previous_digest,omitempty"`
	Changed        int          `json:"changed"` // files that differ from the baseline's
	Files          []FileChange `json:"files"`   // the first MaxChanges of them, sorted by path
}

// State is one state of a cryptex: an Image without its name.
type State struct {
	Digest     Digest `json:"digest"`
	Size       int64  `json:"size"`
	Seal       Seal   `json:"seal"`
	TrustCache Digest `json:"trust_cache"`
}

// File is a target by content: patches/<digest> or images/<digest>.
type File struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
}

// FileChange says how one file of a cryptex differs from the baseline's.
type FileChange struct {
	Path   string `json:"path"`               // without a leading slash
	Change string `json:"change"`             // added, removed, content, mode
	Before int64  `json:"before"`             // bytes, 0 if added
	After  int64  `json:"after"`              // bytes, 0 if removed
	Build  *Build `json:"build_id,omitempty"` // of an ELF file
}

// Build is an ELF file's build-id before and after, in lower-case hexadecimal,
// "" where there is none.
type Build struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// The kinds of FileChange.
const (
	Added   = "added"
	Removed = "removed"
	Content = "content" // bytes differ
	Mode    = "mode"    // only mode, owner or attributes differ
)

// ParseManifest reads the canonical bytes of a manifest.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := parse("the release manifest", MaxManifest, data, &m); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// Encode validates the manifest and returns its canonical bytes.
func (m Manifest) Encode() ([]byte, error) {
	return encode("the release manifest", MaxManifest, &m)
}

// Digest is the SHA-384 of the canonical bytes.
func (m Manifest) Digest() Digest { return digestOf(&m) }

// Label is the level as eyes see it: "(b)". It never enters a version string
// that a program parses.
func (m Manifest) Label() string { return Label(m.Level) }

// Name is OS version and label: "42.3 (b)".
func (m Manifest) Name() string { return DisplayVersion(m.OSVersion) + " " + m.Label() }

// Label is "(a)" for 1, "(b)" for 2, and "" for 0, the baseline.
func Label(level int) string {
	if level < 1 || level > MaxLevel {
		return ""
	}
	return "(" + string(rune('a'+level-1)) + ")"
}

// Exploited reports whether the improvement itself (not one before it) fixes a
// flaw against which attacks are known.
func (m Manifest) Exploited() bool {
	for _, c := range m.New() {
		if c.Exploited {
			return true
		}
	}
	return false
}

// New lists the flaws that this improvement is the first to fix: what a recall
// to the previous one opens again.
func (m Manifest) New() []CVE {
	var own []CVE
	for _, c := range m.CVEs {
		if c.Since == m.ID {
			own = append(own, c)
		}
	}
	return own
}

// Image is the improved image of a change.
func (c Change) Image() Image { return c.To.image(c.Name, c.Subtype) }

// Whole is the improved image as a file: the fallback if a patch fails.
func (c Change) Whole() File { return File{Digest: c.To.Digest, Size: c.To.Size} }

func (s State) image(name string, t Subtype) Image {
	return Image{Name: name, Subtype: t, Digest: s.Digest, Size: s.Size, Seal: s.Seal, TrustCache: s.TrustCache}
}

// State is the image without its name and subtype.
func (c Image) State() State {
	return State{Digest: c.Digest, Size: c.Size, Seal: c.Seal, TrustCache: c.TrustCache}
}

// Set is the exact group of images that a device with this improvement has: the
// baseline's, with the changed ones in their place. It fails unless the
// manifest is for that very baseline.
func (m Manifest) Set(b Baseline) ([]Image, error) {
	if d := b.Digest(); d != m.Baseline {
		return nil, fmt.Errorf("cannot combine %s with the baseline: it is for another one (%.12s…, not %.12s…)", m.ID, m.Baseline, d)
	}
	if m.Product != b.Product || m.OSVersion != b.OSVersion {
		return nil, fmt.Errorf("cannot combine %s with the baseline: it is for %s %s, not %s %s", m.ID, m.Product, m.OSVersion, b.Product, b.OSVersion)
	}
	set := append([]Image(nil), b.Cryptexes...)
	for _, c := range m.Cryptexes {
		i := sort.Search(len(set), func(i int) bool { return set[i].Name >= c.Name })
		if i == len(set) || set[i] != c.From.image(c.Name, c.Subtype) {
			return nil, fmt.Errorf("cannot combine %s with the baseline: cryptex %q starts from another image", m.ID, c.Name)
		}
		set[i] = c.Image()
	}
	return set, nil
}

func (m *Manifest) validate() error {
	if err := checkSchema(m.Schema, ManifestSchema); err != nil {
		return err
	}
	if err := CheckID(m.ID); err != nil {
		return err
	}
	if m.Level < 1 || m.Level > MaxLevel {
		return fmt.Errorf("level %d is not 1 to %d", m.Level, MaxLevel)
	}
	if err := CheckProduct(m.Product); err != nil {
		return err
	}
	if err := CheckOSVersion(m.OSVersion); err != nil {
		return err
	}
	if m.Baseline.IsZero() {
		return fmt.Errorf("the baseline's digest is zero")
	}
	switch {
	case m.Level == 1 && m.Previous != "":
		return fmt.Errorf("level 1 has no previous improvement, but %s is named", m.Previous)
	case m.Level > 1 && m.Previous == "":
		return fmt.Errorf("level %d needs its previous improvement", m.Level)
	case m.Previous == m.ID:
		return fmt.Errorf("%s is its own previous improvement", m.ID)
	case m.Previous != "":
		if err := CheckID(m.Previous); err != nil {
			return fmt.Errorf("previous: %w", err)
		}
	}
	if err := checkTime("published", m.Published); err != nil {
		return err
	}
	if !knownSeverity(m.Severity) {
		return fmt.Errorf("severity %q is none of %v", m.Severity, severities)
	}
	if m.Title == "" {
		return fmt.Errorf("the title is empty")
	}
	if err := checkLine("the title", m.Title, MaxTitle); err != nil {
		return err
	}
	if err := checkText("the text", m.Text, MaxText); err != nil {
		return err
	}
	if err := m.validateCVEs(); err != nil {
		return err
	}
	if n := len(m.Cryptexes); n < 1 || n > MaxCryptexes {
		return fmt.Errorf("%d cryptexes, there must be 1 to %d", n, MaxCryptexes)
	}
	for i := range m.Cryptexes {
		if err := m.Cryptexes[i].validate(m.Level); err != nil {
			return fmt.Errorf("cryptex %q: %w", m.Cryptexes[i].Name, err)
		}
	}
	return checkOrder("cryptexes", len(m.Cryptexes), func(i int) string { return m.Cryptexes[i].Name })
}

func knownSeverity(s string) bool {
	for _, k := range severities {
		if s == k {
			return true
		}
	}
	return false
}

func (m *Manifest) validateCVEs() error {
	if m.CVEs == nil || len(m.CVEs) > MaxCVEs {
		return fmt.Errorf("cves must be a list of at most %d", MaxCVEs)
	}
	for _, c := range m.CVEs {
		if err := CheckCVE(c.ID); err != nil {
			return err
		}
		if err := CheckID(c.Since); err != nil {
			return fmt.Errorf("%s: since: %w", c.ID, err)
		}
		if m.Level == 1 && c.Since != m.ID {
			return fmt.Errorf("%s: fixed since %s, but this is the first improvement", c.ID, c.Since)
		}
		if err := checkText(c.ID+": the text", c.Text, MaxText); err != nil {
			return err
		}
		if err := checkLine(c.ID+": the credit", c.Credit, MaxTitle); err != nil {
			return err
		}
	}
	return checkOrder("cves", len(m.CVEs), func(i int) string { return m.CVEs[i].ID })
}

func (c *Change) validate(level int) error {
	from, to := c.From.image(c.Name, c.Subtype), c.Image()
	if err := from.validate(); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if err := to.validate(); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if from.Digest == to.Digest {
		return fmt.Errorf("nothing changes")
	}
	files := map[string]*File{"patch": &c.Patch, "antipatch": &c.Antipatch}
	if (c.Shortcut == nil) != (c.PreviousDigest == nil) {
		return fmt.Errorf("shortcut and previous_digest belong together")
	}
	if c.Shortcut != nil {
		if level == 1 {
			return fmt.Errorf("level 1 has nothing to take a shortcut from")
		}
		if c.PreviousDigest.IsZero() {
			return fmt.Errorf("the previous image's digest is zero")
		}
		files["shortcut"] = c.Shortcut
	}
	for what, f := range files {
		if f.Digest.IsZero() || f.Size < 1 || f.Size > MaxImageSize {
			return fmt.Errorf("%s has no digest, or the size %d", what, f.Size)
		}
	}
	if c.Files == nil || len(c.Files) > MaxChanges {
		return fmt.Errorf("files must be a list of at most %d", MaxChanges)
	}
	if c.Changed > maxChanged || min(c.Changed, MaxChanges) != len(c.Files) {
		return fmt.Errorf("%d files changed, but %d are listed", c.Changed, len(c.Files))
	}
	for i := range c.Files {
		if err := c.Files[i].validate(); err != nil {
			return err
		}
	}
	return checkOrder("files", len(c.Files), func(i int) string { return c.Files[i].Path })
}

func (f *FileChange) validate() error {
	if f.Path == "" || f.Path[0] == '/' {
		return fmt.Errorf("%q is not a path in a cryptex", f.Path)
	}
	if err := checkLine("a path", f.Path, MaxPath); err != nil {
		return err
	}
	if f.Before < 0 || f.After < 0 || f.Before > MaxImageSize || f.After > MaxImageSize {
		return fmt.Errorf("%s: impossible size", f.Path)
	}
	switch f.Change {
	case Added, Removed, Content, Mode:
	default:
		return fmt.Errorf("%s: unknown change %q", f.Path, f.Change)
	}
	if (f.Change == Added && f.Before != 0) || (f.Change == Removed && f.After != 0) {
		return fmt.Errorf("%s: %s, but with a size on the other side", f.Path, f.Change)
	}
	if f.Build != nil {
		for _, id := range []string{f.Build.Before, f.Build.After} {
			if err := checkBuildID(id); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
	}
	return nil
}

func checkBuildID(id string) error {
	if len(id)%2 != 0 || len(id) > 128 {
		return fmt.Errorf("build-id %q has an impossible length", id)
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("build-id %q is not lower-case hexadecimal", id)
		}
	}
	return nil
}
