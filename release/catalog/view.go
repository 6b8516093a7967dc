package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// Version is the catalog's version: its snapshot's. 0 before the first refresh.
func (c *Client) Version() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return 0
	}
	return c.state.Snapshot.Signed.Version
}

// RootVersion is the version of the newest verified root.
func (c *Client) RootVersion() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.root.Signed.Version
}

// Checked is when the state was last verified against the server, by believed
// time; zero if never. The feed's age is the time since.
func (c *Client) Checked() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return time.Time{}
	}
	return c.verified
}

// Expires is when the first part of the state expires; zero if there is none.
func (c *Client) Expires() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return time.Time{}
	}
	first := c.root.Signed.Expires
	all := []time.Time{c.state.Timestamp.Signed.Expires, c.state.Snapshot.Signed.Expires}
	for _, m := range c.state.Targets {
		all = append(all, m.Signed.Expires)
	}
	for _, t := range all {
		if t.Before(first) {
			first = t
		}
	}
	return first.UTC()
}

// Clock is the time that the client believes: never before the system was
// built or the catalog was last verified.
func (c *Client) Clock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

// Signed tells how many of a role's keys signed its metadata in force.
func (c *Client) Signed(role string) (Signed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if role == Root {
		k := rootKeys(c.root, Root)
		return count(k.keys, k.ids, k.threshold, c.root), nil
	}
	if c.state == nil {
		return Signed{}, fault.New(fault.Stale, "%w", errNoState)
	}
	root := c.state.Root
	switch role {
	case Timestamp:
		k := rootKeys(root, role)
		return count(k.keys, k.ids, k.threshold, c.state.Timestamp), nil
	case Snapshot:
		k := rootKeys(root, role)
		return count(k.keys, k.ids, k.threshold, c.state.Snapshot), nil
	case Targets:
		k := rootKeys(root, role)
		return count(k.keys, k.ids, k.threshold, c.state.Targets[Targets]), nil
	}
	m, ok := c.state.Targets[role]
	if !ok {
		return Signed{}, fmt.Errorf("the catalog has no role %q", role)
	}
	k, err := delegatedKeys(c.state.Targets[Targets], role)
	if err != nil {
		return Signed{}, err
	}
	return count(k.keys, k.ids, k.threshold, m), nil
}

// Locate finds a file in the state in force, in the role that may name it. It
// needs no network. A file that isn't there gives ErrNoTarget.
func (c *Client) Locate(name string) (Target, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return locate(c.state, name)
}

func locate(state *trustedmetadata.TrustedMetadata, name string) (Target, error) {
	if state == nil {
		return Target{}, fault.New(fault.Stale, "cannot find %s: %w", name, errNoState).Hint("run: sealant check")
	}
	// TUF's order: a role's own word first, then those it delegates the path
	// to, in their order; a terminating one ends the search.
	todo := []string{Targets}
	seen := map[string]bool{}
	for len(todo) > 0 {
		role := todo[0]
		todo = todo[1:]
		m := state.Targets[role]
		if m == nil || seen[role] {
			continue
		}
		seen[role] = true
		if f, ok := m.Signed.Targets[name]; ok {
			return targetOf(name, f)
		}
		if m.Signed.Delegations == nil {
			continue
		}
		var below []string
		for _, d := range m.Signed.Delegations.GetRolesForTarget(name) {
			below = append(below, d.Name)
			if d.Terminating {
				todo = nil
				break
			}
		}
		todo = append(below, todo...)
	}
	return Target{}, fmt.Errorf("%w %s", ErrNoTarget, name)
}

// Read returns a document of at most 1 MiB, from the folder if it is there,
// else from the server.
func (c *Client) Read(ctx context.Context, name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.document(ctx, c.state, name)
}

func (c *Client) document(ctx context.Context, state *trustedmetadata.TrustedMetadata, name string) ([]byte, error) {
	t, err := locate(state, name)
	if err != nil {
		return nil, err
	}
	if t.Length > maxDocument {
		return nil, fmt.Errorf("cannot read %s: %d bytes, the limit is %d", name, t.Length, maxDocument)
	}
	kept := c.path("documents", hex.EncodeToString(t.SHA256[:]))
	if data, err := readFile(kept, t.Length); err == nil && sha256.Sum256(data) == t.SHA256 {
		return data, nil
	}
	if c.remote == nil {
		return nil, fault.New(fault.Unreachable, "cannot read %s: it is not on this device, and no server is set", name)
	}
	data, err := c.fetch(ctx, t.Remote, t.Length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unreachable, "%w", err).Hint("the server or mirror is incomplete")
	}
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != t.Length || sha256.Sum256(data) != t.SHA256 {
		return nil, fault.New(fault.Stale, "cannot use %s: its content is not what was signed", name)
	}
	if err := os.MkdirAll(c.path("documents"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep %s: %w", name, err)
	}
	if err := writeFile(kept, data); err != nil {
		return nil, fmt.Errorf("cannot keep %s: %w", name, err)
	}
	return data, nil
}

