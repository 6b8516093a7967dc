package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// Config is what a Client is made of.
type Config struct {
	Root   []byte           // pinned root metadata, from the OS image
	Dir    string           // folder for the verified state; made if it is missing
	Remote Fetcher          // where the catalog is served; nil for offline use
	Now    func() time.Time // the machine's clock; time.Now where nil
	Built  time.Time        // the clock is never believed to be before this; zero for no such bound
}

// Limits of a client.
const (
	maxRootRotations = 256 // roots that one refresh walks
	maxRoles         = 32  // delegated roles that one look-up visits
)

// Client is a catalog as a device sees it. Its methods may be called
// concurrently; one Refresh runs at a time.
type Client struct {
	config Config
	remote Fetcher

	pinned int64 // version of the pinned root

	mu       sync.Mutex
	root     *metadata.Metadata[metadata.RootType] // newest verified root
	state    *trustedmetadata.TrustedMetadata      // last whole state, nil if none; its root may be older
	raw      map[string][]byte                     // its metadata, as fetched
	verified time.Time                             // when it was verified, by believed time
}

// New loads what the folder holds, verifying it anew from the pinned root; it
// does not use the network. Broken or foreign content of the folder is
// ignored, as if the device had never seen a catalog.
func New(c Config) (*Client, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	trusted, err := trustedmetadata.New(c.Root)
	if err != nil {
		return nil, fault.New(fault.Stale, "cannot use the pinned root metadata: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the catalog's folder: %w", err)
	}
	cl := &Client{config: c, remote: c.Remote, root: trusted.Root, pinned: trusted.Root.Signed.Version}
	cl.load()
	return cl, nil
}

// now is the time that expiry is judged by: the machine's clock, but never
// before the system was built or the catalog was last verified. A machine
// whose clock stands at 1970 so still sees most expiries, and one that was
// turned back can't be shown old news.
func (c *Client) now() time.Time {
	now := c.config.Now().UTC()
	for _, bound := range []time.Time{c.config.Built, c.verified} {
		if bound.After(now) {
			now = bound.UTC()
		}
	}
	return now
}

// Refresh brings the state up to date, or says why it can't: fault.Stale for
// what does not verify, fault.Unreachable or fault.Busy where the server does
// not answer. After an error the state is what it was.
func (c *Client) Refresh(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.remote == nil {
		return fault.New(fault.Unreachable, "cannot refresh the catalog: no server is set")
	}
	if err := c.refresh(ctx); err != nil {
		return fmt.Errorf("cannot refresh the catalog: %w", err)
	}
	return nil
}

func (c *Client) refresh(ctx context.Context) error {
	if err := c.walkRoots(ctx); err != nil {
		return err
	}
	now := c.now()
	next, err := under(c.root, now)
	if err != nil {
		return c.judge(Root, now, err)
	}
	raw, floor := map[string][]byte{}, c.raw
	if c.state != nil && rotated(c.state.Root, c.root) {
		// Whoever had the old keys may have signed versions far ahead: what
		// they signed binds nobody any more.
		floor = nil
	}
	if err := c.refreshTimestamp(ctx, next, floor, raw, now); err != nil {
		return err
	}
	if err := c.refreshSnapshot(ctx, next, floor, raw, now); err != nil {
		return err
	}
	err = loadTargets(next, func(role string, want *metadata.MetaFiles) ([]byte, error) {
		if old := c.raw[role]; old != nil && len(want.Hashes) > 0 && want.VerifyLengthHashes(old) == nil {
			raw[role] = old
			return old, nil
		}
		data, err := c.metadata(ctx, role, want.Version, length(want, role))
		raw[role] = data
		return data, err
	}, func(role string, err error) error { return c.judge(role, now, err) })
	if err != nil {
		return err
	}
	// The lists must be at hand without a network, so they belong to the state.
	for _, name := range []string{release.RecallPath, release.AdvicePath, release.RolloutPath} {
		if _, err := c.document(ctx, next, name); err != nil && !errors.Is(err, ErrNoTarget) {
			return err
		}
	}
	if err := c.save(raw, now); err != nil {
		return fmt.Errorf("cannot keep the state: %w", err)
	}
	c.state, c.raw, c.verified = next, raw, now
	return nil
}

