//go:build vm || slow

package enforce

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/ticket"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deliver lays down below root what an OS update brings: a web cryptex, whose
// trust cache lists only a part of what could be executed.
func deliver(t *testing.T, root string) {
	t.Helper()
	tree := t.TempDir()
	program, err := os.ReadFile("/usr/bin/true")
	must(t, err)
	libraries, err := filepath.Glob("/usr/lib/*/libz.so.1")
	if err != nil || len(libraries) == 0 {
		t.Fatal("no libz")
	}
	library, err := os.ReadFile(libraries[0])
	must(t, err)
	for name, data := range map[string][]byte{"listed": program, "unlisted": append(program[:len(program):len(program)], 'x'), "listed.so": library, "unlisted.so": library, "unlisted.sh": []byte("#!/bin/sh\ntrue\n")} {
		must(t, os.WriteFile(filepath.Join(tree, name), data, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(tree, "data.bin"), program, 0o644))
	for _, dir := range []string{"usr/lib/sealant/base", "usr/lib/cryptexes/web", "var/lib"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	file := filepath.Join(root, "usr/lib/sealant/base/web.cryptex")
	f, err := os.Create(file)
	must(t, err)
	defer f.Close()
	s, err := image.Build(t.Context(), f, tree, image.Options{Name: "web", Subtype: image.App})
	must(t, err)
	digest, cache := unlist(t, file, "unlisted", "unlisted.so", "unlisted.sh")
	base := release.Baseline{Schema: release.BaselineSchema, Product: "example-os", OSVersion: "42.3", Cryptexes: []release.Image{{
		Name: "web", Subtype: release.Subtype(image.App), Digest: release.Digest(digest), Size: size(t, file),
		Seal:       release.Seal{Root: s.Seal.Root, Salt: s.Seal.Salt, DataBlocks: int64(s.Seal.DataBlocks), Digest: s.Seal.Digest()},
		TrustCache: release.Digest(cache),
	}}}
	data, err := base.Encode()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "usr/lib/sealant/base.json"), data, 0o644))
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	cert, err := ticket.NewRoot(rand.Reader, key, "test", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "usr/lib/sealant/ticket-root.pem"), ticket.MarshalRoot(cert), 0o644))
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.Size()
}

// unlist takes paths off an image's trust cache, as a publisher's own tools might:
// spec/cryptex.md has the layout of the footer.
func unlist(t *testing.T, path string, names ...string) (digest, cache [48]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	footer := b[len(b)-4096:]
	at, n := binary.LittleEndian.Uint64(footer[72:]), binary.LittleEndian.Uint64(footer[80:])
	list, err := trustcache.Parse(b[at : at+n])
	must(t, err)
	var kept trustcache.Cache
	for _, e := range list.Entries {
		drop := false
		for _, name := range names {
			drop = drop || e.Path == name
		}
		if !drop {
			kept.Entries = append(kept.Entries, e)
		}
	}
	if len(kept.Entries) != len(list.Entries)-len(names) {
		t.Fatalf("%d of %d entries left", len(kept.Entries), len(list.Entries))
	}
	text, err := kept.Encode()
	must(t, err)
	cache = sha512.Sum384(text)
	binary.LittleEndian.PutUint64(footer[80:], uint64(len(text)))
	end := at + uint64(len(text)+4095)/4096*4096
	binary.LittleEndian.PutUint64(footer[88:], end)
	copy(footer[160:], cache[:])
	sum := sha256.Sum256(footer[:4064])
	copy(footer[4064:], sum[:])
	out := append(b[:at:at], text...)
	out = append(out, make([]byte, int(end)-len(out))...)
	out = append(out, footer...)
	must(t, os.WriteFile(path, out, 0o644))
	return sha512.Sum384(out), cache
}
