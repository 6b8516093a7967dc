package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
)

func TestPages(t *testing.T) {
	w := servertest.New(t)
	dir := filepath.Join(w.Dir, "security")
	n := w.Start(sqlite(t), func(c *server.Config) { c.Security = dir })
	if a := n.Get("/security/"); a.Status != 404 {
		t.Errorf("before there are pages: %s", a)
	}
	for name, text := range map[string]string{
		"index.html": "<h1>Security releases</h1>", "csaf/SI-2026-0001.json": "{}", ".well-known/security.txt": "Contact: x",
		".new-index.html": "half", "../secret": "secret",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "link.html")); err != nil {
		t.Fatal(err)
	}
	page := n.Get("/security/")
	if page.Status != 200 || string(page.Body) != "<h1>Security releases</h1>" || !strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %v", page, page.Header)
	}
	if a := n.Get("/"); a.Status != 200 || string(a.Body) != "<h1>Security releases</h1>" {
		t.Errorf("the front door: %s", a)
	}
	if a := n.Get("/security/csaf/SI-2026-0001.json"); a.Status != 200 {
		t.Error(a)
	}
	if a := n.Get("/.well-known/security.txt"); a.Status != 200 || string(a.Body) != "Contact: x" {
		t.Error(a)
	}
	for _, path := range []string{"/security/csaf/", "/security/csaf", "/security/.new-index.html", "/security/link.html", "/security/../secret", "/security/%2e%2e/secret"} {
		if a := n.Get(path); a.Status != 404 || strings.Contains(string(a.Body), "secret\n") {
			t.Errorf("%s: %s", path, a)
		}
	}
}
