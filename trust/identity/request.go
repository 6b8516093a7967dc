package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	_ "crypto/sha512" // registers SHA-384, for P-384 keys
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Names of the headers that a signed request carries.
const (
	DeviceHeader    = "Sealant-Device"
	DateHeader      = "Sealant-Date"
	SignatureHeader = "Sealant-Signature"
)

// Skew is by how much the clocks of device and server may differ.
const Skew = 5 * time.Minute

// Limits of what is signed, in bytes.
const (
	maxPath      = 2048
	maxSignature = 160 // a P-384 signature has at most 104 bytes, 140 in base64
)

// Signature is how a device signed a request: the values of the three headers.
type Signature struct {
	Device    string
	Date      string
	Signature string
}

// Failures that a server answers differently. Every other failure of
// VerifyRequest means that the request doesn't come from the device.
var (
	// ErrClock: the signature is right but its date is too far from now. Only
	// the holder of the key can cause it.
	ErrClock = errors.New("the clocks of device and server differ too much")
	// ErrSignature: the request wasn't signed with this key, or was changed.
	ErrSignature = errors.New("the request isn't signed by this device")
)

const dateForm = "2006-01-02T15:04:05Z"

// SignRequest signs a request with a device's key. The path begins with a
// slash and includes the query, exactly as it is sent.
func SignRequest(key crypto.Signer, method, path string, body []byte, now time.Time) (Signature, error) {
	id, err := IDOf(key.Public())
	if err != nil {
		return Signature{}, err
	}
	s := Signature{Device: id.Hex(), Date: now.UTC().Format(dateForm)}
	text, err := s.text(method, path, body)
	if err != nil {
		return Signature{}, fmt.Errorf("cannot sign request: %w", err)
	}
	hash := hashFor(key.Public())
	h := hash.New()
	h.Write(text)
	raw, err := key.Sign(rand.Reader, h.Sum(nil), hash)
	if err != nil {
		return Signature{}, fmt.Errorf("cannot sign request: %w", err)
	}
	s.Signature = base64.StdEncoding.EncodeToString(raw)
	return s, nil
}

// VerifyRequest checks that the holder of a device's public key signed a
// request, and that it did so within skew of now. The signature is looked at
// first: ErrClock is a statement about a device that is who it says.
func VerifyRequest(public *ecdsa.PublicKey, s Signature, method, path string, body []byte, now time.Time, skew time.Duration) error {
	id, err := IDOf(public)
	if err != nil {
		return err
	}
	if s.Device != id.Hex() {
		return fmt.Errorf("cannot accept request: %w", ErrSignature)
	}
	date, err := time.Parse(dateForm, s.Date)
	if err != nil || date.Format(dateForm) != s.Date {
		return fmt.Errorf("cannot accept request: the date is not of the form %s", dateForm)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s.Signature)
	if err != nil || len(s.Signature) > maxSignature || strings.ContainsAny(s.Signature, "\r\n") {
		return fmt.Errorf("cannot accept request: %w", ErrSignature)
	}
	text, err := s.text(method, path, body)
	if err != nil {
		return fmt.Errorf("cannot accept request: %w", err)
	}
	h := hashFor(public).New()
	h.Write(text)
	if !ecdsa.VerifyASN1(public, h.Sum(nil), raw) {
		return fmt.Errorf("cannot accept request: %w", ErrSignature)
	}
	if d := now.Sub(date); d > skew || d < -skew {
		return fmt.Errorf("cannot accept request: %w: the device says %s, it is %s", ErrClock, s.Date, now.UTC().Format(dateForm))
	}
	return nil
}

// Once identifies one act of signing, for whoever must not answer twice. It is
// not the signature's own digest: whoever lacks the key can still turn a good
// signature (r, s) into a second good one (r, n-s), but r stays. Of a signature
// that VerifyRequest did not accept it says nothing.
func (s Signature) Once() [32]byte {
	raw, err := base64.StdEncoding.Strict().DecodeString(s.Signature)
	var rs struct{ R, S *big.Int }
	if _, derr := asn1.Unmarshal(raw, &rs); err != nil || derr != nil {
		return sha256.Sum256([]byte(s.Device + "\n" + s.Signature))
	}
	return sha256.Sum256(rs.R.Append([]byte(s.Device+"\n"), 16))
}

// text is what is signed.
func (s Signature) text(method, path string, body []byte) ([]byte, error) {
	if method == "" || strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return nil, fmt.Errorf("%q is no method", method)
	}
	if len(path) > maxPath || !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the path is too long or has unusual characters")
	}
	sum := sha256.Sum256(body)
	lines := []string{
		"sealant request 1", method, path, s.Device, s.Date,
		strconv.Itoa(len(body)), ID(sum).Hex(), "",
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// hashFor is the hash that goes with a device key's curve.
func hashFor(public crypto.PublicKey) crypto.Hash {
	if k, ok := public.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}
