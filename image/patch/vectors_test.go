package patch

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref/sample"
	"github.com/sealant-os/sealant/internal/fault"
)

var update = flag.Bool("update", false, "write the vectors of spec/vectors/patch anew")

const vectors = "../../spec/vectors/patch"

// vector is a file of spec/vectors/patch: fields, an empty line, the patch.
type vector struct {
	expect, comment string
	source, result  []byte // result: nil unless ok
	patch           []byte
}

func (v vector) marshal() []byte {
	enc := base64.StdEncoding.EncodeToString
	s := fmt.Sprintf("expect: %s\ncomment: %s\nsource: %s\n", v.expect, v.comment, enc(v.source))
	if v.expect == "ok" {
		s += fmt.Sprintf("result: %s\n", enc(v.result))
	}
	return []byte(s + "\n" + enc(v.patch) + "\n")
}

func parseVector(b []byte) (v vector, err error) {
	head, body, _ := strings.Cut(string(b), "\n\n")
	dec := func(s string) []byte {
		out, e := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if e != nil {
			err = e
		}
		return out
	}
	for _, line := range strings.Split(head, "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "expect":
			v.expect = value
		case "comment":
			v.comment = value
		case "source":
			v.source = dec(value)
		case "result":
			v.result = dec(value)
		}
	}
	v.patch = dec(body)
	return v, err
}

// writeVectors writes the vectors.
func writeVectors(t *testing.T) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 12))
	changed := append(bytes.Replace(bytes.Clone(text), []byte("lazy"), []byte("tired"), 5), "And that is new."...)
	random := noise(3, 900)
	all := map[string]vector{}
	ok := func(name, comment string, old, data []byte) {
		all[name] = vector{"ok", comment, old, data, make1(t, old, data)}
	}
	ok("text", "words replaced, some added", text, changed)
	ok("equal", "source and result are the same", text, text)
	ok("from-empty", "all is literal", nil, changed)
	ok("to-empty", "no data, no segment", text, nil)
	ok("moved", "random bytes, turned around, some flipped", random, variant(4, random))
	ok("zeros", "a self run that overlaps itself", text, make([]byte, 5000))
	twice := append(bytes.Clone(random), random...)
	ok("twice", "new noise, and the same again", text, twice)
	ok("elf-x86-64", "a program whose code has moved by 12 bytes", smallELF(62, 0), smallELF(62, 3))
	ok("elf-aarch64", "a program whose code has moved by 12 bytes", smallELF(183, 0), smallELF(183, 3))
	ok("elf-debug", "debugging information and relative relocations of a program of which one function has grown", sample.Debug(62, 0), sample.Debug(62, 3))
	for name, pair := range map[string]string{"gzip": "inside", "zlib": "zlib", "zip": "jar", "elf": "program"} {
		p := folds(t)[pair]
		ok("fold-"+name, "compressed members that changed: "+name, p[0], p[1])
	}
	for name, shape := range map[string]delta.Shape{
		"light": {Bits: 13, Light: true}, "primed": {Bits: 14, Primed: true}, "packed": {Bits: 12, Packed: true, Window: 12}, "watch": {Bits: 12, Watch: 2},
	} {
		data := append(variant(4, text), changed...)
		all["shape-"+name] = vector{"ok", "an encoder's other choice: " + name, text, data, shaped(t, text, data, shape)}
	}
	good := all["text"]
	bad := func(name, comment string, change func(p []byte) []byte) {
		all[name] = vector{"refused", comment, good.source, nil, change(bytes.Clone(good.patch))}
	}
	bad("cut", "the last byte is missing", func(p []byte) []byte { return p[:len(p)-1] })
	bad("long", "a byte follows", func(p []byte) []byte { return append(p, 0) })
	bad("version", "version 1, which nobody used", func(p []byte) []byte { p[8] = 1; return p })
	bad("body-bit", "a bit of the body is flipped", func(p []byte) []byte { p[len(p)-9] ^= 4; return p })
	bad("header-bit", "a bit of the source's digest is flipped", func(p []byte) []byte { p[20] ^= 1; return p })
	all["other-source"] = vector{"refused", "the source is another", random, nil, good.patch}
	for name, v := range all {
		if err := os.WriteFile(filepath.Join(vectors, name+".txt"), v.marshal(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectors, "*.txt"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parseVector(b)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got, err := apply1(v.source, v.patch)
		switch v.expect {
		case "ok":
			if err != nil || !bytes.Equal(got, v.result) {
				t.Errorf("%s: %v", file, err)
			}
			if !bytes.Equal(referenceDecode(v.source, v.patch), v.result) {
				t.Errorf("%s: the reference decoder gives another result", file)
			}
			// An encoder has a choice, but ours must not change it unnoticed.
			if strings.HasPrefix(filepath.Base(file), "shape-") {
				break
			}
			if p := make1(t, v.source, v.result); !bytes.Equal(p, v.patch) {
				t.Errorf("%s: Make makes another patch now", file)
			}
		case "refused":
			if k := fault.KindOf(err); err == nil || k != fault.Seal && k != fault.Failed {
				t.Errorf("%s: %v", file, err)
			}
		default:
			t.Errorf("%s: expect: %q", file, v.expect)
		}
	}
}
