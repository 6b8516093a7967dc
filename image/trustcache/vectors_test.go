package trustcache_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/vectors"
)

const vectorDir = "../../spec/vectors/trustcache"

var update = flag.Bool("update", false, "write the test vectors anew")

// TestVectors runs the lists (list-*) and the files (file-*).
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	all, err := vectors.Read(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if strings.HasPrefix(v.Name, "file-") {
			checkFile(t, v)
			continue
		}
		c, err := trustcache.Parse(v.Body)
		switch {
		case v.Expect == "refused":
			if fault.KindOf(err) != fault.Seal {
				t.Errorf("%s (%s): got %v", v.Name, v.Header["comment"], err)
			}
		case err != nil:
			t.Errorf("%s: %v", v.Name, err)
		default:
			if got := fmt.Sprintf("%x", trustcache.Digest(v.Body)); got != v.Header["digest"] {
				t.Errorf("%s: digest %s", v.Name, got)
			}
			for i, e := range c.Entries {
				if got := line(e); got != v.Header[fmt.Sprintf("entry-%d", i)] {
					t.Errorf("%s: entry %d is %s", v.Name, i, got)
				}
			}
			if fmt.Sprint(len(c.Entries)) != v.Header["entries"] {
				t.Errorf("%s: %d entries", v.Name, len(c.Entries))
			}
		}
	}
}

func line(e trustcache.Entry) string { return fmt.Sprintf("%x %s %q", e.Digest, e.Kind, e.Path) }

// checkFile computes a file's fs-verity digest and kind.
func checkFile(t *testing.T, v vectors.Vector) {
	perm, err := strconv.ParseUint(v.Header["perm"], 8, 32)
	if err != nil {
		t.Fatal(err)
	}
	var m trustcache.Measure
	m.Write(v.Body)
	if got := fmt.Sprintf("%x", m.Sum()); got != v.Header["fsverity"] {
		t.Errorf("%s: digest %s", v.Name, got)
	}
	kind, ok, err := trustcache.KindOf(uint32(perm), bytes.NewReader(v.Body), int64(len(v.Body)))
	got := kind.String()
	if !ok {
		got = "not listed"
	}
	if got != v.Header["kind"] || err != nil {
		t.Errorf("%s: kind %s, %v", v.Name, got, err)
	}
}

func writeVectors(t *testing.T) {
	put := func(v vectors.Vector) {
		if err := v.Write(vectorDir); err != nil {
			t.Fatal(err)
		}
	}
	list := func(name, comment string, c *trustcache.Cache) []byte {
		b := encode(t, c)
		h := map[string]string{"comment": comment, "digest": fmt.Sprintf("%x", trustcache.Digest(b)), "entries": fmt.Sprint(len(c.Entries))}
		for i, e := range c.Entries {
			h[fmt.Sprintf("entry-%d", i)] = line(e)
		}
		put(vectors.Vector{Name: "list-" + name, Expect: "ok", Header: h, Body: b})
		return b
	}
	list("empty", "no entries", &trustcache.Cache{})
	whole := list("four", "every kind; paths sort by bytes, so usr/bin-a before usr/bin/a", sample())
	for name, bad := range map[string]struct {
		comment string
		change  func([]byte) []byte
	}{
		"magic":   {"another magic", func(b []byte) []byte { b[0] = 'S'; return b }},
		"version": {"version 2", func(b []byte) []byte { b[8] = 2; return b }},
		"fewer":   {"one entry fewer than there are", func(b []byte) []byte { b[12]--; return b }},
		"more":    {"one entry more than there are", func(b []byte) []byte { b[12]++; return b }},
		"huge":    {"2^31 entries", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[12:], 1<<31); return b }},
		"kind-0":  {"kind 0", func(b []byte) []byte { b[48] = 0; return b }},
		"kind-5":  {"kind 5", func(b []byte) []byte { b[48] = 5; return b }},
		"spare":   {"the spare byte is 1", func(b []byte) []byte { b[49] = 1; return b }},
		"no-path": {"a path of no bytes", func(b []byte) []byte {
			return append(append(b[:12:12], 1, 0, 0, 0), append(append(make([]byte, 32), 1, 0), 0, 0)...)
		}},
		"absolute": {"a path begins with a slash", func(b []byte) []byte { b[52] = '/'; return b }},
		"dots":     {"a path leads up", func(b []byte) []byte { copy(b[52:], "../"); return b }},
		"zero":     {"a zero byte in a path", func(b []byte) []byte { b[53] = 0; return b }},
		"order":    {"the first path sorts last", func(b []byte) []byte { b[52] = 'v'; return b }},
		"twice": {"the same entry twice", func(b []byte) []byte {
			e := b[16 : 16+36+9]
			return append(append(append(b[:12:12], 2, 0, 0, 0), e...), e...)
		}},
		"cut":    {"the last byte is missing", func(b []byte) []byte { return b[:len(b)-1] }},
		"longer": {"a byte too many", func(b []byte) []byte { return append(b, 0) }},
	} {
		put(vectors.Vector{Name: "list-" + name, Expect: "refused", Header: map[string]string{"comment": bad.comment}, Body: bad.change(bytes.Clone(whole))})
	}
	writeFiles(t, put)
}

