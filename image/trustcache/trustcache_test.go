package trustcache_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

func sample() *trustcache.Cache {
	return &trustcache.Cache{Entries: []trustcache.Entry{
		{Path: "usr/bin/a", Kind: trustcache.Executable, Digest: [32]byte{1}},
		{Path: "usr/bin-a", Kind: trustcache.Script, Digest: [32]byte{2}},
		{Path: "usr/lib/libc.so.6", Kind: trustcache.Library, Digest: [32]byte{3}},
		{Path: "usr/lib/\xff name", Kind: trustcache.Other, Digest: [32]byte{3}},
	}}
}

func encode(t testing.TB, c *trustcache.Cache) []byte {
	t.Helper()
	slices.SortFunc(c.Entries, func(a, b trustcache.Entry) int { return strings.Compare(a.Path, b.Path) })
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []*trustcache.Cache{sample(), {Entries: []trustcache.Entry{}}} {
		b := encode(t, c)
		got, err := trustcache.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestFind(t *testing.T) {
	c := sample()
	encode(t, c)
	for _, e := range c.Entries {
		if got, ok := c.Find(e.Path); !ok || got != e {
			t.Errorf("%q: got %v, %v", e.Path, got, ok)
		}
	}
	for _, path := range []string{"", "usr", "usr/bin/", "usr/bin/aa", "zzz"} {
		if _, ok := c.Find(path); ok {
			t.Errorf("%q is found", path)
		}
	}
}

func TestParseRefusesDamage(t *testing.T) {
	whole := encode(t, sample())
	for n := range whole {
		if _, err := trustcache.Parse(whole[:n]); fault.KindOf(err) != fault.Seal {
			t.Errorf("cut after %d bytes: got %v", n, err)
		}
	}
	if _, err := trustcache.Parse(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("a byte too many is accepted")
	}
	// What a flipped bit leaves valid must still be another list: nothing is
	// read in two ways.
	for at := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[at] ^= 1 << bit
			if c, err := trustcache.Parse(b); err == nil {
				if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
					t.Errorf("byte %d, bit %d: read as %v, %v", at, bit, c, err)
				}
			}
		}
	}
	for name, change := range map[string]func([]byte){
		"magic":   func(b []byte) { b[0] = 'S' },
		"version": func(b []byte) { b[8] = 2 },
		"count":   func(b []byte) { binary.LittleEndian.PutUint32(b[12:], 1<<31) },
		"kind":    func(b []byte) { b[16+32] = 0 },
		"spare":   func(b []byte) { b[16+33] = 1 },
		"dots":    func(b []byte) { copy(b[16+36:], "usr/../") },
		"slash":   func(b []byte) { b[16+36] = '/' },
		"zero":    func(b []byte) { b[16+36] = 0 },
		"order":   func(b []byte) { b[16+36] = 'v' },
	} {
		b := bytes.Clone(whole)
		change(b)
		if c, err := trustcache.Parse(b); err == nil {
			t.Errorf("%s: accepted as %v", name, c)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	entry := func(path string) trustcache.Entry {
		return trustcache.Entry{Path: path, Kind: trustcache.Executable}
	}
	for name, c := range map[string]trustcache.Cache{
		"order": {Entries: []trustcache.Entry{entry("b"), entry("a")}},
		"twice": {Entries: []trustcache.Entry{entry("a"), entry("a")}},
		"kind":  {Entries: []trustcache.Entry{{Path: "a"}}},
		"root":  {Entries: []trustcache.Entry{entry("")}},
		"clean": {Entries: []trustcache.Entry{entry("a//b")}},
		"long":  {Entries: []trustcache.Entry{entry(strings.Repeat("a/", 2048) + "b")}},
		"many":  {Entries: make([]trustcache.Entry, trustcache.MaxEntries+1)},
	} {
		if _, err := c.Encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFsverityComputesTheSame(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 4095, 4096, 4097, 2 * 4096, 128 * 4096, 128*4096 + 1, 129 * 4096, 128*128*4096 - 1, 128 * 128 * 4096, 128*128*4096 + 1, 128*128*4096 + 5000} {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(data)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var m trustcache.Measure
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(100_000))
			m.Write(rest[:n])
			rest = rest[n:]
		}
		sum := m.Sum()
		if got, want := hex.EncodeToString(sum[:]), fsverity(t, file); got != want {
			t.Errorf("%d bytes: got %s, fsverity says %s", size, got, want)
		}
	}
}

// fsverity is what Linux's own tool computes.
func fsverity(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("fsverity", "digest", "--compact", file).Output()
	if err != nil {
		t.Fatalf("fsverity: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestKindOfRealFiles(t *testing.T) {
	linkers, _ := filepath.Glob("/lib*/ld-linux-*.so.*")
	if len(linkers) == 0 {
		t.Fatal("no dynamic linker")
	}
	libc, err := filepath.EvalSymlinks(linkers[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(libc)
	for _, c := range []struct {
		file string
		perm uint32
		kind trustcache.Kind
	}{
		{"/bin/true", 0o755, trustcache.Executable},
		{"/bin/true", 0o644, 0}, // the dynamic linker must not run it either
		{"/proc/self/exe", 0o755, trustcache.Executable},
		{"/proc/self/exe", 0o644, 0},                     // Go's static program is of type EXEC
		{"/sbin/ldconfig", 0o755, trustcache.Executable}, // static
		{dir + "/libc.so.6", 0o755, trustcache.Library},  // it has an interpreter
		{libc, 0o755, trustcache.Library},                // it is the interpreter
		{dir + "/libcrypto.so.3", 0o644, trustcache.Library},
		{"/etc/passwd", 0o644, 0},
		{"/etc/passwd", 0o001, trustcache.Other},
		{"/usr/bin/ldd", 0o755, trustcache.Script},
		{"/usr/bin/ldd", 0o644, 0},
	} {
		data, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		kind, ok, err := trustcache.KindOf(c.perm, bytes.NewReader(data), int64(len(data)))
		if kind != c.kind || ok != (c.kind != 0) || err != nil {
			t.Errorf("%s %o: got %s, %v, %v; want %s", c.file, c.perm, kind, ok, err, c.kind)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(f, sample()))
	f.Add(encode(f, &trustcache.Cache{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := trustcache.Parse(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is accepted and encodes as %x, %v", b, again, err)
		}
	})
}

func FuzzKindOf(f *testing.F) {
	for _, file := range []string{"/bin/true", "/usr/bin/ldd", "/lib64/ld-linux-x86-64.so.2"} {
		if b, err := os.ReadFile(file); err == nil {
			f.Add(uint32(0o755), b[:min(len(b), 8192)])
		}
	}
	f.Fuzz(func(t *testing.T, perm uint32, b []byte) {
		kind, ok, err := trustcache.KindOf(perm, bytes.NewReader(b), int64(len(b)))
		if err != nil || ok != (kind != 0) {
			t.Errorf("got %v, %v, %v", kind, ok, err)
		}
	})
}

func BenchmarkMeasure(b *testing.B) {
	data := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var m trustcache.Measure
		m.Write(data)
		m.Sum()
	}
}
