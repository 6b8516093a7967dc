package token

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/oprf"
)

const day = "2026-11-23"

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue goes through the protocol once.
func issue(t testing.TB, k *Key, day string, n int) ([]Token, *Request, Answer) {
	t.Helper()
	r, err := k.Public().NewRequest(day, n)
	if err != nil {
		t.Fatal(err)
	}
	a, err := k.Issue(day, r.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := r.Finish(a)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, r, a
}

func TestTokens(t *testing.T) {
	k := newKey(t)
	tokens, _, _ := issue(t, k, day, Batch)
	seen := map[string]bool{}
	for _, tok := range tokens {
		if err := k.Verify(tok); err != nil {
			t.Error(err)
		}
		again, err := Parse(tok.String())
		if err != nil || again != tok || seen[tok.String()] {
			t.Errorf("%s, %v", tok, err)
		}
		seen[tok.String()] = true
	}
	b, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	same, err := ParseKey(b)
	if err != nil || same.Verify(tokens[0]) != nil {
		t.Errorf("the key that was written: %v", err)
	}
	public, err := ParsePublic(k.Public().String() + "\n")
	if err != nil || public.String() != k.Public().String() {
		t.Errorf("the public key: %v", err)
	}
}

func TestForgedTokens(t *testing.T) {
	k, other := newKey(t), newKey(t)
	tokens, _, _ := issue(t, k, day, 1)
	tok := tokens[0]
	theirs, _, _ := issue(t, other, day, 1)
	for name, change := range map[string]func(*Token){
		"another day":   func(t *Token) { t.Day = "2026-11-24" },
		"another nonce": func(t *Token) { t.Nonce[0] ^= 1 },
		"another tag":   func(t *Token) { t.Tag[47] ^= 1 },
		"no tag":        func(t *Token) { t.Tag = [tagSize]byte{} },
		"another key":   func(t *Token) { *t = theirs[0] },
	} {
		bad := tok
		change(&bad)
		if err := k.Verify(bad); !errors.Is(err, ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := tok.String()
	for _, bad := range []string{
		"", ".", day, day + ".", text[:len(text)-1], text + "A", text + "=", strings.Replace(text, ".", "", 1), "2026-13-23" + text[10:],
		" " + text, text + "\n", strings.Repeat("A", 500), "2026-1-23." + text[11:],
	} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestLyingServer: a server that marks a device by another key, answers for
// another day, or changes a point, is found out before any token is made.
func TestLyingServer(t *testing.T) {
	k, marked := newKey(t), newKey(t)
	r, err := k.Public().NewRequest(day, 3)
	if err != nil {
		t.Fatal(err)
	}
	good, err := k.Issue(day, r.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	another, err := marked.Issue(day, r.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	tomorrow, err := k.Issue("2026-11-24", r.Blinded)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*Answer)) Answer {
		a := Answer{Proof: bytes.Clone(good.Proof)}
		for _, p := range good.Points {
			a.Points = append(a.Points, bytes.Clone(p))
		}
		f(&a)
		return a
	}
	for name, a := range map[string]Answer{
		"another key":           another,
		"another day":           tomorrow,
		"one of another key":    change(func(a *Answer) { a.Points[1] = another.Points[1] }),
		"another key's proof":   change(func(a *Answer) { a.Proof = another.Proof }),
		"changed proof":         change(func(a *Answer) { a.Proof[10] ^= 1 }),
		"no proof":              change(func(a *Answer) { a.Proof = nil }),
		"two swapped":           change(func(a *Answer) { a.Points[0], a.Points[1] = a.Points[1], a.Points[0] }),
		"one less":              change(func(a *Answer) { a.Points = a.Points[:2] }),
		"one more":              change(func(a *Answer) { a.Points = append(a.Points, a.Points[0]) }),
		"none":                  {},
		"the request back":      change(func(a *Answer) { a.Points = r.Blinded }),
		"nothing for a point":   change(func(a *Answer) { a.Points[0] = make([]byte, pointSize) }),
		"infinity for a point":  change(func(a *Answer) { a.Points[0] = []byte{0} }),
		"the negative of a one": change(func(a *Answer) { a.Points[0][0] ^= 1 }),
	} {
		if _, err := r.Finish(a); err == nil {
			t.Errorf("%s: tokens were made", name)
		}
	}
	if _, err := r.Finish(good); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatCantBe(t *testing.T) {
	k := newKey(t)
	r, err := k.Public().NewRequest(day, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, blinded := range map[string][][]byte{
		"none": nil, "too many": bytes.Split(bytes.Repeat([]byte("x"), Batch), nil)[:Batch:Batch], "empty": {nil}, "infinity": {{0}},
		"no point":     {append([]byte{2}, bytes.Repeat([]byte{0xff}, 48)...)},
		"uncompressed": {append([]byte{4}, make([]byte, 96)...)},
		"too long":     {append(bytes.Clone(r.Blinded[0]), 0)},
	} {
		if _, err := k.Issue(day, blinded); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	for _, bad := range []string{"", "today", "2026-11-31", "2026-11-23T00:00:00Z"} {
		if _, err := k.Issue(bad, r.Blinded); err == nil {
			t.Errorf("issued for the day %q", bad)
		}
		if _, err := k.Public().NewRequest(bad, 1); err == nil {
			t.Errorf("asked for the day %q", bad)
		}
	}
	for _, n := range []int{-1, 0, Batch + 1} {
		if _, err := k.Public().NewRequest(day, n); err == nil {
			t.Errorf("asked for %d", n)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, keySize), bytes.Repeat([]byte{0xff}, keySize), make([]byte, keySize+1)} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("read the key %x", bad)
		}
	}
	for _, bad := range []string{"", "AAAA", k.Public().String() + " ", k.Public().String()[1:]} {
		if _, err := ParsePublic(bad); err == nil {
			t.Errorf("read the public key %q", bad)
		}
	}
}

// TestUnlinkable: what the server saw while issuing fits every token alike. For
// any batch and any token there are blinds that would have led from one to the
// other, so no computation can tell them apart; what can be checked is that
// nothing which the server sees of one shows up in the other.
func TestUnlinkable(t *testing.T) {
	k := newKey(t)
	one, r1, a1 := issue(t, k, day, 4)
	two, r2, a2 := issue(t, k, day, 4)
	for _, tok := range append(one, two...) {
		spent := append(tok.Nonce[:], tok.Tag[:]...)
		for _, seen := range [][][]byte{r1.Blinded, r2.Blinded, a1.Points, a2.Points, {a1.Proof, a2.Proof}} {
			for _, s := range seen {
				for i := 0; i+8 <= len(s); i++ {
					if bytes.Contains(spent, s[i:i+8]) {
						t.Fatalf("a part of what was issued shows in the token")
					}
				}
			}
		}
	}
	// The same nonce blinded twice looks different: the server can't try nonces.
	c := oprf.NewPartialObliviousClient(suite, k.Public().key)
	_, q1, err1 := c.Blind([][]byte{one[0].Nonce[:]})
	_, q2, err2 := c.Blind([][]byte{one[0].Nonce[:]})
	if err1 != nil || err2 != nil || q1.Elements[0].IsEqual(q2.Elements[0]) {
		t.Errorf("blinding adds nothing: %v, %v", err1, err2)
	}
}

func TestDays(t *testing.T) {
	now := time.Date(2026, 11, 23, 23, 30, 0, 0, time.UTC)
	for day, want := range map[string]bool{
		"2026-11-24": false, "2026-11-23": false, "2026-11-22": true, "2026-11-21": true, "2026-11-20": true, "2026-11-19": false, "": false,
	} {
		if Usable(day, now) != want {
			t.Errorf("%s: usable %v", day, !want)
		}
	}
}

// TestVectorRFC9497 holds the library to RFC 9497, appendix A.4.3 (P-384,
// POPRF, vector 1): the key, its public part and the output for one input.
func TestVectorRFC9497(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	seed, keyInfo := bytes.Repeat([]byte{0xa3}, 32), []byte("test key")
	private, err := oprf.DeriveKey(suite, oprf.PartialObliviousMode, seed, keyInfo)
	if err != nil {
		t.Fatal(err)
	}
	b, err := private.MarshalBinary()
	if err != nil || hex.EncodeToString(b) != "5b2690d6954b8fbb159f19935d64133f12770c00b68422559c65431942d721ff79d47d7a75906c30b7818ec0f38b7fb2" {
		t.Errorf("key %x, %v", b, err)
	}
	out, err := oprf.NewPartialObliviousServer(suite, private).FullEvaluate(unhex("00"), []byte("test info"))
	if err != nil || hex.EncodeToString(out) != "0188653cfec38119a6c7dd7948b0f0720460b4310e40824e048bf82a16527303ed449a08caf84272c3bbc972ede797df" {
		t.Errorf("output %x, %v", out, err)
	}
}

func FuzzParse(f *testing.F) {
	k := newKey(f)
	tokens, _, _ := issue(f, k, day, 1)
	f.Add(tokens[0].String())
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := Parse(s)
		if err == nil && tok.String() != s {
			t.Errorf("%q came back as %q", s, tok)
		}
	})
}
