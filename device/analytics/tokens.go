package analytics

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealant-os/sealant/trust/token"
)

// maxTokens is how many tokens can be good at the same time.
const maxTokens = token.Batch * (token.LastDay + 1)

// askAgain is how long after a failed try tokens are asked for again.
const askAgain = time.Hour

// ErrRefused wraps a server's final no to a request for tokens.
var ErrRefused = errors.New("the server gives no tokens today")

func (s *state) checkTokens() error {
	if len(s.Tokens) > maxTokens || s.Asked != "" && !isDay(s.Asked) {
		return errors.New("more tokens than there can be, or asked on no day")
	}
	if len(s.Since) == 0 && len(s.Tokens) > 0 {
		return errors.New("there are tokens although nobody agreed")
	}
	all := slices.Clone(s.Tokens)
	for _, w := range s.Waiting {
		if w.Token != "" {
			all = append(all, w.Token)
		}
	}
	for _, t := range all {
		if _, err := token.Parse(t); err != nil {
			return err
		}
	}
	return nil
}

// give gives a report a token that can be spent now, unless it has one: a report
// that is sent again spends the same. gave says whether the state changed.
func (s *state) give(w *waiting, now time.Time) (gave, can bool) {
	if t, err := token.Parse(w.Token); err == nil && token.Usable(t.Day, now) {
		return false, true
	}
	for i, text := range s.Tokens {
		if t, err := token.Parse(text); err == nil && token.Usable(t.Day, now) {
			w.Token = text
			s.Tokens = slices.Delete(s.Tokens, i, i+1)
			return true, true
		}
	}
	return false, false
}

// Stock gets the tokens of the day, once a day, for reports of the days after it:
// a token is never spent on the day on which it was asked for, so that the moment
// of a report does not tell who asked a moment ago. With both switches off, or
// sharing forbidden, nothing is asked. key is the one that the operating system
// pins; ask carries the blinded request to the server.
func (d *Desk) Stock(now time.Time, forbidden bool, key *token.Public, ask func(day string, blinded [][]byte) (token.Answer, error)) error {
	today := token.Day(now)
	wanted := false
	err := d.change(func(s *state) bool {
		if len(s.Since) == 0 || forbidden || s.Asked == today {
			return false
		}
		if since := now.Sub(s.Tried); since >= 0 && since < askAgain {
			return false
		}
		wanted = true
		s.Tried = now.UTC()
		return true
	})
	if err != nil || !wanted {
		return err
	}
	request, err := key.NewRequest(today, token.Batch)
	if err != nil {
		return err
	}
	var tokens []token.Token
	answer, err := ask(today, request.Blinded)
	if err == nil {
		tokens, err = request.Finish(answer)
	}
	if err != nil && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("cannot get tokens for reports: %w", err) // another time
	}
	asked := d.change(func(s *state) bool {
		if len(s.Since) == 0 {
			return false // switched off meanwhile
		}
		s.Asked, s.Tried = today, time.Time{}
		s.Tokens = slices.DeleteFunc(s.Tokens, func(text string) bool {
			t, err := token.Parse(text)
			return err != nil || t.Day != today && !token.Usable(t.Day, now)
		})
		for _, t := range tokens {
			s.Tokens = append(s.Tokens, t.String())
		}
		s.Tokens = s.Tokens[max(0, len(s.Tokens)-maxTokens):]
		return true
	})
	return errors.Join(err, asked)
}
