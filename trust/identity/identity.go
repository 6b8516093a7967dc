// Package identity is who a device is: the key that it was enrolled with, the
// id derived from it, and the requests that it signs.
//
// The device's key is ECDSA P-256 or P-384. It lies in a TPM, which this
// package sees as a crypto.Signer only, or in a file (ParseKey, MarshalKey).
// The device's id is the SHA-256 of the public key in its DER form
// (SubjectPublicKeyInfo): nobody assigns it, and nobody else can have it.
//
// # Requests
//
// A device signs each request to the server. Three headers carry it:
//
//	Sealant-Device:    the id, 64 hexadecimal digits in lower case
//	Sealant-Date:      2026-11-23T18:00:00Z, always UTC and in seconds
//	Sealant-Signature: the signature (ASN.1 DER), base64 with padding
//
// and the signed text is seven lines, each ended by a line feed:
//
//	sealant request 1
//	POST
//	/v1/tickets?query
//	7c1e90af…                     the Sealant-Device header
//	2026-11-23T18:00:00Z          the Sealant-Date header
//	120                           the body's length in bytes
//	9f86d081…                     SHA-256 of the body, hexadecimal
//
// hashed with SHA-256 for P-256 and SHA-384 for P-384. The specification is
// spec/identity.md.
//
// What the caller must still check: that the device is enrolled with this very
// key, and that a request isn't answered twice where that matters (a signature
// is good for as long as the clocks may differ).
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// ID is a device's id.
type ID [32]byte

// String is the short form that people see, "7c1e-90af": the first four bytes.
// It is no identification for a machine.
func (id ID) String() string {
	return hex.EncodeToString(id[:2]) + "-" + hex.EncodeToString(id[2:4])
}

// Hex is the whole id in lower-case hexadecimal, the form of every document
// and header.
func (id ID) Hex() string { return hex.EncodeToString(id[:]) }

// ParseID reads what Hex wrote: 64 lower-case hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return id, errors.New("cannot read device id: it is not 64 lower-case hexadecimal digits")
	}
	return ID(b), nil
}

// IDOf is the id of the device that has this key.
func IDOf(public crypto.PublicKey) (ID, error) {
	der, err := MarshalPublic(public)
	if err != nil {
		return ID{}, err
	}
	return sha256.Sum256(der), nil
}

// MarshalPublic writes a device's public key as DER (SubjectPublicKeyInfo).
func MarshalPublic(public crypto.PublicKey) ([]byte, error) {
	k, ok := public.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
		return nil, errNotDevice
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, fmt.Errorf("cannot write device key: %w", err)
	}
	return der, nil
}

// MaxPublic is the limit for a public key in DER, in bytes.
const MaxPublic = 256

var errNotDevice = errors.New("cannot use device key: it is neither P-256 nor P-384")

// ParsePublic reads what MarshalPublic wrote; other encodings of the same key
// are refused, for they would give it a second id.
func ParsePublic(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > MaxPublic {
		return nil, fmt.Errorf("cannot read device key: %d bytes, at most %d are possible", len(der), MaxPublic)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read device key: %w", err)
	}
	again, err := MarshalPublic(public)
	if err != nil {
		return nil, err
	}
	if string(again) != string(der) {
		return nil, errors.New("cannot read device key: it is not in its only form")
	}
	return public.(*ecdsa.PublicKey), nil
}

// NewKey makes a device key for a machine without a TPM: P-256.
func NewKey(rand io.Reader) (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand)
}

const keyBlock = "PRIVATE KEY"

// MarshalKey writes a device key as PEM (PKCS #8), not encrypted: the file's
// mode is all that protects it, which is what a TPM is for.
func MarshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	if _, err := MarshalPublic(key.Public()); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot write device key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// MaxKey is the limit for a device key in PEM, in bytes.
const MaxKey = 4096

// ParseKey reads a device key, P-256 or P-384, from PEM (PKCS #8).
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	if len(text) > MaxKey {
		return nil, fmt.Errorf("cannot read device key: %d bytes, at most %d are possible", len(text), MaxKey)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("cannot read device key: it is not a private key in PEM (PKCS #8)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read device key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errNotDevice
	}
	if _, err := MarshalPublic(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}
