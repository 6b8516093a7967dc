package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Authority is one role as it stands in the catalog: who may sign, and until
// when what was signed is good.
type Authority struct {
	Role      string
	Version   int64
	Expires   time.Time
	Threshold int
	Keys      []string // ids, in the role's order
}

// roleOrder is the order in which roles are shown.
var roleOrder = []string{Root, Targets, Recall, Advice, Rollout, Snapshot, Timestamp}

// Authorities lists all roles, the highest first. A snapshot or timestamp that
// nobody has signed yet has version 0 and no expiry.
func (r *Repository) Authorities() ([]Authority, error) {
	var all []Authority
	for _, role := range roleOrder {
		a, err := r.authority(role)
		if err != nil {
			return nil, fmt.Errorf("cannot read role %s: %w", role, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func (r *Repository) authority(role string) (Authority, error) {
	a := Authority{Role: role}
	keys, err := r.keys(role)
	if err != nil {
		return a, err
	}
	a.Keys, a.Threshold = keys.ids, keys.threshold
	switch role {
	case Root:
		m, err := r.root()
		if err != nil {
			return a, err
		}
		a.Version, a.Expires = m.Signed.Version, m.Signed.Expires
	case Snapshot:
		n, err := r.latest(Snapshot)
		if errors.Is(err, fs.ErrNotExist) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		data, err := r.read(Snapshot, n)
		if err != nil {
			return a, err
		}
		m, err := metadata.Snapshot().FromBytes(data)
		if err != nil {
			return a, err
		}
		a.Version, a.Expires = m.Signed.Version, m.Signed.Expires
	case Timestamp:
		data, err := r.read(Timestamp, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		m, err := metadata.Timestamp().FromBytes(data)
		if err != nil {
			return a, err
		}
		a.Version, a.Expires = m.Signed.Version, m.Signed.Expires
	default:
		m, _, err := r.load(role)
		if err != nil {
			return a, err
		}
		a.Version, a.Expires = m.Signed.Version, m.Signed.Expires
	}
	return a, nil
}

// Role returns the keys and the threshold that a role has now.
func (r *Repository) Role(name string) (Role, error) {
	if !slices.Contains(roleOrder, name) {
		return Role{}, fmt.Errorf("there is no role %q", name)
	}
	keys, err := r.keys(name)
	if err != nil {
		return Role{}, err
	}
	role := Role{Threshold: keys.threshold}
	for _, id := range keys.ids {
		k, ok := keys.keys[id]
		if !ok {
			return Role{}, fmt.Errorf("role %s: key %.8s is missing", name, id)
		}
		pub, err := k.ToPublicKey()
		if err != nil {
			return Role{}, fmt.Errorf("role %s: key %.8s: %w", name, id, err)
		}
		role.Keys = append(role.Keys, pub)
	}
	return role, nil
}

// Step is one role's part of a ceremony, as a signer sees it.
type Step struct {
	Role    string
	Version int64
	Expires time.Time
	Keys    []KeyChange // that it makes, in this role and those below
	Added   []Target    // files named anew
	Removed []string    // files named no more
	Signed  Signed
}

// KeyChange is how one role's keys change.
type KeyChange struct {
	Role           string
	Added, Removed []string // ids
	Before, After  int      // threshold
}

// Steps are what a signature would make true.
func (c *Ceremony) Steps() []Step {
	var all []Step
	for _, d := range c.steps {
		s := Step{Role: d.role, Version: d.Version(), Signed: d.Signed()}
		s.Added, s.Removed = d.Changed()
		switch {
		case d.root != nil:
			s.Expires = d.root.Signed.Expires
			for _, role := range roleOrder {
				if d.root.Signed.Roles[role] != nil {
					s.note(role, rootKeys(c.root, role), rootKeys(d.root, role))
				}
			}
		default:
			s.Expires = d.targets.Signed.Expires
			for _, b := range delegated {
				before, err := delegatedKeys(c.targets, b.role)
				after, err2 := delegatedKeys(d.targets, b.role)
				if d.role == Targets && err == nil && err2 == nil {
					s.note(b.role, before, after)
				}
			}
		}
		all = append(all, s)
	}
	return all
}

// note adds a role's change of keys, if there is one.
func (s *Step) note(role string, before, after keySet) {
	k := KeyChange{Role: role, Before: before.threshold, After: after.threshold}
	for _, id := range after.ids {
		if !slices.Contains(before.ids, id) {
			k.Added = append(k.Added, id)
		}
	}
	for _, id := range before.ids {
		if !slices.Contains(after.ids, id) {
			k.Removed = append(k.Removed, id)
		}
	}
	if len(k.Added)+len(k.Removed) > 0 || k.Before != k.After {
		s.Keys = append(s.Keys, k)
	}
}
