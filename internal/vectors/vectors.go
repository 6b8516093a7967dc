// Package vectors reads and writes the test vectors in spec/vectors whose body
// is binary. A vector is a text file:
//
//	expect: ok
//	comment: one file, inline
//	root: 6a01…
//
//	eJzt0bEJ…
//
// Its header is one "key: value" a line, "expect" among them; a blank line; then
// the body, compressed by zlib (RFC 1950) and written in base64 (RFC 4648), in
// lines of 76. Other implementations are welcome to run them.
package vectors

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Vector is one test vector.
type Vector struct {
	Name   string            // its file name without ".txt"
	Expect string            // "ok", or how it is refused
	Header map[string]string // all else in the header
	Body   []byte
}

// maxBody bounds the body of a vector in bytes.
const maxBody = 64 << 20

// Read reads all vectors of a folder, sorted by name. A folder without
// vectors is an error, since a test would then prove nothing.
func Read(dir string) ([]Vector, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("cannot read test vectors: there are none in %s", dir)
	}
	var all []Vector
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		v, err := Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("cannot read test vector %s: %w", file, err)
		}
		v.Name = strings.TrimSuffix(filepath.Base(file), ".txt")
		all = append(all, v)
	}
	return all, nil
}

// Parse reads one vector.
func Parse(text string) (Vector, error) {
	v := Vector{Header: map[string]string{}}
	head, body, found := strings.Cut(text, "\n\n")
	if !found {
		return v, fmt.Errorf("no blank line after the header")
	}
	for line := range strings.SplitSeq(head, "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if _, twice := v.Header[key]; !ok || twice {
			return v, fmt.Errorf("bad header line %q", line)
		}
		v.Header[key] = value
	}
	if v.Expect = v.Header["expect"]; v.Expect == "" {
		return v, fmt.Errorf("it does not say what to expect")
	}
	delete(v.Header, "expect")
	z, err := zlib.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(body)))
	if err != nil {
		return v, err
	}
	v.Body, err = io.ReadAll(io.LimitReader(z, maxBody+1))
	if err == nil && len(v.Body) > maxBody {
		err = fmt.Errorf("its body exceeds %d MiB", maxBody>>20)
	}
	return v, err
}

// Format is the text of a vector.
func (v Vector) Format() string {
	var b strings.Builder
	fmt.Fprintf(&b, "expect: %s\n", v.Expect)
	keys := make([]string, 0, len(v.Header))
	for k := range v.Header {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %s\n", k, v.Header[k])
	}
	var packed bytes.Buffer
	z, _ := zlib.NewWriterLevel(&packed, zlib.BestCompression) // the level is a valid one
	_, _ = z.Write(v.Body)                                     // to memory: can't fail
	_ = z.Close()
	text := base64.StdEncoding.EncodeToString(packed.Bytes())
	b.WriteString("\n")
	for len(text) > 76 {
		b.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	b.WriteString(text + "\n")
	return b.String()
}

// Write writes the vector into a folder.
func (v Vector) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, v.Name+".txt"), []byte(v.Format()), 0o644)
}
