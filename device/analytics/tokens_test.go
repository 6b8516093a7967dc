package analytics

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/trust/token"
)

// mint is a server that gives tokens, once a day.
type mint struct {
	key   *token.Key
	asked []string // days
	lie   func(token.Answer) (token.Answer, error)
}

func newMint(t *testing.T) *mint {
	t.Helper()
	key, err := token.NewKey()
	must(t, err)
	return &mint{key: key}
}

func (m *mint) ask(day string, blinded [][]byte) (token.Answer, error) {
	m.asked = append(m.asked, day)
	a, err := m.key.Issue(day, blinded)
	if err == nil && m.lie != nil {
		return m.lie(a)
	}
	return a, err
}

func (m *mint) stock(d *Desk, now time.Time, forbidden bool) error {
	return d.Stock(now, forbidden, m.key.Public(), m.ask)
}

// spent sends what is due and returns the tokens.
func spent(t *testing.T, d *Desk, now time.Time, done bool) (tokens []string) {
	t.Helper()
	must(t, d.Send(now, false, true, func(_ []byte, token string) bool {
		tokens = append(tokens, token)
		return done
	}))
	return tokens
}

// TestNoTokensWithoutConsent: nothing is asked of anybody while both switches
// are off, or policy forbids, and switching off throws the tokens away.
func TestNoTokensWithoutConsent(t *testing.T) {
	d, m := Open(t.TempDir()), newMint(t)
	must(t, m.stock(d, monday, false))
	must(t, d.Switch(Own, true, monday))
	must(t, m.stock(d, monday, true))
	if len(m.asked) != 0 {
		t.Fatalf("asked without consent: %v", m.asked)
	}
	must(t, m.stock(d, monday, false))
	must(t, m.stock(d, monday.Add(hour), false))
	if len(m.asked) != 1 {
		t.Errorf("asked on %v, want once", m.asked)
	}
	must(t, d.Switch(Own, false, monday.Add(2*hour)))
	text, err := os.ReadFile(filepath.Join(d.dir, "state.json"))
	must(t, err)
	if strings.Contains(string(text), "tokens") || strings.Contains(string(text), "asked") {
		t.Errorf("kept after switching off: %s", text)
	}
	must(t, m.stock(d, monday.Add(day), false))
	if len(m.asked) != 1 {
		t.Errorf("asked after switching off: %v", m.asked)
	}
	// Off while the server is asked: nothing is kept.
	must(t, d.Switch(Paired, true, monday.Add(2*day)))
	m.lie = func(a token.Answer) (token.Answer, error) { return a, d.Switch(Paired, false, monday.Add(2*day)) }
	must(t, m.stock(d, monday.Add(2*day), false))
	if s, err := d.read(); err != nil || len(s.Tokens) != 0 {
		t.Errorf("%d tokens, %v", len(s.Tokens), err)
	}
}

// TestTokensAreSpentLater: a report waits for a token of an earlier day, spends
// one, and the same again when it is sent again.
func TestTokensAreSpentLater(t *testing.T) {
	d, m := Open(t.TempDir()), newMint(t)
	must(t, d.Switch(Own, true, monday.Add(-2*day)))
	must(t, m.stock(d, monday, false))
	for range 3 {
		recommend(t, d, monday.Add(-day)) // due by now
	}
	if got := spent(t, d, monday.Add(hour), true); len(got) != 0 {
		t.Fatalf("spent on the day they were asked for: %v", got)
	}
	next := monday.Add(day)
	must(t, m.stock(d, next, false))
	first := spent(t, d, next, false) // the server does not answer
	if len(first) != 1 || first[0] == "" {
		t.Fatalf("%q", first)
	}
	tok, err := token.Parse(first[0])
	if err != nil || m.key.Verify(tok) != nil || tok.Day != token.Day(monday) {
		t.Errorf("%s: %v", first[0], err)
	}
	all := spent(t, d, next.Add(2*hour), true)
	seen := map[string]bool{}
	for _, s := range all {
		if seen[s] {
			t.Errorf("spent twice: %s", s)
		}
		seen[s] = true
	}
	if len(all) != 3 || !seen[first[0]] {
		t.Errorf("%q, the first try was %q", all, first)
	}
}

// TestOldTokens: a token that is too old is not spent; the report takes another.
func TestOldTokens(t *testing.T) {
	d, m := Open(t.TempDir()), newMint(t)
	must(t, d.Switch(Own, true, monday.Add(-2*day)))
	must(t, m.stock(d, monday, false))
	recommend(t, d, monday)
	late := monday.Add((token.LastDay + 1) * day)
	if got := spent(t, d, late, false); len(got) != 0 {
		t.Fatalf("too old: %v", got)
	}
	must(t, m.stock(d, late, false))
	s, err := d.read()
	must(t, err)
	if len(s.Tokens) != token.Batch {
		t.Errorf("%d tokens are kept, want the new ones", len(s.Tokens))
	}
}

// TestServersThatGiveNone: a final no is not asked again on that day, silence
// after an hour; what is not proven is no token.
func TestServersThatGiveNone(t *testing.T) {
	d, m := Open(t.TempDir()), newMint(t)
	must(t, d.Switch(Own, true, monday))
	m.lie = func(token.Answer) (token.Answer, error) { return token.Answer{}, errors.New("unreachable") }
	if err := m.stock(d, monday, false); err == nil {
		t.Error("silence is no answer")
	}
	must(t, m.stock(d, monday.Add(time.Minute), false))
	if len(m.asked) != 1 {
		t.Errorf("asked %d times at once", len(m.asked))
	}
	other := newMint(t)
	m.lie = func(token.Answer) (token.Answer, error) {
		r, err := other.key.Public().NewRequest(token.Day(monday), token.Batch)
		must(t, err)
		return other.ask(token.Day(monday), r.Blinded)
	}
	if err := m.stock(d, monday.Add(2*hour), false); err == nil {
		t.Error("another key's tokens were taken")
	}
	m.lie = func(token.Answer) (token.Answer, error) { return token.Answer{}, ErrRefused }
	if err := m.stock(d, monday.Add(4*hour), false); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	must(t, m.stock(d, monday.Add(7*hour), false))
	if s, err := d.read(); len(m.asked) != 3 || err != nil || len(s.Tokens) != 0 {
		t.Errorf("asked %d times, %d tokens, %v", len(m.asked), len(s.Tokens), err)
	}
}
