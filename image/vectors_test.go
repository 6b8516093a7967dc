package image_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/vectors"
)

const vectorDir = "../spec/vectors/cryptex"

var update = flag.Bool("update", false, "write the test vectors anew")

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	all, err := vectors.Read(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		c, err := image.Open(bytes.NewReader(v.Body), int64(len(v.Body)))
		if err == nil {
			err = c.Verify(context.Background(), nil)
		}
		switch {
		case v.Expect == "refused":
			if fault.KindOf(err) != fault.Seal {
				t.Errorf("%s (%s): got %v", v.Name, v.Header["comment"], err)
			}
		case err != nil:
			t.Errorf("%s (%s): %v", v.Name, v.Header["comment"], err)
		default:
			for key, want := range describe(t, c) {
				if got := v.Header[key]; got != want {
					t.Errorf("%s: %s is %q, the vector says %q", v.Name, key, want, got)
				}
			}
		}
	}
}

// describe is what a vector says about an image.
func describe(t *testing.T, c *image.Cryptex) map[string]string {
	digest, err := c.Digest()
	if err != nil {
		t.Fatal(err)
	}
	h := map[string]string{
		"name": c.Name, "subtype": c.Subtype.String(), "size": fmt.Sprint(c.Size), "data-size": fmt.Sprint(c.DataSize),
		"digest": digest.String(), "root": c.Seal.String(), "salt": fmt.Sprintf("%x", c.Seal.Salt),
		"seal": image.Digest(c.Seal.Digest()).String(), "trust-cache": c.TrustCacheDigest.String(),
	}
	tree, err := c.Tree()
	if err != nil {
		t.Fatal(err)
	}
	k := 0
	err = tree.Walk(func(path string, n *erofs.Inode) error {
		line := fmt.Sprintf("%q %06o %d:%d links %d size %d", path, n.Mode, n.UID, n.GID, n.Links, n.Size)
		if n.IsRegular() {
			line += fmt.Sprintf(" time %d at %d", n.Mtime, n.Offset)
		}
		if n.IsSymlink() {
			target, err := tree.Target(n)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" to %q", target)
		}
		xattrs, err := tree.Xattrs(n)
		for _, x := range xattrs {
			line += fmt.Sprintf(" %s=%x", x.Name, x.Value)
		}
		h[fmt.Sprintf("path-%03d", k)] = line
		k++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// vectorTree has one of everything.
func vectorTree() *erofs.Node {
	file := func(mode uint32, content string) *erofs.Node {
		return &erofs.Node{
			Mode: erofs.ModeRegular | mode, Size: int64(len(content)), Mtime: 1700000000,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
		}
	}
	dir := func(children ...erofs.Child) *erofs.Node {
		return &erofs.Node{Mode: erofs.ModeDirectory | 0o755, Children: children}
	}
	in := func(name string, n *erofs.Node) erofs.Child { return erofs.Child{Name: name, Node: n} }
	script, large, old := file(0o4755, "#!/bin/sh\n"), file(0o644, strings.Repeat("large", 1000)), file(0o600, "old")
	old.Mtime, old.UID, old.GID = 1000000000, 70000, 5
	script.Xattrs = []erofs.Xattr{{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}, {Name: "user.note", Value: []byte("hello")}}
	many := dir()
	for i := range 300 {
		many.Children = append(many.Children, in(fmt.Sprintf("a-rather-long-name-of-a-link-%03d", i), large))
	}
	return dir(
		in("bin", dir(in("script", script), in("again", script), in("link", &erofs.Node{Mode: erofs.ModeSymlink | 0o777, Target: "../large"}))),
		in("large", large), in("old", old), in("empty", file(0o644, "")), in("emptydir", dir()), in("many", many),
	)
}

func writeVectors(t *testing.T) {
	put := func(name, expect, comment string, b []byte) {
		v := vectors.Vector{Name: name, Expect: expect, Header: map[string]string{"comment": comment}, Body: b}
		if expect == "ok" {
			c, err := image.Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range describe(t, c) {
				v.Header[key] = value
			}
		}
		if err := v.Write(vectorDir); err != nil {
			t.Fatal(err)
		}
	}
	make := func(root *erofs.Node, o image.Options) []byte {
		var m memory
		if _, err := image.BuildTree(context.Background(), &m, root, o); err != nil {
			t.Fatal(err)
		}
		return m.b
	}
	app := image.Options{Name: "web", Subtype: image.App}
	empty := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
	put("empty", "ok", "an empty tree", make(empty, image.Options{Name: "a", Subtype: image.OS}))
	put("longest-name", "ok", "a name of 31 bytes and a chosen salt", make(empty, image.Options{Name: strings.Repeat("name-", 6) + "x", Subtype: image.OS, Salt: [32]byte{1, 2, 3}}))
	whole := make(vectorTree(), app)
	put("everything", "ok", "one of everything: inline and other files, links, attributes, a directory of several blocks", whole)

	c, err := image.Open(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	end := len(whole)
	damage := func(name, comment string, change func(b []byte) []byte) {
		put(name, "refused", comment, change(bytes.Clone(whole)))
	}
	footer := func(name, comment string, change func(footer []byte)) {
		damage("footer-"+name, comment+"; the footer's own hash is right", func(b []byte) []byte {
			f := b[end-4096:]
			change(f)
			copy(f, image.Rehash(f))
			return b
		})
	}
	le := binary.LittleEndian
	damage("data-bit", "one bit of a file's content is flipped", func(b []byte) []byte { b[4096] ^= 1; return b })
	damage("superblock-bit", "one bit of the verity superblock is flipped", func(b []byte) []byte { b[c.DataSize+16] ^= 1; return b })
	damage("tree-bit", "one bit of the hash tree is flipped", func(b []byte) []byte { b[c.TreeOffset()] ^= 1; return b })
	damage("cache-bit", "one bit of the trust cache is flipped", func(b []byte) []byte { b[c.TrustCacheOffset()+20] ^= 1; return b })
	damage("cache-padding", "the padding of the trust cache is not zero", func(b []byte) []byte { b[end-4097] = 1; return b })
	damage("footer-bit", "one bit of the footer's padding is flipped", func(b []byte) []byte { b[end-1000] ^= 1; return b })
	damage("footer-hash", "one bit of the footer's own hash is flipped", func(b []byte) []byte { b[end-1] ^= 1; return b })
	damage("cut-byte", "the last byte is missing", func(b []byte) []byte { return b[:end-1] })
	damage("cut-block", "the footer is missing", func(b []byte) []byte { return b[:end-4096] })
	damage("cut-front", "the first block is missing", func(b []byte) []byte { return b[4096:] })
	damage("longer", "a block of zeros before the footer", func(b []byte) []byte {
		return append(append(b[:end-4096:end-4096], bytes.Repeat([]byte{0}, 4096)...), b[end-4096:]...)
	})
	footer("version", "version 2", func(f []byte) { f[16] = 2 })
	footer("subtype", "subtype 3", func(f []byte) { f[20] = 3 })
	footer("no-name", "a name of no bytes", func(f []byte) { f[21] = 0; clear(f[22:54]) })
	footer("name", "a name with a capital letter", func(f []byte) { f[22] = 'W' })
	footer("name-tail", "a byte after the end of the name", func(f []byte) { f[22+4] = 'x' })
	footer("name-length", "a name of 32 bytes", func(f []byte) { f[21] = 32; copy(f[22:54], bytes.Repeat([]byte{'n'}, 32)) })
	footer("data-size", "2^63 bytes of data", func(f []byte) { le.PutUint64(f[56:], 1<<63) })
	footer("data-odd", "data of no whole number of blocks", func(f []byte) { f[56]++ })
	footer("tree-offset", "the hash tree one block later", func(f []byte) { le.PutUint64(f[64:], le.Uint64(f[64:])+4096) })
	footer("cache-size", "a trust cache larger than the limit", func(f []byte) { le.PutUint64(f[80:], 1<<32) })
	footer("root", "another root", func(f []byte) { f[96] ^= 1 })
	footer("salt", "another salt", func(f []byte) { f[128] ^= 1 })
	footer("cache-digest", "another digest of the trust cache", func(f []byte) { f[160] ^= 1 })
	footer("spare", "a byte that must be zero is not", func(f []byte) { f[300] = 1 })

	// What follows is sealed rightly: only a reader that walks the file system
	// can tell.
	data := whole[:c.DataSize]
	cache, err := c.EncodedTrustCache()
	if err != nil {
		t.Fatal(err)
	}
	forge := func(name, comment string, change func(data, cache []byte) ([]byte, []byte)) {
		d, k := change(bytes.Clone(data), bytes.Clone(cache))
		put("forged-"+name, "refused", comment+"; seal and footer are right", image.Forge(d, app, k))
	}
	tree, err := c.Tree()
	if err != nil {
		t.Fatal(err)
	}
	at := func(path string) int { // where an inode stands
		n, err := tree.Lookup(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(le.Uint32(data[1024+40:]))*4096 + int(n.NID)*32
	}
	forge("cache-digest", "the trust cache has a wrong digest", func(d, k []byte) ([]byte, []byte) { k[16] ^= 1; return d, k })
	forge("cache-kind", "the trust cache calls a script a program", func(d, k []byte) ([]byte, []byte) { k[16+32] = 1; return d, k })
	forge("cache-missing", "the trust cache is empty", func(d, k []byte) ([]byte, []byte) { clear(k[12:16]); return d, k[:16] })
	forge("cache-none", "the trust cache has no bytes", func(d, k []byte) ([]byte, []byte) { return d, nil })
	forge("erofs-feature", "the EROFS superblock asks for an unknown feature", func(d, k []byte) ([]byte, []byte) { d[1024+80] = 1; return d, k })
	forge("erofs-blocks", "the EROFS superblock names one block less", func(d, k []byte) ([]byte, []byte) { d[1024+36]--; return d, k })
	forge("erofs-links", "a file has one link more than names", func(d, k []byte) ([]byte, []byte) { d[at("old")+44]++; return d, k })
	forge("erofs-content", "a file's content lies in the metadata", func(d, k []byte) ([]byte, []byte) {
		copy(d[at("large")+16:], d[1024+40:1024+44])
		return d, k
	})
	forge("erofs-device", "a file is a character device", func(d, k []byte) ([]byte, []byte) { d[at("old")+5] = 0x21; return d, k })
	forge("erofs-xattr", "an attribute runs over its end", func(d, k []byte) ([]byte, []byte) {
		le.PutUint16(d[at("bin/script")+32+12+2:], 0xffff)
		return d, k
	})
}
