//go:build slow

package image_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
)

// An image of more than 2^32 bytes, of a sparse file: the offsets of everything
// behind it need more than 32 bits.
func TestImagesAround32Bits(t *testing.T) {
	dir := namespace.Dir(t)
	shell(t, dir, "mkdir t; truncate -s 4294963200 t/a; printf mark >>t/a; cp /bin/true t/z")
	f, err := os.Create(filepath.Join(dir, "big.cryptex"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, err := image.Build(context.Background(), f, filepath.Join(dir, "t"), image.Options{Name: "big", Subtype: image.OS})
	if err != nil {
		t.Fatal(err)
	}
	if sum.DataSize <= 1<<32 {
		t.Fatalf("only %d bytes of data", sum.DataSize)
	}
	c, err := image.Open(f, sum.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(context.Background(), nil); err != nil {
		t.Error(err)
	}
	shell(t, dir, fmt.Sprintf("veritysetup verify big.cryptex big.cryptex %s --hash-offset %d", sum.Seal, sum.DataSize))
	shell(t, mount(t, f.Name()), "cmp z /bin/true")
	tree, err := c.Tree()
	if err != nil {
		t.Fatal(err)
	}
	n, err := tree.Lookup("z")
	if err != nil || n.Offset <= 1<<32 {
		t.Errorf("got %+v, %v", n, err)
	}
	// One bit beyond 2^32.
	var b [1]byte
	at := n.Offset + 100
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(context.Background(), nil); fault.KindOf(err) != fault.Seal {
		t.Errorf("a flipped bit at %d: got %v", at, err)
	}
}
