package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// token is a fake program: some keys behind the real other side.
func token(t testing.TB, keys map[string]crypto.Signer) *Client {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan error)
	go func() {
		done <- Serve(theirs, theirs, func(name string) (crypto.Signer, error) {
			switch key, ok := keys[name]; {
			case ok:
				return key, nil
			case name == "locked":
				return nil, &Refusal{CodeLocked, "the token wants a PIN\x1b[31m"}
			default:
				return nil, fmt.Errorf("wrapped: %w", &Refusal{CodeUnknownKey, "there is no key " + name})
			}
		})
		theirs.Close()
	}()
	t.Cleanup(func() {
		ours.Close()
		if err := <-done; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("serve: %v", err)
		}
	})
	return NewClient(ours)
}

func TestKeyInAnotherProgram(t *testing.T) {
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"tickets": newKey(t, P384), "targets": newKey(t, Ed25519), "small": small, "large": large}
	c := token(t, keys)
	digest := sha512.Sum384([]byte("message"))
	for name, inside := range keys {
		key, err := c.Key(name)
		if err != nil {
			t.Fatal(err)
		}
		if !inside.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: another public key", name)
		}
		data, opts := digest[:], crypto.SignerOpts(crypto.SHA384)
		if name == "targets" {
			data, opts = []byte("a message"), crypto.Hash(0)
		}
		signature, err := key.Sign(nil, data, opts)
		if err != nil || !verifies(inside.Public(), opts.HashFunc(), data, signature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var refusal *Refusal
	if _, err := c.Key("nobody"); !errors.As(err, &refusal) || refusal.Code != CodeUnknownKey {
		t.Errorf("an unknown key: %v", err)
	}
	if _, err := c.Key("locked"); !errors.As(err, &refusal) || refusal.Code != CodeLocked || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("a locked key: %q", err)
	}
	if _, err := c.Key("tickets"); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

