package catalog

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
)

// Draft is the next version of one role's metadata, before enough people have
// signed it. It travels as bytes (Encode, Repository.ReadDraft) to machines
// without a network, and gathers one signature after the other.
type Draft struct {
	role    string
	root    *metadata.Metadata[metadata.RootType]    // one of these two
	targets *metadata.Metadata[metadata.TargetsType] //
	signers []string                                 // ids of keys whose signature can count
	before  map[string]*metadata.TargetFiles         // targets of the version before
}

// Role is the role that the draft is for.
func (d *Draft) Role() string { return d.role }

// Version is the version that the draft will have.
func (d *Draft) Version() int64 {
	if d.root != nil {
		return d.root.Signed.Version
	}
	return d.targets.Signed.Version
}

// Draft begins the next version of targets or of a role below it. It has all
// that the present version has, a new expiry, and no signature.
func (r *Repository) Draft(role string, now time.Time) (*Draft, error) {
	m, err := r.inherited(role)
	if err != nil {
		return nil, fmt.Errorf("cannot draft %s: %w", role, err)
	}
	d := &Draft{role: role, targets: m, before: map[string]*metadata.TargetFiles{}}
	for name, f := range m.Signed.Targets {
		d.before[name] = f
	}
	m.Signed.Version++
	m.Signed.Expires = r.Lifetimes.expiry(role, now)
	m.ClearSignatures()
	d.signers, err = r.signersOf(role)
	if err != nil {
		return nil, fmt.Errorf("cannot draft %s: %w", role, err)
	}
	return d, nil
}

func (r *Repository) signersOf(role string) ([]string, error) {
	keys, err := r.keys(role)
	if err != nil {
		return nil, err
	}
	return keys.ids, nil
}

// keySet is a role's keys as the role above it names them.
type keySet struct {
	keys      map[string]*metadata.Key
	ids       []string
	threshold int
}

func (r *Repository) keys(role string) (keySet, error) {
	switch role {
	case Root, Targets, Snapshot, Timestamp:
		root, err := r.root()
		if err != nil {
			return keySet{}, err
		}
		return rootKeys(root, role), nil
	}
	above, _, err := r.targets(Targets)
	if err != nil {
		return keySet{}, err
	}
	return delegatedKeys(above, role)
}

func rootKeys(root *metadata.Metadata[metadata.RootType], role string) keySet {
	return keySet{keys: root.Signed.Keys, ids: roleIDs(root, role), threshold: root.Signed.Roles[role].Threshold}
}

func delegatedKeys(above *metadata.Metadata[metadata.TargetsType], role string) (keySet, error) {
	d, err := delegation(above, role)
	if err != nil {
		return keySet{}, err
	}
	return keySet{keys: above.Signed.Delegations.Keys, ids: d.KeyIDs, threshold: d.Threshold}, nil
}

// DraftRoot begins the next root with other keys for some of the four top
// roles. It must be signed by the threshold of the present root keys and of
// the new ones.
func (r *Repository) DraftRoot(change map[string]Role, now time.Time) (*Draft, error) {
	root, err := r.root()
	if err != nil {
		return nil, fmt.Errorf("cannot draft root: %w", err)
	}
	d := &Draft{role: Root, root: root, signers: roleIDs(root, Root)}
	roles := map[string]*metadata.Role{}
	all := map[string]*metadata.Key{}
	for id, k := range root.Signed.Keys {
		all[id] = k
	}
	for name, old := range root.Signed.Roles {
		roles[name] = old
	}
	for name, role := range change {
		if _, ok := roles[name]; !ok {
			return nil, fmt.Errorf("cannot draft root: it does not name the keys of %q", name)
		}
		if err := addRole(all, name, role, func(ids []string) {
			roles[name] = &metadata.Role{KeyIDs: ids, Threshold: role.Threshold}
		}); err != nil {
			return nil, fmt.Errorf("cannot draft root: %w", err)
		}
	}
	used := map[string]*metadata.Key{}
	for _, role := range roles {
		for _, id := range role.KeyIDs {
			used[id] = all[id]
		}
	}
	root.Signed.Roles, root.Signed.Keys = roles, used
	root.Signed.Version++
	root.Signed.Expires = r.Lifetimes.expiry(Root, now)
	root.ClearSignatures()
	d.signers = append(d.signers, roles[Root].KeyIDs...)
	return d, nil
}

// Delegate gives recall, advice or rollout other keys, in a draft of targets.
// The role's own metadata must then be signed anew by those keys.
func (d *Draft) Delegate(role string, keys Role) error {
	if d.role != Targets {
		return fmt.Errorf("cannot delegate in a draft of %s", d.role)
	}
	old, err := delegation(d.targets, role)
	if err != nil {
		return err
	}
	all := d.targets.Signed.Delegations.Keys
	if err := addRole(all, role, keys, func(ids []string) {
		old.KeyIDs, old.Threshold = ids, keys.Threshold
	}); err != nil {
		return err
	}
	used := map[string]*metadata.Key{}
	for _, r := range d.targets.Signed.Delegations.Roles {
		for _, id := range r.KeyIDs {
			used[id] = all[id]
		}
	}
	d.targets.Signed.Delegations.Keys = used
	return nil
}

