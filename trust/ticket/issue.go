package ticket

import (
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/trust/image4"
)

// Leaf is a signing service's key with its certificate.
type Leaf struct {
	key         crypto.Signer
	cert        *x509.Certificate
	constraints image4.Constraints
}

// NewLeaf puts a key and its certificate together and checks once that they
// belong together and that the root issued the certificate. A Leaf can be used
// by several goroutines if its key can.
func NewLeaf(key crypto.Signer, cert, root *x509.Certificate) (*Leaf, error) {
	constraints, err := checkLeaf(cert, root)
	if err != nil {
		return nil, fmt.Errorf("cannot use leaf: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("cannot use leaf: the certificate is of another key")
	}
	return &Leaf{key, cert, constraints}, nil
}

// Certificate is the leaf's certificate.
func (l *Leaf) Certificate() *x509.Certificate { return l.cert }

// Issue signs a ticket. It signs nothing that a device would refuse for its
// form or for the leaf's constraints; whether the device may have the set is
// what the caller decided. Rand is handed to the key; with nil a software key
// signs deterministically (RFC 6979).
func Issue(rand io.Reader, leaf *Leaf, c Claims) ([]byte, error) {
	der, err := issue(rand, leaf, &c)
	if err != nil {
		return nil, fmt.Errorf("cannot issue ticket: %w", err)
	}
	return der, nil
}

func issue(rand io.Reader, leaf *Leaf, c *Claims) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	properties, objects := c.format()
	if err := leaf.constraints.Check(properties, objects); err != nil {
		return nil, err
	}
	signed, err := image4.FormatSigned(properties, objects)
	if err != nil {
		return nil, err
	}
	digest := sha512.Sum384(signed)
	signature, err := leaf.key.Sign(rand, digest[:], crypto.SHA384)
	if err != nil {
		return nil, err
	}
	der, err := image4.Format(signed, signature, leaf.cert.Raw)
	if err != nil {
		return nil, err
	}
	if len(der) > MaxSize {
		return nil, fmt.Errorf("it would have %d bytes, at most %d are possible", len(der), MaxSize)
	}
	return der, nil
}
