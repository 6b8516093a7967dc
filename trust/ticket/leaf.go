package ticket

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/sealant-os/sealant/trust/image4"
)

// The extension that says what a leaf may sign. It has the number that
// Image4's own certificates use, because it has the same content.
var oidConstraints = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 1, 15}

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// Limits are what a leaf may sign. Every leaf requires a device, a baseline
// and the digests of the objects, and allows releases with nonces as well as
// baselines without.
type Limits struct {
	Product  string   // the only product, "" for every product
	Baseline [48]byte // the only baseline, zero for every baseline
}

func (l Limits) constraints() image4.Constraints {
	product, baseline := image4.Required(), image4.Required()
	if l.Product != "" {
		product = image4.Text(l.Product)
	}
	if l.Baseline != [48]byte{} {
		baseline = image4.Octets(l.Baseline[:])
	}
	return image4.Constraints{
		Manifest: []image4.Property{
			{Code: codeDevice, Value: image4.Required()},
			{Code: codeProduct, Value: product},
			{Code: codeBaseline, Value: baseline},
			{Code: codeDomain, Value: image4.Uint(uint64(Domain))},
			{Code: codeRelease, Value: image4.Allowed()},
			{Code: codeNonce, Value: image4.Allowed()},
		},
		Object: []image4.Property{
			{Code: codeDigest, Value: image4.Required()},
			{Code: codeName, Value: image4.Allowed()},
			{Code: codeSubtype, Value: image4.Allowed()},
			{Code: codeRoot, Value: image4.Allowed()},
		},
	}
}

// NewRoot makes the self-signed certificate that devices pin. The key is P-384
// and stays offline. The dates are for people: no device looks at them.
func NewRoot(rand io.Reader, key crypto.Signer, name string, from, until time.Time) (*x509.Certificate, error) {
	if err := checkKey(key.Public()); err != nil {
		return nil, fmt.Errorf("cannot make ticket root: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // no authority below it
	}
	cert, err := create(rand, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make ticket root: %w", err)
	}
	return cert, nil
}

// IssueLeaf makes the certificate of a signing service's key.
func IssueLeaf(rand io.Reader, root *x509.Certificate, rootKey crypto.Signer, leaf crypto.PublicKey, limits Limits, from, until time.Time) (*x509.Certificate, error) {
	if err := checkKey(leaf); err != nil {
		return nil, fmt.Errorf("cannot issue leaf: %w", err)
	}
	if limits.Product != "" && !validProduct(limits.Product) {
		return nil, fmt.Errorf("cannot issue leaf: %q can't be a product", limits.Product)
	}
	extension, err := limits.constraints().Format()
	if err != nil {
		return nil, fmt.Errorf("cannot issue leaf: %w", err)
	}
	name := "tickets " + from.UTC().Format("2006-01-02 15:04")
	if limits.Product != "" {
		name = limits.Product + " " + name
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: oidConstraints, Critical: true, Value: extension}},
	}
	cert, err := create(rand, template, root, leaf, rootKey)
	if err != nil {
		return nil, fmt.Errorf("cannot issue leaf: %w", err)
	}
	if _, err := checkLeaf(cert, root); err != nil {
		return nil, fmt.Errorf("cannot issue leaf: %w", err)
	}
	return cert, nil
}

func create(rand io.Reader, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(rand, serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of the same length
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.SignatureAlgorithm = x509.ECDSAWithSHA384
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		template.SignatureAlgorithm = x509.SHA384WithRSA
	}
	der, err := x509.CreateCertificate(rand, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// LeafID identifies a leaf by its key: SHA-256 of the public key (SPKI, DER).
// Lists of revoked leaves are made of it.
func LeafID(leaf *x509.Certificate) [32]byte { return sha256.Sum256(leaf.RawSubjectPublicKeyInfo) }

// MarshalRoot writes a certificate as PEM, as devices keep their root.
func MarshalRoot(root *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
}

// ParseRoot reads one certificate in PEM and checks that it can be a root of
// tickets.
func ParseRoot(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
		return nil, errors.New("cannot read ticket root: it is not a certificate in PEM")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("cannot read ticket root: there is more than one certificate")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read ticket root: %w", err)
	}
	if err := checkRoot(root); err != nil {
		return nil, fmt.Errorf("cannot read ticket root: %w", err)
	}
	return root, nil
}

func checkRoot(root *x509.Certificate) error {
	if root == nil {
		return errors.New("there is no root")
	}
	if !root.BasicConstraintsValid || !root.IsCA || root.KeyUsage != 0 && root.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("the root is no authority for certificates")
	}
	return checkKey(root.PublicKey)
}

// checkKey allows the two sorts of keys that may sign tickets and leaves.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if k.N.BitLen() == 4096 && k.E == 65537 {
			return nil
		}
	}
	return errors.New("the key is neither P-384 nor RSA-4096 with exponent 65537")
}

// checkLeaf says whether the root itself issued this leaf for signing tickets,
// and returns what the leaf may sign. It looks at no clock.
//
// x509.Certificate.Verify can't be used: it wants a time, and it refuses the
// constraints as an unhandled critical extension. That list of unhandled ones
// isn't used either, since it leaves out what the package understands and we
// would not evaluate, such as name constraints: every critical extension must
// be one of the three that are evaluated here.
func checkLeaf(leaf, root *x509.Certificate) (image4.Constraints, error) {
	none := image4.Constraints{}
	if err := checkRoot(root); err != nil {
		return none, err
	}
	if string(leaf.RawIssuer) != string(root.RawSubject) {
		return none, errors.New("the leaf was issued by somebody else than the root")
	}
	want := x509.ECDSAWithSHA384
	if _, ok := root.PublicKey.(*rsa.PublicKey); ok {
		want = x509.SHA384WithRSA
	}
	if leaf.SignatureAlgorithm != want {
		return none, fmt.Errorf("the leaf is signed with %v instead of %v", leaf.SignatureAlgorithm, want)
	}
	if err := leaf.CheckSignatureFrom(root); err != nil {
		return none, fmt.Errorf("the root did not sign the leaf: %w", err)
	}
	if err := checkKey(leaf.PublicKey); err != nil {
		return none, fmt.Errorf("the leaf can't sign tickets: %w", err)
	}
	if leaf.IsCA || leaf.Version != 3 || leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return none, errors.New("the leaf is not a certificate for signatures")
	}
	var constraints *image4.Constraints
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(oidConstraints):
			if !e.Critical {
				return none, errors.New("the leaf's constraints are not critical")
			}
			c, err := image4.ParseConstraints(e.Value)
			if err != nil {
				return none, fmt.Errorf("the leaf: %w", err)
			}
			constraints = &c
		case e.Id.Equal(oidKeyUsage), e.Id.Equal(oidBasicConstraints):
		case e.Critical:
			return none, fmt.Errorf("the leaf has the unknown critical extension %v", e.Id)
		}
	}
	if constraints == nil {
		return none, errors.New("the leaf has no constraints")
	}
	return *constraints, nil
}

// checkSignature checks a signature with SHA-384 over message.
func checkSignature(pub crypto.PublicKey, digest [48]byte, signature []byte) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, digest[:], signature) {
			return nil
		}
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, crypto.SHA384, digest[:], signature) == nil {
			return nil
		}
	}
	return errors.New("its signature is wrong")
}
