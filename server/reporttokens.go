package server

import (
	"context"
	"errors"
	"time"

	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/token"
)

const tokensPath = "/v1/reports/tokens"

// TokenRequest is the body of POST /v1/reports/tokens.
type TokenRequest struct {
	Day     string   `json:"day" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" doc:"The present UTC day."`
	Blinded [][]byte `json:"blinded" minItems:"1" maxItems:"8" doc:"Blinded nonces: compressed P-384 points, base64."`
}

// Tokens is the answer to POST /v1/reports/tokens.
type Tokens struct {
	Points [][]byte `json:"points" doc:"The evaluated points, in the order of the request, base64."`
	Proof  []byte   `json:"proof" doc:"That the key which devices pin evaluated all of them for the day, base64."`
}

type tokensInput struct {
	Proof
	RawBody []byte
	Body    TokenRequest
}

type tokensOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Tokens
}

// giveTokens answers a device's batch. That the device asks is all that is kept,
// for the days in which its tokens are good.
func (s *Server) giveTokens(ctx context.Context, in *tokensInput) (*tokensOutput, error) {
	a, err := s.tokensFor(ctx, in)
	if err != nil {
		return nil, s.answer(ctx, "tokens", in.name(), err)
	}
	return &tokensOutput{CacheControl: noStore, Body: Tokens{a.Points, a.Proof}}, nil
}

func (s *Server) tokensFor(ctx context.Context, in *tokensInput) (token.Answer, error) {
	var none token.Answer
	if s.tokens == nil {
		p := problem(signing.BadRequest, "this server takes reports without tokens")
		p.Status, p.Code = 404, codeNotFound
		return none, p
	}
	id, err := in.device()
	if err != nil {
		return none, err
	}
	now := s.now()
	d, err := s.known.read(ctx, id, now)
	if err != nil {
		return none, err
	}
	if err := s.authentic(d.key, &in.Proof, tokensPath, in.RawBody); err != nil {
		return none, err
	}
	switch {
	case s.perDevice.wait(id, now) > 0:
		return none, tooOften(time.Minute)
	case !d.row.Blocked.IsZero():
		return none, problem(signing.Refused, "this device is blocked")
	case in.Body.Day != token.Day(now.Add(-identity.Skew)) && in.Body.Day != token.Day(now.Add(identity.Skew)):
		return none, problem(signing.Clock, "tokens are for today, which is %s here", token.Day(now))
	}
	a, err := s.tokens.Issue(in.Body.Day, in.Body.Blinded)
	if err != nil {
		return none, problem(signing.BadRequest, "%v", err)
	}
	// One day more than tokens live: clocks differ.
	err = s.db.TakeBatch(ctx, id, in.Body.Day, token.Day(now.AddDate(0, 0, -token.LastDay-1)))
	if errors.Is(err, store.ErrBatchTaken) {
		return none, problem(signing.Refused, "%v", err)
	}
	return a, err
}

// spends verifies the token of a report; nil where the server asks for none.
func (s *Server) spends(text string) (*store.Spent, error) {
	if s.tokens == nil {
		return nil, nil
	}
	if text == "" {
		return nil, problem(signing.Refused, "a report needs a token here")
	}
	t, err := token.Parse(text)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	if !token.Usable(t.Day, s.now()) {
		return nil, problem(signing.Refused, "tokens of %s are not taken now", t.Day)
	}
	if err := s.tokens.Verify(t); err != nil {
		return nil, problem(signing.Refused, "%v", err)
	}
	return &store.Spent{Nonce: t.Nonce, Day: t.Day}, nil
}
