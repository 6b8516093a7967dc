package server

import (
	"io/fs"
	"net/http"
	"os"
	"strings"
)

// pages is the folder of the public pages, which sealpub renders as plain
// files. The folder may appear, and be replaced, while the server runs.
type pages string

// wellKnown is the folder of security.txt (RFC 9116).
const wellKnown = ".well-known"

// ServeHTTP answers with a page, never with a list of a folder's files.
func (p pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=300")
	http.FileServerFS(p).ServeHTTP(w, r)
}

// Open implements fs.FS. Links that lead out of the folder are not followed.
func (p pages) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(p))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, part := range strings.Split(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != wellKnown {
			return nil, fs.ErrNotExist // what a renderer has not finished
		}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, fs.ErrNotExist // a link that leads out of the folder, too
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		if _, err = root.Stat(name + "/index.html"); err != nil {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
