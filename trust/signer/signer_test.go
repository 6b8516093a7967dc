package signer

import (
	"crypto"
	"crypto/rand"
	"errors"
	"testing"
)

func TestKeyFile(t *testing.T) {
	for _, a := range []Algorithm{Ed25519, P384} {
		key, err := New(rand.Reader, a)
		if err != nil {
			t.Fatal(err)
		}
		file, err := Encrypt("alice", key, []byte("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		k, err := Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Unlock([]byte("wrong horse")); !errors.Is(err, ErrPassphrase) {
			t.Errorf("wrong passphrase: %v", err)
		}
		got, err := k.Unlock([]byte("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		if !key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(got) {
			t.Error("another key came back")
		}
	}
}
