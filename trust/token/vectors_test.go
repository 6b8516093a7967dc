package token

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cloudflare/circl/oprf"
)

var write = flag.Bool("write", false, "write spec/vectors/token anew")

const vectors = "../../spec/vectors/token/tokens.txt"

// TestVectors judges every token of the file.
func TestVectors(t *testing.T) {
	// The key of RFC 9497's vectors.
	key, err := ParseKey(unhex(t, "5b2690d6954b8fbb159f19935d64133f12770c00b68422559c65431942d721ff79d47d7a75906c30b7818ec0f38b7fb2"))
	if err != nil {
		t.Fatal(err)
	}
	if *write {
		writeVectors(t, key)
	}
	text, err := os.ReadFile(vectors)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		v := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			v[name] = value
		}
		key, err := ParseKey(unhex(t, v["key"]))
		if err != nil || key.Public().String() != v["public"] {
			t.Fatalf("%s: %v", v["comment"], err)
		}
		got := "ok"
		if tok, err := Parse(v["token"]); err != nil {
			got = "refused"
		} else if errors.Is(key.Verify(tok), ErrForged) {
			got = "forged"
		}
		if got != v["expect"] {
			t.Errorf("%s: %s, want %s", v["comment"], got, v["expect"])
		}
		n++
	}
	if n < 8 {
		t.Errorf("%d vectors", n)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeVectors(t *testing.T, key *Key) {
	t.Helper()
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	tok := Token{Day: day}
	for i := range tok.Nonce {
		tok.Nonce[i] = byte(i)
	}
	tag, err := oprf.NewPartialObliviousServer(suite, key.private).FullEvaluate(tok.Nonce[:], info(day))
	if err != nil {
		t.Fatal(err)
	}
	copy(tok.Tag[:], tag)
	var b strings.Builder
	add := func(comment, expect, text string) {
		fmt.Fprintf(&b, "comment: %s\nexpect: %s\nkey: %x\npublic: %s\ntoken: %s\n\n", comment, expect, secret, key.Public(), text)
	}
	change := func(f func(*Token)) string {
		c := tok
		f(&c)
		return c.String()
	}
	good := tok.String()
	add("a good one", "ok", good)
	add("another day", "forged", change(func(t *Token) { t.Day = "2026-11-24" }))
	add("another nonce", "forged", change(func(t *Token) { t.Nonce[0] = 1 }))
	add("another tag", "forged", change(func(t *Token) { t.Tag[0] ^= 1 }))
	add("no such day", "refused", change(func(t *Token) { t.Day = "2026-11-31" }))
	add("padded", "refused", good+"=")
	add("truncated", "refused", good[:len(good)-1])
	add("a byte more", "refused", good+"AA")
	add("stray bits at the end", "refused", good[:len(good)-1]+"_")
	if err := os.WriteFile(vectors, []byte(strings.TrimSuffix(b.String(), "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
