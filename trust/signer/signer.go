// Package signer holds the keys that sign: the publisher's TUF keys (Ed25519)
// and the root of tickets (ECDSA P-384). Everything that signs is a
// crypto.Signer to the rest of Sealant, whether it is a software key from a
// key file (Parse, Key.Unlock) or a key in another program that talks the
// signer protocol (Client), such as one in an HSM or a cloud.
//
// The package opens no files and starts no programs: bytes and pipes come from
// the caller. The specification of both formats is spec/keys.md.
//
// # Key files
//
// A key file is one JSON document:
//
//	{"schema": "sealant.key/1", "name": "alice", "algorithm": "ed25519",
//	 "public": base64 of SubjectPublicKeyInfo,
//	 "encrypted": {"kdf": …scrypt…, "cipher": …nacl/secretbox…, "ciphertext": …}}
//
// with the private key (PKCS #8) encrypted under a passphrase, in the format
// of go-securesystemslib. In its place, a throwaway key of a development
// machine has "unencrypted" (base64 of PKCS #8), and a key that lives in
// another program has "program": {"command": ["sealant-signer-pkcs11", …],
// "key": "ticket-root"}. The public key stands in the clear, so that listing
// keys needs no passphrase; Unlock and Connect check that it belongs to the
// private one.
package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// Algorithm is the sort of a key.
type Algorithm string

// The algorithms of software keys.
const (
	Ed25519 Algorithm = "ed25519"    // TUF roles
	P384    Algorithm = "ecdsa-p384" // the root and the leaves of tickets
)

// Limits, in bytes.
const (
	MaxFile       = 16 << 10 // a key file
	MaxName       = 64       // a key's name
	MinPassphrase = 8        // a new passphrase
)

// ErrPassphrase means that a passphrase doesn't open a key.
var ErrPassphrase = errors.New("the passphrase is wrong")

// Key is a key file that was read and perhaps not unlocked.
type Key struct {
	Name      string
	Algorithm Algorithm
	Public    crypto.PublicKey

	file keyFile
}

type keyFile struct {
	Schema      string          `json:"schema"`
	Name        string          `json:"name"`
	Algorithm   Algorithm       `json:"algorithm"`
	Public      []byte          `json:"public"`
	Encrypted   json.RawMessage `json:"encrypted,omitempty"`
	Unencrypted []byte          `json:"unencrypted,omitempty"`
	Program     *Program        `json:"program,omitempty"`
}

// Program says where a key lives that isn't in its file: which command to
// start, and what the key is called there.
type Program struct {
	Command []string `json:"command"` // a program that talks the signer protocol, and its arguments
	Key     string   `json:"key"`
}

func (p *Program) valid() bool {
	return len(p.Command) > 0 && len(p.Command) <= 64 && p.Command[0] != "" && p.Key != "" && len(p.Key) <= 256
}

const keySchema = "sealant.key/1"

// New makes a software key.
func New(rand io.Reader, a Algorithm) (crypto.Signer, error) {
	switch a {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand)
		return key, err
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand)
	default:
		return nil, fmt.Errorf("cannot make key: unknown algorithm %q", a)
	}
}

// AlgorithmOf is the algorithm of a public key, "" if no key file can hold it.
func AlgorithmOf(public crypto.PublicKey) Algorithm {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return Ed25519
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			return P384
		}
	}
	return ""
}

// Encrypt writes a key file that the passphrase opens.
func Encrypt(name string, key crypto.Signer, passphrase []byte) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("cannot encrypt key: the passphrase has fewer than %d characters", MinPassphrase)
	}
	f, private, err := newSoftware(name, key)
	if err != nil {
		return nil, err
	}
	if f.Encrypted, err = encrypted.EncryptWithCustomKDFParameters(private, passphrase, encrypted.OWASP); err != nil {
		return nil, fmt.Errorf("cannot encrypt key: %w", err)
	}
	return f.marshal()
}

// Unencrypted writes a key file that anybody who can read it can use. It is
// for throwaway keys of development and tests.
func Unencrypted(name string, key crypto.Signer) ([]byte, error) {
	f, private, err := newSoftware(name, key)
	if err != nil {
		return nil, err
	}
	f.Unencrypted = private
	return f.marshal()
}

// External writes the file of a key that lives in another program.
func External(name string, public crypto.PublicKey, p Program) ([]byte, error) {
	f, err := newFile(name, public)
	if err != nil {
		return nil, err
	}
	if !p.valid() {
		return nil, errors.New("cannot write key: it needs a command and the key's name there")
	}
	f.Program = &p
	return f.marshal()
}

