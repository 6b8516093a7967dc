package catalog_test

import (
	"bytes"
	"context"
	"crypto"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/servertest"
)

func open(t *testing.T, w *servertest.World) *catalog.Source {
	t.Helper()
	pinned, err := os.ReadFile(filepath.Join(w.Catalog(), "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := catalog.Open(t.Context(), catalog.Config{Dir: w.Catalog(), Root: pinned, State: t.TempDir(), Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func view(t *testing.T, s *catalog.Source) *catalog.View {
	t.Helper()
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestViewFollowsTheFolder(t *testing.T) {
	w := servertest.New(t)
	s := open(t, w)
	first := view(t, s)
	if view(t, s) != first {
		t.Error("an unchanged folder was read again")
	}
	base := w.Baseline.Digest()
	if _, ok := first.Set(servertest.Product, base, ""); !ok {
		t.Error("the baseline has no set")
	}
	if _, ok := first.Set(servertest.Product, base, servertest.ID(1)); ok {
		t.Error("a set of a release that is not published")
	}
	w.Release(1, 10)
	second := view(t, s)
	set, ok := second.Set(servertest.Product, base, servertest.ID(1))
	if !ok || second.Version <= first.Version || len(second.Releases()) != 1 {
		t.Fatalf("%+v", second)
	}
	if ring, ok := second.Rollout.Find(servertest.ID(1)); !ok || ring.Percent != 10 {
		t.Errorf("%+v", ring)
	}
	text := string(set.Text())
	if !strings.HasPrefix(text, "sealant set 1\nproduct ExampleOS\nbaseline "+base.String()+"\nrelease SI-2026-0001\ncryptex os 1 ") || strings.Count(text, "\n") != 6 {
		t.Errorf("%s", text)
	}
	if set.Content != [48]byte(release.DigestOf([]byte(text))) {
		t.Error("the content is not the digest of the text")
	}
	w.Recall(1)
	if _, recalled := view(t, s).Recall.Find(servertest.ID(1)); !recalled {
		t.Error("the recall was not noticed")
	}
}

func TestUnfitImprovementDoesNotStopTheRest(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	other := w.Baseline
	other.OSVersion = "43.0"
	m := w.Manifest(1)
	m.ID, m.Baseline, m.OSVersion, m.CVEs[0].Since = servertest.ID(7), other.Digest(), "43.0", servertest.ID(7)
	v, bad := catalog.NewView([]release.Baseline{w.Baseline}, []release.Manifest{w.Manifest(1), m})
	if len(bad) != 1 || !strings.Contains(bad[0].Error(), servertest.ID(7)) {
		t.Errorf("%v", bad)
	}
	if _, ok := v.Set(servertest.Product, w.Baseline.Digest(), servertest.ID(1)); !ok {
		t.Error("the good one is gone")
	}
	if _, ok := v.Set(servertest.Product, other.Digest(), servertest.ID(7)); ok {
		t.Error("the bad one can be signed")
	}
}

func TestTamperedFolder(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tamper func(t *testing.T, w *servertest.World)
	}{
		{"timestamp changed", func(t *testing.T, w *servertest.World) {
			edit(t, filepath.Join(w.Catalog(), "metadata", "timestamp.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"version":`), []byte(`"version":9`), 1)
			})
		}},
		{"timestamp truncated", func(t *testing.T, w *servertest.World) {
			edit(t, filepath.Join(w.Catalog(), "metadata", "timestamp.json"), func(b []byte) []byte { return b[:len(b)/2] })
		}},
		{"an old timestamp", func(t *testing.T, w *servertest.World) {
			old, err := os.ReadFile(filepath.Join(w.Catalog(), "metadata", "timestamp.json"))
			if err != nil {
				t.Fatal(err)
			}
			w.Recall(1)
			keep := open(t, w) // sees the recall
			edit(t, filepath.Join(w.Catalog(), "metadata", "timestamp.json"), func([]byte) []byte { return old })
			if _, err := keep.View(t.Context()); err == nil {
				t.Error("the catalog went back")
			}
		}},
		{"another vendor's catalog", func(t *testing.T, w *servertest.World) {
			other := servertest.New(t)
			for _, name := range []string{"timestamp.json", "1.snapshot.json", "2.snapshot.json", "3.snapshot.json", "1.targets.json", "2.targets.json"} {
				data, err := os.ReadFile(filepath.Join(other.Catalog(), "metadata", name))
				if err != nil {
					continue
				}
				edit(t, filepath.Join(w.Catalog(), "metadata", name), func([]byte) []byte { return data })
			}
		}},
		{"timestamp gone", func(t *testing.T, w *servertest.World) {
			if err := os.Remove(filepath.Join(w.Catalog(), "metadata", "timestamp.json")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := servertest.New(t)
			w.Release(1, 100)
			s := open(t, w)
			tt.tamper(t, w)
			if tt.name == "an old timestamp" {
				return
			}
			if v, err := s.View(t.Context()); err == nil {
				t.Errorf("version %d is still in use", v.Version)
			}
			if err := os.Remove(filepath.Join(w.Catalog(), "metadata", "timestamp.json")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		})
	}
}

// edit replaces a file at once, as a publisher does.
func edit(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".new", change(data), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestManyLookWhileItChanges(t *testing.T) {
	w := servertest.New(t)
	s := open(t, w)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var last int64
			for ctx.Err() == nil {
				v, err := s.View(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if v.Version < last {
					t.Errorf("version %d after %d", v.Version, last)
				}
				last = v.Version
			}
		})
	}
	for n := 1; n <= 5; n++ {
		w.Release(n, 100)
	}
	stop()
	wg.Wait()
	if len(view(t, s).Releases()) != 5 {
		t.Error("not all releases are there")
	}
}

func TestKeeper(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	s := open(t, w)
	log := &bytes.Buffer{}
	k := &catalog.Keeper{
		Repository: w.Repo, Dir: w.Catalog(), Online: []crypto.Signer{w.Online}, Now: w.Now,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	before := view(t, s)
	if err := k.Refresh(); err != nil || k.Expires().IsZero() {
		t.Fatalf("%v, expires %v", err, k.Expires())
	}
	if view(t, s) != before {
		t.Error("what was fresh was signed again")
	}
	w.Pass(4 * 24 * time.Hour) // more than half a timestamp's life
	if err := k.Refresh(); err != nil {
		t.Fatal(err)
	}
	if after := view(t, s); !after.Expires.After(before.Expires) {
		t.Errorf("expires %v, before %v", after.Expires, before.Expires)
	}
	// Published by somebody without the online keys: shown by Run at once.
	list, err := w.Repo.RecallList(servertest.Product)
	if err != nil {
		t.Fatal(err)
	}
	e := release.Recall{Release: servertest.ID(1), Reason: "harms", Date: release.Time(w.Now())}
	if err := w.Repo.PublishRecall(list.With(e), []crypto.Signer{w.RecallK}, w.Now()); err != nil {
		t.Fatal(err)
	}
	if _, recalled := view(t, s).Recall.Find(servertest.ID(1)); recalled {
		t.Error("shown before it was signed online")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	for {
		if _, recalled := view(t, s).Recall.Find(servertest.ID(1)); recalled {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	<-done
	if strings.Contains(log.String(), "ERROR") {
		t.Error(log)
	}
}

func TestFiles(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	secret := filepath.Join(w.Dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"metadata/7.link.json":                            secret,
		"targets/" + strings.Repeat("ab", 32) + ".linked": "../../secret",
	} {
		if err := os.Symlink(target, filepath.Join(w.Catalog(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.Catalog(), "vendor.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := catalog.OpenFiles(w.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	srv := httptest.NewServer(files)
	defer srv.Close()
	get := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	target, err := w.Repo.Target(release.ManifestPath(servertest.ID(1)))
	if err != nil {
		t.Fatal(err)
	}
	path := "/" + target.Remote
	full, body := get("GET", path)
	if full.StatusCode != 200 || int64(len(body)) != target.Length || !strings.Contains(full.Header.Get("Cache-Control"), "immutable") {
		t.Fatalf("%s: %v", full.Status, full.Header)
	}
	etag := full.Header.Get("ETag")
	if part, got := get("GET", path, "Range", "bytes=10-19"); part.StatusCode != 206 || got != body[10:20] {
		t.Errorf("range: %s %q", part.Status, got)
	}
	if part, got := get("GET", path, "Range", "bytes=10-", "If-Range", etag); part.StatusCode != 206 || got != body[10:] {
		t.Errorf("resumed: %s", part.Status)
	}
	if part, got := get("GET", path, "Range", "bytes=10-", "If-Range", `"other"`); part.StatusCode != 200 || got != body {
		t.Errorf("resumed after a change: %s", part.Status)
	}
	if part, _ := get("GET", path, "Range", "bytes=99999999-"); part.StatusCode != 416 {
		t.Errorf("a range beyond the end: %s", part.Status)
	}
	if same, got := get("GET", path, "If-None-Match", etag); same.StatusCode != 304 || got != "" {
		t.Errorf("unchanged: %s", same.Status)
	}
	if head, got := get("HEAD", path); head.StatusCode != 200 || got != "" || head.ContentLength != target.Length {
		t.Errorf("HEAD: %s", head.Status)
	}
	stamp, _ := get("GET", "/metadata/timestamp.json")
	if stamp.StatusCode != 200 || strings.Contains(stamp.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("timestamp: %s %v", stamp.Status, stamp.Header)
	}
	w.Offer(1, 50, false)
	if changed, _ := get("GET", "/metadata/timestamp.json", "If-None-Match", stamp.Header.Get("ETag")); changed.StatusCode != 200 {
		t.Errorf("a new timestamp has the old ETag: %s", changed.Status)
	}
	if root, _ := get("GET", "/metadata/1.root.json"); root.StatusCode != 200 || !strings.Contains(root.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("root: %s", root.Status)
	}
	for _, path := range []string{
		"/", "/metadata", "/metadata/", "/targets/", "/vendor.json", "/metadata/2.root.json", "/metadata/root.json", "/metadata/7.link.json",
		"/targets/" + strings.Repeat("ab", 32) + ".linked", "/targets/releases/" + servertest.ID(1) + ".json", "/../secret", "/metadata/../../secret",
		"/metadata/%2e%2e/%2e%2e/secret", "//etc/passwd", "/metadata/.new-1.json", "/targets/" + strings.Repeat("ab", 32), "/metadata/1.root.json/",
	} {
		resp, got := get("GET", path)
		if resp.StatusCode != 404 || strings.Contains(got, "secret\n") || strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s %q", path, resp.Status, got)
		}
	}
	// A device finds the whole catalog through it.
	pinned, err := os.ReadFile(filepath.Join(w.Catalog(), "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := signed.New(signed.Config{Root: pinned, Dir: t.TempDir(), Remote: &signed.HTTP{Base: srv.URL}, Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Manifest(t.Context(), servertest.ID(1)); err != nil {
		t.Error(err)
	}
}
