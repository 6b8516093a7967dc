package store

import (
	"errors"
	"fmt"
	"io/fs"
)

const nonceSchema = "sealant.nonces/1"

// Nonces is the secret nonce state. A ticket names the hash of a seed
// (trust/ticket computes it); whoever has the seeds could have old tickets
// revived, so the file is root's.
type Nonces struct {
	Domain  uint32 `json:"domain"`
	Current Sum    `json:"current"` // seed that the ticket in Current was made for
	Next    Sum    `json:"next"`    // prerolled: seed for the ticket in Next
}

type nonceDocument struct {
	Schema string `json:"schema"`
	Nonces
}

// Nonces reads the nonce state; ErrEmpty before enrolment.
func (s *Store) Nonces() (Nonces, error) {
	var doc nonceDocument
	if err := readDocument(s.path("identity", "nonces.json"), nonceSchema, &doc); err != nil {
		return Nonces{}, fmt.Errorf("cannot read nonces: %w", err)
	}
	return doc.Nonces, nil
}

// WriteNonces replaces the nonce state in one step.
func (s *Store) WriteNonces(n Nonces) error {
	return writeDocument(s.path("identity", "nonces.json"), nonceDocument{nonceSchema, n}, 0o600)
}

// IdentityKey reads the device's key file (PEM); ErrEmpty before enrolment.
func (s *Store) IdentityKey() ([]byte, error) {
	data, err := readFile(s.path("identity", "device.pem"), maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity key: %w", ErrEmpty)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read identity key: %w", err)
	}
	return data, nil
}

// WriteIdentityKey keeps the device's key, readable by root only.
func (s *Store) WriteIdentityKey(pem []byte) error {
	return writeFile(s.path("identity", "device.pem"), pem, 0o600)
}

const enrolmentSchema = "sealant.enrolment/1"

// Enrolment is who the device is to its server. It is public.
type Enrolment struct {
	Device  Sum    `json:"device"` // SHA-256 of the public key
	Product string `json:"product"`
	Server  string `json:"server"` // URL the device enrolled at
	Time    string `json:"time"`   // RFC 3339, UTC
}

type enrolmentDocument struct {
	Schema string `json:"schema"`
	Enrolment
}

// Enrolment reads it; ErrEmpty if the device isn't enrolled.
func (s *Store) Enrolment() (Enrolment, error) {
	var doc enrolmentDocument
	if err := readDocument(s.path("enrolment.json"), enrolmentSchema, &doc); err != nil {
		return Enrolment{}, fmt.Errorf("cannot read enrolment: %w", err)
	}
	return doc.Enrolment, nil
}

// WriteEnrolment keeps it.
func (s *Store) WriteEnrolment(e Enrolment) error {
	return writeDocument(s.path("enrolment.json"), enrolmentDocument{enrolmentSchema, e}, 0o644)
}
