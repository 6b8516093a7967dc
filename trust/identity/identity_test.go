package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

func fixedKey(t testing.TB, curve elliptic.Curve, name string) *ecdsa.PrivateKey {
	t.Helper()
	d := sha256.Sum256([]byte("sealant test key " + name))
	d[0] = 0 // below the order of the group
	key, err := ecdsa.ParseRawPrivateKey(curve, append(make([]byte, (curve.Params().BitSize+7)/8-len(d)), d[:]...))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestID(t *testing.T) {
	key := fixedKey(t, elliptic.P256(), "id")
	id, err := IDOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	spki, _ := x509.MarshalPKIXPublicKey(key.Public())
	if id != sha256.Sum256(spki) || id.Hex() != hex.EncodeToString(id[:]) {
		t.Error("not the hash of the public key")
	}
	if got, err := ParseID(id.Hex()); err != nil || got != id {
		t.Error(err)
	}
	if (ID{0x7c, 0x1e, 0x90, 0xaf, 1}).String() != "7c1e-90af" {
		t.Error(ID{0x7c, 0x1e, 0x90, 0xaf}.String())
	}
	for _, bad := range []string{"", "7c1e-90af", id.Hex()[1:], id.Hex() + "00", strings.ToUpper(id.Hex()), " " + id.Hex()[1:], strings.Repeat("g", 64)} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestPublicHasOneForm(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := fixedKey(t, curve, "public")
		der, err := MarshalPublic(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParsePublic(der); err != nil || !got.Equal(key.Public()) {
			t.Errorf("came back as %v, %v", got, err)
		}
		for bit := range 8 * len(der) {
			other := bytes.Clone(der)
			other[bit/8] ^= 1 << (bit % 8)
			if got, err := ParsePublic(other); err == nil && got.Equal(key.Public()) {
				t.Errorf("the same key in a second form, bit %d", bit)
			}
		}
		for n := range der {
			if _, err := ParsePublic(der[:n]); err == nil {
				t.Errorf("accepted %d of %d bytes", n, len(der))
			}
		}
		if _, err := ParsePublic(append(bytes.Clone(der), 0)); err == nil {
			t.Error("accepted an extra byte")
		}
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, _ := ed25519.GenerateKey(rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	for _, public := range []crypto.PublicKey{large.Public(), edwards, p521.Public(), p224.Public(), nil} {
		if _, err := IDOf(public); err == nil {
			t.Errorf("%T has an id", public)
		}
		if der, err := x509.MarshalPKIXPublicKey(public); err == nil {
			if _, err := ParsePublic(der); err == nil {
				t.Errorf("accepted %T", public)
			}
		}
	}
	if _, err := ParsePublic(make([]byte, MaxPublic+1)); err == nil {
		t.Error("accepted too many bytes")
	}
}

func TestKeyFile(t *testing.T) {
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseKey(text); err != nil || !got.Equal(key) {
		t.Errorf("came back as another: %v", err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaDER, _ := x509.MarshalPKCS8PrivateKey(large)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	p521DER, _ := x509.MarshalPKCS8PrivateKey(p521)
	if _, err := MarshalKey(p521); err == nil {
		t.Error("wrote a P-521 key")
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	good, _ := pem.Decode(text)
	for name, bad := range map[string][]byte{
		"nothing":     nil,
		"no PEM":      good.Bytes,
		"another":     block("EC PRIVATE KEY", good.Bytes),
		"RSA":         block(keyBlock, rsaDER),
		"P-521":       block(keyBlock, p521DER),
		"broken":      block(keyBlock, good.Bytes[:20]),
		"a long file": append(text, bytes.Repeat([]byte(" "), MaxKey)...),
	} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// tpmKeyID is the id of the device with the key in tpm.key.
const tpmKeyID = "512e7a25fb025cf3581c6a666cd02a5c92fb16eecb2bbb232ee844bc712a11ea"

// TestTPMKeyFile takes apart a key that a TPM made.
func TestTPMKeyFile(t *testing.T) {
	text, err := os.ReadFile("../../spec/vectors/identity/tpm.key")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseTPMKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := MarshalTPMKey(k); err != nil || !bytes.Equal(again, text) {
		t.Errorf("came back as %s, %v", again, err)
	}
	id, err := IDOf(k.Public)
	if err != nil || id.Hex() != tpmKeyID {
		t.Errorf("id %s, %v", id.Hex(), err)
	}
	if public, err := PublicOf(text); err != nil || !public.Equal(k.Public) || !IsTPMKey(text) {
		t.Errorf("public key: %v", err)
	}
	file, _ := MarshalKey(fixedKey(t, elliptic.P256(), "file"))
	if public, err := PublicOf(file); err != nil || !public.Equal(fixedKey(t, elliptic.P256(), "file").Public()) || IsTPMKey(file) {
		t.Errorf("public key of a file: %v", err)
	}
	if _, err := ParseKey(text); err == nil {
		t.Error("a TPM's key is no software key")
	}
	if _, err := PublicOf(nil); err == nil {
		t.Error("nothing has a public key")
	}

	// Whatever is changed: refused, or another point on the curve.
	for bit := range 8 * len(k.PublicArea) {
		area := bytes.Clone(k.PublicArea)
		area[bit/8] ^= 1 << (bit % 8)
		if other, err := NewTPMKey(area, k.PrivateArea); err == nil && (other.Public.Equal(k.Public) || bit/8 < 20) {
			t.Errorf("bit %d: accepted", bit)
		}
	}
	block, _ := pem.Decode(text)
	for i := range block.Bytes {
		der := bytes.Clone(block.Bytes)
		der[i] ^= 0x80
		if other, err := ParseTPMKey(pem.EncodeToMemory(&pem.Block{Type: tpmKeyBlock, Bytes: der})); err == nil {
			if bytes.Equal(other.PublicArea, k.PublicArea) && bytes.Equal(other.PrivateArea, k.PrivateArea) {
				t.Errorf("byte %d: the same key in another form", i)
			}
		}
	}
	for name, private := range map[string][]byte{"none": nil, "empty": {0, 0}, "short": k.PrivateArea[1:], "long": append([]byte{2, 2}, make([]byte, 514)...)} {
		if _, err := NewTPMKey(k.PublicArea, private); err == nil {
			t.Errorf("private part %s: accepted", name)
		}
	}
	for name, bad := range map[string][]byte{
		"nothing":     nil,
		"a file key":  file,
		"no DER":      pem.EncodeToMemory(&pem.Block{Type: tpmKeyBlock, Bytes: []byte{1}}),
		"and more":    pem.EncodeToMemory(&pem.Block{Type: tpmKeyBlock, Bytes: append(bytes.Clone(block.Bytes), 0)}),
		"a long file": append(bytes.Clone(text), bytes.Repeat([]byte(" "), MaxKey)...),
	} {
		if _, err := ParseTPMKey(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseTPMKey(f *testing.F) {
	text, err := os.ReadFile("../../spec/vectors/identity/tpm.key")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(text)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		in := pem.EncodeToMemory(&pem.Block{Type: tpmKeyBlock, Bytes: der})
		k, err := ParseTPMKey(in)
		if err != nil {
			return
		}
		if again, err := MarshalTPMKey(k); err != nil || !bytes.Equal(again, in) {
			t.Fatalf("%s became %s", in, again)
		}
	})
}

func TestRequest(t *testing.T) {
	const method, path = "POST", "/v1/tickets?x=1"
	body := []byte(`{"product":"ExampleOS"}`)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := fixedKey(t, curve, "request")
		s, err := SignRequest(key, method, path, body, now.In(time.FixedZone("", 3600)))
		if err != nil {
			t.Fatal(err)
		}
		if s.Date != "2026-11-23T18:00:00Z" {
			t.Errorf("date %s", s.Date)
		}
		verify := func(s Signature, method, path string, body []byte, now time.Time) error {
			return VerifyRequest(&key.PublicKey, s, method, path, body, now, Skew)
		}
		if err := verify(s, method, path, body, now); err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			err  error
			want error
		}{
			"at the edge, late":   {verify(s, method, path, body, now.Add(Skew)), nil},
			"at the edge, early":  {verify(s, method, path, body, now.Add(-Skew)), nil},
			"too late":            {verify(s, method, path, body, now.Add(Skew+time.Second)), ErrClock},
			"too early":           {verify(s, method, path, body, now.Add(-Skew-time.Second)), ErrClock},
			"another path":        {verify(s, method, "/v1/reports", body, now), ErrSignature},
			"another query":       {verify(s, method, "/v1/tickets?x=2", body, now), ErrSignature},
			"another method":      {verify(s, "PUT", path, body, now), ErrSignature},
			"another body":        {verify(s, method, path, body[1:], now), ErrSignature},
			"no body":             {verify(s, method, path, nil, now), ErrSignature},
			"another date":        {verify(Signature{s.Device, "2026-11-23T18:00:01Z", s.Signature}, method, path, body, now), ErrSignature},
			"another device":      {verify(Signature{strings.Repeat("0", 64), s.Date, s.Signature}, method, path, body, now), ErrSignature},
			"device in capitals":  {verify(Signature{strings.ToUpper(s.Device), s.Date, s.Signature}, method, path, body, now), ErrSignature},
			"no signature":        {verify(Signature{s.Device, s.Date, ""}, method, path, body, now), ErrSignature},
			"signature no base64": {verify(Signature{s.Device, s.Date, "!" + s.Signature}, method, path, body, now), ErrSignature},
			"signature in lines":  {verify(Signature{s.Device, s.Date, s.Signature[:4] + "\n" + s.Signature[4:]}, method, path, body, now), ErrSignature},
			"signature and more":  {verify(Signature{s.Device, s.Date, s.Signature + "AAAA"}, method, path, body, now), ErrSignature},
			"signature too long":  {verify(Signature{s.Device, s.Date, strings.Repeat("A", 1000)}, method, path, body, now), ErrSignature},
		} {
			if !errors.Is(test.err, test.want) {
				t.Errorf("%s: %v", name, test.err)
			}
		}
		for _, date := range []string{"", "2026-11-23", "2026-11-23T19:00:00+01:00", "2026-11-23T18:00:00.0Z", "2026-11-23t18:00:00z", " 2026-11-23T18:00:00Z", "2026-02-30T18:00:00Z"} {
			if err := verify(Signature{s.Device, date, s.Signature}, method, path, body, now); err == nil {
				t.Errorf("accepted the date %q", date)
			}
		}
		raw, _ := base64.StdEncoding.DecodeString(s.Signature)
		for bit := range 8 * len(raw) {
			other := bytes.Clone(raw)
			other[bit/8] ^= 1 << (bit % 8)
			if err := verify(Signature{s.Device, s.Date, base64.StdEncoding.EncodeToString(other)}, method, path, body, now); !errors.Is(err, ErrSignature) {
				t.Errorf("bit %d: %v", bit, err)
			}
		}
		if err := VerifyRequest(&fixedKey(t, curve, "other").PublicKey, s, method, path, body, now, Skew); !errors.Is(err, ErrSignature) {
			t.Errorf("another key: %v", err)
		}
	}
}

// TestRequestsDontRunTogether: no two different requests have the same signed
// text.
func TestRequestsDontRunTogether(t *testing.T) {
	key := fixedKey(t, elliptic.P256(), "request")
	for _, bad := range []struct{ method, path string }{
		{"", "/"},
		{"post", "/"},
		{"POST\n", "/"},
		{"POST /", "/"},
		{"POST", ""},
		{"POST", "v1"},
		{"POST", "/a\nb"},
		{"POST", "/a b"},
		{"POST", "/\x00"},
		{"POST", "/é"},
		{"POST", "/" + strings.Repeat("a", maxPath)},
	} {
		if _, err := SignRequest(key, bad.method, bad.path, nil, now); err == nil {
			t.Errorf("signed %q %q", bad.method, bad.path)
		}
	}
	s, err := SignRequest(key, "POST", "/a", nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyRequest(&key.PublicKey, s, "POST", "/a\n", nil, now, Skew); err == nil {
		t.Error("verified an impossible path")
	}
}

type failing struct{ *ecdsa.PrivateKey }

func (failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the TPM is busy")
}

func TestKeyThatFails(t *testing.T) {
	if _, err := SignRequest(failing{fixedKey(t, elliptic.P256(), "x")}, "GET", "/", nil, now); err == nil {
		t.Error("signed nevertheless")
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SignRequest(large, "GET", "/", nil, now); err == nil {
		t.Error("signed with an RSA key")
	}
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err := VerifyRequest(&p521.PublicKey, Signature{}, "GET", "/", nil, now, Skew); err == nil {
		t.Error("verified with a P-521 key")
	}
}

var write = flag.Bool("write", false, "write the vectors of spec/vectors/identity anew")

// steady signs without randomness, so that the vectors can be made again.
type steady struct{ *ecdsa.PrivateKey }

func (s steady) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.PrivateKey.Sign(nil, digest, opts)
}

// TestVectors judges spec/vectors/identity/requests.txt.
func TestVectors(t *testing.T) {
	const file = "../../spec/vectors/identity/requests.txt"
	var made strings.Builder
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key := steady{fixedKey(t, curve, "vectors")}
		public, _ := MarshalPublic(key.Public())
		body := []byte(`{"release":"SI-2026-0007"}`)
		s, err := SignRequest(key, "POST", "/v1/tickets", body, now)
		if err != nil {
			t.Fatal(err)
		}
		get, err := SignRequest(key, "GET", "/v1/device?full=1", nil, now)
		if err != nil {
			t.Fatal(err)
		}
		add := func(expect, method, path string, body []byte, now time.Time, s Signature) {
			fmt.Fprintf(&made, "expect: %s\npublic: %s\nmethod: %s\npath: %s\nbody: %s\nnow: %s\ndevice: %s\ndate: %s\nsignature: %s\n\n", expect,
				base64.StdEncoding.EncodeToString(public), method, path, base64.StdEncoding.EncodeToString(body), now.Format(time.RFC3339), s.Device, s.Date, s.Signature)
		}
		add("ok", "POST", "/v1/tickets", body, now, s)
		add("ok", "POST", "/v1/tickets", body, now.Add(Skew), s)
		add("ok", "GET", "/v1/device?full=1", nil, now, get)
		add("clock", "POST", "/v1/tickets", body, now.Add(Skew+time.Second), s)
		add("clock", "POST", "/v1/tickets", body, now.Add(-24*time.Hour), s)
		add("refused", "POST", "/v1/tickets", body[1:], now, s)
		add("refused", "PUT", "/v1/tickets", body, now, s)
		add("refused", "POST", "/v1/ticketz", body, now, s)
		add("refused", "GET", "/v1/device?full=2", nil, now, get)
		add("refused", "POST", "/v1/tickets", body, now, Signature{strings.ToUpper(s.Device), s.Date, s.Signature})
		add("refused", "POST", "/v1/tickets", body, now, Signature{s.Device, "2026-11-23T18:00:01Z", s.Signature})
		add("refused", "POST", "/v1/tickets", body, now, Signature{s.Device, "2026-11-23T18:00:00+00:00", s.Signature})
		add("refused", "POST", "/v1/tickets", body, now, Signature{s.Device, s.Date, get.Signature})
	}
	if *write {
		if err := os.WriteFile(file, []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || string(text) != made.String() {
		t.Fatalf("the file is not what this test makes: %v", err)
	}
	for i, block := range strings.Split(strings.TrimSuffix(string(text), "\n\n"), "\n\n") {
		v := map[string]string{}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			v[key] = value
		}
		der, _ := base64.StdEncoding.DecodeString(v["public"])
		public, err := ParsePublic(der)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := base64.StdEncoding.DecodeString(v["body"])
		at, _ := time.Parse(time.RFC3339, v["now"])
		got := "ok"
		if err := VerifyRequest(public, Signature{v["device"], v["date"], v["signature"]}, v["method"], v["path"], body, at, Skew); errors.Is(err, ErrClock) {
			got = "clock"
		} else if err != nil {
			got = "refused"
		}
		if got != v["expect"] {
			t.Errorf("vector %d: %s, want %s", i+1, got, v["expect"])
		}
	}
}

func FuzzParsePublic(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		der, err := MarshalPublic(fixedKey(f, curve, "fuzz").Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := ParsePublic(der)
		if err != nil {
			return
		}
		if again, err := MarshalPublic(key); err != nil || !bytes.Equal(again, der) {
			t.Fatalf("%x became %x", der, again)
		}
	})
}

func FuzzVerifyRequest(f *testing.F) {
	key := fixedKey(f, elliptic.P256(), "fuzz")
	s, err := SignRequest(key, "POST", "/v1/tickets", []byte("{}"), now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Device, s.Date, s.Signature, "POST", "/v1/tickets", []byte("{}"))
	f.Fuzz(func(t *testing.T, device, date, signature, method, path string, body []byte) {
		err := VerifyRequest(&key.PublicKey, Signature{device, date, signature}, method, path, body, now, Skew)
		if err == nil && (method != "POST" || path != "/v1/tickets" || string(body) != "{}" || date != s.Date) {
			t.Fatal("accepted what was never signed")
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	key := fixedKey(b, elliptic.P256(), "bench")
	body := make([]byte, 400)
	s, err := SignRequest(key, "POST", "/v1/tickets", body, now)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			if _, err := SignRequest(key, "POST", "/v1/tickets", body, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if err := VerifyRequest(&key.PublicKey, s, "POST", "/v1/tickets", body, now, Skew); err != nil {
				b.Fatal(err)
			}
		}
	})
}
