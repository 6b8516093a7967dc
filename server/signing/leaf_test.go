package signing_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/ticket"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// authority is a ticket root that issues leaves.
type authority struct {
	root *x509.Certificate
	key  crypto.Signer
}

func newAuthority(tb testing.TB) authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	root, err := ticket.NewRoot(rand.Reader, key, "root", now.AddDate(-1, 0, 0), now.AddDate(10, 0, 0))
	if err != nil {
		tb.Fatal(err)
	}
	return authority{root, key}
}

func (a authority) leaf(tb testing.TB, until time.Time) []byte {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := ticket.IssueLeaf(rand.Reader, a.root, a.key, key.Public(), ticket.Limits{}, now.Add(-time.Hour), until)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := signing.FormatLeaf(cert, key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestLeafFilesThatCantBe(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	good, second := a.leaf(t, now.Add(time.Hour)), a.leaf(t, now.Add(time.Hour))
	if _, err := signing.ParseLeaf(good, a.root); err != nil {
		t.Fatal(err)
	}
	blocks := func(text []byte) (cert, key []byte) {
		at := bytes.Index(text, []byte("-----BEGIN PRIVATE KEY"))
		return text[:at], text[at:]
	}
	cert, key := blocks(good)
	_, otherKey := blocks(second)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, text := range map[string][]byte{
		"nothing":                nil,
		"no PEM":                 []byte("hello"),
		"a certificate alone":    cert,
		"a key alone":            key,
		"another key":            join(cert, otherKey),
		"a key of another sort":  join(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ed})),
		"two certificates":       join(cert, cert, key),
		"two keys":               join(cert, key, key),
		"something behind it":    join(good, []byte("more")),
		"a block of another use": join(good, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})),
		"a damaged certificate":  bytes.Replace(good, []byte("MI"), []byte("MJ"), 1),
		"the root itself":        join(ticket.MarshalRoot(a.root), key),
		"another root's":         other.leaf(t, now.Add(time.Hour)),
	} {
		if _, err := signing.ParseLeaf(text, a.root); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestABrokenNewLeafLeavesTheOldInForce(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	path := filepath.Join(t.TempDir(), "leaf.pem")
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := signing.OpenLeaf(path, a.root); err == nil {
		t.Fatal("a missing file was opened")
	}
	put(a.leaf(t, now.Add(time.Hour)))
	f, err := signing.OpenLeaf(path, a.root)
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.Leaf(now)
	if err != nil {
		t.Fatal(err)
	}
	at := now
	for name, text := range map[string][]byte{"garbage": []byte("x"), "another root's": other.leaf(t, now.Add(time.Hour)), "too long": bytes.Repeat([]byte("x"), 1<<20)} {
		put(text)
		at = at.Add(time.Minute)
		if got, err := f.Leaf(at); err != nil || got != first || f.Broken() == nil {
			t.Errorf("%s: %v, broken %v", name, err, f.Broken())
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Leaf(at.Add(time.Minute)); err != nil || got != first {
		t.Errorf("removed: %v", err)
	}
	if _, err := f.Leaf(now.Add(2 * time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired leaf signs: %v", err)
	}
	put(a.leaf(t, now.Add(5*time.Hour)))
	if got, err := f.Leaf(now.Add(3 * time.Hour)); err != nil || got == first || f.Broken() != nil {
		t.Errorf("the new leaf: %v, broken %v", err, f.Broken())
	}
	if got := f.Expires(); !got.Equal(now.Add(5 * time.Hour)) {
		t.Errorf("expires %v", got)
	}
}

func FuzzParseLeaf(f *testing.F) {
	a := newAuthority(f)
	f.Add(a.leaf(f, now.Add(time.Hour)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if leaf, err := signing.ParseLeaf(text, a.root); (leaf == nil) != (err != nil) {
			t.Errorf("leaf %v with error %v", leaf, err)
		}
	})
}

// TestLeafOfKeysElsewhere replaces a leaf file by the certificate of another
// key that lies elsewhere, and by one of a key that is nowhere.
func TestLeafOfKeysElsewhere(t *testing.T) {
	a := newAuthority(t)
	var keys []crypto.Signer
	certificate := func(life time.Duration) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ticket.IssueLeaf(rand.Reader, a.root, a.key, key.Public(), ticket.Limits{}, now.Add(-time.Hour), now.Add(life))
		if err != nil {
			t.Fatal(err)
		}
		text, err := signing.FormatLeaf(cert, nil)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		return text
	}
	find := func(public crypto.PublicKey) (crypto.Signer, error) {
		for _, k := range keys {
			if k.(*ecdsa.PrivateKey).PublicKey.Equal(public) {
				return k, nil
			}
		}
		return nil, os.ErrNotExist
	}
	path := filepath.Join(t.TempDir(), "leaf.pem")
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(certificate(time.Hour))
	if _, err := signing.OpenLeaf(path, a.root); err == nil {
		t.Error("a certificate without a key was accepted")
	}
	f, err := signing.OpenLeafOf(path, a.root, find)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := f.Leaf(now); err != nil || !leaf.Certificate().NotAfter.Equal(now.Add(time.Hour)) {
		t.Error(leaf, err)
	}
	put(certificate(90 * time.Minute))
	if leaf, err := f.Leaf(now.Add(time.Minute)); err != nil || !leaf.Certificate().NotAfter.Equal(now.Add(90*time.Minute)) {
		t.Error(leaf, err)
	}
	lost := certificate(100 * time.Minute)
	keys = keys[:2]
	put(lost)
	if leaf, err := f.Leaf(now.Add(2 * time.Minute)); err != nil || !leaf.Certificate().NotAfter.Equal(now.Add(90*time.Minute)) || f.Broken() == nil {
		t.Error("the old leaf is not in force:", leaf, err, f.Broken())
	}
	// A key that isn't the certificate's own signs nothing.
	if _, err := signing.ParseLeafOf(lost, a.root, func(crypto.PublicKey) (crypto.Signer, error) { return keys[0], nil }); err == nil {
		t.Error("another key was accepted")
	}
}
