package publish

import (
	"bufio"
	"errors"
	"io"
	"sort"
	"strings"

	"github.com/sealant-os/sealant/internal/pattern"
)

// An improvement must not change what a component says its version is: web
// sites, fleet tools and other programs parse it, and a fix that keeps its
// promise changes nothing else. So the versions that a file speaks of are
// looked for in its printable text, each with the words before it, and a
// version that replaced another after the same words is a finding.

// Limits of the search in one file.
const (
	maxRun      = 4096   // characters of one stretch of text that are looked at
	minRun      = 6      // shorter ones are chance
	maxVersions = 50_000 // different ones
	maxShown    = 3      // findings per file
)

// versionText is a word, what stands between, and a version: "OpenSSL 3.0.17",
// "VERSION_ID=42.3", "Browser/42.3".
var versionText = pattern.Lazy(`([A-Za-z][A-Za-z0-9_.+-]{0,40}["']?)( ?[=:/ (_-] ?["']?v?)([0-9]{1,6}(?:\.[0-9]{1,6}){1,4}(?:[a-z]|[-+~][0-9a-zA-Z]{1,16})?)`)

// saysVersion are words after which even two numbers are a version.
var saysVersion = pattern.Lazy(`(?i)(version|release|build)(_?id)?["']?$`)

// symbolVersion is how ELF symbol versions look: GLIBC_2.38. They are the
// linker's business.
var symbolVersion = pattern.Lazy(`^[A-Z][A-Z0-9]*_`)

// versionsIn collects the versions of a text by the words before them, and
// which of the forbidden texts it contains.
func versionsIn(r io.Reader, forbidden []string) (versions map[string]map[string]bool, leaked map[string]bool, err error) {
	versions, leaked = map[string]map[string]bool{}, map[string]bool{}
	total := 0
	err = eachText(r, func(text string) {
		for _, f := range forbidden {
			if strings.Contains(text, f) {
				leaked[f] = true
			}
		}
		if !strings.ContainsAny(text, "0123456789") || !strings.Contains(text, ".") {
			return
		}
		for _, m := range versionText().FindAllStringSubmatch(text, -1) {
			word, between, version := m[1], m[2], m[3]
			if !isVersion(word, between, version) || total == maxVersions {
				continue
			}
			key := word + between
			if versions[key] == nil {
				versions[key] = map[string]bool{}
			}
			if !versions[key][version] {
				versions[key][version] = true
				total++
			}
		}
	})
	return versions, leaked, err
}

func isVersion(word, between, version string) bool {
	if between == "_" && symbolVersion.MatchString(word+between) {
		return false
	}
	return strings.Count(version, ".") > 1 || between == "/" || saysVersion.MatchString(word)
}

// eachText calls fn for every stretch of printable ASCII, as strings(1) does.
func eachText(r io.Reader, fn func(string)) error {
	in := bufio.NewReaderSize(r, 1<<16)
	var run []byte
	for {
		c, err := in.ReadByte()
		printable := err == nil && (c >= 0x20 && c < 0x7f || c == '\t')
		if !printable || len(run) == maxRun {
			if len(run) >= minRun {
				fn(string(run))
			}
			run = run[:0]
		}
		if printable {
			run = append(run, c)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// versions compares what the two contents of a file say. before may be nil.
func (c *comparer) versions(path string, before, after *io.SectionReader) error {
	now, leaked, err := versionsIn(after, c.forbidden)
	if err != nil {
		return err
	}
	for _, f := range c.forbidden {
		if leaked[f] {
			c.find(LabelLeaked, path, "contains %q: an improvement's name must not enter what programs parse", f)
		}
	}
	if before == nil {
		return nil
	}
	then, _, err := versionsIn(before, nil)
	if err != nil {
		return err
	}
	var changed [][2]string
	for key, old := range then {
		was, is := minus(old, now[key]), minus(now[key], old)
		if len(was) > 0 && len(is) > 0 {
			changed = append(changed, [2]string{key + was[0], key + is[0]})
		}
	}
	sort.Slice(changed, func(i, j int) bool { return changed[i][0] < changed[j][0] })
	for i, v := range changed {
		if i == maxShown {
			c.find(VersionChanged, path, "and %d more", len(changed)-i)
			break
		}
		c.find(VersionChanged, path, "%q became %q", v[0], v[1])
	}
	return nil
}

// minus is what a has and b has not, sorted.
func minus(a, b map[string]bool) []string {
	var out []string
	for v := range a {
		if !b[v] {
			out = append(out, v)
		}
	}
	sort.Strings(out)
	return out
}
