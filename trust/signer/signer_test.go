package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func newKey(t testing.TB, a Algorithm) crypto.Signer {
	t.Helper()
	key, err := New(rand.Reader, a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func same(a, b crypto.Signer) bool {
	return a.(interface{ Equal(crypto.PrivateKey) bool }).Equal(b)
}

func TestEncrypted(t *testing.T) {
	for _, a := range []Algorithm{Ed25519, P384} {
		key := newKey(t, a)
		file, err := Encrypt("alice", key, []byte("correct horse"))
		if err != nil {
			t.Fatal(err)
		}
		k, err := Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		if k.Name != "alice" || k.Algorithm != a || !k.Encrypted() || k.ID() == [32]byte{} {
			t.Errorf("got %+v", k)
		}
		if _, err := k.Unlock([]byte("wrong horse")); !errors.Is(err, ErrPassphrase) {
			t.Errorf("wrong passphrase: %v", err)
		}
		if got, err := k.Unlock([]byte("correct horse")); err != nil || !same(key, got) {
			t.Errorf("unlock: %v", err)
		}
	}
}

func TestUnencrypted(t *testing.T) {
	key := newKey(t, Ed25519)
	file, err := Unencrypted("dev.key-1", key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Parse(file)
	if err != nil || k.Encrypted() {
		t.Fatal(err)
	}
	if got, err := k.Unlock(nil); err != nil || !same(key, got) {
		t.Errorf("unlock: %v", err)
	}
	if _, ok := k.Program(); ok {
		t.Error("a software key is in no program")
	}
	if _, err := k.Connect(nil); err == nil {
		t.Error("connected to a software key")
	}
}

// TestSwappedPublic: the public key stands in the clear, and somebody may have
// put another there.
func TestSwappedPublic(t *testing.T) {
	one, err1 := Unencrypted("one", newKey(t, Ed25519))
	two, err2 := Unencrypted("two", newKey(t, Ed25519))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var a, b map[string]any
	if json.Unmarshal(one, &a) != nil || json.Unmarshal(two, &b) != nil {
		t.Fatal("no JSON")
	}
	a["public"] = b["public"]
	mixed, _ := json.Marshal(a)
	k, err := Parse(mixed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unlock(nil); err == nil {
		t.Error("unlocked a key that isn't the one it claims to be")
	}
}

func TestRefusedFiles(t *testing.T) {
	good, err := Unencrypted("alice", newKey(t, P384))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		text, _ := json.Marshal(m)
		return text
	}
	set := func(name string, value any) []byte { return edit(func(m map[string]any) { m[name] = value }) }
	for name, file := range map[string][]byte{
		"nothing":          nil,
		"no JSON":          []byte("PRIVATE KEY"),
		"too long":         bytes.Repeat([]byte(" "), MaxFile+1),
		"two":              append(bytes.Clone(good), good...),
		"unknown field":    set("comment", "x"),
		"other schema":     set("schema", "sealant.key/2"),
		"no name":          set("name", ""),
		"a path":           set("name", "../alice"),
		"hidden":           set("name", ".alice"),
		"long name":        set("name", strings.Repeat("a", MaxName+1)),
		"other algorithm":  set("algorithm", "ed25519"),
		"unknown one":      set("algorithm", "rsa"),
		"no public key":    set("public", nil),
		"broken public":    set("public", "AAAA"),
		"both forms":       set("encrypted", map[string]any{"x": 1}),
		"no form":          edit(func(m map[string]any) { delete(m, "unencrypted") }),
		"program and key":  set("program", Program{[]string{"x"}, "k"}),
		"program, no name": edit(func(m map[string]any) { delete(m, "unencrypted"); m["program"] = Program{[]string{"x"}, ""} }),
		"program, no command": edit(func(m map[string]any) {
			delete(m, "unencrypted")
			m["program"] = Program{nil, "k"}
		}),
	} {
		if _, err := Parse(file); err == nil || !strings.HasPrefix(err.Error(), "cannot read key: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string][]byte{
		"broken private key":    set("unencrypted", "AAAA"),
		"broken encryption":     edit(func(m map[string]any) { delete(m, "unencrypted"); m["encrypted"] = map[string]any{} }),
		"encryption of a third": edit(func(m map[string]any) { delete(m, "unencrypted"); m["encrypted"] = "x" }),
		"endless scrypt": edit(func(m map[string]any) {
			delete(m, "unencrypted")
			m["encrypted"] = map[string]any{
				"kdf":    map[string]any{"name": "scrypt", "params": map[string]int{"N": 1 << 30, "r": 8, "p": 1}, "salt": "AAAA"},
				"cipher": map[string]any{"name": "nacl/secretbox", "nonce": "AAAA"}, "ciphertext": "AAAA",
			}
		}),
	} {
		k, err := Parse(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := k.Unlock([]byte("x")); err == nil {
			t.Errorf("%s: unlocked", name)
		}
	}
}

func TestRefusedKeys(t *testing.T) {
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, Ed25519)
	for name, err := range map[string]error{
		"P-256":             second(Unencrypted("a", small)),
		"P-256, encrypted":  second(Encrypt("a", small, []byte("long enough"))),
		"P-256, external":   second(External("a", small.Public(), Program{[]string{"x"}, "k"})),
		"empty name":        second(Unencrypted("", key)),
		"dash":              second(Unencrypted("-a", key)),
		"space":             second(Unencrypted("a b", key)),
		"short passphrase":  second(Encrypt("a", key, []byte("1234567"))),
		"no command":        second(External("a", key.Public(), Program{nil, "k"})),
		"no key there":      second(External("a", key.Public(), Program{[]string{"x"}, ""})),
		"unknown algorithm": second(New(rand.Reader, "rsa")),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if AlgorithmOf("key") != "" {
		t.Error("a string has an algorithm")
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzParse(f *testing.F) {
	file, err := Unencrypted("alice", newKey(f, Ed25519))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add([]byte(`{"schema":"sealant.key/1","name":"a","algorithm":"ed25519","public":"","program":{"command":["x"],"key":"k"}}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		k, err := Parse(file)
		if err != nil {
			return
		}
		if !ValidName(k.Name) || k.Algorithm != AlgorithmOf(k.Public) {
			t.Errorf("accepted %+v", k)
		}
		if !k.Encrypted() {
			_, _ = k.Unlock(nil)
		}
	})
}
