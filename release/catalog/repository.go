package catalog

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
)

// Repository is a catalog in a folder, as its writers see it. Its methods may
// be called concurrently; two processes that write the same version get one
// winner, and the other a fault.Busy.
type Repository struct {
	Lifetimes Lifetimes // DefaultLifetimes where nil

	dir string
	mu  sync.Mutex // held while a version is chosen and written
}

// Create makes a new catalog in a folder that has none: version 1 of every
// role, with nothing in it. The signers must meet the threshold of root,
// targets, recall, advice and rollout; with the online keys among them the
// catalog is complete, else the first Refresh completes it.
func Create(dir string, roles Roles, now time.Time, signers ...crypto.Signer) (*Repository, error) {
	r := &Repository{dir: dir}
	root := metadata.Root(r.Lifetimes.expiry(Root, now))
	for name, role := range roles.top() {
		if err := addRole(root.Signed.Keys, name, role, func(ids []string) {
			root.Signed.Roles[name] = &metadata.Role{KeyIDs: ids, Threshold: role.Threshold}
		}); err != nil {
			return nil, fmt.Errorf("cannot create the catalog: %w", err)
		}
	}
	targets := metadata.Targets(r.Lifetimes.expiry(Targets, now))
	targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	below := roles.below()
	for _, d := range delegated {
		role := below[d.role]
		if err := addRole(targets.Signed.Delegations.Keys, d.role, role, func(ids []string) {
			targets.Signed.Delegations.Roles = append(targets.Signed.Delegations.Roles, metadata.DelegatedRole{
				Name: d.role, KeyIDs: ids, Threshold: role.Threshold, Terminating: true, Paths: []string{d.paths},
			})
		}); err != nil {
			return nil, fmt.Errorf("cannot create the catalog: %w", err)
		}
	}
	for _, sub := range []string{"metadata", "targets"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("cannot create the catalog: %w", err)
		}
	}
	if _, err := r.latest(Root); err == nil {
		return nil, fault.New(fault.Usage, "cannot create the catalog: %s has one already", dir)
	}
	drafts := []*Draft{{role: Root, root: root}, {role: Targets, targets: targets}}
	keys := []keySet{rootKeys(root, Root), rootKeys(root, Targets)}
	for _, d := range delegated {
		set, err := delegatedKeys(targets, d.role)
		if err != nil {
			return nil, err
		}
		drafts = append(drafts, &Draft{role: d.role, targets: metadata.Targets(r.Lifetimes.expiry(d.role, now))})
		keys = append(keys, set)
	}
	for i, d := range drafts { // sign all before the first is written
		d.keys = keys[i : i+1]
		signed, err := d.Sign(signers...)
		if err != nil {
			return nil, fmt.Errorf("cannot create the catalog: %w", err)
		}
		if len(signed) < keys[i].threshold {
			return nil, fault.New(fault.Refused, "cannot create the catalog: %d of %d signatures for %s", len(signed), keys[i].threshold, d.role)
		}
	}
	for _, d := range drafts {
		if err := r.Publish(d); err != nil {
			return nil, fmt.Errorf("cannot create the catalog: %w", err)
		}
	}
	if _, err := r.Refresh(signers, now); err != nil && !errors.Is(err, errNoSigner) {
		return nil, err
	}
	return r, nil
}

// addRole puts a role's keys into keys and hands their ids to set.
func addRole(keys map[string]*metadata.Key, name string, role Role, set func(ids []string)) error {
	if err := checkRole(name, role); err != nil {
		return err
	}
	ids := make([]string, 0, len(role.Keys))
	for _, pub := range role.Keys {
		key, id, err := tufKey(pub)
		if err != nil {
			return err
		}
		keys[id] = key
		ids = append(ids, id)
	}
	set(ids)
	return nil
}

func roleIDs(root *metadata.Metadata[metadata.RootType], role string) []string {
	return append([]string(nil), root.Signed.Roles[role].KeyIDs...)
}

