// Package tpm keeps a device's identity in a TPM 2.0: the key that can't leave
// it, a counter that can't go back, and the proof to a server that both are in
// a TPM it knows.
//
// It is the only package that speaks to a TPM. It is handed a connection
// (transport.TPM) and opens none. The boot helper only reads the counter; what it
// needs to know of a TPM's key is in its file (identity.TPMKey).
//
// # The key
//
// The device's key is P-256, made in the TPM below the owner's storage key,
// which the TPM derives anew whenever it is asked for. What is kept on disk is
// the private part as the TPM wrapped it; no other TPM can load it. It has no
// password: whoever is root on the running device can sign with it, nobody can
// copy it.
//
// # Enrolment
//
// A server that wants more than a token challenges the device (Challenge): it
// encrypts a secret to the endorsement key of a TPM on its list, bound to the
// name of the device's key. Only that TPM decrypts it, and only while that very
// key is loaded in it (Answer).
//
// # The counter
//
// A TPM's counter index never counts down, not even if it is deleted and made
// again. A device counts every change of its nonces in it (nonce.State.Against),
// so that an old copy of the nonces' file isn't taken for the present.
package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/trust/identity"
)

// keyTemplate is the one sort of device key; identity.TPMKey accepts no other.
var keyTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

// loaded is an object that is in the TPM for now.
type loaded struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
}

func (l loaded) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: l.handle, Name: l.name, Auth: tpm2.PasswordAuth(nil)}
}

func (l loaded) flush(t transport.TPM) error {
	_, err := tpm2.FlushContext{FlushHandle: l.handle}.Execute(t)
	return err
}

// storage makes the owner's storage key, the same each time.
func storage(t transport.TPM) (loaded, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return loaded{}, fmt.Errorf("the TPM makes no storage key: %w", err)
	}
	return loaded{r.ObjectHandle, r.Name}, nil
}

// NewKey makes a device key in the TPM. The TPM keeps nothing of it; what is
// returned must be stored (identity.MarshalTPMKey).
func NewKey(t transport.TPM) (key *identity.TPMKey, err error) {
	fail := func(err error) (*identity.TPMKey, error) {
		return nil, fmt.Errorf("cannot make key in the TPM: %w", err)
	}
	srk, err := storage(t)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, srk.flush(t)) }()
	r, err := tpm2.Create{ParentHandle: srk.auth(), InPublic: tpm2.New2B(keyTemplate)}.Execute(t)
	if err != nil {
		return fail(err)
	}
	if key, err = identity.NewTPMKey(tpm2.Marshal(r.OutPublic), tpm2.Marshal(r.OutPrivate)); err != nil {
		return fail(err)
	}
	return key, nil
}

// load puts a key into the TPM, which refuses keys of other TPMs and changed
// ones.
func load(t transport.TPM, k *identity.TPMKey) (object loaded, err error) {
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](k.PublicArea)
	if err != nil {
		return loaded{}, err
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](k.PrivateArea)
	if err != nil {
		return loaded{}, err
	}
	srk, err := storage(t)
	if err != nil {
		return loaded{}, err
	}
	defer func() { err = errors.Join(err, srk.flush(t)) }()
	r, err := tpm2.Load{ParentHandle: srk.auth(), InPublic: *public, InPrivate: *private}.Execute(t)
	if err != nil {
		return loaded{}, fmt.Errorf("the TPM doesn't accept the key (is it another machine's?): %w", err)
	}
	return loaded{r.ObjectHandle, r.Name}, nil
}

// Signer makes a device key usable. The key is in the TPM only while it signs.
// Signatures wait for each other; a Signer is safe for several goroutines if
// nobody else uses the connection.
func Signer(t transport.TPM, k *identity.TPMKey) crypto.Signer { return &held{tpm: t, key: k} }

type held struct {
	mu  sync.Mutex
	tpm transport.TPM
	key *identity.TPMKey
}

func (h *held) Public() crypto.PublicKey { return h.key.Public }

// Sign implements crypto.Signer for SHA-256 digests.
func (h *held) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("cannot sign in the TPM: %w", err) }
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return fail(errors.New("the key signs SHA-256 digests only"))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	object, err := load(h.tpm, h.key)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, object.flush(h.tpm)) }()
	r, err := tpm2.Sign{
		KeyHandle:  object.auth(),
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(h.tpm)
	if err != nil {
		return fail(err)
	}
	raw, err := r.Signature.Signature.ECDSA()
	if err != nil {
		return fail(err)
	}
	number := func(b tpm2.TPM2BECCParameter) *big.Int { return new(big.Int).SetBytes(b.Buffer) }
	if signature, err = asn1.Marshal(struct{ R, S *big.Int }{number(raw.SignatureR), number(raw.SignatureS)}); err != nil {
		return fail(err)
	}
	if !ecdsa.VerifyASN1(h.key.Public, digest, signature) {
		return fail(errors.New("the TPM gave a wrong signature"))
	}
	return signature, nil
}
