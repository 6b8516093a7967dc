package setlog_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/ticket"
)

var write = flag.Bool("write", false, "write the vectors of spec/vectors/setlog anew")

const vectors = "../../spec/vectors/setlog"

// words are the expect lines of vectors and the errors they stand for.
var words = map[string]error{"ok": nil, "absent": setlog.ErrAbsent, "fork": setlog.ErrFork, "lost": setlog.ErrLost, "lie": setlog.ErrLie}

// vector is one file: a comment that begins with its expect line, and the files
// of a log beside what the reader has. Tiles are in base64.
type vector struct {
	expect, comment   string
	key, text, before []byte
	files             map[string][]byte // below the log's address
}

const (
	keyFile    = "log-key.txt"
	textFile   = "set.txt"
	beforeFile = "before.txt"
)

func (v vector) format() []byte {
	a := &txtar.Archive{Comment: fmt.Appendf(nil, "expect: %s\n%s\n\n", v.expect, v.comment)}
	add := func(name string, data []byte) { a.Files = append(a.Files, txtar.File{Name: name, Data: data}) }
	add(keyFile, v.key)
	add(textFile, v.text)
	if v.before != nil {
		add(beforeFile, v.before)
	}
	var names []string
	for name := range v.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		data := v.files[name]
		if strings.HasPrefix(name, "tile/") {
			data = []byte(base64.StdEncoding.EncodeToString(data) + "\n")
		}
		add(name, data)
	}
	return txtar.Format(a)
}

func parseVector(text []byte) (vector, error) {
	a := txtar.Parse(text)
	first, comment, _ := strings.Cut(string(a.Comment), "\n")
	v := vector{comment: comment, files: map[string][]byte{}}
	var ok bool
	if v.expect, ok = strings.CutPrefix(first, "expect: "); !ok {
		return v, fmt.Errorf("it begins with %q", first)
	}
	for _, f := range a.Files {
		switch {
		case f.Name == keyFile:
			v.key = f.Data
		case f.Name == textFile:
			v.text = f.Data
		case f.Name == beforeFile:
			v.before = f.Data
		case strings.HasPrefix(f.Name, "tile/"):
			data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(f.Data)))
			if err != nil {
				return v, fmt.Errorf("%s: %w", f.Name, err)
			}
			v.files[f.Name] = data
		default:
			v.files[f.Name] = f.Data
		}
	}
	return v, nil
}

// check reads the vector's log as a device does.
func (v vector) check() (setlog.Proof, error) {
	key, err := setlog.ParseKey(v.key)
	if err != nil {
		return setlog.Proof{}, err
	}
	var before tlog.Tree
	if v.before != nil {
		if before, err = setlog.OpenHead(v.before, key); err != nil {
			return setlog.Proof{}, err
		}
	}
	c := setlog.Client{Verifier: key, Fetch: func(path string, limit int64) ([]byte, error) {
		data, ok := v.files[path]
		switch {
		case !ok:
			return nil, setlog.ErrAbsent
		case int64(len(data)) > limit:
			return nil, errors.New("too long")
		}
		return data, nil
	}}
	return c.Prove(v.text, before)
}

func TestVectors(t *testing.T) {
	if *write {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectors, "*.txt"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseVector(data)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		want, known := words[v.expect]
		if !known {
			t.Fatalf("%s expects %q", file, v.expect)
		}
		_, err = v.check()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %s", filepath.Base(file), err, v.expect)
		}
		for word, other := range words {
			if word != v.expect && other != nil && errors.Is(err, other) {
				t.Errorf("%s: %v is %s too", filepath.Base(file), err, word)
			}
		}
	}
}

// vectorKey is the log's key in every vector: its seed is 32 bytes of one value.
func vectorKey(value byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{value}, ed25519.SeedSize))
}

// vectorTicket is the ticket of spec/vectors/ticket/NAME.txt.
func vectorTicket(t *testing.T, name string) *ticket.Ticket {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../spec/vectors/ticket", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n\n")
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	tk, err := ticket.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