// OpenRepository opens the catalog in a folder.
func OpenRepository(dir string) (*Repository, error) {
	r := &Repository{dir: dir}
	if _, err := r.latest(Root); err != nil {
		return nil, fmt.Errorf("cannot open the catalog in %s: %w", dir, err)
	}
	return r, nil
}

// RootBytes is the newest root metadata: what an OS image pins.
func (r *Repository) RootBytes() ([]byte, error) {
	n, err := r.latest(Root)
	if err != nil {
		return nil, err
	}
	return r.read(Root, n)
}

// latest is the highest version of a role's metadata in the folder.
func (r *Repository) latest(role string) (int64, error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, "metadata"))
	if err != nil {
		return 0, err
	}
	var highest int64
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), "."+role+".json")
		n, err := strconv.ParseInt(number, 10, 64)
		if ok && err == nil && n > highest && strconv.FormatInt(n, 10) == number {
			highest = n
		}
	}
	if highest == 0 {
		return 0, fmt.Errorf("there is no %s metadata: %w", role, fs.ErrNotExist)
	}
	return highest, nil
}

// metadataLimits bound what is read for each role, in bytes.
var metadataLimits = map[string]int64{
	Root: 512 << 10, Timestamp: 16 << 10, Snapshot: 64 << 10, Targets: 16 << 20,
	Recall: 1 << 20, Advice: 1 << 20, Rollout: 1 << 20,
}

func metadataLimit(role string) int64 {
	if n, ok := metadataLimits[role]; ok {
		return n
	}
	return metadataLimits[Recall] // another role's delegation
}

func metadataName(role string, version int64) string {
	if role == Timestamp {
		return "timestamp.json"
	}
	return strconv.FormatInt(version, 10) + "." + role + ".json"
}

func (r *Repository) metadata(name string) string { return filepath.Join(r.dir, "metadata", name) }

func (r *Repository) read(role string, version int64) ([]byte, error) {
	return readFile(r.metadata(metadataName(role, version)), metadataLimit(role))
}

// root loads and verifies the newest root.
func (r *Repository) root() (*metadata.Metadata[metadata.RootType], error) {
	n, err := r.latest(Root)
	if err != nil {
		return nil, err
	}
	data, err := r.read(Root, n)
	if err != nil {
		return nil, err
	}
	root, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read root version %d: %w", n, err)
	}
	if err := root.VerifyDelegate(Root, root); err != nil {
		return nil, fmt.Errorf("cannot use root version %d: %w", n, err)
	}
	return root, nil
}

// targets loads the newest metadata of targets or of a role below it, verified
// by the one above.
func (r *Repository) targets(role string) (*metadata.Metadata[metadata.TargetsType], []byte, error) {
	m, data, err := r.load(role)
	if err != nil {
		return nil, nil, err
	}
	keys, err := r.keys(role)
	if err != nil {
		return nil, nil, err
	}
	if s := count(keys.keys, keys.ids, keys.threshold, m); !s.Enough() {
		return nil, nil, fault.New(fault.Stale, "cannot use %s version %d: %d of %d signatures", role, m.Signed.Version, s.Valid, s.Threshold)
	}
	return m, data, nil
}

// load reads the newest metadata of a role without verifying it.
func (r *Repository) load(role string) (*metadata.Metadata[metadata.TargetsType], []byte, error) {
	n, err := r.latest(role)
	if err != nil {
		return nil, nil, err
	}
	data, err := r.read(role, n)
	if err != nil {
		return nil, nil, err
	}
	m, err := metadata.Targets().FromBytes(data)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read %s version %d: %w", role, n, err)
	}
	if m.Signed.Version != n {
		return nil, nil, fmt.Errorf("cannot read %s version %d: it says version %d", role, n, m.Signed.Version)
	}
	return m, data, nil
}

