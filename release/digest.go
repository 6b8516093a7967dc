package release

import (
	"crypto/sha512"
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-384: of an image, a patch, a document. It has the same
// underlying type as image.Digest, so the two convert without copying bytes.
type Digest [48]byte

// Hash is a SHA-256 sized value of a seal: the verity root or its salt.
type Hash [32]byte

// DigestOf is the SHA-384 of data.
func DigestOf(data []byte) Digest { return sha512.Sum384(data) }

// String is the digest in lower-case hexadecimal, 96 characters.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether the digest is all zero, which is the digest of nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts exactly what String writes.
func (d *Digest) UnmarshalText(text []byte) error { return unmarshalHex(d[:], text) }

// ParseDigest reads 96 lower-case hexadecimal characters.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	err := d.UnmarshalText([]byte(s))
	return d, err
}

// String is the hash in lower-case hexadecimal, 64 characters.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts exactly what String writes.
func (h *Hash) UnmarshalText(text []byte) error { return unmarshalHex(h[:], text) }

func unmarshalHex(dst, text []byte) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("%d characters where %d hexadecimal ones belong", len(text), 2*len(dst))
	}
	for i, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("character %d is not lower-case hexadecimal", i+1)
		}
	}
	_, err := hex.Decode(dst, text)
	return err
}
