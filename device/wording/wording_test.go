package wording

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var names = regexp.MustCompile(`\{[^}]*\}`)

// Every language has every text, with the same names in it.
func TestWhole(t *testing.T) {
	english := English()
	for tag, l := range All() {
		for key, p := range english.phrases {
			q, ok := l.phrases[key]
			if !ok {
				t.Errorf("%s lacks %s", tag, key)
				continue
			}
			if q["other"] == "" && len(q) == 1 {
				t.Errorf("%s: %s is empty", tag, key)
			}
			for form, text := range q {
				want := names.FindAllString(p["other"], -1)
				got := names.FindAllString(text, -1)
				slices.Sort(want)
				slices.Sort(got)
				for _, name := range got {
					if !slices.Contains(want, name) {
						t.Errorf("%s: %s.%s has %s, English does not", tag, key, form, name)
					}
				}
				for _, name := range want {
					if name != "{n}" && !slices.Contains(got, name) && !strings.HasPrefix(form, "=") {
						t.Errorf("%s: %s.%s lacks %s", tag, key, form, name)
					}
				}
			}
		}
		for key := range l.phrases {
			if _, ok := english.phrases[key]; !ok {
				t.Errorf("%s has %s, which nobody says", tag, key)
			}
		}
	}
	if len(All()) < 2 {
		t.Error("only one language")
	}
}

// What the code says is there, and what is there is said somewhere.
func TestSaid(t *testing.T) {
	said := make(map[string]bool)
	call := regexp.MustCompile(`(?:\.Say\(|say |plainMessage\()"([a-z0-9-]+)"(?:, "([a-z0-9-]+)")?`)
	for _, dir := range []string{".", "..", "../evidence", "../notify", "../settings", "../settings/page", "../../cmd/sealant"} {
		for _, pattern := range []string{"*.go", "*.html"} {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if strings.HasSuffix(f, "_test.go") {
					continue
				}
				data, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range call.FindAllStringSubmatch(string(data), -1) {
					said[m[1]] = true
					if strings.HasPrefix(m[0], "plainMessage") {
						said[m[2]] = true
					}
				}
			}
		}
	}
	for key := range said {
		if _, ok := English().phrases[key]; !ok && !strings.HasSuffix(key, "-") {
			t.Errorf("%q is said, but there is no such text", key)
		}
	}
	for key := range English().phrases {
		if !said[key] && !strings.HasPrefix(key, "month-") {
			t.Errorf("%q is never said", key)
		}
	}
}

func TestFor(t *testing.T) {
	for locale, want := range map[string]string{
		"": "en", "C": "en", "C.UTF-8": "en", "POSIX": "en", "de": "de", "de_DE.UTF-8": "de", "de-AT": "de", "DE_ch@euro": "de", "fr_FR.UTF-8": "en",
		"nl:de:en": "de", "nl, de;q=0.8, en;q=0.5": "de", "en-GB,de;q=0.9": "en", "::": "en", "-": "en", "../../etc": "en", "de_": "de",
	} {
		if got := For(locale).Tag(); got != want {
			t.Errorf("%q is %s, want %s", locale, got, want)
		}
	}
	env := map[string]string{"LANG": "de_DE.UTF-8"}
	get := func(k string) string { return env[k] }
	if got := Of(get).Tag(); got != "de" {
		t.Errorf("LANG: %s", got)
	}
	env["LC_ALL"] = "en_US.UTF-8"
	if got := Of(get).Tag(); got != "en" {
		t.Errorf("LC_ALL: %s", got)
	}
	env["LANGUAGE"] = "xx:de"
	if got := Of(get).Tag(); got != "de" {
		t.Errorf("LANGUAGE: %s", got)
	}
	env["LC_ALL"] = "C"
	if got := Of(get).Tag(); got != "en" {
		t.Errorf("LANGUAGE under C: %s", got)
	}
}

func TestSay(t *testing.T) {
	en, de := English(), For("de")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ got, want string }{
		{en.Times(0), "never"},
		{en.Times(1), "once"},
		{en.Times(2), "twice"},
		{en.Times(6), "6 times"},
		{de.Times(6), "6-mal"},
		{de.Times(1), "einmal"},
		{en.Span(14), "two weeks"},
		{en.Span(13), "13 days"},
		{en.Span(0), "one day"},
		{en.Span(91), "13 weeks"},
		{de.Span(14), "zwei Wochen"},
		{en.List([]string{"Browser"}), "Browser"},
		{en.List(nil), ""},
		{de.List([]string{"A", "B", "C"}), "A, B und C"},
		{en.Moment(now.Add(-time.Hour), now), "today 11:00"},
		{de.Moment(now.Add(-24*time.Hour), now), "gestern 12:00"},
		{en.Moment(now.AddDate(0, -1, 0), now), "23 October 2026"},
		{de.Moment(now.AddDate(0, -1, 0), now), "am 23. Oktober 2026"},
		{en.Ago(3 * time.Second), "just now"},
		{en.Ago(time.Minute), "1 minute ago"},
		{de.Ago(4 * time.Hour), "vor 4 Stunden"},
		{de.Ago(72 * time.Hour), "vor 3 Tagen"},
		{en.Say("due-title", "n", 1), "This device restarts in 1 minute"},
		{en.Say("due-title", "n", 15), "This device restarts in 15 minutes"},
		{en.Say("set-by", "owner", "{owner}"), "Set by {owner}"}, // what is filled in is not filled in again
		{en.Say("no-such-thing"), "no-such-thing"},
	} {
		if c.got != c.want {
			t.Errorf("says %q, want %q", c.got, c.want)
		}
	}
}
