package patch

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/image/patch/delta"
)

// What refusing a hostile patch may take.
const (
	hostileTime   = 2.0       // seconds of the processors
	hostileMemory = 256 << 20 // bytes
)

// bomb is a patch that a hostile publisher makes: the checksums are right.
type bomb struct {
	header Header
	parts  [][]byte
}

func (b *bomb) bytes(t *testing.T) []byte {
	var out bytes.Buffer
	if _, err := write(&out, &b.header, b.parts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHostile gives the program itself patches that ask for too much, and looks
// at what the kernel says it took to refuse them.
func TestHostile(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "sealpub")
	build := exec.Command("go", "build", "-o", program, "github.com/sealant-os/sealant/cmd/sealpub")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	old := noise(1, 1<<20)
	good := make1(t, old, variant(2, old))
	header, n, err := readHeader(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	body := good[n : len(good)-4]
	const few, many = 4 << 10, 24 << 10
	patches := map[string]*bomb{}
	make2 := func(name string, change func(b *bomb)) {
		b := &bomb{header: *header, parts: [][]byte{bytes.Clone(body)}}
		b.header.Segments = append([]Segment(nil), header.Segments...)
		change(b)
		patches[name] = b
	}
	// segment makes the body one segment of fill, over a result of a size.
	segment := func(b *bomb, size int64, s Segment, fill byte, n int) {
		s.Size, s.Coded = size, int64(n)
		b.header.ResultSize, b.header.Segments = size, []Segment{s}
		b.parts = [][]byte{body[:header.MapSize], bytes.Repeat([]byte{fill}, n)}
		b.header.Memory = 200 << 20
	}
	// bare gives it an empty map.
	bare := func(b *bomb, parts ...[]byte) {
		empty := delta.EncodeLayout(&delta.Layout{}, nil)
		b.header.Runs, b.header.MapSize = 0, int64(len(empty))
		b.parts = append([][]byte{empty}, parts...)
	}
	shape := Segment{Bits: 16}
	make2("memory", func(b *bomb) { b.header.Memory = maxSize })
	make2("memory, not declared", func(b *bomb) { b.header.Memory = 1 << 20 })
	make2("result", func(b *bomb) {
		b.header.ResultSize += 1 << 40
		b.header.Segments[0].Size += 1 << 40
	})
	make2("result, a little less", func(b *bomb) {
		b.header.ResultSize += 100 << 20
		b.header.Segments[0].Size += 100 << 20
	})
	make2("body", func(b *bomb) { b.header.Segments[0].Coded = 1 << 40 })
	make2("map", func(b *bomb) { b.header.MapSize = 1 << 40 })
	make2("runs", func(b *bomb) { b.header.Runs = b.header.coded() })
	make2("packed", func(b *bomb) { b.header.Segments[0].Packed, b.header.Segments[0].Window = 1<<40, 20 })
	make2("segments", func(b *bomb) {
		b.header.Segments = nil
		for i := range int64(maxSegments) {
			b.header.Segments = append(b.header.Segments, Segment{Size: 1, Coded: 1 << 30, Bits: 20})
			b.header.ResultSize = i + 1
		}
	})
	make2("segments of small bodies", func(b *bomb) {
		b.header.Segments = nil
		bare(b)
		size := delta.Segment{Segments: maxSegments}.MaxLiterals(8)
		for i := range int64(maxSegments) {
			b.header.Segments = append(b.header.Segments, Segment{Size: size, Coded: 8, Bits: 20})
			b.header.ResultSize = (i + 1) * size
			b.parts = append(b.parts, bytes.Repeat([]byte{255}, 8))
		}
		b.header.Memory = 250 << 20
	})
	for _, fill := range []byte{0, 0x55, 255} {
		name := string("0123456789abcdef"[fill&15])
		for _, n := range []int{few, many} {
			if n == many {
				name += " many"
			}
			make2("literals "+name, func(b *bomb) {
				segment(b, min(60<<20, delta.Segment{}.MaxLiterals(int64(n))), shape, fill, n)
				bare(b, b.parts[1])
			})
			make2("runs of "+name, func(b *bomb) {
				segment(b, 1<<20, shape, fill, 100)
				b.header.MapSize, b.header.Runs = int64(n), 60_000
				b.parts = [][]byte{bytes.Repeat([]byte{fill}, n), b.parts[1]}
			})
			make2("walk "+name, func(b *bomb) { segment(b, header.ResultSize, shape, fill, n) })
			make2("packed "+name, func(b *bomb) {
				s := shape
				s.Window, s.Packed = 20, int64(n)
				segment(b, 60<<20, s, fill, 8)
				bare(b, bytes.Repeat([]byte{fill}, n), b.parts[1])
			})
		}
	}
	bombsOfMembers(t, old, make2, bare)
	source := filepath.Join(dir, "old")
	if err := os.WriteFile(source, old, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, b := range patches {
		t.Run(name, func(t *testing.T) {
			b.header.Source = sha512.Sum384(old)
			file, out := filepath.Join(dir, "patch"), filepath.Join(dir, "out")
			if err := os.WriteFile(file, b.bytes(t), 0o644); err != nil {
				t.Fatal(err)
			}
			// Of some runs the one that took the least: the same work takes longer on
			// a processor whose other half is busy.
			took, peak, text := refusal(t, program, source, file, out)
			for range 2 {
				if took > hostileTime {
					again, _, _ := refusal(t, program, source, file, out)
					took = min(took, again)
				}
			}
			if took > hostileTime || peak > hostileMemory>>10 {
				t.Errorf("%.2f s and %d MiB to refuse it: %s", took, peak>>10, text)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it left a file")
			}
		})
	}
}

// refusal has the program apply a patch, which it must refuse: the processor's
// time that took, the most memory in KiB, and what was said.
func refusal(t *testing.T, program, source, file, out string) (seconds float64, peak int64, said []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// GNU time starts it from a process that has taken little itself: what a
	// process took before it starts a program counts as the program's.
	usage := filepath.Join(filepath.Dir(out), "usage")
	cmd := exec.CommandContext(ctx, "/usr/bin/time", "-q", "-o", usage, "-f", "%U %S %M", program, "patch", "apply", source, file, out)
	var text bytes.Buffer
	cmd.Stderr = &text
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 32 && exit.ExitCode() != 1 || text.Len() == 0 {
		t.Fatalf("%v: %s", err, text.Bytes())
	}
	told, err := os.ReadFile(usage)
	if err != nil {
		t.Fatal(err)
	}
	var user, system float64
	if _, err := fmt.Sscan(string(told), &user, &system, &peak); err != nil {
		t.Fatalf("%v: %s", err, told)
	}
	return user + system, peak, text.Bytes()
}
