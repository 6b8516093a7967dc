// Package servertest makes a whole small vendor for tests: keys, a signed
// catalog with a baseline and improvements, a database, and a server with
// devices that ask it. Content is invented: nothing here looks into an image.
package servertest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	trustlog "github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Product is the one product of the vendor.
const Product = "ExampleOS"

// World is a vendor with its keys, catalog and signing key.
type World struct {
	Dir  string // catalog/, leaf.pem, state/
	Repo *signed.Repository

	Vendor  crypto.Signer // root and targets
	RecallK crypto.Signer
	AdviceK crypto.Signer
	Online  crypto.Signer // rollout, snapshot and timestamp
	LogKey  crypto.Signer // of the public log of sets

	RootKey crypto.Signer // of tickets
	Root    *x509.Certificate

	Baseline release.Baseline

	tb  testing.TB
	mu  sync.Mutex
	now time.Time
}

// New makes the vendor with its baseline published.
func New(tb testing.TB) *World {
	tb.Helper()
	w := &World{tb: tb, Dir: tb.TempDir(), now: time.Now().UTC().Truncate(time.Second)}
	for _, k := range []*crypto.Signer{&w.Vendor, &w.RecallK, &w.AdviceK, &w.Online, &w.LogKey} {
		*k = w.key(signer.Ed25519)
	}
	one := func(k crypto.Signer) signed.Role {
		return signed.Role{Keys: []crypto.PublicKey{k.Public()}, Threshold: 1}
	}
	repo, err := signed.Create(w.Catalog(), signed.Roles{
		Root: one(w.Vendor), Targets: one(w.Vendor), Recall: one(w.RecallK), Advice: one(w.AdviceK),
		Rollout: one(w.Online), Snapshot: one(w.Online), Timestamp: one(w.Online),
	}, w.Now(), w.Vendor, w.RecallK, w.AdviceK, w.Online)
	w.must(err)
	w.Repo = repo
	w.RootKey = w.key(signer.P384)
	w.Root, err = ticket.NewRoot(rand.Reader, w.RootKey, "Example ticket root", w.Now().Add(-time.Hour), w.Now().AddDate(10, 0, 0))
	w.must(err)
	w.NewLeaf(24 * time.Hour)
	w.Baseline = Baseline()
	w.PublishBaseline(w.Baseline)
	return w
}

// Catalog is the folder of the catalog.
func (w *World) Catalog() string { return filepath.Join(w.Dir, "catalog") }

// LeafFile is the path of the signing key.
func (w *World) LeafFile() string { return filepath.Join(w.Dir, "leaf.pem") }

// Now is the world's clock.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Pass lets time go by.
func (w *World) Pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *World) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *World) key(a signer.Algorithm) crypto.Signer {
	k, err := signer.New(rand.Reader, a)
	w.must(err)
	return k
}

// NewLeaf replaces the signing key.
func (w *World) NewLeaf(life time.Duration) {
	w.tb.Helper()
	key := w.key(signer.P384)
	cert, err := ticket.IssueLeaf(rand.Reader, w.Root, w.RootKey, key.Public(), ticket.Limits{Product: Product}, w.Now().Add(-time.Minute), w.Now().Add(life))
	w.must(err)
	text, err := signing.FormatLeaf(cert, key)
	w.must(err)
	w.must(os.WriteFile(w.LeafFile()+".new", text, 0o600))
	w.must(os.Rename(w.LeafFile()+".new", w.LeafFile()))
}

// image is an invented image of a cryptex at a level.
func image(name string, level int, t release.Subtype) release.Image {
	d := func(what string) release.Digest {
		return release.Digest(sha512.Sum384(fmt.Appendf(nil, "%s %s %d", what, name, level)))
	}
	root := d("root")
	return release.Image{
		Name: name, Subtype: t, Digest: d("image"), Size: 64 << 10, TrustCache: d("cache"),
		Seal: release.Seal{Root: release.Hash(root[:32]), Salt: release.Hash{1}, DataBlocks: 10, Digest: d("seal")},
	}
}

// PublishBaseline publishes a baseline.
func (w *World) PublishBaseline(b release.Baseline) {
	w.tb.Helper()
	data, err := b.Encode()
	w.must(err)
	w.publish(release.BaselinePath(b.Digest()), data)
}

// Manifest is the improvement SI-2026-000N of level n on the baseline.
func (w *World) Manifest(n int) release.Manifest { return Manifest(n, w.Now()) }

// Baseline is the vendor's baseline.
func Baseline() release.Baseline {
	return release.Baseline{
		Schema: release.BaselineSchema, Product: Product, OSVersion: "42.3.0",
		Cryptexes: []release.Image{image("os", 0, release.SubtypeOS), image("web", 0, release.SubtypeApp)},
	}
}

