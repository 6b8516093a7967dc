package catalog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// simulator is a repository that publishes whatever a case asks for, right or
// wrong, and the server that shows it.
type simulator struct {
	*hostile
	t         *testing.T
	root      *metadata.Metadata[metadata.RootType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	roles     map[string]*metadata.Metadata[metadata.TargetsType]
	signers   map[string][]crypto.Signer
	hashes    bool // snapshot and timestamp name lengths and hashes
	made      int  // keys
}

// newSimulator publishes version 1 of the four roles, one key each.
func newSimulator(t *testing.T) *simulator {
	t.Helper()
	good := start.AddDate(1, 0, 0)
	s := &simulator{
		hostile: &hostile{files: map[string][]byte{}}, t: t,
		root: metadata.Root(good), timestamp: metadata.Timestamp(good), snapshot: metadata.Snapshot(good),
		roles: map[string]*metadata.Metadata[metadata.TargetsType]{Targets: metadata.Targets(good)}, signers: map[string][]crypto.Signer{},
	}
	s.root.Signed.Version, s.timestamp.Signed.Version, s.snapshot.Signed.Version, s.roles[Targets].Signed.Version = 0, 0, 0, 0
	for _, role := range []string{Root, Timestamp, Snapshot, Targets} {
		s.root.Signed.Roles[role] = &metadata.Role{Threshold: 1}
		s.addKey(role)
	}
	s.publish(Root, Targets, Snapshot, Timestamp)
	return s
}

func (s *simulator) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *simulator) newKey() crypto.Signer {
	s.made++
	return key(fmt.Sprint("simulated-", s.made))
}

// addKey gives a top role one more key, which signs.
func (s *simulator) addKey(role string) crypto.Signer {
	k := s.newKey()
	s.trust(role, k)
	s.signers[role] = append(s.signers[role], k)
	return k
}

// trust lets a key sign for a top role.
func (s *simulator) trust(role string, k crypto.Signer) {
	pub, id, err := tufKey(k.Public())
	s.must(err)
	s.root.Signed.Keys[id] = pub
	s.root.Signed.Roles[role].KeyIDs = append(s.root.Signed.Roles[role].KeyIDs, id)
}

// forget takes all keys from a top role.
func (s *simulator) forget(role string) {
	s.root.Signed.Roles[role].KeyIDs, s.signers[role] = nil, nil
}

// rotate gives a top role one other key.
func (s *simulator) rotate(role string) {
	s.forget(role)
	s.addKey(role)
}

