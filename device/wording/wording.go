// Package wording has every sentence that Sealant shows to a person at a screen, in
// each language that it speaks: notifications, the question about an app that
// crashes, and the settings page. The command line and the history are English.
//
// A language is one file, as en.toml: key = "text", with {names} for what is filled
// in. Where the text depends on a number, the key is a table: "one" and "other" as
// the language's plural wants it, and "=0", "=1", "=2" for numbers with words of
// their own. The number is the value named n. A text that a language lacks is said
// in English; a test holds that none lacks one.
package wording

import (
	"embed"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pelletier/go-toml/v2"
)

//go:embed *.toml
var files embed.FS

// Language says things in one language.
type Language struct {
	tag     string
	phrases map[string]phrase
}

// phrase is a text for every number, or "other" alone.
type phrase map[string]string

var load = sync.OnceValue(func() map[string]*Language {
	all := make(map[string]*Language)
	names, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded
	}
	for _, f := range names {
		data, err := files.ReadFile(f.Name())
		if err != nil {
			panic(err)
		}
		l, err := parse(strings.TrimSuffix(f.Name(), path.Ext(f.Name())), data)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", f.Name(), err)) // a test reads each
		}
		all[l.tag] = l
	}
	return all
})

func parse(tag string, data []byte) (*Language, error) {
	var raw map[string]any
	if err := toml.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	l := &Language{tag: tag, phrases: make(map[string]phrase)}
	for key, v := range raw {
		switch v := v.(type) {
		case string:
			l.phrases[key] = phrase{"other": v}
		case map[string]any:
			p := phrase{}
			for form, text := range v {
				s, ok := text.(string)
				if !ok {
					return nil, fmt.Errorf("%s.%s is no text", key, form)
				}
				p[form] = s
			}
			l.phrases[key] = p
		default:
			return nil, fmt.Errorf("%s is no text", key)
		}
	}
	return l, nil
}

// English is what everything falls back to.
func English() *Language { return load()["en"] }

// All lists the languages by their tags.
func All() map[string]*Language { return load() }

// For is the language of a locale: "de_AT.UTF-8", "de-AT", or several with the
// first that is spoken here: LANGUAGE's "nl:de:en", Accept-Language's "nl, de;q=0.8".
func For(locale string) *Language {
	for _, name := range strings.FieldsFunc(locale, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		tag, _, _ := strings.Cut(name, ";")
		if end := strings.IndexAny(tag, "_-.@"); end >= 0 {
			tag = tag[:end]
		}
		if l, ok := load()[strings.ToLower(tag)]; ok {
			return l
		}
	}
	return English()
}

// Of is the language of an environment: LANGUAGE, LC_ALL, LC_MESSAGES or LANG, as
// gettext reads them.
func Of(getenv func(string) string) *Language {
	locale := ""
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if locale = getenv(name); locale != "" {
			break
		}
	}
	if list := getenv("LANGUAGE"); list != "" && locale != "" && locale != "C" && locale != "POSIX" {
		locale = list + ":" + locale
	}
	return For(locale)
}

// Tag is the language's name in HTML: "de".
func (l *Language) Tag() string { return l.tag }

// Say says the text of a key, with pairs of a name and its value filled in.
func (l *Language) Say(key string, values ...any) string {
	p, ok := l.phrases[key]
	if !ok {
		if p, ok = English().phrases[key]; !ok {
			return key // a test looks for keys that nobody wrote
		}
	}
	text, pairs := p["other"], make([]string, 0, len(values))
	for i := 0; i+1 < len(values); i += 2 {
		name := fmt.Sprint(values[i])
		if n, ok := number(values[i+1]); ok && name == "n" {
			text = p.forNumber(l.tag, n)
		}
		pairs = append(pairs, "{"+name+"}", fmt.Sprint(values[i+1]))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

func (p phrase) forNumber(tag string, n int64) string {
	for _, form := range []string{"=" + strconv.FormatInt(n, 10), plural(tag, n), "other"} {
		if text, ok := p[form]; ok {
			return text
		}
	}
	return ""
}

// plural is the form that a language gives a number. English and German have two;
// a language with more gets its rule here (CLDR's names: one, few, many, other).
func plural(_ string, n int64) string {
	if n == 1 {
		return "one"
	}
	return "other"
}

// List joins names: "Browser, Mail and Reader".
func (l *Language) List(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + l.Say("and") + " " + names[last]
}

// Times says how often: never, once, twice, 3 times.
func (l *Language) Times(n int64) string { return l.Say("times", "n", n) }

// Span says a number of days, whole weeks from two weeks on: "two weeks".
func (l *Language) Span(days int) string {
	if days >= 14 {
		return l.Say("weeks", "n", days/7)
	}
	return l.Say("days", "n", max(days, 1))
}

// Moment says when something was, seen from now: "today 09:14".
func (l *Language) Moment(t, now time.Time) string {
	t = t.In(now.Location())
	clock := t.Format("15:04")
	day := func(t time.Time) string { return t.Format(time.DateOnly) }
	switch day(t) {
	case day(now):
		return l.Say("today", "time", clock)
	case day(now.AddDate(0, 0, -1)):
		return l.Say("yesterday", "time", clock)
	}
	return l.Say("on-day", "day", t.Day(), "month", l.Say("month-"+strconv.Itoa(int(t.Month()))), "year", t.Year())
}

// Ago says how long ago something was: "4 minutes ago".
func (l *Language) Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return l.Say("just-now")
	case d < time.Hour:
		return l.Say("minutes-ago", "n", int(d/time.Minute))
	case d < 48*time.Hour:
		return l.Say("hours-ago", "n", int(d/time.Hour))
	}
	return l.Say("days-ago", "n", int(d/(24*time.Hour)))
}
