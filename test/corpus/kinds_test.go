//go:build slow

package corpus

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// kinds are pairs of files of every kind that may be patched, made here: the
// same on every machine but for the tools that make images.
var kinds = []struct {
	name string
	make func(t *testing.T) (old, data []byte)
}{
	{"empty-to-some", func(*testing.T) (old, data []byte) { return nil, text(1, 50_000) }},
	{"some-to-empty", func(*testing.T) (old, data []byte) { return text(1, 50_000), nil }},
	{"equal", func(*testing.T) (old, data []byte) { return text(1, 50_000), text(1, 50_000) }},
	{"tiny", func(*testing.T) (old, data []byte) { return []byte("a\n"), []byte("b\n") }},
	{"small", func(*testing.T) (old, data []byte) { return text(1, 900), text(2, 900) }},
	{"one-byte-of-30MB", func(*testing.T) (old, data []byte) {
		old = noise(3, 30_000_000)
		data = bytes.Clone(old)
		data[23_456_789]++
		return old, data
	}},
	{"zeros", func(*testing.T) (old, data []byte) { return noise(3, 10_000), make([]byte, 20_000_000) }},
	{"period", func(*testing.T) (old, data []byte) { return noise(3, 10_000), bytes.Repeat(noise(4, 1000), 20_000) }},
	{"noise", func(*testing.T) (old, data []byte) { return noise(3, 1_000_000), noise(4, 1_000_000) }},
	{"much-noise", func(*testing.T) (old, data []byte) { return noise(3, 1_000_000), noise(4, 9_000_000) }},
	{"noise-twice", func(*testing.T) (old, data []byte) {
		return noise(3, 1000), slices.Concat(noise(4, 6_000_000), noise(4, 6_000_000))
	}},
	{"noise-and-text", func(*testing.T) (old, data []byte) {
		return text(3, 300_000), slices.Concat(noise(4, 300_000), text(5, 500_000), noise(6, 100_000), text(7, 30_000))
	}},
	{"halves-swapped", func(*testing.T) (old, data []byte) {
		old = text(3, 4_000_000)
		return old, slices.Concat(old[2_000_000:], old[:2_000_000])
	}},
	{"blocks-shuffled", func(*testing.T) (old, data []byte) {
		old = noise(3, 8_000_000)
		for _, i := range rand.New(rand.NewPCG(5, 5)).Perm(len(old) / 4096) {
			data = append(data, old[i*4096:][:4096]...)
		}
		return old, data
	}},
	{"small-blocks-shuffled", func(*testing.T) (old, data []byte) {
		old = noise(3, 1_000_000)
		for _, i := range rand.New(rand.NewPCG(5, 5)).Perm(len(old) / 64) {
			data = append(data, old[i*64:][:64]...)
		}
		return old, data
	}},
	{"interleaved", func(*testing.T) (old, data []byte) {
		old = noise(3, 2<<20)
		for i := 0; i < 1<<20; i += 512 {
			data = append(append(data, old[i:i+512]...), old[1<<20+i:][:512]...)
		}
		return old, data
	}},
	{"every-tenth-byte", func(*testing.T) (old, data []byte) {
		old = noise(3, 1_000_000)
		data = bytes.Clone(old)
		for i := 0; i < len(data); i += 10 {
			data[i]++
		}
		return old, data
	}},
	{"plus-one", func(*testing.T) (old, data []byte) {
		old = noise(3, 1_000_000)
		data = bytes.Clone(old)
		for i := range data {
			data[i]++
		}
		return old, data
	}},
	{"reversed", func(*testing.T) (old, data []byte) {
		old = text(3, 1_000_000)
		data = bytes.Clone(old)
		slices.Reverse(data)
		return old, data
	}},
	{"wide", func(*testing.T) (old, data []byte) { // text to UTF-16
		old = text(3, 500_000)
		for _, c := range old {
			data = append(data, c, 0)
		}
		return old, data
	}},
	{"shrunk", func(*testing.T) (old, data []byte) { old = text(3, 5_000_000); return old, old[1_234_567:1_300_000] }},
	{"records", func(*testing.T) (old, data []byte) { return records(3, 100_000, 0), records(3, 100_000, 1) }},
	{"text-edited", func(*testing.T) (old, data []byte) { old = text(3, 3_000_000); return old, edited(4, old, 300) }},
	{"text-much-edited", func(*testing.T) (old, data []byte) { old = text(3, 300_000); return old, edited(4, old, 6_000) }},
	{"json", func(t *testing.T) (old, data []byte) { return document(t, 1), document(t, 2) }},
	{"gzip", func(t *testing.T) (old, data []byte) {
		return zipped(text(3, 1_000_000)), zipped(edited(4, text(3, 1_000_000), 10))
	}},
	{"zip", func(t *testing.T) (old, data []byte) { return archive(t, 1), archive(t, 2) }},
	{"xz", func(t *testing.T) (old, data []byte) {
		return through(t, text(3, 1_000_000), "xz", "-c"), through(t, edited(4, text(3, 1_000_000), 10), "xz", "-c")
	}},
	{"png", func(t *testing.T) (old, data []byte) { return picture(t, 1, png.Encode), picture(t, 2, png.Encode) }},
	{"jpeg", func(t *testing.T) (old, data []byte) { return picture(t, 1, asJPEG), picture(t, 2, asJPEG) }},
	{"sqlite", func(t *testing.T) (old, data []byte) { return database(t, 1), database(t, 2) }},
	{"tree", func(t *testing.T) (old, data []byte) { return tarOf(t, "strings", 1), tarOf(t, "strings", 2) }},
	{"other-tree", func(t *testing.T) (old, data []byte) { return tarOf(t, "go/types", 1), tarOf(t, "strings", 1) }},
	{"much-other-tree", func(t *testing.T) (old, data []byte) { return tarOf(t, "go/types", 1), tarOf(t, "cmd/internal/obj", 1) }},
	{"tree-moved", func(t *testing.T) (old, data []byte) { return tarOf(t, "net", 1), tarOf(t, "net", 3) }},
	{"binary-from-nothing", func(t *testing.T) (old, data []byte) { return nil, tool(t, "gofmt") }},
	{"other-binary", func(t *testing.T) (old, data []byte) { return tool(t, "gofmt"), tool(t, "go") }},
	{"erofs", func(t *testing.T) (old, data []byte) { return imageOf(t, "erofs", 1), imageOf(t, "erofs", 2) }},
	{"erofs-moved", func(t *testing.T) (old, data []byte) { return imageOf(t, "erofs", 1), imageOf(t, "erofs", 3) }},
	{"erofs-lz4", func(t *testing.T) (old, data []byte) { return imageOf(t, "erofs-lz4", 1), imageOf(t, "erofs-lz4", 2) }},
	{"squashfs", func(t *testing.T) (old, data []byte) { return imageOf(t, "squashfs", 1), imageOf(t, "squashfs", 2) }},
	{"ext4", func(t *testing.T) (old, data []byte) { return imageOf(t, "ext4", 1), imageOf(t, "ext4", 2) }},
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b[:n]
}

