package server

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
	"github.com/sealant-os/sealant/trust/tpm"
)

// Enrolment is the body of POST /v1/enroll.
type Enrolment struct {
	Token     string `json:"token" maxLength:"100" doc:"The secret of an enrolment token; empty with the answer to a challenge."`
	PublicKey []byte `json:"public_key" maxLength:"344" doc:"The device's public key: SubjectPublicKeyInfo in DER, ECDSA P-256 or P-384, base64."`
	Product   string `json:"product" minLength:"1" maxLength:"64" doc:"The product that the device is."`
	Baseline  string `json:"baseline" pattern:"^[0-9a-f]{96}$" doc:"Digest of its baseline document, SHA-384 in hexadecimal."`
	Challenge string `json:"challenge,omitempty" pattern:"^[0-9a-f]{32}$" doc:"The id of the challenge that is answered; absent with a token."`
	Answer    []byte `json:"answer,omitempty" maxLength:"44" doc:"The secret that the challenge was: 32 bytes, base64; absent with a token."`
}

// Enrolled is the answer to POST /v1/enroll.
type Enrolled struct {
	Device         string `json:"device" doc:"The device's id: SHA-256 of the public key, in hexadecimal."`
	BaselineTicket []byte `json:"baseline_ticket" doc:"The ticket for the baseline itself, DER, base64. It has no nonce and stays valid."`
}

type enrolInput struct {
	Proof
	RawBody []byte
	Body    Enrolment
}

type enrolOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Enrolled
}

func (s *Server) enrol(ctx context.Context, in *enrolInput) (*enrolOutput, error) {
	out, err := s.admit(ctx, in)
	s.metrics.enrolments.WithLabelValues(result(err, resultOK)).Inc()
	if err != nil {
		return nil, s.answer(ctx, "enrol", in.name(), err)
	}
	return out, nil
}

func (s *Server) admit(ctx context.Context, in *enrolInput) (*enrolOutput, error) {
	public, err := identity.ParsePublic(in.Body.PublicKey)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	id, err := identity.IDOf(public)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	if err := s.authentic(public, &in.Proof, enrolPath, in.RawBody); err != nil {
		return nil, err
	}
	if d := s.perDevice.wait(id, s.now()); d > 0 {
		return nil, tooOften(d)
	}
	if err := release.CheckProduct(in.Body.Product); err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	baseline, err := release.ParseDigest(in.Body.Baseline)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	// Before the token is used up, see that there is something to sign.
	view, err := s.source.View(ctx)
	if err != nil {
		p := problem(signing.Busy, "the server can't sign at the moment")
		p.retry = retryCatalog
		s.log.Error("catalog unusable", "error", err)
		return nil, p
	}
	if _, ok := view.Set(in.Body.Product, baseline, ""); !ok {
		return nil, problem(signing.UnknownRelease, "the baseline %.12s… of %s is not published", baseline, in.Body.Product)
	}
	d, err := s.admitBy(ctx, in.Body, store.Device{
		ID: id, Key: in.Body.PublicKey, Product: in.Body.Product, Baseline: baseline,
	})
	if err != nil {
		s.log.Warn("enrolment refused", "device", id.Hex(), "reason", err)
		return nil, notAdmitted(err)
	}
	answer, err := s.authority.IssueTo(ctx, d, signing.Request{
		Device: id, Product: in.Body.Product, Baseline: baseline, Domain: ticket.Domain,
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("device enrolled", "device", id.Hex(), "product", d.Product, "token", d.Token)
	return &enrolOutput{CacheControl: noStore, Body: Enrolled{Device: hex.EncodeToString(id[:]), BaselineTicket: answer.Ticket}}, nil
}

// admitBy admits a device by its token or by its answer to a challenge.
func (s *Server) admitBy(ctx context.Context, e Enrolment, d store.Device) (store.Device, error) {
	switch {
	case e.Token != "" && e.Challenge == "" && len(e.Answer) == 0:
		return s.db.Enrol(ctx, e.Token, d, s.now())
	case e.Token != "" || e.Challenge == "" || len(e.Answer) != tpm.SecretSize:
		return d, problem(signing.BadRequest, "an enrolment has a token, or a challenge and its answer of %d bytes", tpm.SecretSize)
	}
	var id [16]byte
	if n, err := hex.Decode(id[:], []byte(e.Challenge)); err != nil || n != len(id) {
		return d, problem(signing.BadRequest, "the challenge's id is not 32 hexadecimal digits")
	}
	return s.db.EnrolTPM(ctx, id, e.Answer, d, s.now())
}

// notAdmitted is what a device is told. Of tokens and challenges it does not
// learn what is wrong with them.
func notAdmitted(err error) error {
	switch {
	case store.IsTokenError(err):
		return problem(signing.BadToken, "the token does not admit this device: unknown, used up, expired or revoked")
	case errors.Is(err, store.ErrBlocked):
		return problem(signing.Refused, "this device is blocked")
	case errors.Is(err, store.ErrTPMOnly):
		return problem(signing.Refused, "this server admits only devices whose TPM it knows, and no tokens")
	case errors.Is(err, store.ErrTPMUnknown), errors.Is(err, store.ErrTPMRevoked):
		return problem(signing.Refused, "this server does not know this TPM, or not any more")
	case errors.Is(err, store.ErrChallenge):
		return problem(signing.Refused, "the challenge was not answered: unknown, expired, used already, or the answer is wrong")
	}
	return err
}
