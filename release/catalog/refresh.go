package catalog

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
)

// State tells what a Refresh found and did.
type State struct {
	Snapshot  int64 // version; it rises with every change of content
	Timestamp int64 // version
	Expires   time.Time
	Changed   bool // something was signed anew
}

var errNoSigner = errors.New("no key for it is at hand")

// Refresh signs a new snapshot and timestamp where something new was published,
// or where the present ones have lived half their life. It is the only step
// that shows devices anything, and the only one that needs the online keys. It
// verifies all that it vouches for, and refuses while a named file is missing:
// a folder that is still being copied is not shown half.
func (r *Repository) Refresh(online []crypto.Signer, now time.Time) (State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := r.refresh(online, now)
	if err != nil {
		return State{}, fmt.Errorf("cannot refresh the catalog: %w", err)
	}
	return st, nil
}

func (r *Repository) refresh(online []crypto.Signer, now time.Time) (State, error) {
	root, err := r.root()
	if err != nil {
		return State{}, err
	}
	meta := map[string]*metadata.MetaFiles{}
	top, data, err := r.targets(Targets)
	if err != nil {
		return State{}, err
	}
	if err := r.complete(top); err != nil {
		return State{}, err
	}
	meta[Targets+".json"] = metaFile(top.Signed.Version, data)
	if d := top.Signed.Delegations; d != nil {
		for _, role := range d.Roles {
			m, data, err := r.targets(role.Name)
			if err != nil {
				return State{}, err
			}
			if err := r.complete(m); err != nil {
				return State{}, err
			}
			meta[role.Name+".json"] = metaFile(m.Signed.Version, data)
		}
	}
	snapshot, snapshotData, again, err := r.snapshot(root, meta, online, now)
	if err != nil {
		return State{}, err
	}
	timestamp, renewed, err := r.timestamp(root, metaFile(snapshot.Signed.Version, snapshotData), again, online, now)
	if err != nil {
		return State{}, err
	}
	return State{
		Snapshot: snapshot.Signed.Version, Timestamp: timestamp.Signed.Version,
		Expires: timestamp.Signed.Expires, Changed: again || renewed,
	}, nil
}

// complete says whether every file that m names stands in the folder with the
// length it must have. Its bytes are the reader's to check.
func (r *Repository) complete(m *metadata.Metadata[metadata.TargetsType]) error {
	for name, f := range m.Signed.Targets {
		t, err := targetOf(name, f)
		if err != nil {
			return err
		}
		file := filepath.Join(r.dir, filepath.FromSlash(t.Remote))
		switch st, err := os.Stat(file); {
		case err != nil:
			return fault.New(fault.Failed, "%s is not in the folder yet: %w", name, err)
		case st.Size() != t.Length:
			return fault.New(fault.Seal, "%s has %d bytes, not %d", file, st.Size(), t.Length)
		}
	}
	return nil
}

func metaFile(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// snapshot returns the snapshot that names meta, a new one if need be.
func (r *Repository) snapshot(root *metadata.Metadata[metadata.RootType], meta map[string]*metadata.MetaFiles, online []crypto.Signer, now time.Time) (*metadata.Metadata[metadata.SnapshotType], []byte, bool, error) {
	next := metadata.Snapshot(r.Lifetimes.expiry(Snapshot, now))
	next.Signed.Meta = meta
	n, err := r.latest(Snapshot)
	if err == nil {
		data, err := r.read(Snapshot, n)
		if err != nil {
			return nil, nil, false, err
		}
		present, err := metadata.Snapshot().FromBytes(data)
		if err != nil {
			return nil, nil, false, fmt.Errorf("cannot read snapshot version %d: %w", n, err)
		}
		same := sameMeta(present.Signed.Meta, meta) && root.VerifyDelegate(Snapshot, present) == nil
		if same && fresh(present.Signed.Expires, next.Signed.Expires, now) {
			return present, data, false, nil
		}
		next.Signed.Version = n + 1
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, err
	}
	if err := signOnline(root, Snapshot, next, online); err != nil {
		return nil, nil, false, err
	}
	data, err := next.ToBytes(false)
	if err != nil {
		return nil, nil, false, err
	}
	return next, data, true, writeNew(r.metadata(metadataName(Snapshot, next.Signed.Version)), data)
}

// fresh reports whether more than half of a full life is left until expires.
func fresh(expires, fullLife, now time.Time) bool {
	return expires.Sub(now) > fullLife.Sub(now)/2
}

func sameMeta(a, b map[string]*metadata.MetaFiles) bool {
	if len(a) != len(b) {
		return false
	}
	for name, f := range a {
		g, ok := b[name]
		if !ok || f.Version != g.Version || f.Length != g.Length || !bytes.Equal(f.Hashes["sha256"], g.Hashes["sha256"]) {
			return false
		}
	}
	return true
}

// timestamp writes a new timestamp if the snapshot is new or the present one
// has lived half its life. Its replacement is what commits.
func (r *Repository) timestamp(root *metadata.Metadata[metadata.RootType], snapshot *metadata.MetaFiles, renew bool, online []crypto.Signer, now time.Time) (*metadata.Metadata[metadata.TimestampType], bool, error) {
	next := metadata.Timestamp(r.Lifetimes.expiry(Timestamp, now))
	next.Signed.Meta = map[string]*metadata.MetaFiles{Snapshot + ".json": snapshot}
	switch data, err := r.read(Timestamp, 0); {
	case err == nil:
		present, err := metadata.Timestamp().FromBytes(data)
		if err != nil {
			return nil, false, fmt.Errorf("cannot read the timestamp: %w", err)
		}
		same := sameMeta(present.Signed.Meta, next.Signed.Meta) && root.VerifyDelegate(Timestamp, present) == nil
		if !renew && same && fresh(present.Signed.Expires, next.Signed.Expires, now) {
			return present, false, nil
		}
		next.Signed.Version = present.Signed.Version + 1
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	if err := signOnline(root, Timestamp, next, online); err != nil {
		return nil, false, err
	}
	data, err := next.ToBytes(false)
	if err != nil {
		return nil, false, err
	}
	return next, true, writeFile(r.metadata("timestamp.json"), data)
}

// signOnline signs and makes sure that it is enough.
func signOnline[T metadata.Roles](root *metadata.Metadata[metadata.RootType], role string, m *metadata.Metadata[T], online []crypto.Signer) error {
	keys := rootKeys(root, role)
	signed, err := sign(m, keys.ids, online)
	if err != nil {
		return err
	}
	if len(signed) < keys.threshold {
		return fault.New(fault.Refused, "cannot sign the %s: %w (%d of %d)", role, errNoSigner, len(signed), keys.threshold)
	}
	return root.VerifyDelegate(role, m)
}