// Set names a file in the draft. Signatures made before are void.
func (d *Draft) Set(t Target) error {
	if d.targets == nil {
		return fmt.Errorf("cannot name files in a draft of %s", d.role)
	}
	checked, err := targetOf(t.Path, t.tuf())
	if err != nil {
		return err
	}
	d.targets.Signed.Targets[t.Path] = checked.tuf()
	d.targets.ClearSignatures()
	return nil
}

// Remove takes a file out of the draft. Signatures made before are void.
func (d *Draft) Remove(name string) {
	delete(d.targets.Signed.Targets, name)
	d.targets.ClearSignatures()
}

// Changed lists what the draft adds to the version before (or replaces), and
// the paths it takes away, each by path: what a signer is asked to sign.
func (d *Draft) Changed() (added []Target, removed []string) {
	if d.targets == nil {
		return nil, nil
	}
	for name, f := range d.targets.Signed.Targets {
		if old, ok := d.before[name]; ok && old.Equal(*f) && sameCustom(old, f) {
			continue
		}
		if t, err := targetOf(name, f); err == nil {
			added = append(added, t)
		}
	}
	for name := range d.before {
		if _, ok := d.targets.Signed.Targets[name]; !ok {
			removed = append(removed, name)
		}
	}
	sort.Slice(added, func(i, j int) bool { return added[i].Path < added[j].Path })
	sort.Strings(removed)
	return added, removed
}

func sameCustom(a, b *metadata.TargetFiles) bool {
	if a.Custom == nil || b.Custom == nil {
		return a.Custom == b.Custom
	}
	return bytes.Equal(*a.Custom, *b.Custom)
}

// Sign adds the signatures of those signers that count for the role, and
// returns their key ids.
func (d *Draft) Sign(signers ...crypto.Signer) ([]string, error) {
	if d.root != nil {
		return sign(d.root, d.signers, signers)
	}
	return sign(d.targets, d.signers, signers)
}

// Encode is the draft as TUF metadata, signed as far as it is.
func (d *Draft) Encode() ([]byte, error) {
	if d.root != nil {
		return d.root.ToBytes(false)
	}
	return d.targets.ToBytes(false)
}

// ReadDraft reads what Draft.Encode wrote, to be signed or published on top of
// the catalog as it stands here.
func (r *Repository) ReadDraft(role string, data []byte) (*Draft, error) {
	if int64(len(data)) > metadataLimit(role) {
		return nil, fmt.Errorf("cannot read the draft: %d bytes, the limit is %d", len(data), metadataLimit(role))
	}
	d := &Draft{role: role}
	var present int64
	if role == Root {
		m, err := metadata.Root().FromBytes(data)
		if err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		now, err := r.root()
		if err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		if m.Signed.Roles[Root] == nil {
			return nil, fmt.Errorf("cannot read the draft: it names no root keys")
		}
		d.root, d.signers, present = m, append(roleIDs(now, Root), roleIDs(m, Root)...), now.Signed.Version
	} else {
		m, err := metadata.Targets().FromBytes(data)
		if err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		now, err := r.inherited(role)
		if err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		if d.signers, err = r.signersOf(role); err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		d.targets, d.before, present = m, now.Signed.Targets, now.Signed.Version
	}
	if d.Version() != present+1 {
		return nil, fault.New(fault.Usage, "cannot use the draft: it is version %d of %s, but the catalog stands at %d", d.Version(), role, present).
			Hint("prepare it again")
	}
	return d, nil
}

// Signed tells how far the draft is signed. A new root is as far as its weaker
// side: the present root's keys, or its own.
func (r *Repository) Signed(d *Draft) (Signed, error) {
	if d.root != nil {
		own := rootKeys(d.root, Root)
		s := count(own.keys, own.ids, own.threshold, d.root)
		if present, err := r.root(); err == nil {
			old := rootKeys(present, Root)
			if o := count(old.keys, old.ids, old.threshold, d.root); o.Threshold-o.Valid > s.Threshold-s.Valid {
				return o, nil
			}
		}
		return s, nil
	}
	keys, err := r.keys(d.role)
	if err != nil {
		return Signed{}, err
	}
	return count(keys.keys, keys.ids, keys.threshold, d.targets), nil
}

// Publish writes the draft as its role's newest metadata, if enough of the
// role's keys have signed. Devices see it after the next Refresh.
func (r *Repository) Publish(d *Draft) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.Signed(d)
	if err != nil {
		return fmt.Errorf("cannot publish %s: %w", d.role, err)
	}
	if !s.Enough() {
		return fault.New(fault.Refused, "cannot publish %s version %d: %d of %d signatures", d.role, d.Version(), s.Valid, s.Threshold).
			Hint("more of the %d owners of %s must sign", s.Keys, d.role)
	}
	present, err := r.latest(d.role) // 0 where there is none
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot publish %s: %w", d.role, err)
	}
	if d.Version() != present+1 {
		return fault.New(fault.Busy, "cannot publish %s version %d: the catalog stands at %d", d.role, d.Version(), present).
			Hint("prepare it again")
	}
	data, err := d.Encode()
	if err != nil {
		return fmt.Errorf("cannot publish %s: %w", d.role, err)
	}
	if err := writeNew(r.metadata(metadataName(d.role, d.Version())), data); err != nil {
		return fmt.Errorf("cannot publish %s: %w", d.role, err)
	}
	return nil
}
