package patch

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/image"
)

// sealed builds an image of one small tree.
func sealed(t testing.TB, content string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"bin/tool": "#!/bin/sh\necho " + content + "\n", "readme": "about " + content} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := &memory{}
	if _, err := image.Build(t.Context(), f, dir, image.Options{Name: "web", Subtype: image.App}); err != nil {
		t.Fatal(err)
	}
	return f.data
}

// TestSealed holds that nothing of the tree, the trust cache and the footer is
// in a patch: a whole image from nothing costs little more than its text.
func TestSealed(t *testing.T) {
	old, data := sealed(t, "one"), sealed(t, "two")
	p := make1(t, old, data)
	h, err := Inspect(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if h.Seal == nil || h.Seal.Name != "web" || h.Seal.Subtype != image.App {
		t.Fatalf("the patch does not know the seal: %+v", h.Seal)
	}
	if len(p) > 300 {
		t.Errorf("the patch has %d bytes", len(p))
	}
	got, err := apply1(old, p)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("the result differs")
	}
	// An image with one wrong byte in its tail is a file like any other.
	odd := bytes.Clone(data)
	odd[h.Seal.DataSize+5000]++
	p = make1(t, old, odd)
	if h, err = Inspect(bytes.NewReader(p)); err != nil || h.Seal != nil {
		t.Fatalf("the patch claims to know the seal: %v", err)
	}
	if got, err = apply1(old, p); err != nil || !bytes.Equal(got, odd) {
		t.Fatalf("the result differs: %v", err)
	}
}
