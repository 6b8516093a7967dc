package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sealant-os/sealant/trust/nonce"
)

// Nonces reads the nonce state; ErrEmpty before enrolment. It is secret:
// whoever has the seeds could have old tickets revived.
func (s *Store) Nonces() (nonce.State, error) {
	var n nonce.State
	text, err := readFile(s.path("identity", "nonces.json"), maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("nonces: %w", ErrEmpty)
	}
	if err == nil {
		err = n.UnmarshalText(text)
	}
	if err != nil {
		return n, fmt.Errorf("cannot read nonces: %w", err)
	}
	return n, nil
}

// WriteNonces replaces the nonce state in one step, readable by root only.
func (s *Store) WriteNonces(n nonce.State) error {
	text, err := n.MarshalText()
	if err != nil {
		return fmt.Errorf("cannot write nonces: %w", err)
	}
	return writeFile(s.path("identity", "nonces.json"), text, 0o600)
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
