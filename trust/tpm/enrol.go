package tpm

import (
	"crypto/ecdsa"
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
	_, public, err := e.public()
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

// Answer decrypts a challenge to this TPM, by the endorsement key that it was
// made for, and to this device key.
func Answer(t transport.TPM, k *identity.TPMKey, e Endorsement, c Credential) (secret []byte, err error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("cannot answer challenge: %w", err) }
	if len(c.Object) > maxCredential || len(c.Secret) > maxCredential {
		return fail(errors.New("it is too long"))
	}
	object, err := load(t, k)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, object.flush(t)) }()
	kind, _, err := e.public()
	if err != nil {
		return fail(err)
	}
	ek, _, err := kind.make(t)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, ek.flush(t)) }()
	r, err := tpm2.ActivateCredential{
		ActivateHandle: object.auth(),
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: kind.auth()},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Object},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Secret},
	}.Execute(t)
	if err != nil {
		return fail(fmt.Errorf("it is for another TPM or another key: %w", err))
	}
	return r.CertInfo.Buffer, nil
}
