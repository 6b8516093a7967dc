package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/trust/identity"
)

// SecretSize is the size of a challenge's secret, in bytes.
const SecretSize = 32

// Limits of what the two sides send, in bytes.
const (
	maxPublicArea = 1024
	maxCredential = 512
)

// Endorsement is a TPM's endorsement key: the P-256 one of the TCG's template,
// which the TPM derives from a seed that its maker put there.
type Endorsement struct {
	Area []byte // TPM2B_PUBLIC
}

// endorse makes the endorsement key, the same each time.
func endorse(t transport.TPM) (loaded, []byte, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(t)
	if err != nil {
		return loaded{}, nil, fmt.Errorf("the TPM makes no endorsement key: %w", err)
	}
	return loaded{r.ObjectHandle, r.Name}, tpm2.Marshal(r.OutPublic), nil
}

// ReadEndorsement asks the TPM for its endorsement key.
func ReadEndorsement(t transport.TPM) (e Endorsement, err error) {
	object, area, err := endorse(t)
	if err != nil {
		return e, fmt.Errorf("cannot read endorsement key: %w", err)
	}
	return Endorsement{area}, object.flush(t)
}

// public reads the area and checks that it is of the one accepted sort.
// Whether a TPM is behind it only the list of known ones can tell.
func (e Endorsement) public() (*tpm2.TPMTPublic, error) {
	if len(e.Area) > maxPublicArea {
		return nil, errors.New("it is too long")
	}
	area, err := tpm2.Unmarshal[tpm2.TPM2BPublic](e.Area)
	if err != nil {
		return nil, err
	}
	public, err := area.Contents()
	if err != nil {
		return nil, err
	}
	// With its point taken out, it must be the template.
	bare, template := *public, tpm2.ECCEKTemplate
	empty := tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	bare.Unique, template.Unique = empty, empty
	if public.Type != tpm2.TPMAlgECC || !bytes.Equal(tpm2.Marshal(bare), tpm2.Marshal(template)) || !bytes.Equal(tpm2.Marshal(*area), e.Area) {
		return nil, errors.New("it is not the TCG's P-256 endorsement key")
	}
	return public, nil
}

// ID identifies the TPM: SHA-256 of the endorsement key (SPKI, DER). A
// server's list of known TPMs is made of it.
func (e Endorsement) ID() ([32]byte, error) {
	public, err := e.public()
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// CertifiedID is the ID of the endorsement key that a TPM maker's certificate is
// for. The certificate is believed: whoever makes the list looked at it.
func CertifiedID(cert *x509.Certificate) ([32]byte, error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return [32]byte{}, errors.New("cannot use endorsement certificate: it is not for a P-256 key")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement certificate: %w", err)
	}
	return sha256.Sum256(der), nil
}

// DeviceKey reads a device key's public area, which must be of the one sort
// that can't leave its TPM. That a TPM is behind it the challenge shows.
func DeviceKey(publicArea []byte) (*ecdsa.PublicKey, error) {
	// The private part plays no role here; the parser wants one.
	k, err := identity.NewTPMKey(publicArea, []byte{0, 1, 0})
	if err != nil {
		return nil, err
	}
	return k.Public, nil
}

// Credential is a challenge: a secret that one TPM can decrypt, while one key
// is in it.
type Credential struct {
	Object []byte // TPMS_ID_OBJECT
	Secret []byte // TPM2B_ENCRYPTED_SECRET's content
}

// Challenge encrypts a secret (SecretSize bytes) for the TPM with this
// endorsement key, bound to the device key with this public area. It checks
// that the area is that of a key which can't leave its TPM; that the
// endorsement key is on the list the caller has checked.
func Challenge(rand io.Reader, e Endorsement, publicArea, secret []byte) (Credential, error) {
	fail := func(err error) (Credential, error) {
		return Credential{}, fmt.Errorf("cannot challenge device: %w", err)
	}
	if len(secret) != SecretSize {
		return fail(fmt.Errorf("a secret of %d bytes instead of %d", len(secret), SecretSize))
	}
	public, err := e.public()
	if err != nil {
		return fail(err)
	}
	to, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return fail(err)
	}
	if _, err := DeviceKey(publicArea); err != nil {
		return fail(err)
	}
	area, err := tpm2.Unmarshal[tpm2.TPM2BPublic](publicArea)
	if err != nil {
		return fail(err)
	}
	contents, err := area.Contents()
	if err != nil {
		return fail(err)
	}
	name, err := tpm2.ObjectName(contents)
	if err != nil {
		return fail(err)
	}
	var c Credential
	if c.Object, c.Secret, err = tpm2.CreateCredential(rand, to, name.Buffer, secret); err != nil {
		return fail(err)
	}
	return c, nil
}

// Answer decrypts a challenge to this TPM and this key.
func Answer(t transport.TPM, k *identity.TPMKey, c Credential) (secret []byte, err error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("cannot answer challenge: %w", err) }
	if len(c.Object) > maxCredential || len(c.Secret) > maxCredential {
		return fail(errors.New("it is too long"))
	}
	object, err := load(t, k)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, object.flush(t)) }()
	ek, _, err := endorse(t)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, ek.flush(t)) }()
	r, err := tpm2.ActivateCredential{
		ActivateHandle: object.auth(),
		KeyHandle: tpm2.AuthHandle{
			Handle: ek.handle, Name: ek.name,
			Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
				return err
			}),
		},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Object},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(t)
	if err != nil {
		return fail(fmt.Errorf("it is for another TPM or another key: %w", err))
	}
	return r.CertInfo.Buffer, nil
}