func TestSignRefusesBeforeAsking(t *testing.T) {
	c := token(t, map[string]crypto.Signer{"tickets": newKey(t, P384), "targets": newKey(t, Ed25519)})
	tickets, err1 := c.Key("tickets")
	targets, err2 := c.Key("targets")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	asked := c.id
	for name, err := range map[string]error{
		"short digest":       second(tickets.Sign(nil, make([]byte, 47), crypto.SHA384)),
		"no hash":            second(tickets.Sign(nil, make([]byte, 48), crypto.Hash(0))),
		"unknown hash":       second(tickets.Sign(nil, make([]byte, 20), crypto.SHA1)),
		"PSS":                second(tickets.Sign(nil, make([]byte, 48), &rsa.PSSOptions{Hash: crypto.SHA384})),
		"a digest, Ed25519":  second(targets.Sign(nil, make([]byte, 64), crypto.SHA512)),
		"a message too long": second(targets.Sign(nil, make([]byte, MaxMessage+1), crypto.Hash(0))),
	} {
		if err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if c.id != asked {
		t.Error("the program was asked")
	}
	if _, err := targets.Sign(nil, make([]byte, MaxMessage), crypto.Hash(0)); err != nil {
		t.Errorf("the longest message: %v", err)
	}
	if _, err := targets.Sign(nil, nil, crypto.Hash(0)); err != nil {
		t.Errorf("the shortest message: %v", err)
	}
}

func TestConnect(t *testing.T) {
	key, other := newKey(t, P384), newKey(t, P384)
	file, err := External("hsm", key.Public(), Program{[]string{"sealant-signer-pkcs11", "--slot", "1"}, "root"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := k.Program(); !ok || p.Key != "root" || len(p.Command) != 3 || k.Encrypted() {
		t.Errorf("program: %+v", p)
	}
	if _, err := k.Unlock(nil); err == nil {
		t.Error("unlocked a key that isn't there")
	}
	connect := func(inside crypto.Signer) error {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			_ = Serve(theirs, theirs, func(string) (crypto.Signer, error) { return inside, nil })
		}()
		_, err := k.Connect(ours)
		return err
	}
	if err := connect(key); err != nil {
		t.Error(err)
	}
	if err := connect(other); err == nil {
		t.Error("the program has another key under that name")
	}
}

func TestTogether(t *testing.T) {
	c := token(t, map[string]crypto.Signer{"tickets": newKey(t, P384)})
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			key, err := c.Key("tickets")
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 4 {
				digest := sha512.Sum384([]byte{byte(i), byte(j)})
				if _, err := key.Sign(nil, digest[:], crypto.SHA384); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

// script is a hostile program: it answers with prepared text.
type script struct {
	io.Reader
	io.Writer
}

func TestHostileProgram(t *testing.T) {
	key := newKey(t, P384)
	file, err := External("x", key.Public(), Program{[]string{"x"}, "k"})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(file, &fields); err != nil {
		t.Fatal(err)
	}
	public := fmt.Sprint(fields["public"])
	good := `{"id":1,"public":"` + public + `"}` + "\n"
	wrong := base64.StdEncoding.EncodeToString(make([]byte, 100))
	for name, text := range map[string]string{
		"nothing":            "",
		"half a line":        good[:20],
		"no line end":        good[:len(good)-1],
		"no JSON":            "hello\n",
		"another id":         strings.Replace(good, `"id":1`, `"id":2`, 1),
		"no id":              strings.Replace(good, `"id":1,`, "", 1),
		"unknown field":      strings.Replace(good, `{`, `{"x":1,`, 1),
		"two in a line":      good[:len(good)-1] + good,
		"empty answer":       `{"id":1}` + "\n",
		"signature instead":  `{"id":1,"signature":"AAAA"}` + "\n",
		"both":               strings.Replace(good, "}", `,"signature":"AAAA"}`, 1),
		"key and error":      strings.Replace(good, "}", `,"error":"x"}`, 1),
		"code without error": strings.Replace(good, "}", `,"code":"failed"}`, 1),
		"endless line":       strings.Repeat("a", MaxLine+1),
		"endless spaces":     strings.Repeat(" ", MaxLine) + good,
		"broken key":         `{"id":1,"public":"AAAA"}` + "\n",
		"key of no use":      `{"id":1,"public":"MCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}` + "\n", // X25519
		"wrong signature":    good + `{"id":2,"signature":"` + wrong + `"}` + "\n",
		"no second answer":   good,
		"key twice":          good + strings.Replace(good, `"id":1`, `"id":2`, 1),
	} {
		c := NewClient(script{strings.NewReader(text), io.Discard})
		k, err := c.Key("k")
		if err == nil {
			_, err = k.Sign(nil, make([]byte, 48), crypto.SHA384)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c := NewClient(script{strings.NewReader("{}\n" + good), io.Discard})
	_, first := c.Key("k")
	_, second := c.Key("k")
	if first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("a broken conversation went on: %v, %v", first, second)
	}
	c = NewClient(script{strings.NewReader(`{"id":1,"error":"x","code":"from-the-future"}` + "\n"), io.Discard})
	var refusal *Refusal
	if _, err := c.Key("k"); !errors.As(err, &refusal) || refusal.Code != CodeFailed {
		t.Errorf("an unknown code: %v", err)
	}
	c = NewClient(script{strings.NewReader(good), failingWriter{}})
	if _, err := c.Key("k"); err == nil {
		t.Error("a program that doesn't listen")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestServeRefuses(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	find := func(string) (crypto.Signer, error) { return key, nil }
	for _, c := range []struct{ in, want string }{
		{`{"signer":1,"id":5,"op":"list","key":"k"}`, `{"id":5,"error":"there is no operation \"list\"","code":"unsupported"}`},
		{`{"signer":1,"id":5,"op":"sign","key":"k","hash":"sha384","data":"AAAA"}`, `{"id":5,"error":"the key can't sign with hash \"sha384\"","code":"unsupported"}`},
		{`{"signer":1,"id":5,"op":"sign","key":"k","hash":"md5","data":"AAAA"}`, `{"id":5,"error":"the key can't sign with hash \"md5\"","code":"unsupported"}`},
	} {
		var out bytes.Buffer
		if err := Serve(strings.NewReader(c.in+"\n"), &out, find); err != nil || out.String() != c.want+"\n" {
			t.Errorf("%s:\ngot  %swant %s\n%v", c.in, out.String(), c.want, err)
		}
	}
	for name, in := range map[string]string{
		"no JSON":       "hello\n",
		"version 2":     `{"signer":2,"id":1,"op":"public-key","key":"k"}` + "\n",
		"unknown field": `{"signer":1,"id":1,"op":"public-key","key":"k","x":1}` + "\n",
		"half a line":   `{"signer":1,"id":1,"op":"public-key","key":"k"}`,
		"endless line":  strings.Repeat("a", MaxLine+1),
	} {
		var out bytes.Buffer
		if err := Serve(strings.NewReader(in), &out, find); err == nil || out.Len() != 0 {
			t.Errorf("%s: %v, answered %q", name, err, out.String())
		}
	}
	if err := Serve(strings.NewReader(`{"signer":1,"id":1,"op":"public-key","key":"k"}`+"\n"), failingWriter{}, find); err == nil {
		t.Error("served somebody who doesn't listen")
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(`{"id":1,"public":"MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}` + "\n" + `{"id":2,"signature":"AAAA"}` + "\n"))
	f.Add([]byte(`{"id":1,"error":"x","code":"locked"}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := NewClient(script{bytes.NewReader(text), io.Discard})
		key, err := c.Key("k")
		if err != nil {
			return
		}
		_, _ = key.Sign(nil, make([]byte, 48), crypto.SHA384)
	})
}