func newFile(name string, public crypto.PublicKey) (f keyFile, err error) {
	f = keyFile{Schema: keySchema, Name: name, Algorithm: AlgorithmOf(public)}
	if !ValidName(name) {
		return f, fmt.Errorf("cannot write key: %q can't be its name", name)
	}
	if f.Algorithm == "" {
		return f, errors.New("cannot write key: it is neither Ed25519 nor P-384")
	}
	if f.Public, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return f, fmt.Errorf("cannot write key: %w", err)
	}
	return f, nil
}

func newSoftware(name string, key crypto.Signer) (f keyFile, private []byte, err error) {
	if f, err = newFile(name, key.Public()); err != nil {
		return f, nil, err
	}
	if private, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return f, nil, fmt.Errorf("cannot write key: %w", err)
	}
	return f, private, nil
}

func (f *keyFile) marshal() ([]byte, error) {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write key: %w", err)
	}
	return append(text, '\n'), nil
}

// ValidName says whether a key can be called so: letters, digits, '.', '_'
// and '-', not beginning with '.' or '-'.
func ValidName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return name != "" && len(name) <= MaxName
}

// Parse reads a key file. It needs no passphrase.
func Parse(file []byte) (*Key, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("cannot read key: %d bytes, at most %d are possible", len(file), MaxFile)
	}
	k := new(Key)
	if err := strict(file, &k.file); err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	if k.file.Schema != keySchema {
		return nil, fmt.Errorf("cannot read key: schema %q instead of %q", k.file.Schema, keySchema)
	}
	forms := 0
	for _, there := range []bool{len(k.file.Encrypted) > 0, len(k.file.Unencrypted) > 0, k.file.Program != nil} {
		if there {
			forms++
		}
	}
	if !ValidName(k.file.Name) || forms != 1 || k.file.Program != nil && !k.file.Program.valid() {
		return nil, errors.New("cannot read key: a field is missing or malformed")
	}
	public, err := x509.ParsePKIXPublicKey(k.file.Public)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	if a := AlgorithmOf(public); a == "" || a != k.file.Algorithm {
		return nil, errors.New("cannot read key: the public key is of another algorithm")
	}
	k.Name, k.Algorithm, k.Public = k.file.Name, k.file.Algorithm, public
	return k, nil
}

// ID is the key's fingerprint: SHA-256 of its public key (SPKI, DER).
func (k *Key) ID() [32]byte { return sha256.Sum256(k.file.Public) }

// Encrypted says whether Unlock needs a passphrase.
func (k *Key) Encrypted() bool { return len(k.file.Encrypted) > 0 }

// Program is where the key lives; ok is false for a software key.
func (k *Key) Program() (p Program, ok bool) {
	if k.file.Program == nil {
		return p, false
	}
	return *k.file.Program, true
}

// Connect returns the key that lives in the program, to which rw is connected.
func (k *Key) Connect(rw io.ReadWriter) (crypto.Signer, error) {
	p, ok := k.Program()
	if !ok {
		return nil, fmt.Errorf("cannot use key %s: it is not in another program", k.Name)
	}
	key, err := NewClient(rw).Key(p.Key)
	if err != nil {
		return nil, err
	}
	return k.own(key)
}

// own checks that a key is the one of this file.
func (k *Key) own(key crypto.Signer) (crypto.Signer, error) {
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(k.Public) {
		return nil, fmt.Errorf("cannot use key %s: the public key in the file isn't its own", k.Name)
	}
	return key, nil
}

// Unlock returns a software key itself. The passphrase of an unencrypted key is
// ignored; a wrong one gives ErrPassphrase.
func (k *Key) Unlock(passphrase []byte) (crypto.Signer, error) {
	if p, ok := k.Program(); ok {
		return nil, fmt.Errorf("cannot unlock key %s: it lives in the program %s", k.Name, p.Command[0])
	}
	private := k.file.Unencrypted
	if k.Encrypted() {
		var err error
		if private, err = encrypted.Decrypt(k.file.Encrypted, passphrase); err != nil {
			return nil, fmt.Errorf("cannot unlock key %s: %w", k.Name, ErrPassphrase)
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot unlock key %s: %w", k.Name, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("cannot unlock key %s: it can't sign", k.Name)
	}
	return k.own(key)
}
