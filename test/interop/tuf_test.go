// Package interop has other implementations read what we make.
package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// tufJS is the npm package that reads our catalogs, pinned.
const tufJS = "tuf-js@3.0.1"

// install puts tuf-js into a cache outside the tree, once per machine.
func install(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("no node here: tuf-js can't run (Debian: nodejs, npm)")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "sealant-test", strings.ReplaceAll(tufJS, "@", "-"))
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", tufJS)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot install %s: %v\n%s", tufJS, err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

type answer struct {
	Error string
	Root  int
	Found map[string]*string
}

// ask has tuf-js read a catalog from its first root on.
func ask(t *testing.T, installed, folder, address string, targets ...string) answer {
	t.Helper()
	cmd := exec.Command("node", append([]string{"tuf.mjs", folder, address}, targets...)...)
	cmd.Env = append(os.Environ(), "TUF_JS="+installed)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tuf-js: %v\n%s", err, out)
	}
	var a answer
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("tuf-js said %q: %v", out, err)
	}
	return a
}

func newKey(t *testing.T, elliptical bool) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if elliptical {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// made is a catalog of ours with thresholds, both sorts of keys, all delegations
// and changed roots; wanted are its targets with their SHA-384.
func made(t *testing.T) (dir string, first []byte, wanted map[string]string) {
	t.Helper()
	var signers []crypto.Signer
	role := func(threshold, n int) catalog.Role {
		r := catalog.Role{Threshold: threshold}
		for i := range n {
			k := newKey(t, i == 1)
			signers = append(signers, k)
			r.Keys = append(r.Keys, k.Public())
		}
		return r
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	dir = t.TempDir()
	repo, err := catalog.Create(dir, catalog.Roles{
		Root: role(2, 3), Targets: role(2, 3), Recall: role(2, 2), Advice: role(1, 1), Rollout: role(1, 1),
		Snapshot: role(1, 1), Timestamp: role(1, 2),
	}, now, signers...)
	must(err)
	first, err = repo.RootBytes()
	must(err)
	wanted = map[string]string{}
	d, err := repo.Draft(catalog.Targets, now)
	must(err)
	for _, name := range []string{"patches/" + strings.Repeat("ab", 48), "releases/SI-2026-0001.json"} {
		content := "content of " + name
		target, err := repo.Store(name, strings.NewReader(content))
		must(err)
		target.Custom = json.RawMessage(`{"level":1}`)
		must(d.Set(target))
		wanted[name] = release.DigestOf([]byte(content)).String()
	}
	_, err = d.Sign(signers...)
	must(err)
	must(repo.Publish(d))
	recalls, err := repo.RecallList("ExampleOS")
	must(err)
	recalls = recalls.With(release.Recall{Release: "SI-2026-0001", Reason: "Umlaute: äöü <&>", Date: release.Time(now)})
	must(repo.PublishRecall(recalls, signers, now))
	wanted[release.RecallPath] = recalls.Digest().String()
	for range 3 {
		d, err := repo.DraftRoot(map[string]catalog.Role{catalog.Root: role(2, 3)}, now)
		must(err)
		_, err = d.Sign(signers...)
		must(err)
		must(repo.Publish(d))
	}
	_, err = repo.Refresh(signers, now)
	must(err)
	return dir, first, wanted
}

// TestTUFJS: tuf-js accepts a catalog with thresholds, both sorts of keys, all
// delegations and changed roots, and refuses what we would refuse.
func TestTUFJS(t *testing.T) {
	installed := install(t)
	dir, first, wanted := made(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	folder := func() string {
		f := t.TempDir()
		must(os.WriteFile(filepath.Join(f, "root.json"), first, 0o644))
		return f
	}
	targets := []string{"patches/none"}
	for name := range wanted {
		targets = append(targets, name)
	}
	a := ask(t, installed, folder(), server.URL, targets...)
	if a.Error != "" || a.Root != 4 {
		t.Fatalf("tuf-js: %+v", a)
	}
	for name, digest := range wanted {
		if a.Found[name] == nil || *a.Found[name] != digest {
			t.Errorf("tuf-js read other bytes of %s", name)
		}
	}
	if a.Found["patches/none"] != nil {
		t.Error("tuf-js found what isn't there")
	}

	// One flipped bit in each of what it reads.
	files, err := filepath.Glob(filepath.Join(dir, "metadata", "*"))
	must(err)
	for _, name := range files {
		base := filepath.Base(name)
		if strings.HasPrefix(base, "1.") {
			continue // overtaken, or pinned
		}
		data, err := os.ReadFile(name)
		must(err)
		bad := []byte(strings.Replace(string(data), `"version":`, `"version" :1`, 1))
		must(os.WriteFile(name, bad, 0o644))
		if a := ask(t, installed, folder(), server.URL, targets...); a.Error == "" {
			t.Errorf("tuf-js accepted a changed %s", base)
		}
		must(os.WriteFile(name, data, 0o644))
	}
}