// text is something like prose: words of a vocabulary, the frequent ones often.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	common := rand.New(rand.NewPCG(9, 9))
	words := make([]string, 5000)
	for i := range words {
		var w strings.Builder
		for range 2 + common.IntN(8) {
			w.WriteByte("etaoinshrdlucmfwypvbgkjqxz"[min(common.IntN(26), common.IntN(26))])
		}
		words[i] = w.String()
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[int(float64(len(words))*r.Float64()*r.Float64()*r.Float64())])
		switch r.IntN(12) {
		case 0:
			b.WriteString(".\n")
		case 1:
			b.WriteString(", ")
		default:
			b.WriteByte(' ')
		}
	}
	return b.Bytes()[:n]
}

// edited replaces, removes and adds words of b.
func edited(seed uint64, b []byte, edits int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	cuts := make([]int, edits)
	for i := range cuts {
		cuts[i] = r.IntN(len(b) - 20)
	}
	slices.Sort(cuts)
	var out []byte
	at := 0
	for _, c := range cuts {
		if c < at {
			continue
		}
		out = append(append(out, b[at:c]...), text(r.Uint64(), r.IntN(30))...)
		at = c + r.IntN(20)
	}
	return append(out, b[at:]...)
}

// records are rows of numbers, of which some change.
func records(seed uint64, n int, round uint32) []byte {
	r := rand.New(rand.NewPCG(seed, 4))
	var b []byte
	for i := range n {
		v := r.Uint32()
		if v%50 == 0 {
			v += round * 7
		}
		b = fmt.Appendf(b, "%c%c%c%c", byte(i), byte(i>>8), byte(i>>16), 0)
		b = append(b, byte(v), byte(v>>8), 0, 0, byte(v>>16)&3, 0, 0, 1)
	}
	return b
}

