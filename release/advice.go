package release

import (
	"fmt"
	"strings"
	"time"
)

// AdviceSchema names the form of AdviceList.
const AdviceSchema = "sealant.advice/1"

// Limits of an advice list.
const (
	MaxAdviceList = 1 << 20 // bytes of the document
	MaxAdvice     = 1000
	MinEvidence   = 10 // no list can make a device advise on weaker evidence
	maxEvidence   = 1_000_000
	maxVersions   = 100
)

// The scopes of an advice: whose crashes count.
const (
	ScopeMain = "main" // only the app's main process
	ScopeAny  = "any"  // any of its processes
)

// AdviceList names the apps that an improvement is known to harm. An entry
// removes nothing: it only lets a device ask its person, and only after the
// device's own counts for that app are strong enough.
type AdviceList struct {
	Schema  string   `json:"schema"`
	Version int64    `json:"version"` // rises with every change
	Product string   `json:"product"`
	Entries []Advice `json:"entries"` // sorted by release, then app
}

// Advice is one app that one improvement may harm.
type Advice struct {
	Release     string    `json:"release"`
	App         string    `json:"app"`          // app id, as apps.d names it
	OSVersions  []string  `json:"os_versions"`  // sorted; empty means every one
	AppVersions []string  `json:"app_versions"` // sorted; empty means every one
	Scope       string    `json:"scope"`        // main or any
	MinEvidence int       `json:"min_evidence"` // E at which a device may ask, at least 10; 20 is usual
	TextKey     string    `json:"text_key"`     // which of the device's own texts to show
	Date        time.Time `json:"date"`
}

// ParseAdviceList reads the canonical bytes of an advice list.
func ParseAdviceList(data []byte) (AdviceList, error) {
	var l AdviceList
	if err := parse("the advice list", MaxAdviceList, data, &l); err != nil {
		return AdviceList{}, err
	}
	return l, nil
}

// Encode validates the list and returns its canonical bytes.
func (l AdviceList) Encode() ([]byte, error) {
	return encode("the advice list", MaxAdviceList, &l)
}

// Digest is the SHA-384 of the canonical bytes.
func (l AdviceList) Digest() Digest { return digestOf(&l) }

// Find returns the advice on one app under one improvement.
func (l AdviceList) Find(release, app string) (Advice, bool) {
	for _, e := range l.Entries {
		if e.Release == release && e.App == app {
			return e, true
		}
	}
	return Advice{}, false
}

// For lists the advice on one improvement.
func (l AdviceList) For(release string) []Advice {
	var found []Advice
	for _, e := range l.Entries {
		if e.Release == release {
			found = append(found, e)
		}
	}
	return found
}

// With returns the list with one more entry, or that one replaced, under the
// next version.
func (l AdviceList) With(e Advice) AdviceList {
	l.Entries = insert(l.Entries, e, Advice.key)
	l.Version++
	return l
}

// Without returns the list without the entry, under the next version.
func (l AdviceList) Without(release, app string) AdviceList {
	kept := []Advice{}
	for _, e := range l.Entries {
		if e.Release != release || e.App != app {
			kept = append(kept, e)
		}
	}
	l.Entries = kept
	l.Version++
	return l
}

// Applies reports whether the advice is about this OS and app version.
func (e Advice) Applies(osVersion, appVersion string) bool {
	return among(e.OSVersions, osVersion) && among(e.AppVersions, appVersion)
}

func among(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return len(list) == 0
}

// key orders entries; a space sorts before every character of an id.
func (e Advice) key() string { return e.Release + " " + e.App }

func (l *AdviceList) validate() error {
	if err := checkSchema(l.Schema, AdviceSchema); err != nil {
		return err
	}
	if err := checkList(l.Version, l.Product); err != nil {
		return err
	}
	if l.Entries == nil || len(l.Entries) > MaxAdvice {
		return fmt.Errorf("entries must be a list of at most %d: %w", MaxAdvice, errTooMany)
	}
	for _, e := range l.Entries {
		if err := e.validate(); err != nil {
			return err
		}
	}
	return checkOrder("entries", len(l.Entries), func(i int) string { return l.Entries[i].key() })
}

func (e *Advice) validate() error {
	if err := CheckID(e.Release); err != nil {
		return err
	}
	if e.App == "" || strings.ContainsAny(e.App, " \n") {
		return fmt.Errorf("%q is no app id", e.App)
	}
	if err := checkLine("the app id", e.App, MaxTitle); err != nil {
		return err
	}
	for what, list := range map[string][]string{"os_versions": e.OSVersions, "app_versions": e.AppVersions} {
		if list == nil || len(list) > maxVersions {
			return fmt.Errorf("%s must be a list of at most %d", what, maxVersions)
		}
		for _, v := range list {
			if err := match("version", versionPattern, v); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if err := checkOrder(what, len(list), func(i int) string { return list[i] }); err != nil {
			return err
		}
	}
	if e.Scope != ScopeMain && e.Scope != ScopeAny {
		return fmt.Errorf("scope %q is neither %s nor %s", e.Scope, ScopeMain, ScopeAny)
	}
	if e.MinEvidence < MinEvidence || e.MinEvidence > maxEvidence {
		return fmt.Errorf("min_evidence %d is not %d to %d", e.MinEvidence, MinEvidence, maxEvidence)
	}
	if err := match("text key", keyPattern, e.TextKey); err != nil {
		return err
	}
	return checkTime("the date", e.Date)
}
