package ticket

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/sealant-os/sealant/trust/image4"
	"github.com/sealant-os/sealant/trust/nonce"
)

// fixedKey is always the same P-384 key for the same name, so that tests and
// vectors can be made again.
func fixedKey(t testing.TB, name string) *ecdsa.PrivateKey {
	t.Helper()
	d := sha512.Sum384([]byte("sealant test key " + name))
	d[0] = 0 // below the order of the group
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), d[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// steady signs without randomness (RFC 6979), whatever it is handed.
type steady struct{ *ecdsa.PrivateKey }

func (s steady) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.PrivateKey.Sign(nil, digest, opts)
}

// zeros is a source of serial numbers for certificates that shall be the same
// every time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

var (
	begin = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	end   = begin.Add(6 * time.Hour)
)

// authority is a root with one leaf.
type authority struct {
	rootKey, leafKey steady
	root             *x509.Certificate
	leaf             *Leaf
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{rootKey: steady{fixedKey(t, name+" root")}, leafKey: steady{fixedKey(t, name+" leaf")}}
	var err error
	if a.root, err = NewRoot(zeros{}, a.rootKey, name+" ticket root", begin, begin.AddDate(20, 0, 0)); err != nil {
		t.Fatal(err)
	}
	cert, err := IssueLeaf(zeros{}, a.root, a.rootKey, a.leafKey.Public(), Limits{Product: "ExampleOS"}, begin, end)
	if err != nil {
		t.Fatal(err)
	}
	if a.leaf, err = NewLeaf(a.leafKey, cert, a.root); err != nil {
		t.Fatal(err)
	}
	return a
}

// certify makes a leaf of any kind: edit may change the template at will.
func (a *authority) certify(t testing.TB, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	extension, err := Limits{Product: "ExampleOS"}.constraints().Format()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(7),
		Subject:               pkix.Name{CommonName: "tickets"},
		NotBefore:             begin,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
		ExtraExtensions:       []pkix.Extension{{Id: oidConstraints, Critical: true, Value: extension}},
	}
	edit(template)
	der, err := x509.CreateCertificate(zeros{}, template, a.root, a.leafKey.Public(), a.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// sign signs anything, asking nobody.
func (a *authority) sign(t testing.TB, cert []byte, properties []image4.Property, objects []image4.Object) []byte {
	t.Helper()
	signed, err := image4.FormatSigned(properties, objects)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384(signed)
	signature, err := a.leafKey.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	der, err := image4.Format(signed, signature, cert)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a *authority) issue(t testing.TB, c Claims) []byte {
	t.Helper()
	der, err := Issue(rand.Reader, a.leaf, c)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// sum is a digest that is only good for being different.
func sum(text string) [48]byte { return sha512.Sum384([]byte(text)) }

func cryptex(name string, subtype uint8) Cryptex {
	root := sum(name + " root")
	return Cryptex{
		Name: name, Subtype: subtype, Image: sum(name + " image"), Seal: sum(name + " seal"),
		TrustCache: sum(name + " trust cache"), Root: [32]byte(root[:32]),
	}
}

func example() Claims {
	device := sum("device")
	return Claims{
		Device: [32]byte(device[:32]), Product: "ExampleOS", Baseline: sum("baseline"), Release: "SI-2026-0007", Domain: Domain,
		Nonce: nonce.Seed{1}.Nonce(), Cryptexes: []Cryptex{cryptex("os", 1), cryptex("web", 2)},
	}
}

func baselineExample() Claims {
	c := example()
	c.Release, c.Nonce = "", [48]byte{}
	return c
}

// expect is what accepts exactly these claims.
func expect(c Claims) Expect {
	return Expect{
		Device: c.Device, Product: c.Product, Baseline: c.Baseline, Nonce: c.Nonce,
		OfBaseline: c.Release == "", Release: c.Release, Cryptexes: bytesClone(c.Cryptexes),
	}
}

func bytesClone(set []Cryptex) []Cryptex { return append([]Cryptex(nil), set...) }

func flip(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}