func writeFiles(t *testing.T, put func(vectors.Vector)) {
	file := func(name, comment string, perm uint32, body []byte) {
		var m trustcache.Measure
		m.Write(body)
		kind, ok, err := trustcache.KindOf(perm, bytes.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		h := map[string]string{"comment": comment, "perm": fmt.Sprintf("%04o", perm), "fsverity": fmt.Sprintf("%x", m.Sum()), "kind": kind.String()}
		if !ok {
			h["kind"] = "not listed"
		}
		put(vectors.Vector{Name: "file-" + name, Expect: "ok", Header: h, Body: body})
	}
	pattern := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i / 4096)
		}
		return b
	}
	file("empty", "no content", 0o755, nil)
	file("script", "an executable bit and #!", 0o755, []byte("#!/bin/sh\n"))
	file("script-plain", "#! without an executable bit", 0o644, []byte("#!/bin/sh\n"))
	file("other", "only others may execute it", 0o001, []byte("data"))
	for _, n := range []int{4095, 4096, 4097, 128 * 4096, 128*4096 + 1} {
		file(fmt.Sprintf("%d", n), "each block full of its number: the sizes where a level of the tree begins", 0o644, pattern(n))
	}
	// ELF files of headers alone: e_type, and of type DYN what tells a program
	// from a library.
	file("elf-exec", "type EXEC", 0o755, elf(2))
	file("elf-exec-plain", "type EXEC without an executable bit", 0o644, elf(2))
	file("elf-rel", "an object file with an executable bit", 0o755, elf(1))
	file("elf-dyn", "type DYN with nothing else", 0o644, elf(3))
	file("elf-interp", "type DYN with an interpreter", 0o644, elf(3, 3))
	file("elf-soname", "type DYN with an interpreter and a soname, as the C library", 0o755, elf(3, 3, 14))
	file("elf-pie", "type DYN with DF_1_PIE, as a static program", 0o755, elf(3, 0x6ffffffb))
	file("elf-pie-plain", "type DYN with DF_1_PIE without an executable bit", 0o644, elf(3, 0x6ffffffb))
	file("elf-short", "cut within the ELF header", 0o755, elf(3)[:63])
}

// elf makes a 64-bit ELF file of a type. 3 in what adds an interpreter, any
// other number an entry of the dynamic section.
func elf(typ uint16, what ...uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64+2*56)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], typ)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	dynamic := []byte{}
	for _, w := range what {
		if w == 3 {
			le.PutUint32(b[64:], 3)
			continue
		}
		dynamic = le.AppendUint64(dynamic, w)
		dynamic = le.AppendUint64(dynamic, 0x08000001)
	}
	dynamic = append(dynamic, make([]byte, 16)...)
	le.PutUint32(b[64+56:], 2)
	le.PutUint64(b[64+56+8:], uint64(len(b)))
	le.PutUint64(b[64+56+32:], uint64(len(dynamic)))
	return append(b, dynamic...)
}

// The digests of the file vectors are fs-verity's own.
func TestFsverityAgreesWithTheVectors(t *testing.T) {
	all, err := vectors.Read(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/file"
	for _, v := range all {
		if !strings.HasPrefix(v.Name, "file-") {
			continue
		}
		if err := os.WriteFile(name, v.Body, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fsverity(t, name); got != v.Header["fsverity"] {
			t.Errorf("%s: fsverity says %s", v.Name, got)
		}
	}
}
