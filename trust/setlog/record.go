package setlog

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealant-os/sealant/trust/ticket"
)

// MaxKey is the limit for a verifier key's file, in bytes.
const MaxKey = 1 << 10

// Text is what a ticket authorises, without the device it is for, in a form
// that a person and the log can keep: lines that end with a line feed.
//
//	sealant set 1
//	product ExampleOS
//	baseline <96 hexadecimal digits>
//	release SI-2026-0007              ("release -" for the baseline)
//	cryptex web 2 <image> <seal> <trust cache> <root>
//
// There is one cryptex line for each member, in the order of their names; the
// number is the subtype, the digests are hexadecimal. Device and nonce of the
// claims don't count. It is the same text at the server that authorises a set
// and at the device that looks for it in the log; spec/setlog.md has vectors.
func Text(c ticket.Claims) []byte {
	var b bytes.Buffer
	id := c.Release
	if id == "" {
		id = "-"
	}
	fmt.Fprintf(&b, "sealant set 1\nproduct %s\nbaseline %x\nrelease %s\n", c.Product, c.Baseline, id)
	for _, x := range c.Cryptexes {
		fmt.Fprintf(&b, "cryptex %s %d %x %x %x %x\n", x.Name, x.Subtype, x.Image, x.Seal, x.TrustCache, x.Root)
	}
	return b.Bytes()
}

// FormatKey writes the file of a log's verifier key, which readers pin: one
// line and a line feed.
func FormatKey(name string, key ed25519.PublicKey) ([]byte, error) {
	text, err := note.NewEd25519VerifierKey(name, key)
	if err == nil {
		_, err = note.NewVerifier(text)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the log's key: %q can't be its name: %w", name, err)
	}
	return []byte(text + "\n"), nil
}

// ParseKey reads the file of a log's verifier key: exactly one line, of an
// Ed25519 key whose hash is right.
func ParseKey(file []byte) (note.Verifier, error) {
	if len(file) > MaxKey {
		return nil, fmt.Errorf("cannot read the log's key: %d bytes, at most %d are possible", len(file), MaxKey)
	}
	line, ok := strings.CutSuffix(string(file), "\n")
	if !ok || strings.ContainsAny(line, "\r\n") {
		return nil, errors.New("cannot read the log's key: it is not one line that ends with a line feed")
	}
	v, err := note.NewVerifier(line)
	if err != nil {
		return nil, fmt.Errorf("cannot read the log's key: %w", err)
	}
	return v, nil
}
