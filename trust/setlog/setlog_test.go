package setlog_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
)

// server is a log in memory, which can be made to lie.
type server struct {
	t      *testing.T
	signer *setlog.Signer
	texts  [][]byte
	stored []tlog.Hash
	lie    func(path string, honest []byte) []byte
}

func newServer(t *testing.T) *server {
	t.Helper()
	key, err := signer.New(rand.Reader, signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return withKey(t, key)
}

func withKey(t *testing.T, key crypto.Signer) *server {
	t.Helper()
	s, err := setlog.NewSigner("ExampleOS", key)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t: t, signer: s}
}

func (s *server) add(texts ...[]byte) {
	s.t.Helper()
	for _, text := range texts {
		hashes, err := tlog.StoredHashes(int64(len(s.texts)), text, s)
		if err != nil {
			s.t.Fatal(err)
		}
		s.texts, s.stored = append(s.texts, text), append(s.stored, hashes...)
	}
}

// ReadHashes implements tlog.HashReader.
func (s *server) ReadHashes(numbers []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(numbers))
	for i, n := range numbers {
		if n >= int64(len(s.stored)) {
			return nil, fmt.Errorf("no hash %d", n)
		}
		list[i] = s.stored[n]
	}
	return list, nil
}

func (s *server) tree() tlog.Tree {
	s.t.Helper()
	h, err := tlog.TreeHash(int64(len(s.texts)), s)
	if err != nil {
		s.t.Fatal(err)
	}
	return tlog.Tree{N: int64(len(s.texts)), Hash: h}
}

func (s *server) head() []byte {
	s.t.Helper()
	head, err := s.signer.SignHead(s.tree())
	if err != nil {
		s.t.Fatal(err)
	}
	return head
}

func (s *server) fetch(path string, limit int64) ([]byte, error) {
	honest, err := s.honest(path)
	if err == nil && s.lie != nil {
		honest = s.lie(path, honest)
	}
	if int64(len(honest)) > limit {
		return nil, errors.New("too long")
	}
	return honest, err
}

func (s *server) honest(path string) ([]byte, error) {
	if name, ok := strings.CutPrefix(path, "lookup/"); ok {
		for i, text := range s.texts {
			if sum := sha512.Sum384(text); hex.EncodeToString(sum[:]) == name {
				return setlog.FormatLookup(int64(i), text, s.head())
			}
		}
		return nil, setlog.ErrAbsent
	}
	t, err := tlog.ParseTilePath(path)
	if err != nil {
		return nil, err
	}
	return tlog.ReadTileData(t, s)
}

func (s *server) client() *setlog.Client {
	s.t.Helper()
	v, err := note.NewVerifier(s.signer.Key())
	if err != nil {
		s.t.Fatal(err)
	}
	return &setlog.Client{Verifier: v, Fetch: s.fetch}
}

func text(n int) []byte { return fmt.Appendf(nil, "sealant set 1\nrelease %d\n", n) }

func TestEveryRecordOfEverySize(t *testing.T) {
	s := newServer(t)
	c := s.client()
	var heads []tlog.Tree
	for size := 1; size <= 40; size++ {
		s.add(text(size - 1))
		for n := range size {
			got, err := c.Check(text(n), tlog.Tree{})
			if err != nil || got != s.tree() {
				t.Fatalf("record %d of %d: %v", n, size, err)
			}
		}
		for _, old := range heads {
			if err := c.Extends(old, s.tree()); err != nil {
				t.Fatalf("%d after %d: %v", size, old.N, err)
			}
		}
		heads = append(heads, s.tree())
	}
}

func TestMoreThanATile(t *testing.T) {
	s := newServer(t)
	c := s.client()
	for n := range 600 {
		s.add(text(n))
	}
	before, err := c.Check(text(599), tlog.Tree{})
	if err != nil {
		t.Fatal(err)
	}
	for n := 600; n < 1100; n++ {
		s.add(text(n))
	}
	for _, n := range []int{0, 255, 256, 511, 599, 600, 1099} {
		if _, err := c.Check(text(n), before); err != nil {
			t.Errorf("record %d: %v", n, err)
		}
	}
}

