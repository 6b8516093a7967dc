package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sealant-os/sealant/test/maker"
)

// made makes a machine whose TPM has a maker's certificates.
func made(t *testing.T, m *maker.Maker) *machine {
	t.Helper()
	c := &machine{dir: m.TPM(t)}
	c.boot(t)
	t.Cleanup(c.off)
	return c
}

// TestCertifiedEndorsements has a TPM as makers ship them: every sort of
// endorsement key decrypts a challenge, and the maker's certificates are for
// those that it made.
func TestCertifiedEndorsements(t *testing.T) {
	known, foreign := maker.New(t), maker.New(t)
	m := made(t, known)
	foreign.TPM(t) // which makes its certificates
	makers, err := NewMakers(known.Certificates(t))
	if err != nil {
		t.Fatal(err)
	}
	others, err := NewMakers(foreign.Certificates(t))
	if err != nil {
		t.Fatal(err)
	}
	k, now := newKey(t, m), time.Now()
	secret := bytes.Repeat([]byte{7}, SecretSize)
	var all []Endorsement
	seen := map[[32]byte]bool{}
	for _, sort := range Sorts(m) {
		e, err := sort.Read(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
		id, err := e.ID()
		if err != nil || seen[id] {
			t.Errorf("id %x: %v", id, err)
		}
		seen[id] = true
		c, err := Challenge(rand.Reader, e, k.PublicArea, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Answer(m, k, e, c); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("sort %d: %x, %v", len(all), got, err)
		}
		m.empty(t)
	}
	if len(all) != 3 || all[0].Certificate == nil || all[1].Certificate == nil || all[2].Certificate != nil {
		t.Fatalf("%d endorsement keys, certified ones not first", len(all))
	}
	for i, e := range all[:2] {
		if err := makers.Certified(e, now); err != nil {
			t.Errorf("sort %d: %v", i, err)
		}
		if err := others.Certified(e, now); err == nil {
			t.Errorf("sort %d: another maker's roots were enough", i)
		}
		if err := makers.Certified(e, now.AddDate(-10, 0, 0)); err == nil {
			t.Errorf("sort %d: certified before it was made", i)
		}
		if err := makers.Certified(Endorsement{e.Area, all[1-i].Certificate}, now); err == nil {
			t.Errorf("sort %d: certified by the other key's certificate", i)
		}
		for _, at := range []int{len(e.Certificate) / 2, len(e.Certificate) - 20} {
			bad := bytes.Clone(e.Certificate)
			bad[at] ^= 1
			if err := makers.Certified(Endorsement{e.Area, bad}, now); err == nil {
				t.Errorf("sort %d: byte %d was changed", i, at)
			}
		}
		// The intermediate is needed, and no root by itself.
		if lone, err := NewMakers(known.Certificates(t)[:1]); err != nil || lone.Certified(e, now) == nil {
			t.Errorf("sort %d: believed without the intermediate: %v", i, err)
		}
	}
	if err := makers.Certified(all[2], now); err == nil {
		t.Error("believed without a certificate")
	}
	if _, err := NewMakers(known.Certificates(t)[1:]); err == nil {
		t.Error("makers without a root")
	}
	own, err := x509.ParseCertificate(all[0].Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMakers(append(known.Certificates(t), own)); err == nil {
		t.Error("an endorsement certificate among the makers'")
	}
}

// TestCertificatesOfOtherPurposes: a maker's authority signs more than
// endorsement certificates; those of other purposes count for nothing.
func TestCertificatesOfOtherPurposes(t *testing.T) {
	m := newMachine(t)
	e, err := ReadEndorsement(m)
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := e.public()
	if err != nil {
		t.Fatal(err)
	}
	ek, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	makers, err := NewMakers([]*x509.Certificate{root})
	if err != nil {
		t.Fatal(err)
	}
	certified := func(change func(*x509.Certificate)) error {
		t.Helper()
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEndorsement}, BasicConstraintsValid: true,
		}
		change(leaf)
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, ek, key)
		if err != nil {
			t.Fatal(err)
		}
		return makers.Certified(Endorsement{e.Area, der}, now)
	}
	if err := certified(func(*x509.Certificate) {}); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"no purpose":      func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil },
		"another purpose": func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}} },
		"an authority":    func(c *x509.Certificate) { c.IsCA = true },
		"ended":           func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) },
		"an unknown critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		if err := certified(change); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}
