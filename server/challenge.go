package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/tpm"
)

// ChallengeRequest is the body of POST /v1/enroll/challenge.
type ChallengeRequest struct {
	Key         []byte `json:"key" maxLength:"120" doc:"Public area of the device's key (TPM2B_PUBLIC), base64."`
	Endorsement []byte `json:"endorsement" maxLength:"1368" doc:"Public area of the TPM's endorsement key (TPM2B_PUBLIC of one of the TCG's templates: P-256, P-384, RSA-2048), base64."`
	Certificate []byte `json:"certificate,omitempty" maxLength:"5464" doc:"The TPM maker's certificate for the endorsement key, DER, base64; absent where the TPM holds none."`
}

// Challenge is the answer to POST /v1/enroll/challenge.
type Challenge struct {
	ID      string    `json:"challenge" doc:"Id of the challenge, 32 hexadecimal digits."`
	Object  []byte    `json:"object" doc:"The encrypted secret (content of TPM2B_ID_OBJECT), base64."`
	Secret  []byte    `json:"secret" doc:"The encrypted seed (content of TPM2B_ENCRYPTED_SECRET), base64."`
	Expires time.Time `json:"expires" doc:"When the challenge ends."`
}

type challengeInput struct {
	Proof
	RawBody []byte
	Body    ChallengeRequest
}

type challengeOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Challenge
}

func (s *Server) challenge(ctx context.Context, in *challengeInput) (*challengeOutput, error) {
	out, err := s.challengeTo(ctx, in)
	if err != nil {
		return nil, s.answer(ctx, "challenge", in.name(), err)
	}
	return out, nil
}

// challengeTo makes a secret for a TPM of the list, bound to the key that
// signed the request.
func (s *Server) challengeTo(ctx context.Context, in *challengeInput) (*challengeOutput, error) {
	public, err := tpm.DeviceKey(in.Body.Key)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	id, err := identity.IDOf(public)
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	if err := s.authentic(public, &in.Proof, challengePath, in.RawBody); err != nil {
		return nil, err
	}
	if d := s.perDevice.wait(id, s.now()); d > 0 {
		return nil, tooOften(d)
	}
	endorsement := tpm.Endorsement{Area: in.Body.Endorsement, Certificate: in.Body.Certificate}
	known, err := endorsement.ID()
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	var secret [tpm.SecretSize]byte
	rand.Read(secret[:])
	credential, err := tpm.Challenge(rand.Reader, endorsement, in.Body.Key, secret[:])
	if err != nil {
		return nil, problem(signing.BadRequest, "%v", err)
	}
	now := s.now()
	challenge, err := s.db.NewChallenge(ctx, known, id, secret[:], now)
	if errors.Is(err, store.ErrTPMUnknown) && s.certified(ctx, endorsement, known, now) {
		challenge, err = s.db.NewChallenge(ctx, known, id, secret[:], now)
	}
	if err != nil {
		s.log.Warn("challenge refused", "device", id.Hex(), "tpm", hex.EncodeToString(known[:]), "reason", err)
		return nil, notAdmitted(err)
	}
	return &challengeOutput{CacheControl: noStore, Body: Challenge{
		ID: hex.EncodeToString(challenge[:]), Object: credential.Object, Secret: credential.Secret,
		Expires: now.Add(store.ChallengeLife).UTC().Truncate(time.Second),
	}}, nil
}

// certified puts a TPM on the list that a maker certified whom the operator
// believes. It never brings back one that was revoked: that is on the list.
func (s *Server) certified(ctx context.Context, e tpm.Endorsement, id [32]byte, now time.Time) bool {
	if s.makers == nil || len(e.Certificate) == 0 {
		return false
	}
	if err := s.makers.Certified(e, now); err != nil {
		s.log.Warn("TPM not admitted", "tpm", hex.EncodeToString(id[:]), "reason", err)
		return false
	}
	if err := s.db.CertifyEndorsement(ctx, id, now); err != nil {
		s.log.Error("TPM not put on the list", "tpm", hex.EncodeToString(id[:]), "error", err)
		return false
	}
	s.log.Info("TPM put on the list by its maker's certificate", "tpm", hex.EncodeToString(id[:]))
	return true
}