func TestRemovedRecordIsAFork(t *testing.T) {
	s := newServer(t)
	s.add(text(0), text(1), text(2))
	before, err := s.client().Check(text(1), tlog.Tree{})
	if err != nil {
		t.Fatal(err)
	}
	for name, texts := range map[string][][]byte{
		"changed":      {text(0), text(9), text(2), text(3)},
		"dropped":      {text(0), text(2), text(3), text(4)},
		"same size":    {text(0), text(9), text(2)},
		"another past": {text(5), text(6), text(7), text(8), text(2)},
	} {
		again := &server{t: t, signer: s.signer}
		again.add(texts...)
		got, err := again.client().Check(text(2), before)
		if !errors.Is(err, setlog.ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
		if got != before {
			t.Errorf("%s: the head was replaced", name)
		}
	}
	// A shorter log with another past can't even show what was seen.
	short := &server{t: t, signer: s.signer}
	short.add(text(9), text(2))
	if got, err := short.client().Check(text(2), before); err == nil || got != before {
		t.Errorf("shorter: %v", err)
	}
	// An older head of the same log is no fork, and nothing goes back.
	s.add(text(3))
	later := s.tree()
	old := &server{t: t, signer: s.signer}
	old.add(text(0), text(1), text(2))
	c := s.client()
	c.Fetch = func(path string, limit int64) ([]byte, error) {
		if strings.HasPrefix(path, "lookup/") {
			return old.fetch(path, limit) // a mirror that is late
		}
		return s.fetch(path, limit)
	}
	if got, err := c.Check(text(1), later); err != nil || got != later {
		t.Errorf("late mirror: %v, %v", got, err)
	}
}

func TestLies(t *testing.T) {
	s, other := newServer(t), newServer(t)
	for n := range 300 {
		s.add(text(n))
		other.add(text(n))
	}
	for name, lie := range map[string]func(path string, honest []byte) []byte{
		"another log's head": func(path string, b []byte) []byte {
			answer, _ := other.honest(path)
			return answer
		},
		"no signature": func(path string, b []byte) []byte { return b[:bytes.LastIndex(b, []byte("\n\n"))+1] },
		"a larger number": func(path string, b []byte) []byte {
			return bytes.Replace(b, []byte("7\n"), []byte("299\n"), 1)
		},
		"beyond the end": func(path string, b []byte) []byte { return bytes.Replace(b, []byte("7\n"), []byte("300\n"), 1) },
		"a negative number": func(path string, b []byte) []byte {
			return append([]byte("-"), b...)
		},
		"another text": func(path string, b []byte) []byte {
			return bytes.Replace(b, []byte("release 7"), []byte("release 8"), 1)
		},
		"nothing": func(string, []byte) []byte { return nil },
		"garbage": func(string, []byte) []byte { return bytes.Repeat([]byte{0xff}, 500) },
	} {
		s.lie = func(path string, b []byte) []byte {
			if strings.HasPrefix(path, "lookup/") {
				return lie(path, b)
			}
			return b
		}
		if _, err := s.client().Check(text(7), tlog.Tree{}); err == nil {
			t.Errorf("%s was believed", name)
		}
	}
	// Any flipped bit of any tile.
	s.lie = nil
	paths := map[string]int{}
	s.lie = func(path string, b []byte) []byte {
		if !strings.HasPrefix(path, "lookup/") {
			paths[path] = len(b)
		}
		return b
	}
	if _, err := s.client().Check(text(7), tlog.Tree{}); err != nil {
		t.Fatal(err)
	}
	if len(paths) < 2 {
		t.Fatalf("only %v were read", paths)
	}
	for target, size := range paths {
		for at := 0; at < size; at += 37 {
			s.lie = func(path string, b []byte) []byte {
				if path == target {
					b = slices.Clone(b)
					b[at] ^= 1
				}
				return b
			}
			if _, err := s.client().Check(text(7), tlog.Tree{}); err == nil {
				t.Fatalf("%s with byte %d changed was believed", target, at)
			}
		}
		for _, cut := range []int{0, size - 32, size - 1} {
			s.lie = func(path string, b []byte) []byte {
				if path == target {
					return b[:cut]
				}
				return b
			}
			if _, err := s.client().Check(text(7), tlog.Tree{}); err == nil {
				t.Fatalf("%s of %d bytes was believed", target, cut)
			}
		}
	}
	if _, err := s.client().Check(text(999), tlog.Tree{}); !errors.Is(err, setlog.ErrAbsent) {
		t.Errorf("a set that is not there: %v", err)
	}
}

func TestHeads(t *testing.T) {
	s := newServer(t)
	s.add(text(0))
	v := s.client().Verifier
	head := s.head()
	if got, err := setlog.OpenHead(head, v); err != nil || got != s.tree() {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range head {
		bad := slices.Clone(head)
		bad[i] ^= 1
		if got, err := setlog.OpenHead(bad, v); err == nil && got != s.tree() {
			t.Fatalf("byte %d changed: %v", i, got)
		}
	}
	for n := range head {
		if _, err := setlog.OpenHead(head[:n], v); err == nil {
			t.Fatalf("%d of %d bytes were believed", n, len(head))
		}
	}
	if _, err := setlog.OpenHead(bytes.Repeat([]byte("x"), setlog.MaxHead+1), v); err == nil {
		t.Error("too long")
	}
	longer, err := note.Sign(&note.Note{Text: string(tlog.FormatTree(s.tree())) + "more\n"}, s.signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setlog.OpenHead(longer, v); err == nil {
		t.Error("a head with a further line was read")
	}
}

func TestSignersThatCantBe(t *testing.T) {
	p384, err := signer.New(rand.Reader, signer.P384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setlog.NewSigner("ExampleOS", p384); err == nil {
		t.Error("a P-384 key")
	}
	ed, err := signer.New(rand.Reader, signer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb"} {
		if _, err := setlog.NewSigner(name, ed); err == nil {
			t.Errorf("the name %q", name)
		}
	}
}
