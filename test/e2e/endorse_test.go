package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/tpm"
)

// openTPM opens a machine's TPM as a thief would who is root there.
func (m *machine) openTPM() transport.TPMCloser {
	m.t.Helper()
	//lint:ignore SA1019 it opens the socket of a software TPM as well as a device
	t, err := transport.OpenTPM(m.open().Store.TPMPath())
	m.v.must(err)
	m.t.Cleanup(func() { t.Close() })
	return t
}

// TestEnrolByTPM enrols a device without a token.
func TestEnrolByTPM(t *testing.T) {
	v := newVendor(t)
	m := v.machine("")
	_, err := m.open().Enroll(t.Context(), device.EnrollOptions{}, user, nil)
	wantKind(t, err, fault.Usage) // no TPM, no token
	m.fitTPM()
	_, err = m.open().Enroll(t.Context(), device.EnrollOptions{Identity: device.IdentityFile}, user, nil)
	wantKind(t, err, fault.Usage)
	dry, err := m.open().Enroll(t.Context(), device.EnrollOptions{Identity: device.IdentityTPM, DryRun: true}, user, nil)
	if err != nil || len(dry.Endorsement) != 64 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	_, err = m.open().Enroll(t.Context(), device.EnrollOptions{}, user, nil)
	wantKind(t, err, fault.Refused)
	if hint := fault.HintOf(err); !strings.Contains(hint, "ek add "+dry.Endorsement) {
		t.Errorf("the operator isn't told: %q", hint)
	}

	id, err := hex.DecodeString(dry.Endorsement)
	v.must(err)
	v.must(v.node.DB.AddEndorsement(t.Context(), [32]byte(id), "rack 7", time.Now()))
	v.must(v.node.DB.SetTPMOnly(t.Context(), true))
	r, err := m.open().Enroll(t.Context(), device.EnrollOptions{}, user, m.log)
	if err != nil || r.Identity != device.IdentityTPM || r.Endorsement != dry.Endorsement {
		t.Fatalf("enrol: %+v, %v", r, err)
	}
	m.boot()
	v.release(1, 100)
	if rec := m.advance(); rec.Release != "SI-2026-0001" {
		t.Errorf("boot: %+v", rec)
	}

	// A token doesn't do any more.
	other := v.machine("")
	_, err = other.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1)}, user, nil)
	wantKind(t, err, fault.Refused)
}

// asker is whoever has a key and asks a server to be enrolled.
type asker struct {
	v   *vendor
	key crypto.Signer
}

func (a asker) post(n *servertest.Node, path string, body, out any) int {
	a.v.t.Helper()
	data, err := json.Marshal(body)
	a.v.must(err)
	sig, err := identity.SignRequest(a.key, "POST", path, data, a.v.world.Now())
	a.v.must(err)
	req, err := http.NewRequest("POST", n.HTTP.URL+path, bytes.NewReader(data))
	a.v.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(identity.DeviceHeader, sig.Device)
	req.Header.Set(identity.DateHeader, sig.Date)
	req.Header.Set(identity.SignatureHeader, sig.Signature)
	answer := n.Do(req)
	if answer.Status == http.StatusOK {
		a.v.must(json.Unmarshal(answer.Body, out))
	}
	return answer.Status
}

// challenge asks for a challenge.
func (a asker) challenge(n *servertest.Node, area, endorsement []byte) (c server.Challenge, status int) {
	a.v.t.Helper()
	return c, a.post(n, "/v1/enroll/challenge", server.ChallengeRequest{Key: area, Endorsement: endorsement}, &c)
}

// answer tries to enrol.
func (a asker) answer(n *servertest.Node, id string, secret []byte) int {
	a.v.t.Helper()
	public, err := identity.MarshalPublic(a.key.Public())
	a.v.must(err)
	return a.post(n, "/v1/enroll", server.Enrolment{
		PublicKey: public, Product: servertest.Product, Baseline: a.v.base.Digest().String(), Challenge: id, Answer: secret,
	}, &server.Enrolled{})
}