func document(t *testing.T, version uint64) []byte {
	t.Helper()
	r, change := rand.New(rand.NewPCG(1, 5)), rand.New(rand.NewPCG(version, 6))
	type item struct {
		ID    int
		Name  string
		Price float64
		Tags  []string
	}
	var items []item
	for i := range 20_000 {
		it := item{i, string(text(r.Uint64(), 12)), float64(r.IntN(10000)) / 100, []string{"new", "red"}[:r.IntN(3)]}
		if change.IntN(100) == 0 {
			it.Price++
		}
		items = append(items, it)
	}
	b, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func archive(t *testing.T, version int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := range 200 {
		f, err := w.Create(fmt.Sprintf("member-%d.txt", i))
		if err != nil {
			t.Fatal(err)
		}
		b := text(uint64(i), 5000)
		if i%20 == 0 {
			b = edited(uint64(version), b, 3)
		}
		_, _ = f.Write(b)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// through pipes b through a program.
func through(t *testing.T, b []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func asJPEG(w interface{ Write([]byte) (int, error) }, m image.Image) error {
	return jpeg.Encode(w, m, nil)
}

func picture[W interface{ Write([]byte) (int, error) }](t *testing.T, version int, encode func(W, image.Image) error) []byte {
	t.Helper()
	var out bytes.Buffer
	m := image.NewRGBA(image.Rect(0, 0, 500, 500))
	r := rand.New(rand.NewPCG(3, 3))
	for y := range 500 {
		for x := range 500 {
			m.Set(x, y, color.RGBA{byte(x / 2), byte(y / 2), byte(x*y/1000 + r.IntN(4)), 255})
		}
	}
	for i := range 20 * version {
		m.Set(300+i, 300, color.Black)
	}
	if err := encode(any(&out).(W), m); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func database(t *testing.T, version int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	var sql strings.Builder
	sql.WriteString("create table t(id integer primary key, name text, n integer); create index i on t(name); begin;\n")
	for i := range 20_000 {
		fmt.Fprintf(&sql, "insert into t values(%d,'%s',%d);\n", i, text(uint64(i), 20), i*i%1000)
	}
	sql.WriteString("commit;\n")
	for v := 1; v < version; v++ {
		sql.WriteString("update t set n=n+1 where id%97=3; delete from t where id%1001=5; insert into t values(999999,'new',1);\n")
	}
	through(t, []byte(sql.String()), "sqlite3", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sources copies part of Go's sources into a folder. Version 2 has some files
// changed, version 3 has folders renamed.
func sources(t *testing.T, part string, version int) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(runtime.GOROOT(), "src", part)
	if err := os.CopyFS(filepath.Join(dir, "src"), os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	n := 0
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if n++; version == 2 && n%10 == 0 {
				b, _ := os.ReadFile(path)
				if len(b) > 1000 {
					_ = os.Chmod(path, 0o644)
					_ = os.WriteFile(path, edited(uint64(n), b, 3), 0o644)
				}
			}
		}
		return err
	})
	if version == 3 {
		entries, _ := os.ReadDir(filepath.Join(dir, "src"))
		for i, e := range entries {
			_ = os.Rename(filepath.Join(dir, "src", e.Name()), filepath.Join(dir, "src", fmt.Sprintf("%c%s", 'z'-byte(i%26), e.Name())))
		}
	}
	return dir
}

func tarOf(t *testing.T, part string, version int) []byte {
	t.Helper()
	dir := sources(t, part, version)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(path, dir+"/"), Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tool is one of Go's programs.
func tool(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(runtime.GOROOT(), "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// imageOf makes a file system of Go's sources and a program.
func imageOf(t *testing.T, kind string, version int) []byte {
	t.Helper()
	dir := sources(t, "net", version)
	if err := os.WriteFile(filepath.Join(dir, "src", fmt.Sprintf("gofmt%d", version)), tool(t, "gofmt"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "image")
	const none = "00000000-0000-0000-0000-000000000000"
	var cmd *exec.Cmd
	switch kind {
	case "erofs":
		cmd = exec.Command("mkfs.erofs", "--quiet", "-T0", "-U"+none, out, dir)
	case "erofs-lz4":
		cmd = exec.Command("mkfs.erofs", "--quiet", "-zlz4hc", "-T0", "-U"+none, out, dir)
	case "squashfs":
		cmd = exec.Command("mksquashfs", dir, out, "-quiet", "-no-progress", "-all-time", "0", "-mkfs-time", "0")
	case "ext4":
		cmd = exec.Command("mkfs.ext4", "-q", "-d", dir, "-U", none, "-E", "hash_seed="+none, out, "40M")
	}
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
