package device

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/tpm"
)

type challengeRequest struct {
	Key         []byte `json:"key"`
	Endorsement []byte `json:"endorsement"`
	Certificate []byte `json:"certificate,omitempty"`
}

type challengeAnswer struct {
	ID     string `json:"challenge"`
	Object []byte `json:"object"`
	Secret []byte `json:"secret"`
}

// proveTPM shows the server that the device's key is in a TPM that it knows: it
// asks for a secret that only this TPM can read, and only while it holds this
// key. What it returns goes into the enrolment in place of a token.
func (d *Device) proveTPM(ctx context.Context, server string) (challenge string, answer []byte, err error) {
	fail := func(err error) (string, []byte, error) {
		return "", nil, fmt.Errorf("cannot enrol by the TPM: %w", err)
	}
	k, err := d.tpmKey()
	if err != nil {
		return fail(err)
	}
	if k == nil {
		return "", nil, noToken(errors.New("it is in a file"))
	}
	// A TPM has several endorsement keys. The server may know any of them, by
	// its list or by the maker's certificate, so each is tried.
	var refused error
	for n := 0; ; n++ {
		ek, more, err := d.nthEndorsement(n)
		if !more {
			break
		}
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		var c challengeAnswer
		err = d.upstreamAt(server).Post(ctx, "/v1/enroll/challenge", challengeRequest{k.PublicArea, ek.Area, ek.Certificate}, &c)
		if fault.KindOf(err) == fault.Refused {
			refused = err
			continue
		} else if err != nil {
			return fail(err)
		}
		if answer, err = d.solve(k, ek, tpm.Credential{Object: c.Object, Secret: c.Secret}); err != nil {
			return fail(err)
		}
		return c.ID, answer, nil
	}
	if id := d.endorsementID(IdentityTPM); id != "" && fault.KindOf(refused) == fault.Refused {
		return "", nil, fault.New(fault.Refused, "cannot enrol by the TPM: %w", refused).
			Hint("the operator adds it (sealsrv enroll ek add %s) or makes a token", id)
	}
	return fail(refused)
}

// nthEndorsement reads one of the TPM's endorsement keys, certified ones first;
// more is false where there is no such one. The TPM is closed in between: the
// requests are signed in it.
func (d *Device) nthEndorsement(n int) (ek tpm.Endorsement, more bool, err error) {
	t, err := d.openTPM()
	if err != nil {
		return ek, n == 0, err
	}
	defer t.Close()
	sorts := tpm.Sorts(t)
	if n >= len(sorts) {
		return ek, false, nil
	}
	ek, err = sorts[n].Read(t)
	return ek, true, err
}

// solve lets the TPM decrypt a challenge.
func (d *Device) solve(k *identity.TPMKey, ek tpm.Endorsement, c tpm.Credential) ([]byte, error) {
	t, err := d.openTPM()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	answer, err := tpm.Answer(t, k, ek, c)
	if err != nil {
		return nil, err
	}
	if len(answer) != tpm.SecretSize {
		return nil, fmt.Errorf("the challenge has %d bytes instead of %d", len(answer), tpm.SecretSize)
	}
	return answer, nil
}

// endorsement is the TPM's endorsement key, by which servers know it.
func (d *Device) endorsement() (tpm.Endorsement, error) {
	t, err := d.openTPM()
	if err != nil {
		return tpm.Endorsement{}, err
	}
	defer t.Close()
	return tpm.ReadEndorsement(t)
}

// endorsementID is the TPM's id as servers list it, "" with the key in a file
// or if the TPM doesn't say.
func (d *Device) endorsementID(place string) string {
	if place != IdentityTPM {
		return ""
	}
	ek, err := d.endorsement()
	if err != nil {
		return ""
	}
	id, err := ek.ID()
	if err != nil {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// noToken is the refusal of an enrolment that nothing lets in.
func noToken(cause error) error {
	return fault.New(fault.Usage, "cannot enrol: without a token the key must be in a TPM that the server knows: %w", cause).
		Hint("--token TOKEN; the operator makes one: sealsrv enroll token new")
}
