// Package pattern holds regular expressions that are compiled when they are
// first used: programs that link many of them start often, and use few.
package pattern

import (
	"regexp"
	"sync"
)

// Pattern is a regular expression; calling it compiles it.
type Pattern func() *regexp.Regexp

// Lazy is a pattern by its expression, which must be valid: its first use
// panics otherwise.
func Lazy(expression string) Pattern {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// MatchString says whether s matches.
func (p Pattern) MatchString(s string) bool { return p().MatchString(s) }