func credential(c server.Challenge) tpm.Credential {
	return tpm.Credential{Object: c.Object, Secret: c.Secret}
}

// TestForgedTPM attacks the enrolment by a TPM.
func TestForgedTPM(t *testing.T) {
	v := newVendor(t)
	m, elsewhere := v.machine(""), v.machine("")
	m.fitTPM()
	elsewhere.fitTPM()
	chip, foreign := m.openTPM(), elsewhere.openTPM()
	ek, err := tpm.ReadEndorsement(chip)
	v.must(err)
	listed, err := ek.ID()
	v.must(err)
	v.must(v.node.DB.AddEndorsement(t.Context(), listed, "", v.world.Now()))
	second := v.world.Start(filepath.Join(v.dir, "server.db"))
	newKey := func(chip transport.TPM) (*identity.TPMKey, asker) {
		k, err := tpm.NewKey(chip)
		v.must(err)
		return k, asker{v, tpm.Signer(chip, k)}
	}

	// The honest device, with two servers: the challenge from one, the answer
	// to the other.
	key, honest := newKey(chip)
	c, status := honest.challenge(v.node, key.PublicArea, ek.Area)
	if status != 200 {
		t.Fatalf("challenge: %d", status)
	}
	secret, err := tpm.Answer(chip, key, ek, credential(c))
	v.must(err)
	if got := honest.answer(second, c.ID, secret); got != 200 {
		t.Fatalf("enrolment: %d", got)
	}
	for _, n := range []*servertest.Node{v.node, second} {
		if got := honest.answer(n, c.ID, secret); got != 403 {
			t.Errorf("replayed: %d", got)
		}
	}

	// Too late.
	c, _ = honest.challenge(v.node, key.PublicArea, ek.Area)
	secret, err = tpm.Answer(chip, key, ek, credential(c))
	v.must(err)
	v.world.Pass(store.ChallengeLife)
	if got := honest.answer(v.node, c.ID, secret); got != 403 {
		t.Errorf("expired: %d", got)
	}

	// A key in software, whose owner is root on the listed machine and says it
	// is in its TPM.
	loose, err := identity.NewKey(rand.Reader)
	v.must(err)
	area := bytes.Clone(key.PublicArea)
	point, err := loose.PublicKey.Bytes()
	v.must(err)
	copy(area[len(area)-66:], point[1:33])
	copy(area[len(area)-32:], point[33:])
	if public, err := tpm.DeviceKey(area); err != nil || !public.Equal(&loose.PublicKey) {
		t.Fatalf("the forgery is no good: %v", err)
	}
	forger := asker{v, loose}
	c, status = forger.challenge(v.node, area, ek.Area)
	if status != 200 {
		t.Fatalf("challenge: %d", status)
	}
	if _, err := tpm.Answer(chip, key, ek, credential(c)); err == nil {
		t.Error("the TPM decrypted a challenge to a key that is not in it")
	}
	if _, err := tpm.Answer(chip, &identity.TPMKey{Public: &loose.PublicKey, PublicArea: area, PrivateArea: key.PrivateArea}, ek, credential(c)); err == nil {
		t.Error("the TPM loaded a forged key")
	}
	v.usesNoForeignKey(chip, area, loose, credential(c))
	if got := forger.answer(v.node, c.ID, make([]byte, tpm.SecretSize)); got != 403 {
		t.Errorf("a guess: %d", got)
	}
	// The answer to a challenge for an honest key doesn't serve another.
	c, _ = honest.challenge(v.node, key.PublicArea, ek.Area)
	secret, err = tpm.Answer(chip, key, ek, credential(c))
	v.must(err)
	if got := forger.answer(v.node, c.ID, secret); got != 403 {
		t.Errorf("another device's answer: %d", got)
	}
	if got := honest.answer(v.node, c.ID, secret); got != 403 {
		t.Errorf("used up by it: %d", got)
	}

	// Another TPM, which is not on the list: as itself, and as the listed one.
	strangeKey, stranger := newKey(foreign)
	strange, err := tpm.ReadEndorsement(foreign)
	v.must(err)
	if _, got := stranger.challenge(v.node, strangeKey.PublicArea, strange.Area); got != 403 {
		t.Errorf("a TPM that is not on the list: %d", got)
	}
	c, _ = stranger.challenge(v.node, strangeKey.PublicArea, ek.Area)
	if _, err := tpm.Answer(foreign, strangeKey, strange, credential(c)); err == nil {
		t.Error("another TPM read the challenge")
	}
	if got := stranger.answer(v.node, c.ID, bytes.Repeat([]byte{1}, tpm.SecretSize)); got != 403 {
		t.Errorf("a guess: %d", got)
	}

	// What is no proper request.
	free := bytes.Clone(key.PublicArea)
	free[9] &^= 1 << 1 // fixedTPM
	for name, got := range map[string]int{
		"a key that may leave its TPM":  second2(honest.challenge(v.node, free, ek.Area)),
		"another's public area":         second2(forger.challenge(v.node, key.PublicArea, ek.Area)),
		"a device key as endorsement":   second2(honest.challenge(v.node, key.PublicArea, key.PublicArea)),
		"no endorsement":                second2(honest.challenge(v.node, key.PublicArea, nil)),
		"an endless endorsement":        second2(honest.challenge(v.node, key.PublicArea, make([]byte, 1500))),
		"an answer of 31 bytes":         honest.answer(v.node, c.ID, make([]byte, 31)),
		"an answer of 33 bytes":         honest.answer(v.node, c.ID, make([]byte, 33)),
		"an answer without a challenge": honest.answer(v.node, "", make([]byte, 32)),
		"a malformed challenge":         honest.answer(v.node, "00", make([]byte, 32)),
	} {
		if got != 400 && got != 422 && got != 401 {
			t.Errorf("%s: %d", name, got)
		}
	}

	// A TPM that was revoked between challenge and answer.
	c, _ = honest.challenge(v.node, key.PublicArea, ek.Area)
	secret, err = tpm.Answer(chip, key, ek, credential(c))
	v.must(err)
	v.must(v.node.DB.RevokeEndorsement(t.Context(), listed, v.world.Now()))
	if got := honest.answer(v.node, c.ID, secret); got != 403 {
		t.Errorf("revoked meanwhile: %d", got)
	}
	if all, _, err := v.node.DB.Counts(t.Context()); err != nil || all != 1 {
		t.Errorf("%d devices were admitted, want the honest one (%v)", all, err)
	}
}