// under begins a state below a root.
func under(root *metadata.Metadata[metadata.RootType], now time.Time) (*trustedmetadata.TrustedMetadata, error) {
	data, err := root.ToBytes(false)
	if err != nil {
		return nil, err
	}
	state, err := trustedmetadata.New(data)
	if err != nil {
		return nil, err
	}
	state.RefTime = now
	return state, nil
}

func (c *Client) refreshTimestamp(ctx context.Context, next *trustedmetadata.TrustedMetadata, floor, raw map[string][]byte, now time.Time) error {
	// What was verified before comes first: it is what versions may not fall
	// behind. It may have expired by now; then a newer one is needed.
	if old := floor[Timestamp]; old != nil {
		if _, err := next.UpdateTimestamp(old); err == nil || next.Timestamp != nil {
			raw[Timestamp] = old
		}
	}
	data, err := c.metadata(ctx, Timestamp, 0, metadataLimit(Timestamp))
	if err != nil {
		return err
	}
	switch _, err := next.UpdateTimestamp(data); {
	case err == nil:
		raw[Timestamp] = data
	case !errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return c.judge(Timestamp, now, err)
	case next.Timestamp.Signed.IsExpired(now):
		return c.judge(Timestamp, now, &metadata.ErrExpiredMetadata{})
	}
	return nil
}

func (c *Client) refreshSnapshot(ctx context.Context, next *trustedmetadata.TrustedMetadata, floor, raw map[string][]byte, now time.Time) error {
	if old := floor[Snapshot]; old != nil {
		// As above: an error only means that a newer one is needed.
		if _, err := next.UpdateSnapshot(old, true); err == nil {
			raw[Snapshot] = old
			return nil
		}
	}
	want := next.Timestamp.Signed.Meta[Snapshot+".json"]
	if want == nil {
		return fault.New(fault.Stale, "the timestamp names no snapshot")
	}
	data, err := c.metadata(ctx, Snapshot, want.Version, length(want, Snapshot))
	if err != nil {
		return err
	}
	if _, err := next.UpdateSnapshot(data, false); err != nil {
		return c.judge(Snapshot, now, err)
	}
	raw[Snapshot] = data
	return nil
}

// loadTargets verifies targets and every role that it delegates to, as the
// state's snapshot names them.
func loadTargets(state *trustedmetadata.TrustedMetadata, get func(role string, want *metadata.MetaFiles) ([]byte, error), judge func(role string, err error) error) error {
	type step struct{ role, above string }
	todo := []step{{Targets, metadata.ROOT}}
	for visited := 0; len(todo) > 0; visited++ {
		if visited > maxRoles {
			return fault.New(fault.Stale, "the catalog has more than %d roles", maxRoles)
		}
		role, above := todo[0].role, todo[0].above
		todo = todo[1:]
		if m := state.Targets[role]; m != nil {
			// Another role delegates to it too, and must mean the same keys: what
			// one of them trusts may not speak in the name of the other.
			if err := state.Targets[above].VerifyDelegate(role, m); err != nil {
				return judge(role, err)
			}
			continue
		}
		want := state.Snapshot.Signed.Meta[role+".json"]
		if want == nil {
			return fault.New(fault.Stale, "the snapshot does not name %s", role)
		}
		data, err := get(role, want)
		if err != nil {
			return err
		}
		m, err := state.UpdateDelegatedTargets(data, role, above)
		if err != nil {
			return judge(role, err)
		}
		if m.Signed.Delegations == nil {
			continue
		}
		for _, below := range m.Signed.Delegations.Roles {
			if !plainRole(below.Name) {
				return fault.New(fault.Stale, "the catalog has a role with the impossible name %q", below.Name)
			}
			todo = append(todo, step{below.Name, role})
		}
	}
	return nil
}

