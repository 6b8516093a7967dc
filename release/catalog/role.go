package catalog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// The roles.
const (
	Root      = metadata.ROOT
	Targets   = metadata.TARGETS
	Snapshot  = metadata.SNAPSHOT
	Timestamp = metadata.TIMESTAMP
	Recall    = "recall"
	Advice    = "advice"
	Rollout   = "rollout"
)

// delegated are the roles below targets, each with the paths it alone may sign.
var delegated = []struct{ role, paths string }{
	{Recall, "recall/*"},
	{Advice, "advice/*"},
	{Rollout, "rollout/*"},
}

// Role is who may sign for a role: Threshold of these keys together.
type Role struct {
	Keys      []crypto.PublicKey // Ed25519 or ECDSA P-256
	Threshold int
}

// Roles are the keys of a whole catalog.
type Roles struct {
	Root, Targets, Recall, Advice, Rollout, Snapshot, Timestamp Role
}

func (r Roles) top() map[string]Role {
	return map[string]Role{Root: r.Root, Targets: r.Targets, Snapshot: r.Snapshot, Timestamp: r.Timestamp}
}

func (r Roles) below() map[string]Role {
	return map[string]Role{Recall: r.Recall, Advice: r.Advice, Rollout: r.Rollout}
}

// Lifetimes say for how long what a role signs is valid. A role that a person
// signs for lives a year; one that a server re-signs lives days.
type Lifetimes map[string]time.Duration

// DefaultLifetimes are used where a Repository is given none.
var DefaultLifetimes = Lifetimes{
	Root:      365 * day,
	Targets:   365 * day,
	Recall:    365 * day,
	Advice:    365 * day,
	Rollout:   365 * day,
	Snapshot:  14 * day,
	Timestamp: 7 * day,
}

const day = 24 * time.Hour

func (l Lifetimes) expiry(role string, now time.Time) time.Time {
	d, ok := l[role]
	if !ok {
		d = DefaultLifetimes[role]
	}
	return now.Add(d).UTC().Truncate(time.Second)
}

// KeyID is the TUF identifier of a public key, 64 hexadecimal characters.
func KeyID(pub crypto.PublicKey) (string, error) {
	_, id, err := tufKey(pub)
	return id, err
}

func tufKey(pub crypto.PublicKey) (*metadata.Key, string, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize != 256 {
			return nil, "", fmt.Errorf("cannot use a %s key in the catalog: only P-256 and Ed25519", k.Curve.Params().Name)
		}
	default:
		return nil, "", fmt.Errorf("cannot use a %T in the catalog: only Ed25519 and ECDSA P-256", pub)
	}
	key, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		return nil, "", fmt.Errorf("cannot use a key in the catalog: %w", err)
	}
	id, err := key.ID()
	if err != nil {
		return nil, "", fmt.Errorf("cannot use a key in the catalog: %w", err)
	}
	return key, id, nil
}

// checkRole says whether a role can ever be signed for.
func checkRole(name string, r Role) error {
	ids := map[string]bool{}
	for _, k := range r.Keys {
		_, id, err := tufKey(k)
		if err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
		ids[id] = true
	}
	if len(ids) != len(r.Keys) {
		return fmt.Errorf("role %s: a key stands twice", name)
	}
	if r.Threshold < 1 || r.Threshold > len(r.Keys) {
		return fmt.Errorf("role %s: threshold %d of %d keys", name, r.Threshold, len(r.Keys))
	}
	return nil
}

// sign adds the signatures of those signers whose keys are among ids, and
// returns the ids that signed. A key that has signed already signs anew.
func sign[T metadata.Roles](m *metadata.Metadata[T], ids []string, signers []crypto.Signer) ([]string, error) {
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	var signed []string
	for _, s := range signers {
		_, id, err := tufKey(s.Public())
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) || slices.Contains(signed, id) {
			continue
		}
		message, opts := payload, crypto.SignerOpts(crypto.Hash(0))
		if _, ok := s.Public().(*ecdsa.PublicKey); ok {
			digest := sha256.Sum256(payload)
			message, opts = digest[:], crypto.SHA256
		}
		sig, err := s.Sign(rand.Reader, message, opts)
		if err != nil {
			return nil, fmt.Errorf("cannot sign with key %.8s: %w", id, err)
		}
		m.Signatures = slices.DeleteFunc(m.Signatures, func(old metadata.Signature) bool { return old.KeyID == id })
		m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id, Signature: sig})
		signed = append(signed, id)
	}
	return signed, nil
}

// Signed tells how many of a role's keys signed its metadata.
type Signed struct {
	Valid     int      // keys with a good signature
	Threshold int      // how many there must be
	Keys      int      // how many there could be
	By        []string // ids of the keys that signed, in the role's order
}

// Enough reports whether the threshold is met.
func (s Signed) Enough() bool { return s.Threshold > 0 && s.Valid >= s.Threshold }

// count verifies each key's signature by itself.
func count[T metadata.Roles](keys map[string]*metadata.Key, ids []string, threshold int, m *metadata.Metadata[T]) Signed {
	s := Signed{Threshold: threshold, Keys: len(ids)}
	for _, id := range ids {
		// VerifyDelegate tells only whether a threshold is met: ask it about
		// a role of this one key.
		probe := metadata.Root()
		probe.Signed.Keys = keys
		probe.Signed.Roles["probe"] = &metadata.Role{KeyIDs: []string{id}, Threshold: 1}
		if probe.VerifyDelegate("probe", m) == nil {
			s.Valid++
			s.By = append(s.By, id)
		}
	}
	return s
}

// delegation finds a delegated role in targets metadata.
func delegation(targets *metadata.Metadata[metadata.TargetsType], role string) (*metadata.DelegatedRole, error) {
	if d := targets.Signed.Delegations; d != nil {
		for i := range d.Roles {
			if d.Roles[i].Name == role {
				return &d.Roles[i], nil
			}
		}
	}
	return nil, fmt.Errorf("the catalog has no role %q", role)
}