func second2(_ server.Challenge, status int) int { return status }

// usesNoForeignKey checks that the TPM reads no challenge to a key that was
// made outside. It takes such a key in with its private part only if the key
// admits where it is from, and then it has another name; without its private
// part it does take it in, but lets nobody use it.
func (v *vendor) usesNoForeignKey(chip transport.TPM, area []byte, key *ecdsa.PrivateKey, c tpm.Credential) {
	v.t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](area)
	v.must(err)
	scalar, err := key.Bytes()
	v.must(err)
	private := tpm2.New2B(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgECC,
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: scalar}),
	})
	_, err = tpm2.LoadExternal{InPublic: *public, InPrivate: private, Hierarchy: tpm2.TPMRHNull}.Execute(chip)
	if !errors.Is(err, tpm2.TPMRCAttributes) {
		v.t.Errorf("a key from outside with its private part: %v", err)
	}
	object, err := tpm2.LoadExternal{InPublic: *public, Hierarchy: tpm2.TPMRHNull}.Execute(chip)
	v.must(err)
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(chip)
	v.must(err)
	_, err = tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle: tpm2.AuthHandle{
			Handle: ek.ObjectHandle, Name: ek.Name,
			Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
				return err
			}),
		},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Object}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(chip)
	if !errors.Is(err, tpm2.TPMRCAuthUnavailable) {
		v.t.Errorf("a challenge to a key without its private part: %v", err)
	}
	for _, handle := range []tpm2.TPMHandle{object.ObjectHandle, ek.ObjectHandle} {
		_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(chip)
		v.must(err)
	}
}