func writeVectors(t *testing.T) {
	t.Helper()
	improvement, baseline := setlog.Text(vectorTicket(t, "ok").Claims), setlog.Text(vectorTicket(t, "ok-baseline").Claims)
	log := func(key ed25519.PrivateKey, texts ...[]byte) *server {
		s := withKey(t, key)
		s.add(texts...)
		return s
	}
	other := func(n int) []byte {
		return bytes.Replace(improvement, []byte("\nrelease SI-"), fmt.Appendf(nil, "\nrelease X%d-", n), 1)
	}
	var many [][]byte
	for n := range 300 {
		many = append(many, other(n))
	}
	honest := log(vectorKey(1), baseline, improvement)
	key, err := setlog.FormatKey("ExampleOS", vectorKey(1).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	// of collects what a reader fetches, whatever comes of it.
	of := func(s *server, text, before []byte) vector {
		v := vector{key: key, text: text, before: before, files: map[string][]byte{}}
		s.lie = func(path string, b []byte) []byte { v.files[path] = b; return b }
		c := s.client()
		var tree tlog.Tree
		if before != nil {
			if tree, err = setlog.OpenHead(before, honest.client().Verifier); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Prove(text, tree); err != nil {
			t.Logf("%v", err)
		}
		s.lie = nil
		return v
	}
	save := func(name, expect, comment string, v vector, change ...func(path string, b []byte) []byte) {
		v.expect, v.comment = expect, comment
		for _, f := range change {
			for path, b := range v.files {
				if got := f(path, slices.Clone(b)); got != nil {
					v.files[path] = got
				} else {
					delete(v.files, path)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(vectors, name+".txt"), v.format(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tiles := func(f func(b []byte) []byte) func(string, []byte) []byte {
		return func(path string, b []byte) []byte {
			if strings.HasPrefix(path, "tile/") {
				return f(b)
			}
			return b
		}
	}
	grown := log(vectorKey(1), baseline, improvement, other(1))
	save("ok", "ok", "an improvement; the text is that of the ticket vector ok", of(honest, improvement, nil))
	save("ok-baseline", "ok", "a baseline; the text is that of the ticket vector ok-baseline", of(honest, baseline, nil))
	save("ok-grown", "ok", "the log has grown since it was seen", of(grown, improvement, honest.head()))
	save("ok-late", "ok", "an older head than was seen, of the same log", func() vector {
		v := of(grown, improvement, grown.head())
		v.files[setlog.LookupPath(improvement)] = of(honest, improvement, nil).files[setlog.LookupPath(improvement)]
		for path, b := range of(honest, improvement, nil).files {
			v.files[path] = b
		}
		tile, err := grown.honest("tile/8/0/000.p/3")
		if err != nil {
			t.Fatal(err)
		}
		v.files["tile/8/0/000.p/3"] = tile
		return v
	}())
	save("ok-many", "ok", "301 records: two tiles and one above them", of(log(vectorKey(1), append(slices.Clone(many), improvement)...), improvement, nil))
	save("absent", "absent", "the log does not have the set", of(log(vectorKey(1), baseline), improvement, nil))
	save("fork-same-size", "fork", "another log of the same size", of(log(vectorKey(1), improvement, baseline), improvement, honest.head()))
	save("fork-longer", "fork", "a longer log that does not contain what was seen", of(log(vectorKey(1), other(1), baseline, improvement), improvement, honest.head()))
	save("lost", "lost", "an older head, and nothing that shows the newer one", of(log(vectorKey(1), baseline, improvement), improvement, grown.head()))
	save("another-key", "lie", "a head by another key of the same name", of(log(vectorKey(2), baseline, improvement), improvement, nil))
	save("another-set", "lie", "the answer is about another set", of(honest, improvement, nil), func(path string, b []byte) []byte {
		if strings.HasPrefix(path, "lookup/") {
			return of(honest, baseline, nil).files[setlog.LookupPath(baseline)]
		}
		return b
	})
	save("another-number", "lie", "the place of another record", of(honest, improvement, nil), func(path string, b []byte) []byte {
		if strings.HasPrefix(path, "lookup/") {
			return bytes.Replace(b, []byte("1\n"), []byte("0\n"), 1)
		}
		return b
	})
	save("beyond", "lie", "a place beyond the head", of(honest, improvement, nil), func(path string, b []byte) []byte {
		if strings.HasPrefix(path, "lookup/") {
			return bytes.Replace(b, []byte("1\n"), []byte("2\n"), 1)
		}
		return b
	})
	save("tile-bit", "lie", "one bit of a tile", of(honest, improvement, nil), tiles(func(b []byte) []byte { b[0] ^= 1; return b }))
	save("tile-cut", "lie", "a truncated tile", of(honest, improvement, nil), tiles(func(b []byte) []byte { return b[:len(b)-1] }))
	save("tile-missing", "lost", "no tiles", of(honest, improvement, nil), tiles(func([]byte) []byte { return nil }))
}

// TestText holds the text to the ticket vectors it is made from.
func TestText(t *testing.T) {
	for vectorName, ticketName := range map[string]string{"ok": "ok", "ok-baseline": "ok-baseline"} {
		data, err := os.ReadFile(filepath.Join(vectors, vectorName+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseVector(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := setlog.Text(vectorTicket(t, ticketName).Claims); !bytes.Equal(got, v.text) {
			t.Errorf("%s:\n%s\nwant\n%s", ticketName, got, v.text)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	good, err := setlog.FormatKey("ExampleOS", vectorKey(1).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := setlog.ParseKey(good); err != nil || v.Name() != "ExampleOS" {
		t.Fatalf("%v, %v", v, err)
	}
	for n := range good {
		if _, err := setlog.ParseKey(good[:n]); err == nil {
			t.Errorf("%d of %d bytes were read", n, len(good))
		}
		bad := slices.Clone(good)
		bad[n] ^= 4
		if v, err := setlog.ParseKey(bad); err == nil {
			t.Errorf("byte %d changed: %s", n, v.Name())
		}
	}
	for _, bad := range [][]byte{append(slices.Clone(good), good...), append(slices.Clone(good), '\n'), append([]byte{'\n'}, good...), bytes.Replace(good, []byte("\n"), []byte("\r\n"), 1), bytes.Repeat([]byte("x"), setlog.MaxKey+1)} {
		if _, err := setlog.ParseKey(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	for _, name := range []string{"", "a b", "a+b"} {
		if _, err := setlog.FormatKey(name, vectorKey(1).Public().(ed25519.PublicKey)); err == nil {
			t.Errorf("the name %q", name)
		}
	}
}
