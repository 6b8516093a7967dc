package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Files serves the catalog's folder: metadata/ and targets/, nothing else, as
// any web server or mirror can. Ranges, ETags and conditional requests work;
// what never changes may be cached for ever, timestamp.json for seconds.
//
// Devices verify every byte themselves; a mistake here can deny, not deceive.
type Files struct {
	root *os.Root
}

// maxMetadata is the largest metadata file, in bytes: it is hashed for its ETag.
const maxMetadata = 16 << 20

// How long others may keep what they fetched.
const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheShort   = "public, max-age=10, must-revalidate"
	cacheAbsence = "public, max-age=30" // of a root that does not exist yet
)

// OpenFiles prepares to serve a catalog's folder. Symbolic links that lead out
// of it are not followed.
func OpenFiles(dir string) (*Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the catalog: %w", err)
	}
	return &Files{root: root}, nil
}

// Close ends serving.
func (f *Files) Close() error { return f.root.Close() }

// hashed is the name of a target under consistent snapshots: its SHA-256, then
// the name it has in the catalog.
var hashed = regexp.MustCompile(`^([0-9a-f]{64})\.[^/]+$`)

// versioned is the name of metadata that never changes.
var versioned = regexp.MustCompile(`^[1-9][0-9]{0,17}\.[a-z][a-z0-9-]*\.json$`)

// ServeHTTP answers GET and HEAD for a path below the catalog's address, which
// the caller has stripped: /metadata/timestamp.json.
func (f *Files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	base := path.Base(name)
	etag, cache := "", cacheForever
	switch folder, _, _ := strings.Cut(name, "/"); {
	case !fs.ValidPath(name):
		absent(w)
		return
	case folder == "targets" && hashed.MatchString(base):
		etag = `"` + base[:64] + `"`
	case name == "metadata/timestamp.json":
		cache = cacheShort
	case folder == "metadata" && path.Dir(name) == "metadata" && versioned.MatchString(base):
	default:
		absent(w)
		return
	}
	file, err := f.root.Open(name)
	if err != nil {
		// A file that is there and can't be opened is our trouble; everything
		// else, a link that leads out of the folder included, is not there.
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO) {
			http.Error(w, "cannot read the file", http.StatusServiceUnavailable)
			return
		}
		absent(w)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		absent(w)
		return
	}
	if etag == "" {
		if etag, err = hashOf(file, info.Size()); err != nil {
			http.Error(w, "cannot read the file", http.StatusInternalServerError)
			return
		}
	}
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Cache-Control", cache)
	h.Set("Content-Type", "application/octet-stream")
	if strings.HasSuffix(base, ".json") {
		h.Set("Content-Type", "application/json")
	}
	http.ServeContent(w, r, base, modified(info), file)
}

// modified is the file's time for Last-Modified. The validator is the ETag;
// a time in the future would only confuse caches.
func modified(info fs.FileInfo) time.Time {
	if t := info.ModTime(); t.Before(time.Now()) {
		return t
	}
	return time.Time{}
}

func hashOf(file io.ReadSeeker, size int64) (string, error) {
	if size > maxMetadata {
		return "", fmt.Errorf("%d bytes of metadata, at most %d are possible", size, maxMetadata)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, file, size); err != nil {
		return "", err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return `"` + hex.EncodeToString(h.Sum(nil)) + `"`, nil
}

func absent(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", cacheAbsence)
	http.Error(w, "there is no such file in the catalog", http.StatusNotFound)
}
