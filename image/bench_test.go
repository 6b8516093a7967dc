package image_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/test/namespace"
)

// benchTree is a tree like that of a browser: 128 MB in one library, a few
// large files and many small ones.
func benchTree(b *testing.B) (dir string, size int64) {
	b.Helper()
	dir = namespace.Dir(b)
	random := rand.NewChaCha8([32]byte{})
	put := func(name string, n int, mode fs.FileMode) {
		content := make([]byte, n)
		random.Read(content)
		copy(content, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00")
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, content, mode); err != nil {
			b.Fatal(err)
		}
		size += int64(n)
	}
	put("usr/lib/libengine.so", 96<<20, 0o644)
	for i := range 16 {
		put(fmt.Sprintf("usr/lib/lib%d.so", i), 1<<20, 0o644)
	}
	for i := range 2000 {
		put(fmt.Sprintf("usr/share/%d/%d", i%40, i), 100+i*7, 0o644)
	}
	return dir, size
}

func benchImage(b *testing.B) (*os.File, *image.Cryptex, int64) {
	b.Helper()
	dir, size := benchTree(b)
	f, err := os.Create(filepath.Join(namespace.Dir(b), "web.cryptex"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	sum, err := image.Build(context.Background(), f, dir, image.Options{Name: "web", Subtype: image.App})
	if err != nil {
		b.Fatal(err)
	}
	c, err := image.Open(f, sum.Size)
	if err != nil {
		b.Fatal(err)
	}
	return f, c, size
}

// BenchmarkBuild makes an image: file system, hash tree, trust cache, digest.
func BenchmarkBuild(b *testing.B) {
	dir, size := benchTree(b)
	out := namespace.Dir(b)
	b.SetBytes(size)
	for b.Loop() {
		f, err := os.Create(filepath.Join(out, "web.cryptex"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := image.Build(context.Background(), f, dir, image.Options{Name: "web", Subtype: image.App}); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// BenchmarkBuildPeer makes what comes closest to it with the usual tools: file
// system, hash tree and digest, and no trust cache.
func BenchmarkBuildPeer(b *testing.B) {
	dir, size := benchTree(b)
	out := namespace.Dir(b)
	b.SetBytes(size)
	for b.Loop() {
		cmd := exec.Command("sh", "-euc", `mkfs.erofs -T0 --all-root $1/image $2; veritysetup format $1/image $1/hash; sha384sum $1/image`, "sh", out, dir)
		if text, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, text)
		}
	}
}

// BenchmarkFinish is what a device does after it has applied a patch.
func BenchmarkFinish(b *testing.B) {
	f, c, size := benchImage(b)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := image.Finish(f, c.DataSize, c.Options()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify is what a device does before it mounts an image.
func BenchmarkVerify(b *testing.B) {
	_, c, size := benchImage(b)
	b.SetBytes(size)
	for b.Loop() {
		if err := c.Verify(context.Background(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyPeer verifies the hash tree alone.
func BenchmarkVerifyPeer(b *testing.B) {
	f, c, size := benchImage(b)
	b.SetBytes(size)
	for b.Loop() {
		cmd := exec.Command("veritysetup", "verify", f.Name(), f.Name(), c.Seal.String(), "--hash-offset", fmt.Sprint(c.DataSize))
		if text, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, text)
		}
	}
}

// BenchmarkOpen is the footer alone.
func BenchmarkOpen(b *testing.B) {
	f, c, _ := benchImage(b)
	for b.Loop() {
		if _, err := image.Open(f, c.Size); err != nil {
			b.Fatal(err)
		}
	}
}
