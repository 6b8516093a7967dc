// Package catalog is the server's side of the signed catalog: it reads the
// state that devices see, verified from the pinned root like a device does
// (Source), serves its files (Files), and keeps its short-lived signatures
// fresh (Keeper).
//
// What the server signs for devices is decided on a Source's View alone. A file
// that merely lies in the folder, published but not yet shown or put there by a
// thief, has no effect.
package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
)

// Config is what a Source is made of.
type Config struct {
	Dir   string           // the catalog's folder: metadata/ and targets/
	Root  []byte           // pinned root metadata
	State string           // folder for the verified state, which keeps versions from going back
	Now   func() time.Time // time.Now where nil
}

// Source is the catalog as it stands in a folder that other processes change.
type Source struct {
	client    *signed.Client
	timestamp string
	now       func() time.Time

	current atomic.Pointer[loaded]
	mu      sync.Mutex // held while loading
	parsed  parsed
}

// loaded is what was found when the timestamp file had that stamp.
type loaded struct {
	stamp fs.FileInfo
	view  *View
	bad   []error // improvements that can't be signed
	err   error   // why there is no view
	until time.Time
}

// parsed keeps documents between two states: most of them stay.
type parsed struct {
	baselines map[[32]byte]release.Baseline
	manifests map[[32]byte]release.Manifest
}

// retryLoad is how long a failure to load is remembered.
const retryLoad = time.Second

// Open makes a Source. It fails if the catalog can't be verified now.
func Open(ctx context.Context, c Config) (*Source, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	client, err := signed.New(signed.Config{Root: c.Root, Dir: c.State, Remote: signed.Folder(c.Dir), Now: c.Now})
	if err != nil {
		return nil, err
	}
	s := &Source{client: client, timestamp: filepath.Join(c.Dir, "metadata", "timestamp.json"), now: c.Now}
	if _, err := s.View(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// View is the present state. If the folder changed since the last call it is
// verified anew first, so what another process published counts from this
// moment on; the look at the folder costs one stat. A state that does not
// verify, or has expired, gives an error and never an older state: the newer
// one may be a recall.
func (s *Source) View(ctx context.Context) (*View, error) {
	stamp, err := os.Stat(s.timestamp)
	if err != nil {
		return nil, fmt.Errorf("cannot read the catalog: %w", err)
	}
	now := s.now()
	if l := s.current.Load(); l != nil && l.fits(stamp, now) {
		return l.view, l.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.current.Load(); l != nil && l.fits(stamp, now) {
		return l.view, l.err
	}
	l := s.load(ctx, stamp, now)
	if ctx.Err() == nil { // else the caller left, which says nothing about the catalog
		s.current.Store(l)
	}
	return l.view, l.err
}

// fits tells whether what was loaded still answers for the file.
func (l *loaded) fits(stamp fs.FileInfo, now time.Time) bool {
	return os.SameFile(l.stamp, stamp) && l.stamp.ModTime().Equal(stamp.ModTime()) && l.stamp.Size() == stamp.Size() && now.Before(l.until)
}

// Unfit lists the improvements in the present state that can't be signed, and
// why.
func (s *Source) Unfit() []error {
	if l := s.current.Load(); l != nil {
		return l.bad
	}
	return nil
}

func (s *Source) load(ctx context.Context, stamp fs.FileInfo, now time.Time) *loaded {
	l := &loaded{stamp: stamp}
	if l.view, l.bad, l.err = s.read(ctx); l.err != nil {
		l.view, l.until = nil, now.Add(retryLoad)
		return l
	}
	l.until = l.view.Expires
	return l
}

func (s *Source) read(ctx context.Context) (*View, []error, error) {
	if err := s.client.Refresh(ctx); err != nil {
		return nil, nil, err
	}
	baselines, err := collect(ctx, s.client, "baselines/", &s.parsed.baselines, release.ParseBaseline)
	if err != nil {
		return nil, nil, err
	}
	manifests, err := collect(ctx, s.client, "releases/", &s.parsed.manifests, release.ParseManifest)
	if err != nil {
		return nil, nil, err
	}
	view, bad := NewView(baselines, manifests)
	view.Version, view.Expires = s.client.Version(), s.client.Expires()
	if view.Recall, err = s.client.RecallList(ctx); err != nil {
		return nil, nil, err
	}
	if view.Advice, err = s.client.AdviceList(ctx); err != nil {
		return nil, nil, err
	}
	if view.Rollout, err = s.client.Rollout(ctx); err != nil {
		return nil, nil, err
	}
	return view, bad, nil
}

// collect reads the documents under a prefix, those that were read before from
// memory.
func collect[T any](ctx context.Context, client *signed.Client, prefix string, kept *map[[32]byte]T, parse func([]byte) (T, error)) ([]T, error) {
	var all []T
	next := map[[32]byte]T{}
	for _, name := range client.Paths(prefix) {
		t, err := client.Locate(name)
		if err != nil {
			return nil, err
		}
		doc, ok := (*kept)[t.SHA256]
		if !ok {
			data, err := client.Read(ctx, name)
			if err != nil {
				return nil, err
			}
			if doc, err = parse(data); err != nil {
				return nil, fmt.Errorf("cannot use %s: %w", name, err)
			}
		}
		next[t.SHA256] = doc
		all = append(all, doc)
	}
	*kept = next
	return all, nil
}
