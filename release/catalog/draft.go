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
	keys    []keySet                                 // each of these must be enough
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
	keys, err := r.keys(role)
	if err != nil {
		return nil, fmt.Errorf("cannot draft %s: %w", role, err)
	}
	d.keys = []keySet{keys}
	return d, nil
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
	d := &Draft{role: Root, root: root, keys: []keySet{rootKeys(root, Root)}}
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
	d.keys = append(d.keys, rootKeys(root, Root))
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
	var ids []string
	for _, k := range d.keys {
		ids = append(ids, k.ids...)
	}
	if d.root != nil {
		return sign(d.root, ids, signers)
	}
	return sign(d.targets, ids, signers)
}

// Signed tells how far the draft is signed. A new root is as far as its weaker
// side: the present root's keys, or its own.
func (d *Draft) Signed() Signed {
	var weakest Signed
	for i, k := range d.keys {
		var s Signed
		if d.root != nil {
			s = count(k.keys, k.ids, k.threshold, d.root)
		} else {
			s = count(k.keys, k.ids, k.threshold, d.targets)
		}
		if i == 0 || s.Threshold-s.Valid > weakest.Threshold-weakest.Valid {
			weakest = s
		}
	}
	return weakest
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
	if role == Root {
		present, err := r.root()
		if err != nil {
			return nil, fmt.Errorf("cannot read the draft: %w", err)
		}
		return readRootDraft(present, data)
	}
	present, err := r.inherited(role)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: %w", err)
	}
	keys, err := r.keys(role)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: %w", err)
	}
	return readDraft(role, present, keys, data)
}

// ParseDraft reads a draft of targets on a machine that has no catalog, only
// the root and targets metadata that came with the draft. They prove nothing
// but that they belong together; the signer decides by Changed.
func ParseDraft(root, present, data []byte) (*Draft, error) {
	for _, b := range [][]byte{root, present} {
		if int64(len(b)) > metadataLimit(Targets) {
			return nil, fmt.Errorf("cannot read the draft: %d bytes, the limit is %d", len(b), metadataLimit(Targets))
		}
	}
	r, err := metadata.Root().FromBytes(root)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: root: %w", err)
	}
	if err := r.VerifyDelegate(Root, r); err != nil {
		return nil, fmt.Errorf("cannot read the draft: root: %w", err)
	}
	m, err := metadata.Targets().FromBytes(present)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: targets: %w", err)
	}
	d, err := readDraft(Targets, m, rootKeys(r, Targets), data)
	if err == nil && !sameDelegations(m, d.targets, false) {
		// Changed would not show it: that is what ceremonies are for.
		return nil, fault.New(fault.Seal, "cannot read the draft: it changes the keys of other roles")
	}
	return d, err
}

func readDraft(role string, present *metadata.Metadata[metadata.TargetsType], keys keySet, data []byte) (*Draft, error) {
	if int64(len(data)) > metadataLimit(role) {
		return nil, fmt.Errorf("cannot read the draft: %d bytes, the limit is %d", len(data), metadataLimit(role))
	}
	m, err := metadata.Targets().FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: %w", err)
	}
	d := &Draft{role: role, targets: m, keys: []keySet{keys}, before: present.Signed.Targets}
	return d, d.follows(present.Signed.Version)
}

func readRootDraft(present *metadata.Metadata[metadata.RootType], data []byte) (*Draft, error) {
	if int64(len(data)) > metadataLimit(Root) {
		return nil, fmt.Errorf("cannot read the draft: %d bytes, the limit is %d", len(data), metadataLimit(Root))
	}
	m, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the draft: %w", err)
	}
	if m.Signed.Roles[Root] == nil {
		return nil, fmt.Errorf("cannot read the draft: it names no root keys")
	}
	d := &Draft{role: Root, root: m, keys: []keySet{rootKeys(present, Root), rootKeys(m, Root)}}
	return d, d.follows(present.Signed.Version)
}

// follows says whether the draft is the version after present.
func (d *Draft) follows(present int64) error {
	if d.Version() != present+1 {
		return fault.New(fault.Usage, "cannot use the draft: it is version %d of %s, but the catalog stands at %d", d.Version(), d.role, present).
			Hint("prepare it again")
	}
	return nil
}

// Publish writes the draft as its role's newest metadata, if enough of the
// role's keys have signed. Devices see it after the next Refresh.
func (r *Repository) Publish(d *Draft) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.takeKeys(d); err != nil {
		return fmt.Errorf("cannot publish %s: %w", d.role, err)
	}
	s := d.Signed()
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

// takeKeys judges the draft by the keys that the catalog names now, whatever it
// was drafted under. The first root has nothing above it.
func (r *Repository) takeKeys(d *Draft) error {
	if d.role == Root {
		d.keys = []keySet{rootKeys(d.root, Root)}
		present, err := r.root()
		if err == nil {
			d.keys = append(d.keys, rootKeys(present, Root))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	keys, err := r.keys(d.role)
	d.keys = []keySet{keys}
	return err
}