// Manifest is the improvement SI-2026-000N of level n on the baseline.
func Manifest(n int, published time.Time) release.Manifest {
	from, to := image("web", 0, release.SubtypeApp), image("web", n, release.SubtypeApp)
	file := func(what string) release.File {
		return release.File{Digest: release.DigestOf(fmt.Appendf(nil, "%s %d", what, n)), Size: 1000}
	}
	m := release.Manifest{
		Schema: release.ManifestSchema, ID: ID(n), Level: n, Product: Product, OSVersion: "42.3.0", Baseline: Baseline().Digest(),
		Published: release.Time(published), Severity: "high", Title: "A fix", Text: "It is fixed.", CVEs: []release.CVE{},
		Cryptexes: []release.Change{{
			Name: "web", Subtype: release.SubtypeApp, From: from.State(), To: to.State(),
			Patch: file("patch"), Antipatch: file("antipatch"), Files: []release.FileChange{},
		}},
	}
	for i := 1; i <= n; i++ {
		m.CVEs = append(m.CVEs, release.CVE{ID: fmt.Sprintf("CVE-2026-%04d", 1100+i), Since: ID(i), Text: "A flaw.", Credit: "Ann"})
	}
	if n > 1 {
		m.Previous = ID(n - 1)
	}
	return m
}

// ID names the n-th improvement.
func ID(n int) string { return fmt.Sprintf("SI-2026-%04d", n) }

// Release publishes the n-th improvement and offers it to percent of the
// devices; a negative percent leaves the rollout as it is.
func (w *World) Release(n, percent int) {
	w.tb.Helper()
	data, err := w.Manifest(n).Encode()
	w.must(err)
	w.publish(release.ManifestPath(ID(n)), data)
	if percent >= 0 {
		w.Offer(n, percent, false)
	}
}

// Offer sets the ring of the n-th improvement.
func (w *World) Offer(n, percent int, halted bool) {
	w.tb.Helper()
	list, err := w.Repo.Rollout(Product)
	w.must(err)
	list = list.With(release.Ring{Release: ID(n), Percent: percent, Salt: "00112233445566778899aabbccddeeff", Halted: halted})
	w.must(w.Repo.PublishRollout(list, []crypto.Signer{w.Online}, w.Now()))
	w.Refresh()
}

// Recall takes the n-th improvement back to the one before.
func (w *World) Recall(n int) {
	w.tb.Helper()
	list, err := w.Repo.RecallList(Product)
	w.must(err)
	e := release.Recall{Release: ID(n), Reason: "it harms", Date: release.Time(w.Now())}
	if n > 1 {
		e.To = ID(n - 1)
	}
	w.must(w.Repo.PublishRecall(list.With(e), []crypto.Signer{w.RecallK}, w.Now()))
	w.Refresh()
}

func (w *World) publish(path string, data []byte) {
	w.tb.Helper()
	t, err := w.Repo.Store(path, bytes.NewReader(data))
	w.must(err)
	d, err := w.Repo.Draft(signed.Targets, w.Now())
	w.must(err)
	w.must(d.Set(t))
	_, err = d.Sign(w.Vendor)
	w.must(err)
	w.must(w.Repo.Publish(d))
	w.Refresh()
}

// Refresh shows what was published.
func (w *World) Refresh() {
	w.tb.Helper()
	_, err := w.Repo.Refresh([]crypto.Signer{w.Online}, w.Now())
	w.must(err)
}

// Node is one running server of the vendor.
type Node struct {
	World  *World
	DB     *store.DB
	Source *catalog.Source
	SetLog *setlog.Log
	Server *server.Server
	HTTP   *httptest.Server
	Log    *bytes.Buffer // only to be read when the server rests
}

// Start starts a server on a database; several may share one.
func (w *World) Start(database string, change ...func(*server.Config)) *Node {
	w.tb.Helper()
	ctx := w.tb.Context()
	db, err := store.Open(ctx, database)
	w.must(err)
	w.tb.Cleanup(func() { db.Close() })
	pinned, err := os.ReadFile(filepath.Join(w.Catalog(), "metadata", "1.root.json"))
	w.must(err)
	source, err := catalog.Open(ctx, catalog.Config{Dir: w.Catalog(), Root: pinned, State: w.tb.TempDir(), Now: w.Now})
	w.must(err)
	files, err := catalog.OpenFiles(w.Catalog())
	w.must(err)
	w.tb.Cleanup(func() { files.Close() })
	leaf, err := signing.OpenLeaf(w.LeafFile(), w.Root)
	w.must(err)
	n := &Node{World: w, DB: db, Source: source, Log: &bytes.Buffer{}}
	c := server.Config{
		DB: db, Source: source, Files: files, Leaf: leaf, Now: w.Now,
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(n.Log), nil)),
	}
	logger, err := trustlog.NewSigner(Product, w.LogKey)
	w.must(err)
	n.SetLog = &setlog.Log{DB: db, Signer: logger, Now: w.Now}
	c.SetLog = n.SetLog
	for _, f := range change {
		f(&c)
	}
	n.Server, err = server.New(c)
	w.must(err)
	n.HTTP = httptest.NewServer(n.Server)
	w.tb.Cleanup(n.HTTP.Close)
	return n
}

// Token makes a token for a number of enrolments.
func (n *Node) Token(uses int64) string {
	n.World.tb.Helper()
	secret, _, err := n.DB.NewToken(n.World.tb.Context(), "test", uses, n.World.Now(), n.World.Now().Add(time.Hour))
	n.World.must(err)
	return secret
}
