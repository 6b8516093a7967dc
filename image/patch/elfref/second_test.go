package elfref_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// counts are how many references were found of each class.
type counts [elfref.Classes]int

// bytesOf gives a packed table's cursor the data.
type bytesOf []byte

func (b bytesOf) Bytes(off, n int64) []byte { return b[off : off+n] }

// compare finds the references of some data in all ways, and holds that they are
// the same.
func compare(t testing.TB, what string, data []byte) (c counts) {
	t.Helper()
	elements, err := elfref.Find(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := find(data)
	if len(files) != len(elements) {
		t.Fatalf("%s: %d elements, by the page %d", what, len(elements), len(files))
	}
	for i, e := range elements {
		f := files[i]
		if e.Base != f.base || e.Size != int64(len(f.b)) || e.Tail != f.tail || e.Cut != f.cut {
			t.Fatalf("%s: element %d has %d bytes at %d (tail %d), by the page %d at %d (%d)", what, i, e.Size, e.Base, e.Tail, len(f.b), f.base, f.tail)
		}
		want := f.references()
		packed, err := e.Pack(func(b []byte, off int64) error { copy(b, data[off:]); return nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []*elfref.Cursor{e.Table(f.b).Cursor(nil), packed.Cursor(bytesOf(data))} {
			for k := range min(len(want), got.Len()) {
				if r := got.At(k); r != want[k] {
					t.Fatalf("%s: reference %d of element %d is, in %s,\n%s, by the page\n%s", what, k, i, e.Section(r.Offset), told(r), told(want[k]))
				}
			}
			if got.Len() != len(want) {
				t.Fatalf("%s: element %d has %d references, by the page %d", what, i, got.Len(), len(want))
			}
		}
		if !slices.Equal(e.Bases, f.bases) {
			t.Fatalf("%s: element %d has bases %x, by the page %x", what, i, e.Bases, f.bases)
		}
		for _, r := range want {
			c[r.Class]++
		}
	}
	return c
}

func told(r elfref.Ref) string {
	return fmt.Sprintf("%v at %#x, to %#x from %#x (kind %d, adjust %d, width %d)", r.Class, r.Offset, r.Target, r.Base, r.Kind, r.Adjust, r.Width)
}

// damaged compares what is found in copies with a few bytes changed.
func damaged(t testing.TB, what string, whole []byte, rounds int) {
	t.Helper()
	files := find(whole)
	for round := range rounds {
		r, data := rand.New(rand.NewPCG(uint64(round), 1)), bytes.Clone(whole)
		for range 1 + r.IntN(1+r.IntN(20)) {
			damage(r, data, files[r.IntN(len(files))])
		}
		compare(t, fmt.Sprintf("%s, damaged by %d", what, round), data)
	}
}

// TestSecond holds that both readers find the same in files of all kinds, whole
// and damaged, and that all classes occur.
func TestSecond(t *testing.T) {
	second(t, 3000)
}

func second(t *testing.T, rounds int) {
	for _, machine := range []uint16{62, 183} {
		damaged(t, "a program with debugging information", sample.Debug(machine, 3), rounds/4)
	}
	var sum counts
	for round := range rounds {
		c := compare(t, fmt.Sprint("made file ", round), madeFile(uint64(round)))
		for class, n := range c {
			sum[class] += n
		}
	}
	for class := elfref.Class(1); int(class) < elfref.Classes; class++ {
		if sum[class] < rounds/20 {
			t.Errorf("%d references of class %v", sum[class], class)
		}
	}
}

// madeFile makes a file by a number: for both machines, loaded anywhere or at a
// fixed address, with all sections or with Go's, alone or in an image, whole or
// damaged.
func madeFile(n uint64) []byte {
	r := rand.New(rand.NewPCG(n, 2))
	kind := makeFile
	if n&4 != 0 {
		kind = makeGo
	}
	data := kind(r, []uint16{62, 183}[n&1], n&2 != 0)
	if n&8 != 0 {
		data = makeImage(r, data, makeFile(r, 62, false))
	}
	if n&16 != 0 {
		return data
	}
	if n&8 != 0 && r.IntN(2) == 0 {
		data[4096+r.IntN(64)] = byte(r.Uint32N(16)) // of an inode
	}
	if files := find(data); len(files) > 0 {
		for range 1 + r.IntN(1+r.IntN(20)) {
			damage(r, data, files[r.IntN(len(files))])
		}
	}
	return data
}

// TestSecondUnits is about the bounds of units: how many are counted from, and how
// many bytes of tables are read for them.
func TestSecondUnits(t *testing.T) {
	const units, tables, far = 66_000, 40_000, 20_000
	section := func(name string, size int, fill func(b []byte)) sample.Section {
		return sample.Section{Name: name, Kind: 1, Data: func(func(string) uint64) []byte {
			b := make([]byte, size)
			fill(b)
			return b
		}}
	}
	for _, length := range []int{0, 100, 300, 1000} {
		c := compare(t, "many units", sample.ELF(62, []sample.Section{
			section(".debug_abbrev", tables, func(b []byte) {
				for _, at := range []int{0, far} {
					// An entry of one ref4, and many empty ones.
					copy(b[at:], "\x01\x01\x00\x01\x13\x00\x00\x02\x01\x00")
					for i := range length {
						copy(b[at+10+2*i:], "\x01\x19")
					}
				}
			}),
			section(".debug_info", units*17, func(b []byte) {
				for i := range units {
					u := b[i*17:]
					le.PutUint32(u, 13)
					u[4] = 4
					if length > 0 {
						le.PutUint32(u[6:], uint32(i&1*far))
					}
					u[10], u[11], u[12] = 8, 1, 1
				}
			}),
		}))
		if got := c[elfref.DebugUnit]; c[elfref.DebugOffset] != units || got == 0 || got > 65536 || (length == 0) != (got == 65536) {
			t.Errorf("%d units, %d with a reference", c[elfref.DebugOffset], got)
		}
	}
}

// TestSecondOpcodes reads every opcode of x86-64 that there can be, before operands
// of some kinds, which lead to memory whatever field is taken from them.
func TestSecondOpcodes(t *testing.T) {
	var code []byte
	for op := range 256 {
		for _, prefix := range []string{"", "\x66", "\x48", "\x66\x48", "\xf3\x41"} {
			for _, escape := range []string{"", "\x0f", "\x0f\x38", "\x0f\x3a", "\xc5\xf8", "\xc4\xe1\x78", "\xc4\xe3\x78", "\x62\xf1\x7c\x48", "\x62\xf4\x7c\x48", "\x62\xf5\x7c\x48"} {
				for _, operand := range []string{"", "\x05", "\x04\x25", "\x80", "\x4d", "\x3d", "\xc0"} {
					code = append(append(append(code, prefix...), escape...), byte(op))
					code = append(code, operand...)
					code = append(code, "\x00\x10\x40\x00\x00\x10\x40\x00\x00\x10\x40\x00"...)
					code = append(code, "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90"...)
				}
			}
		}
	}
	data := sample.ELF(62, []sample.Section{
		{Name: ".text", Kind: 1, Flags: 2 | 4, Data: func(func(string) uint64) []byte { return code }},
		{Name: ".more", Kind: 8, Flags: 2 | 4, Data: func(func(string) uint64) []byte { return nil }},
	})
	le.PutUint64(data[le.Uint64(data[0x28:])+2*64+32:], 1<<23) // so far there is code
	data[0x10] = 2                                             // at a fixed address
	le.PutUint64(data[64+40:], 1<<24)
	c := compare(t, "opcodes", data)
	for _, class := range []elfref.Class{elfref.Call, elfref.Operand, elfref.Immediate} {
		if c[class] < 5*18 { // as many opcodes are branches
			t.Errorf("%d references of class %v", c[class], class)
		}
	}
}

// TestSecondNames is about how long the section of names may be: without names,
// pointers are found, but no frames.
func TestSecondNames(t *testing.T) {
	whole := makeFile(rand.New(rand.NewPCG(1, 1)), 62, false)
	header := le.Uint64(whole[0x28:]) + 64*uint64(le.Uint16(whole[0x3e:]))
	off, size := le.Uint64(whole[header+24:]), le.Uint64(whole[header+32:])
	for _, n := range []uint64{65535, 65536, 65537} {
		data := append(bytes.Clone(whole), whole[off:off+size]...)
		data = append(data, make([]byte, n-size)...)
		le.PutUint64(data[header+24:], uint64(len(whole)))
		le.PutUint64(data[header+32:], n)
		if c := compare(t, fmt.Sprint(n, " bytes of names"), data); (c[elfref.FrameIndex] > 0) != (n <= 65536) || c[elfref.SymbolName] == 0 {
			t.Errorf("%d bytes of names: %v", n, c)
		}
	}
}

// TestSecondLibraries compares what is found in libraries of this system.
func TestSecondLibraries(t *testing.T) {
	for _, name := range []string{"libc.so.6", "libssl.so.3", "libcrypto.so.3"} {
		paths, err := filepath.Glob("/usr/lib/*-linux-gnu/" + name)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no %s (%v)", name, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, path, data)
		}
	}
}

// goProgram builds a small Go program, with debugging information that is not
// compressed.
func goProgram(t *testing.T, arch, mode string) []byte {
	t.Helper()
	return run(t, map[string]string{
		"go.mod": "module small\n\ngo 1.26\n",
		"main.go": `package main

type named struct{ a, b int }

func (n *named) Sum() int { return n.a + n.b }

func main() {
	var s interface{ Sum() int } = &named{1, 2}
	println(s.Sum())
}
`,
	}, []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0", "GOFLAGS="}, "go build -trimpath -buildvcs=false -buildmode="+mode+" -ldflags=-compressdwarf=false -o out .")
}

// cProgram builds a small C program with some options of the compiler.
func cProgram(t *testing.T, options string) []byte {
	t.Helper()
	return run(t, map[string]string{"main.c": `#include <stdio.h>
#include <string.h>

struct item { const char *name; int (*f)(int, char **); };
static __attribute__((noinline)) int one(int n, char **v) { return printf("%d %s\n", n, v[0]); }
static __attribute__((noinline)) int two(int n, char **v) { return puts(v[n - 1]); }
struct item items[] = {{"one", one}, {"two", two}, {"three", 0}};
__attribute__((noinline)) int pick(int n) {
	switch (n) {
	case 0: return puts("zero");
	case 1: return printf("%d\n", n * 7);
	case 2: return two(1, (char **)&items[n].name);
	case 3: return (int)strlen(items[n & 1].name);
	case 4: return puts("four");
	case 5: return 1 + puts("five");
	case 6: return 99;
	}
	return n;
}
int main(int n, char **v) {
	int sum = 0;
	for (int i = 0; i < n; i++)
		for (unsigned k = 0; k < sizeof items / sizeof *items; k++)
			if (!strcmp(v[i], items[k].name)) sum += items[k].f(n, v) + pick(n + i);
	return sum;
}
`}, nil, "gcc -O2 "+options+" -o out main.c")
}

// run runs a command that makes a file called out of others.
func run(t *testing.T, files map[string]string, env []string, command string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := strings.Fields(command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSecondPrograms compares what is found in programs that compilers make.
func TestSecondPrograms(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		data := goProgram(t, arch, "exe")
		c := compare(t, arch, data)
		for _, class := range []elfref.Class{elfref.GoEntry, elfref.GoType, elfref.GoMethod, elfref.DebugAddr, elfref.Pointer, elfref.Immediate} {
			if c[class] == 0 {
				t.Errorf("%s: no reference of class %v", arch, class)
			}
		}
		damaged(t, arch, data, 4)
	}
	for _, options := range []string{"-g -gdwarf-5 -Wl,-z,pack-relative-relocs -Wl,--hash-style=both", "-g -gdwarf-4 -no-pie", "-shared -fPIC -g"} {
		data := cProgram(t, options)
		if c := compare(t, options, data); c[elfref.DebugAddr] == 0 || c[elfref.FrameCode] == 0 {
			t.Errorf("%s: %v", options, c)
		}
		damaged(t, options, data, 300)
	}
}

// FuzzSecond looks for data in which the readers differ.
func FuzzSecond(f *testing.F) {
	for n := range uint64(32) {
		f.Add(madeFile(n))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, "data", data) })
}
