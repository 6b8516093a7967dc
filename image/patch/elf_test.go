package patch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/fault"
)

// program builds a small program: a real ELF file for an architecture. more is
// put into it, so that everything behind it moves.
func program(t testing.TB, arch, more string) []byte {
	t.Helper()
	dir := t.TempDir()
	source := `package main

import (
	"os"
	"strings"
)

func greet(name string) string { return "hello, " + strings.ToUpper(name) + "\n" }

func main() {
	for _, a := range os.Args {
		` + more + `
		os.Stdout.WriteString(greet(a))
	}
}
`
	for name, text := range map[string]string{"main.go": source, "go.mod": "module greet\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "greet", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "greet"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const moreCode = `if strings.Contains(a, "\x00") { panic("no zero bytes, please: " + strings.Repeat(a, 2)) }`

// TestELF holds that moved code costs little, and the size of a known patch
// against growth.
func TestELF(t *testing.T) {
	for arch, most := range map[string]int{"amd64": 8_000, "arm64": 8_000} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			old, data := program(t, arch, ""), program(t, arch, moreCode)
			p := make1(t, old, data)
			t.Logf("%d bytes for %d", len(p), len(data))
			if len(p) > most {
				t.Errorf("the patch has %d bytes, want at most %d", len(p), most)
			}
			got, err := apply1(old, p)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("the result differs: %v", err)
			}
			if back := make1(t, data, old); len(back) > most {
				t.Errorf("the antipatch has %d bytes, want at most %d", len(back), most)
			}
			differential(t, old, data, p)
		})
	}
}

// differential decodes a patch with the reference decoder too, and compares.
func differential(t *testing.T, old, data, p []byte) {
	t.Helper()
	if !bytes.Equal(referenceDecode(old, p), data) {
		t.Error("the reference decoder gives another result")
	}
}

// TestShapes goes through every shape of models, and damages what they code.
func TestShapes(t *testing.T) {
	old := noise(1, 20_000)
	data := append(variant(5, old), []byte("some text, some more text, and some text again")...)
	was, err := match.Read(old)
	if err != nil {
		t.Fatal(err)
	}
	is, err := match.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	l := match.Plan(was, is)[0]
	good, err := Inspect(bytes.NewReader(make1(t, old, data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, shape := range []delta.Shape{{Bits: 12}, {Bits: 16, Light: true}, {Bits: 16, Packed: true, Window: 14}, {Bits: 18, Primed: true}, {Bits: 12, Light: true, Primed: true}} {
		d, err := encodeAs(was, is, l, shape)
		if err != nil {
			t.Fatal(err)
		}
		h := *good
		h.Runs, h.MapSize, h.Segments = int64(len(l.Runs)), int64(len(d.parts[0])), d.segments
		h.Memory = h.memory() + d.memory
		patch := func(parts [][]byte) []byte {
			var b bytes.Buffer
			if _, err := write(&b, &h, parts); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
		got, err := apply1(old, patch(d.parts))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%+v: %v", shape, err)
		}
		differential(t, old, data, patch(d.parts))
		// With the checksum right again, damage must still be found.
		body := bytes.Join(d.parts, nil)
		for i := 0; i < len(body); i += 1 + len(body)/300 {
			bad := bytes.Clone(body)
			bad[i] ^= 1 << (i % 8)
			out, err := apply1(old, patch([][]byte{bad}))
			if err == nil && !bytes.Equal(out, data) {
				t.Fatalf("%+v: damage at %d gave another result", shape, i)
			}
			if k := fault.KindOf(err); err != nil && k != fault.Seal && k != fault.Failed {
				t.Fatalf("%+v: damage at %d: %v", shape, i, err)
			}
		}
	}
}