// delegate lets a new role, or one that exists, sign for paths.
func (s *simulator) delegate(above, role string, terminating bool, paths ...string) {
	m := s.roles[above]
	if m.Signed.Delegations == nil {
		m.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	if s.roles[role] == nil {
		s.roles[role] = metadata.Targets(start.AddDate(1, 0, 0))
		s.roles[role].Signed.Version = 0
		s.signers[role] = []crypto.Signer{s.newKey()}
	}
	pub, id, err := tufKey(s.signers[role][0].Public())
	s.must(err)
	m.Signed.Delegations.Keys[id] = pub
	m.Signed.Delegations.Roles = append(m.Signed.Delegations.Roles, metadata.DelegatedRole{
		Name: role, KeyIDs: []string{id}, Threshold: 1, Terminating: terminating, Paths: paths,
	})
}

// target names a file in a role and shows it.
func (s *simulator) target(role, name, content string) {
	sum := sha256.Sum256([]byte(content))
	s.roles[role].Signed.Targets[name] = &metadata.TargetFiles{Length: int64(len(content)), Hashes: metadata.Hashes{"sha256": sum[:]}}
	s.files[s.remote(name, content)] = []byte(content)
}

func (s *simulator) remote(name, content string) string {
	sum := sha256.Sum256([]byte(content))
	return path.Join("targets", path.Dir(name), hex.EncodeToString(sum[:])+"."+path.Base(name))
}

// publish shows the next version of roles, in that order.
func (s *simulator) publish(roles ...string) {
	s.t.Helper()
	for _, role := range roles {
		switch role {
		case Root:
			s.root.Signed.Version++
			show(s, role, s.root.Signed.Version, s.root)
		case Timestamp:
			s.timestamp.Signed.Version++
			show(s, role, 0, s.timestamp)
		case Snapshot:
			s.snapshot.Signed.Version++
			data := show(s, role, s.snapshot.Signed.Version, s.snapshot)
			s.timestamp.Signed.Meta[Snapshot+".json"] = s.meta(s.snapshot.Signed.Version, data)
		default:
			m := s.roles[role]
			m.Signed.Version++
			data := show(s, role, m.Signed.Version, m)
			s.snapshot.Signed.Meta[role+".json"] = s.meta(m.Signed.Version, data)
		}
	}
}

func (s *simulator) meta(version int64, data []byte) *metadata.MetaFiles {
	if s.hashes {
		return metaFile(version, data)
	}
	return &metadata.MetaFiles{Version: version}
}

// show signs with all that the role's signers are, whether they may or not.
func show[T metadata.Roles](s *simulator, role string, version int64, m *metadata.Metadata[T]) []byte {
	s.t.Helper()
	m.ClearSignatures()
	_, err := sign(m, idsOf(s.t, s.signers[role]), s.signers[role])
	s.must(err)
	return put(s, role, version, m)
}

// put shows metadata as it is.
func put[T metadata.Roles](s *simulator, role string, version int64, m *metadata.Metadata[T]) []byte {
	s.t.Helper()
	data, err := m.ToBytes(false)
	s.must(err)
	s.files["metadata/"+metadataName(role, version)] = data
	return data
}

// conforming is a client under test.
type conforming struct {
	*device
	s *simulator
}

// client begins with the newest root that the simulator shows.
func (s *simulator) client() *conforming {
	s.t.Helper()
	c := &conforming{device: &device{dir: s.t.TempDir(), now: start}, s: s}
	c.open(&vendor{t: s.t}, bytes.Clone(s.files["metadata/"+metadataName(Root, s.root.Signed.Version)]), s)
	return c
}

func (c *conforming) version(role string) int64 {
	switch {
	case role == Root:
		return c.RootVersion()
	case c.state == nil:
		return 0
	case role == Timestamp:
		return c.state.Timestamp.Signed.Version
	case role == Snapshot:
		return c.state.Snapshot.Signed.Version
	case c.state.Targets[role] == nil:
		return 0
	}
	return c.state.Targets[role].Signed.Version
}

// accepts refreshes, and expects versions of root, timestamp, snapshot and
// targets.
func (c *conforming) accepts(versions ...int64) {
	c.s.t.Helper()
	if err := c.Refresh(context.Background()); err != nil {
		c.s.t.Fatal(err)
	}
	c.holds(versions...)
}

// refuses expects a refresh to fail and the versions to be as they were; a new
// root may have been taken.
func (c *conforming) refuses(versions ...int64) {
	c.s.t.Helper()
	if err := c.Refresh(context.Background()); err == nil {
		c.s.t.Error("accepted")
	}
	c.holds(versions...)
}

func (c *conforming) holds(versions ...int64) {
	c.s.t.Helper()
	for i, want := range versions {
		role := []string{Root, Timestamp, Snapshot, Targets}[i]
		if got := c.version(role); got != want {
			c.s.t.Errorf("%s is version %d, not %d", role, got, want)
		}
	}
}

// downloads reads a target, and expects its content; "" for a failure.
func (c *conforming) downloads(name, want string) {
	c.s.t.Helper()
	got, err := c.Read(context.Background(), name)
	if want == "" && err == nil || want != "" && string(got) != want {
		c.s.t.Errorf("%s: %q (%v), not %q", name, got, err, want)
	}
}

func days(n int) time.Time { return start.AddDate(0, 0, n) }
