package ticket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/trust/image4"
)

// constrain gives a certificate other constraints.
func constrain(t testing.TB, c image4.Constraints, critical bool) func(*x509.Certificate) {
	t.Helper()
	der, err := c.Format()
	if err != nil {
		t.Fatal(err)
	}
	return func(cert *x509.Certificate) {
		cert.ExtraExtensions = []pkix.Extension{{Id: oidConstraints, Critical: critical, Value: der}}
	}
}

func allowEverything(t testing.TB) func(*x509.Certificate) {
	all := func(codes ...image4.Code) (rules []image4.Property) {
		for _, c := range codes {
			rules = append(rules, image4.Property{Code: c, Value: image4.Allowed()})
		}
		return rules
	}
	return constrain(t, image4.Constraints{
		Manifest: all("UDID", "prod", "bdig", "ndom", "rels", "cnch", "evil", "DGST"),
		Object:   all("DGST", "name", "styp", "root", "evil"),
	}, true)
}

func TestLeafWithinConstraints(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	properties, objects := c.format()
	usual := func() image4.Constraints { return Limits{Product: "ExampleOS"}.constraints() }
	rule := func(code image4.Code, v image4.Value) image4.Constraints {
		u := usual()
		for i := range u.Manifest {
			if u.Manifest[i].Code == code {
				u.Manifest[i].Value = v
			}
		}
		return u
	}
	unmentioned := usual()
	unmentioned.Manifest = unmentioned.Manifest[:5]
	perObject := usual()
	perObject.Object = append(perObject.Object, image4.Property{Code: "more", Value: image4.Required()})
	nameless := usual()
	nameless.Object = nameless.Object[:1]
	for name, test := range map[string]struct {
		rules image4.Constraints
		want  string
	}{
		"usual":                          {usual(), ""},
		"every product":                  {Limits{}.constraints(), ""},
		"this baseline":                  {Limits{Baseline: c.Baseline}.constraints(), ""},
		"this device":                    {rule("UDID", image4.Octets(c.Device[:])), ""},
		"another product":                {Limits{Product: "OtherOS"}.constraints(), `prod is "ExampleOS", the certificate allows only "OtherOS"`},
		"another baseline":               {Limits{Baseline: [48]byte{1}}.constraints(), "bdig is"},
		"another device":                 {rule("UDID", image4.Octets(make([]byte, 32))), "UDID is"},
		"another domain":                 {rule("ndom", image4.Uint(2)), "ndom is 1, the certificate allows only 2"},
		"another release":                {rule("rels", image4.Text("SI-2026-0008")), "rels is"},
		"domain of another type":         {rule("ndom", image4.Octets([]byte{1})), "ndom is"},
		"nonce not mentioned":            {unmentioned, "cnch is not mentioned"},
		"objects must have more":         {perObject, "object cx00: more is missing"},
		"objects may have digests alone": {nameless, "object cx00: name is not mentioned"},
		"nothing":                        {image4.Constraints{}, "UDID is not mentioned"},
	} {
		cert := a.certify(t, constrain(t, test.rules, true))
		_, err := Verify(a.sign(t, cert.Raw, properties, objects), a.root, expect(c))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		// The issuer judges as the device does.
		leaf, err := NewLeaf(a.leafKey, cert, a.root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Issue(rand.Reader, leaf, c); (err == nil) != (test.want == "") {
			t.Errorf("%s: issue: %v", name, err)
		}
	}
	// A leaf that requires a nonce can't sign a baseline.
	b := baselineExample()
	properties, objects = b.format()
	cert := a.certify(t, constrain(t, rule("cnch", image4.Required()), true))
	if _, err := Verify(a.sign(t, cert.Raw, properties, objects), a.root, expect(b)); err == nil || !strings.Contains(err.Error(), "cnch is missing") {
		t.Errorf("a baseline by a leaf that requires a nonce: %v", err)
	}
}

// TestLeafTraps are certificates that a careless verifier accepts.
func TestLeafTraps(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	properties, objects := c.format()
	malformed := func(value []byte) func(*x509.Certificate) {
		return func(cert *x509.Certificate) { cert.ExtraExtensions[0].Value = value }
	}
	for name, test := range map[string]struct {
		edit func(*x509.Certificate)
		want string
	}{
		"without constraints":      {func(c *x509.Certificate) { c.ExtraExtensions = nil }, "has no constraints"},
		"constraints not critical": {func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, "not critical"},
		"constraints empty":        {malformed(nil), "cannot read constraints"},
		"constraints malformed":    {malformed([]byte{0x31, 0x81, 0x00}), "cannot read constraints"},
		"unknown critical": {func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, "unknown critical extension 1.2.3"},
		"critical extended usage": {func(c *x509.Certificate) {
			value, _ := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}})
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value})
		}, "unknown critical extension 2.5.29.37"},
		"critical name constraints": {func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains, c.IsCA = true, []string{"example.org"}, true
		}, ""},
		"critical alternative names": {func(c *x509.Certificate) { c.Subject, c.IPAddresses = pkix.Name{}, []net.IP{{10, 0, 0, 1}} }, "unknown critical extension 2.5.29.17"},
		"an authority": {func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}, "not a certificate for signatures"},
		"for encryption":      {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "not a certificate for signatures"},
		"signed with SHA-256": {func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA256 }, "instead of ECDSA-SHA384"},
	} {
		cert := a.certify(t, test.edit)
		_, err := Verify(a.sign(t, cert.Raw, properties, objects), a.root, expect(c))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewLeaf(a.leafKey, cert, a.root); err == nil {
			t.Errorf("%s: can be used to issue", name)
		}
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"over since 1970":      func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(0, 0), time.Unix(1, 0) },
		"not begun until 2100": func(c *x509.Certificate) { c.NotBefore, c.NotAfter = end.AddDate(74, 0, 0), end.AddDate(75, 0, 0) },
		"no usage":             func(c *x509.Certificate) { c.KeyUsage = 0 },
		"no basic constraints": func(c *x509.Certificate) { c.BasicConstraintsValid = false },
		"other extensions, not critical": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		},
	} {
		cert := a.certify(t, edit)
		if _, err := Verify(a.sign(t, cert.Raw, properties, objects), a.root, expect(c)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChains are leaves that the pinned root did not issue itself.
func TestChains(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	properties, objects := c.format()
	try := func(name string, cert *x509.Certificate) {
		t.Helper()
		if _, err := Verify(a.sign(t, cert.Raw, properties, objects), a.root, expect(c)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	// Another root of the same name.
	impostor := &authority{rootKey: steady{fixedKey(t, "impostor")}, leafKey: a.leafKey}
	var err error
	if impostor.root, err = NewRoot(zeros{}, impostor.rootKey, a.root.Subject.CommonName, begin, end); err != nil {
		t.Fatal(err)
	}
	nothing := func(*x509.Certificate) {}
	try("an impostor's leaf", impostor.certify(t, nothing))

	// An authority between: the root allows none, but a careless root could
	// have issued one.
	between := &authority{rootKey: a.leafKey, leafKey: a.leafKey}
	between.root = a.certify(t, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtraExtensions, c.Subject = true, x509.KeyUsageCertSign, nil, pkix.Name{CommonName: "between"}
	})
	try("a leaf of an authority between", between.certify(t, nothing))

	// The leaf's own signature, and the root itself.
	self := &authority{rootKey: a.leafKey, leafKey: a.leafKey}
	if self.root, err = NewRoot(zeros{}, a.leafKey, a.root.Subject.CommonName, begin, end); err != nil {
		t.Fatal(err)
	}
	try("a leaf that signed itself", self.certify(t, nothing))
	direct := &authority{rootKey: a.rootKey, leafKey: a.rootKey, root: a.root}
	if _, err := Verify(direct.sign(t, a.root.Raw, properties, objects), a.root, expect(c)); err == nil {
		t.Error("the root signed a ticket itself: accepted")
	}

	// A good leaf, but the key of somebody else signed.
	thief := &authority{rootKey: a.rootKey, leafKey: steady{fixedKey(t, "thief")}, root: a.root}
	if _, err := Verify(thief.sign(t, a.leaf.cert.Raw, properties, objects), a.root, expect(c)); err == nil || !strings.Contains(err.Error(), "signature is wrong") {
		t.Errorf("a thief's signature under a good leaf: %v", err)
	}
}

func TestKeys(t *testing.T) {
	a := newAuthority(t, "test")
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	odd := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}
	if _, err := NewRoot(rand.Reader, small, "small", begin, end); err == nil {
		t.Error("a root with a P-256 key")
	}
	for _, public := range []any{small.Public(), odd, nil, "key"} {
		if _, err := IssueLeaf(rand.Reader, a.root, a.rootKey, public, Limits{}, begin, end); err == nil {
			t.Errorf("a leaf with a key of type %T", public)
		}
		if checkSignature(public, sum("x"), []byte{1}) == nil {
			t.Errorf("a signature by a key of type %T", public)
		}
	}
	if _, err := IssueLeaf(rand.Reader, a.root, a.leafKey, a.leafKey.Public(), Limits{}, begin, end); err == nil {
		t.Error("a leaf signed by another key than the root's")
	}
	if _, err := IssueLeaf(rand.Reader, a.root, a.rootKey, a.leafKey.Public(), Limits{Product: "no good"}, begin, end); err == nil {
		t.Error("a leaf for an impossible product")
	}
	if _, err := IssueLeaf(strings.NewReader("short"), a.root, a.rootKey, a.leafKey.Public(), Limits{}, begin, end); err == nil {
		t.Error("a leaf without randomness for its number")
	}
}

func TestParseRoot(t *testing.T) {
	a := newAuthority(t, "test")
	text := MarshalRoot(a.root)
	root, err := ParseRoot(text)
	if err != nil || !root.Equal(a.root) {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":     nil,
		"no PEM":      a.root.Raw,
		"two":         append(text, text...),
		"a leaf":      MarshalRoot(a.leaf.cert),
		"a key":       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: a.root.Raw}),
		"no DER":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}}),
		"with header": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: a.root.Raw}),
	} {
		if _, err := ParseRoot(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
