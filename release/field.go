package release

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sealant-os/sealant/internal/pattern"
)

// The patterns of the short fields. The pages under spec/ quote them.
var (
	idPattern      = pattern.Lazy(`^SI-[0-9]{4}-[0-9]{4,6}$`)
	productPattern = pattern.Lazy(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	versionPattern = pattern.Lazy(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)
	namePattern    = pattern.Lazy(`^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$`)
	cvePattern     = pattern.Lazy(`^CVE-[0-9]{4}-[0-9]{4,10}$`)
	saltPattern    = pattern.Lazy(`^[0-9a-f]{32}$`)
	keyPattern     = pattern.Lazy(`^[a-z0-9][a-z0-9.-]{0,63}$`)
)

// Limits of the text fields, in bytes.
const (
	MaxTitle = 200  // one line
	MaxText  = 8192 // may have several lines
)

// CheckID says whether id is the name of an improvement: SI-2026-0007.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("%q is not the id of an improvement (like SI-2026-0007)", id)
	}
	return nil
}

// CheckProduct says whether s can name a product: letters, digits, dot, dash
// and underscore, at most 64.
func CheckProduct(s string) error { return match("product", productPattern, s) }

// CheckOSVersion says whether s can be an OS version: 42.3.0.
func CheckOSVersion(s string) error { return match("OS version", versionPattern, s) }

// CheckName says whether s can name a cryptex: lower-case letters, digits and
// dash, at most 31.
func CheckName(s string) error { return match("cryptex name", namePattern, s) }

// CheckCVE says whether s is a CVE id.
func CheckCVE(s string) error { return match("CVE", cvePattern, s) }

func match(what string, p pattern.Pattern, s string) error {
	if !p.MatchString(s) {
		return fmt.Errorf("%q is not a valid %s", s, what)
	}
	return nil
}

// checkLine accepts one line of printable text.
func checkLine(what, s string, limit int) error {
	if strings.ContainsRune(s, '\n') {
		return fmt.Errorf("%s has more than one line", what)
	}
	return checkText(what, s, limit)
}

// checkText accepts printable text with line ends. Control characters and the
// invisible ones that reorder text are refused: these words are shown on
// terminals, in notifications and on the public page.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s has %d bytes, the limit is %d", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", what)
	}
	if strings.TrimSpace(s) != s {
		return fmt.Errorf("%s begins or ends with white space", what)
	}
	for _, r := range s {
		joiner := r == '\u200c' || r == '\u200d' // several scripts need them
		if r != '\n' && !joiner && !unicode.IsPrint(r) {
			return fmt.Errorf("%s contains the unprintable character %U", what, r)
		}
	}
	return nil
}

// checkTime accepts whole seconds in UTC within four-digit years from 2000 on.
func checkTime(what string, t time.Time) error {
	switch {
	case t.Year() < 2000 || t.Year() > 9999:
		return fmt.Errorf("%s has the year %d", what, t.Year())
	case t.Nanosecond() != 0:
		return fmt.Errorf("%s is finer than a second", what)
	case t.Location() != time.UTC:
		return fmt.Errorf("%s is not in UTC", what)
	}
	return nil
}

// Time returns t as the documents write it: UTC, whole seconds.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// checkSchema accepts exactly one schema.
func checkSchema(got, want string) error {
	if got != want {
		return fmt.Errorf("schema is %q, not %q", got, want)
	}
	return nil
}

// checkOrder says whether n names are in strictly rising order.
func checkOrder(what string, n int, name func(i int) string) error {
	for i := 1; i < n; i++ {
		if name(i-1) >= name(i) {
			return fmt.Errorf("%s are not sorted, or %q stands twice", what, name(i))
		}
	}
	return nil
}

var errTooMany = errors.New("too many entries")

// DisplayVersion is an OS version as people say it: "42.3.0" is 42.3. Only a
// last ".0" of at least three parts goes.
func DisplayVersion(v string) string {
	if short, ok := strings.CutSuffix(v, ".0"); ok && strings.Contains(short, ".") {
		return short
	}
	return v
}
