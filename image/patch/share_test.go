package patch

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/internal/linux"
)

// TestShare applies a patch on file systems that share blocks between files, and
// on one that does not, and looks at the extents.
func TestShare(t *testing.T) {
	if inside := os.Getenv("SEALANT_TEST_SHARE"); inside != "" {
		share(t, inside)
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems in a private namespace and needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"btrfs", "xfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-e", "-c", `
				truncate -s 400M disk
				mkfs.$1 -q disk
				mkdir at
				mount -o loop disk at
				exec "$0" -test.run '^TestShare$'`, self, kind)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "SEALANT_TEST_SHARE="+kind)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// share is the part of TestShare that runs where the file system is mounted.
func share(t *testing.T, kind string) {
	old := noise(1, 8<<20)
	data := bytes.Clone(old)
	copy(data[3<<20+100:], "a change")       // in one block
	data = append(data, noise(2, 10_000)...) // new
	copy(data[6<<20:7<<20], old[1<<20:2<<20])
	p := make1(t, old, data)
	src, err := os.OpenFile("at/old", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Write(old); err != nil {
		t.Fatal(err)
	}
	if err := src.Sync(); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create("at/new")
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	shared := int64(0)
	_, err = Apply(dst, io.NewSectionReader(src, 0, int64(len(old))), bytes.NewReader(p), ApplyOptions{Share: func(to, from, n int64) error {
		shared += n
		return linux.ShareRange(dst, to, src, from, n)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("at/new"); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the result differs: %v", err)
	}
	if shared < 7<<20 {
		t.Errorf("%d bytes were found to be the same", shared)
	}
	if err := dst.Sync(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("filefrag", "-v", filepath.Join("at", "new")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := strings.Contains(string(out), "shared"), kind != "ext4"; got != want {
		t.Errorf("blocks are shared: %v\n%s", got, out)
	}
}
