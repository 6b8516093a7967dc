package main

import (
	"fmt"
	"path"
	"slices"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release"
)

// steps shows the progress of one step after the other.
type steps struct {
	screen *cli.Screen
	name   string
	bar    *cli.Progress
}

func (p *steps) set(step string, done, total int64) {
	if p.bar == nil || step != p.name {
		p.end()
		p.name, p.bar = step, p.screen.Progress(step, total)
	}
	p.bar.Set(done, total)
}

func (p *steps) end() {
	if p.bar != nil {
		p.bar.End()
		p.bar = nil
	}
}

// shownFiles bounds the files listed for a person.
const shownFiles = 20

// printAccount shows what a release changes.
func printAccount(s *cli.Screen, a *publish.Account, acknowledged []string) {
	m := a.Manifest
	s.Printf("%s  %s  level %d %s of %s %s\n", m.ID, m.Title, m.Level, m.Label(), m.Product, release.DisplayVersion(m.OSVersion))
	for _, c := range a.Cryptexes {
		printCryptex(s, m, c)
	}
	for i, f := range first(findings(a), shownFiles) {
		if i == 0 {
			s.Printf("findings\n")
		}
		mark, word := s.Bad(), ""
		if slices.Contains(acknowledged, f.Code) {
			mark, word = s.Warn(), " (acknowledged)"
		}
		s.Printf("  %s %s  %s: %s%s\n", mark, f.Code, f.Path, f.Text, word)
	}
	if rest := len(findings(a)) - shownFiles; rest > 0 {
		s.Printf("  and %d more findings\n", rest)
	}
}

func findings(a *publish.Account) []publish.Finding {
	all, _ := a.Findings(nil)
	return all
}

func first[T any](list []T, n int) []T { return list[:min(n, len(list))] }

func printCryptex(s *cli.Screen, m release.Manifest, c publish.CryptexAccount) {
	cmp := c.Comparison
	s.Printf("%s  %s changed, %d added, %d removed, %s\n", c.Name,
		plural(cmp.Count(release.Content), "file"), cmp.Count(release.Added), cmp.Count(release.Removed), plural(cmp.Count(release.Mode), "mode change"))
	signs := map[string]string{release.Added: "+", release.Removed: "-", release.Content: "~", release.Mode: "m"}
	for _, f := range first(cmp.Files, shownFiles) {
		s.Printf("  %s %s", signs[f.Change], path.Base(f.Path))
		switch {
		case f.Build == nil:
		case f.Build.Before == f.Build.After:
			s.Printf("  build-id same")
		default:
			s.Printf("  build-id %.8s%s%.8s", orDash(s, f.Build.Before), s.Arrow(), orDash(s, f.Build.After))
		}
		s.Printf("\n")
	}
	if rest := len(cmp.Files) - shownFiles; rest > 0 {
		s.Printf("  and %d more files\n", rest)
	}
	switch e := cmp.Exports; {
	case e.Added == 0 && e.Removed == 0:
		s.Printf("  exports same (%d)\n", e.Same)
	default:
		s.Printf("  exports %d same, %d added, %d removed\n", e.Same, e.Added, e.Removed)
	}
	if c.Patch == 0 {
		return // refused before any was made
	}
	s.Printf("  patch base%s%s %s", s.Arrow(), m.Label(), cli.Bytes(c.Patch))
	if c.Shortcut != 0 {
		s.Printf(" %s %s%s%s %s", s.Dot(), m.Previous, s.Arrow(), m.Label(), cli.Bytes(c.Shortcut))
	}
	s.Printf(" %s antipatch %s %s whole image %s %s bit-exact both ways %s\n", s.Dot(), cli.Bytes(c.Antipatch), s.Dot(), cli.Bytes(c.Image), s.Dot(), s.Good())
}

// plural counts: "1 file", "2 files".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func orDash(s *cli.Screen, text string) string {
	if text == "" {
		return s.Dash()
	}
	return text
}

// accountJSON is the document of a release.
type accountJSON struct {
	ID        string            `json:"id"`
	Level     int               `json:"level"`
	Label     string            `json:"label"`
	Product   string            `json:"product"`
	OSVersion string            `json:"os_version"`
	Baseline  release.Digest    `json:"baseline"`
	Previous  string            `json:"previous"`
	Manifest  release.Digest    `json:"manifest"`
	Cryptexes []cryptexJSON     `json:"cryptexes"`
	Findings  []publish.Finding `json:"findings"`
	Accepted  []string          `json:"acknowledged"`
	publication
}

type cryptexJSON struct {
	Name      string               `json:"name"`
	Changed   int                  `json:"changed"`
	Added     int                  `json:"added"`
	Removed   int                  `json:"removed"`
	Modes     int                  `json:"mode_changes"`
	Exports   publish.Exports      `json:"exports"`
	Files     []release.FileChange `json:"files"`
	Patch     int64                `json:"patch_size"`
	Antipatch int64                `json:"antipatch_size"`
	Shortcut  int64                `json:"shortcut_size"`
	Image     int64                `json:"image_size"`
	BitExact  bool                 `json:"bit_exact"`
}

func accountDocument(a *publish.Account, acknowledged []string, p publication) accountJSON {
	m := a.Manifest
	doc := accountJSON{
		ID: m.ID, Level: m.Level, Label: m.Label(), Product: m.Product, OSVersion: m.OSVersion, Baseline: m.Baseline,
		Previous: m.Previous, Manifest: m.Digest(), Findings: []publish.Finding{}, Accepted: append([]string{}, acknowledged...), publication: p,
	}
	doc.Findings = append(doc.Findings, findings(a)...)
	for _, c := range a.Cryptexes {
		doc.Cryptexes = append(doc.Cryptexes, cryptexJSON{
			Name: c.Name, Changed: c.Comparison.Count(release.Content), Added: c.Comparison.Count(release.Added),
			Removed: c.Comparison.Count(release.Removed), Modes: c.Comparison.Count(release.Mode), Exports: c.Comparison.Exports,
			Files: c.Comparison.Files, Patch: c.Patch, Antipatch: c.Antipatch, Shortcut: c.Shortcut, Image: c.Image, BitExact: true,
		})
	}
	return doc
}