// plainRole says whether a delegated role's name can be part of a file name
// without taking the place of another file.
func plainRole(name string) bool {
	if name == "" || len(name) > 64 || name == Root || name == Snapshot || name == Timestamp {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func length(f *metadata.MetaFiles, role string) int64 {
	if limit := metadataLimit(role); f.Length <= 0 || f.Length > limit {
		return limit
	}
	return f.Length
}

// walkRoots follows the chain of roots as far as it goes, keeping each step.
func (c *Client) walkRoots(ctx context.Context) error {
	for range maxRootRotations {
		version := c.root.Signed.Version + 1
		data, err := c.metadata(ctx, Root, version, metadataLimit(Root))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		next, err := nextRoot(c.root, data)
		if err != nil {
			return c.judge(Root, c.now(), err)
		}
		if err := c.saveRoot(version, data); err != nil {
			return fmt.Errorf("cannot keep root version %d: %w", version, err)
		}
		c.root = next
	}
	if now := c.now(); c.root.Signed.IsExpired(now) {
		return c.judge(Root, now, &metadata.ErrExpiredMetadata{})
	}
	return nil
}

// nextRoot verifies data as the root after present.
func nextRoot(present *metadata.Metadata[metadata.RootType], data []byte) (*metadata.Metadata[metadata.RootType], error) {
	chain, err := under(present, time.Time{})
	if err != nil {
		return nil, err
	}
	return chain.UpdateRoot(data)
}

// rotated reports whether the online roles lost a key between two roots.
func rotated(before, after *metadata.Metadata[metadata.RootType]) bool {
	for _, role := range []string{Timestamp, Snapshot} {
		kept := map[string]bool{}
		for _, id := range after.Signed.Roles[role].KeyIDs {
			kept[id] = true
		}
		for _, id := range before.Signed.Roles[role].KeyIDs {
			if !kept[id] {
				return true
			}
		}
	}
	return false
}

// metadata fetches one metadata file of at most limit bytes.
func (c *Client) metadata(ctx context.Context, role string, version, limit int64) ([]byte, error) {
	name := "metadata/" + metadataName(role, version)
	data, err := c.fetch(ctx, name, limit)
	if role != Root && errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unreachable, "%w", err).Hint("the server or mirror is incomplete")
	}
	return data, err
}

// fetch reads a whole file of at most limit bytes.
func (c *Client) fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	body, err := c.remote.Fetch(ctx, name, 0)
	if err != nil {
		return nil, unreachable(ctx, name, err)
	}
	defer body.Close()
	data, err := readAll(body, limit)
	if errors.Is(err, errTooLong) {
		return nil, fault.New(fault.Stale, "cannot use %s: %w", name, err)
	}
	return data, unreachable(ctx, name, err)
}

// unreachable gives a transfer's error a kind, unless it has one, is the
// caller's own cancellation, or says that the file isn't there.
func unreachable(ctx context.Context, name string, err error) error {
	if err == nil || fault.KindOf(err) != fault.Failed || ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fault.New(fault.Unreachable, "cannot fetch %s: %w", name, err)
}

// Open streams a located file from a byte offset on, at most to its end. The
// reader must check the SHA-384 that the manifest gives, or the SHA-256 of t.
func (c *Client) Open(ctx context.Context, t Target, offset int64) (io.ReadCloser, error) {
	if c.remote == nil {
		return nil, fault.New(fault.Unreachable, "cannot fetch %s: no server is set", t.Path)
	}
	if offset < 0 || offset > t.Length {
		return nil, fmt.Errorf("cannot fetch %s from byte %d of %d", t.Path, offset, t.Length)
	}
	body, err := c.remote.Fetch(ctx, t.Remote, offset)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unreachable, "%w", err).Hint("the server or mirror is incomplete")
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, t.Length-offset), body}, nil
}
