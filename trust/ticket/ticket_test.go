package ticket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"
)

func TestIssueVerify(t *testing.T) {
	rootKey, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	leafKey, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	root, err := NewRoot(rand.Reader, rootKey, "test root", time.Now(), time.Now().AddDate(20, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := IssueLeaf(rand.Reader, root, rootKey, leafKey.Public(), Limits{Product: "ExampleOS"}, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := NewLeaf(leafKey, cert, root)
	if err != nil {
		t.Fatal(err)
	}
	c := Claims{
		Device: [32]byte{1}, Product: "ExampleOS", Baseline: [48]byte{2}, Release: "SI-2026-0007", Domain: Domain, Nonce: [48]byte{3},
		Cryptexes: []Cryptex{{"os", 1, [48]byte{4}, [48]byte{5}, [48]byte{6}, [32]byte{7}}, {"web", 2, [48]byte{8}, [48]byte{9}, [48]byte{10}, [32]byte{11}}},
	}
	der, err := Issue(rand.Reader, leaf, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(der, root, Expect{Device: c.Device, Product: c.Product, Baseline: c.Baseline, Nonce: c.Nonce, Release: c.Release, Cryptexes: c.Cryptexes})
	if err != nil {
		t.Fatal(err)
	}
	if got.Claims.Cryptexes[1] != c.Cryptexes[1] {
		t.Error("claims differ")
	}
	t.Log(len(der))
}