// Manifest returns an improvement's manifest.
func (c *Client) Manifest(ctx context.Context, id string) (release.Manifest, error) {
	if err := release.CheckID(id); err != nil {
		return release.Manifest{}, fault.New(fault.Usage, "%w", err)
	}
	data, err := c.Read(ctx, release.ManifestPath(id))
	if errors.Is(err, ErrNoTarget) {
		return release.Manifest{}, fault.New(fault.NotEligible, "the vendor has published no %s", id)
	}
	if err != nil {
		return release.Manifest{}, err
	}
	m, err := release.ParseManifest(data)
	if err != nil {
		return release.Manifest{}, err
	}
	if m.ID != id {
		return release.Manifest{}, fault.New(fault.Stale, "the manifest of %s is that of %s", id, m.ID)
	}
	return m, nil
}

// Manifests returns the manifests of all improvements for one baseline, by
// rising level. Recalled ones are among them.
func (c *Client) Manifests(ctx context.Context, baseline release.Digest) ([]release.Manifest, error) {
	c.mu.Lock()
	var ids []string
	if c.state != nil {
		for name, f := range c.state.Targets[Targets].Signed.Targets {
			file, isRelease := strings.CutPrefix(name, "releases/")
			id, isDocument := strings.CutSuffix(file, ".json")
			if isRelease && isDocument && noteFor(f, baseline) {
				ids = append(ids, id)
			}
		}
	}
	none := c.state == nil
	c.mu.Unlock()
	if none {
		return nil, fault.New(fault.Stale, "%w", errNoState).Hint("run: sealant check")
	}
	var all []release.Manifest
	for _, id := range ids {
		m, err := c.Manifest(ctx, id)
		if err != nil {
			return nil, err
		}
		if m.Baseline == baseline {
			all = append(all, m)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Level != all[j].Level {
			return all[i].Level < all[j].Level
		}
		return all[i].ID < all[j].ID
	})
	return all, nil
}

// noteFor reports whether a manifest may be for a baseline, by its note. One
// without a note may be.
func noteFor(f *metadata.TargetFiles, baseline release.Digest) bool {
	if f.Custom == nil {
		return true
	}
	var n note
	if json.NewDecoder(bytes.NewReader(*f.Custom)).Decode(&n) != nil {
		return true
	}
	return n.Baseline == baseline
}

// Baseline returns a published baseline.
func (c *Client) Baseline(ctx context.Context, d release.Digest) (release.Baseline, error) {
	data, err := c.Read(ctx, release.BaselinePath(d))
	if err != nil {
		return release.Baseline{}, err
	}
	return release.ParseBaseline(data)
}

// RecallList returns the recall list in force, without a network. A vendor who
// never recalled anything has an empty one, of version 0.
func (c *Client) RecallList(ctx context.Context) (release.RecallList, error) {
	data, err := c.Read(ctx, release.RecallPath)
	if errors.Is(err, ErrNoTarget) {
		return release.RecallList{}, nil
	}
	if err != nil {
		return release.RecallList{}, err
	}
	return release.ParseRecallList(data)
}

// AdviceList returns the advice list in force, as RecallList does.
func (c *Client) AdviceList(ctx context.Context) (release.AdviceList, error) {
	data, err := c.Read(ctx, release.AdvicePath)
	if errors.Is(err, ErrNoTarget) {
		return release.AdviceList{}, nil
	}
	if err != nil {
		return release.AdviceList{}, err
	}
	return release.ParseAdviceList(data)
}

// Rollout returns the rollout list in force, as RecallList does.
func (c *Client) Rollout(ctx context.Context) (release.Rollout, error) {
	data, err := c.Read(ctx, release.RolloutPath)
	if errors.Is(err, ErrNoTarget) {
		return release.Rollout{}, nil
	}
	if err != nil {
		return release.Rollout{}, err
	}
	return release.ParseRollout(data)
}