// inherited is targets for a role whose keys were just replaced: its metadata
// is signed by the keys that it had before.
func (r *Repository) inherited(role string) (*metadata.Metadata[metadata.TargetsType], error) {
	m, _, err := r.load(role)
	if err != nil {
		return nil, err
	}
	above := Targets
	if role == Targets {
		above = Root
	}
	n, err := r.latest(above)
	if err != nil {
		return nil, err
	}
	for ; n > 0; n-- {
		data, err := r.read(above, n)
		if err != nil {
			return nil, err
		}
		var keys keySet
		if above == Root {
			root, err := metadata.Root().FromBytes(data)
			if err != nil || root.VerifyDelegate(Root, root) != nil {
				break
			}
			keys = rootKeys(root, role)
		} else {
			targets, err := metadata.Targets().FromBytes(data)
			if err != nil {
				break
			}
			if keys, err = delegatedKeys(targets, role); err != nil {
				break
			}
		}
		if count(keys.keys, keys.ids, keys.threshold, m).Enough() {
			return m, nil
		}
	}
	return nil, fault.New(fault.Stale, "cannot use %s version %d: it is not signed by keys that the role has or had", role, m.Signed.Version)
}

// Target is one file of the catalog.
type Target struct {
	Path   string // in the catalog: patches/<digest>
	Remote string // where it is served, below the catalog's address: targets/patches/<sha256>.<digest>
	Length int64  // bytes
	SHA256 [32]byte
	Custom json.RawMessage // what the publisher said about it, nil if nothing
}

func targetOf(name string, f *metadata.TargetFiles) (Target, error) {
	sum, ok := f.Hashes["sha256"]
	if !ok || len(sum) != sha256.Size {
		return Target{}, fmt.Errorf("target %s has no SHA-256", name)
	}
	if f.Length < 0 || !fs.ValidPath(name) {
		return Target{}, fmt.Errorf("target %q has an impossible name or length", name)
	}
	t := Target{Path: name, Length: f.Length, SHA256: [32]byte(sum)}
	t.Remote = path.Join("targets", path.Dir(name), hex.EncodeToString(sum)+"."+path.Base(name))
	if f.Custom != nil {
		t.Custom = *f.Custom
	}
	return t, nil
}

func (t Target) tuf() *metadata.TargetFiles {
	f := &metadata.TargetFiles{Length: t.Length, Path: t.Path, Hashes: metadata.Hashes{"sha256": append([]byte(nil), t.SHA256[:]...)}}
	if t.Custom != nil {
		custom := append(json.RawMessage(nil), t.Custom...)
		f.Custom = &custom
	}
	return f
}

// Measure reads content to its end and says what target it would be.
func Measure(name string, content io.Reader) (Target, error) {
	h := sha256.New()
	n, err := io.Copy(h, content)
	if err != nil {
		return Target{}, fmt.Errorf("cannot measure %s: %w", name, err)
	}
	return targetOf(name, &metadata.TargetFiles{Length: n, Hashes: metadata.Hashes{"sha256": h.Sum(nil)}})
}

// Store puts content where it is served. Nobody sees it before metadata names
// it, and storing the same content again changes nothing.
func (r *Repository) Store(name string, content io.Reader) (Target, error) {
	if !fs.ValidPath(name) {
		return Target{}, fmt.Errorf("cannot store %q: not a path", name)
	}
	folder := filepath.Join(r.dir, "targets", filepath.FromSlash(path.Dir(name)))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return Target{}, fmt.Errorf("cannot store %s: %w", name, err)
	}
	tmp, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return Target{}, fmt.Errorf("cannot store %s: %w", name, err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	t, err := Measure(name, io.TeeReader(content, tmp))
	if err != nil {
		return Target{}, err
	}
	if err := commit(tmp, filepath.Join(r.dir, filepath.FromSlash(t.Remote))); err != nil {
		return Target{}, fmt.Errorf("cannot store %s: %w", name, err)
	}
	return t, nil
}
