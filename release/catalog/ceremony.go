package catalog

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/pattern"
)

// ceremonySchema names the form of a ceremony's file.
const ceremonySchema = "sealant.ceremony/1"

// MaxCeremony is the largest file of a ceremony, in bytes.
const MaxCeremony = 64 << 20

// Ceremony is a change of the catalog's authority that waits for signatures:
// other keys or thresholds, new expiries, or a list that several people sign.
// It is one step for each role that must be signed anew, and stands or falls
// as a whole. It carries all that a machine without the catalog needs.
type Ceremony struct {
	Name string // its first step: root-v2

	root    *metadata.Metadata[metadata.RootType]    // that it builds on
	targets *metadata.Metadata[metadata.TargetsType] //
	rootRaw []byte
	topRaw  []byte
	present map[string][]byte // metadata before, of the delegated roles in steps
	steps   []*Draft          // root first, then targets, then delegated roles
	list    []byte            // that the only step names; nil if it names none
}

type ceremonyFile struct {
	Schema  string          `json:"schema"`
	Name    string          `json:"name"`
	Root    json.RawMessage `json:"root"`
	Targets json.RawMessage `json:"targets"`
	Steps   []stepFile      `json:"steps"`
	List    string          `json:"list,omitempty"` // the document's bytes, as text
}

type stepFile struct {
	Role    string          `json:"role"`
	Present json.RawMessage `json:"present,omitempty"` // delegated roles only
	Draft   json.RawMessage `json:"draft"`
}

// Change is what a ceremony is to do.
type Change struct {
	Renew []string        // roles that get a new expiry
	Roles map[string]Role // roles that get these keys and this threshold
}

// Prepare drafts a change and all that must be signed anew because of it: a
// role whose present signatures are not enough under its new keys is a step of
// its own. Snapshot and timestamp are left to the next Refresh.
func (r *Repository) Prepare(change Change, now time.Time) (*Ceremony, error) {
	c, err := r.prepare(change, now)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the change: %w", err)
	}
	return c, nil
}

func (r *Repository) prepare(change Change, now time.Time) (*Ceremony, error) {
	c, err := r.begin()
	if err != nil {
		return nil, err
	}
	top, below := map[string]Role{}, map[string]Role{}
	for name, role := range change.Roles {
		switch {
		case c.root.Signed.Roles[name] != nil:
			top[name] = role
		case isDelegated(name):
			below[name] = role
		default:
			return nil, fault.New(fault.Usage, "there is no role %q", name)
		}
	}
	for _, name := range change.Renew {
		if name != Root && name != Targets && !isDelegated(name) {
			return nil, fault.New(fault.Usage, "%q can't be renewed by people", name).Hint("the server re-signs snapshot and timestamp; without one: sealpub refresh")
		}
	}
	targetsKeys := rootKeys(c.root, Targets)
	if slices.Contains(change.Renew, Root) || len(top) > 0 {
		d, err := r.DraftRoot(top, now)
		if err != nil {
			return nil, fault.New(fault.Usage, "%w", err)
		}
		c.steps = append(c.steps, d)
		targetsKeys = rootKeys(d.root, Targets)
	}
	stale := !count(targetsKeys.keys, targetsKeys.ids, targetsKeys.threshold, c.targets).Enough()
	above := c.targets
	if stale || slices.Contains(change.Renew, Targets) || len(below) > 0 {
		d, err := r.Draft(Targets, now)
		if err != nil {
			return nil, err
		}
		for name, role := range below {
			if err := d.Delegate(name, role); err != nil {
				return nil, fault.New(fault.Usage, "%w", err)
			}
		}
		c.steps = append(c.steps, d)
		above = d.targets
	}
	for _, d := range delegated {
		m, data, err := r.load(d.role)
		if err != nil {
			return nil, err
		}
		keys, err := delegatedKeys(above, d.role)
		if err != nil {
			return nil, err
		}
		if count(keys.keys, keys.ids, keys.threshold, m).Enough() && !slices.Contains(change.Renew, d.role) {
			continue
		}
		draft, err := r.Draft(d.role, now)
		if err != nil {
			return nil, err
		}
		c.steps, c.present[d.role] = append(c.steps, draft), data
	}
	if len(c.steps) == 0 {
		return nil, fault.New(fault.Usage, "there is nothing to change")
	}
	return c, c.link()
}

// PrepareList is a ceremony of one step: the draft of a list's metadata that
// names the list, for roles whose threshold needs several people.
func (r *Repository) PrepareList(d *Draft, list []byte) (*Ceremony, error) {
	c, err := r.begin()
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the list: %w", err)
	}
	_, data, err := r.load(d.role)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the list: %w", err)
	}
	c.steps, c.present[d.role], c.list = []*Draft{d}, data, list
	if err := c.link(); err != nil {
		return nil, fmt.Errorf("cannot prepare the list: %w", err)
	}
	return c, nil
}

// begin reads what a ceremony builds on.
func (r *Repository) begin() (*Ceremony, error) {
	c := &Ceremony{present: map[string][]byte{}}
	var err error
	if c.root, err = r.root(); err != nil {
		return nil, err
	}
	if c.rootRaw, err = r.RootBytes(); err != nil {
		return nil, err
	}
	if c.targets, err = r.inherited(Targets); err != nil {
		return nil, err
	}
	_, c.topRaw, err = r.load(Targets)
	return c, err
}

func isDelegated(role string) bool {
	return slices.ContainsFunc(delegated, func(d struct{ role, paths string }) bool { return d.role == role })
}

// link finds each step's keys in the steps before it, and checks that a step
// changes nothing but what Steps shows.
func (c *Ceremony) link() error {
	if len(c.steps) == 0 || len(c.steps) > 2+len(delegated) {
		return fmt.Errorf("a ceremony of %d steps", len(c.steps))
	}
	if want := fmt.Sprintf("%s-v%d", c.steps[0].role, c.steps[0].Version()); c.Name == "" {
		c.Name = want
	} else if c.Name != want {
		return fmt.Errorf("it is named %q, but is %s", c.Name, want)
	}
	root, targets := c.root, c.targets
	seen := map[string]bool{}
	for _, d := range c.steps {
		late := d.role == Root && len(seen) > 0 || d.role == Targets && len(seen) > 0 && !seen[Root]
		if seen[d.role] || late || d.role == Targets && len(seen) > 1 {
			return fmt.Errorf("step %s is out of order", d.role)
		}
		seen[d.role] = true
		switch d.role {
		case Root:
			if err := sameRoles(root, d.root); err != nil {
				return err
			}
			d.keys = []keySet{rootKeys(root, Root), rootKeys(d.root, Root)}
			root = d.root
		case Targets:
			if !sameDelegations(targets, d.targets, true) {
				return fault.New(fault.Seal, "it changes what the roles below targets may sign for")
			}
			d.keys = []keySet{rootKeys(root, Targets)}
			targets = d.targets
		default:
			if d.targets.Signed.Delegations != nil {
				return fault.New(fault.Seal, "%s delegates to others", d.role)
			}
			keys, err := delegatedKeys(targets, d.role)
			if err != nil {
				return err
			}
			d.keys = []keySet{keys}
		}
	}
	return nil
}

// sameRoles says whether a root differs from the one before in keys alone.
func sameRoles(a, b *metadata.Metadata[metadata.RootType]) error {
	if len(a.Signed.Roles) != len(b.Signed.Roles) || a.Signed.ConsistentSnapshot != b.Signed.ConsistentSnapshot {
		return fault.New(fault.Seal, "it is not a root of this catalog")
	}
	for name, role := range b.Signed.Roles {
		if a.Signed.Roles[name] == nil || role == nil || role.Threshold < 1 || role.Threshold > len(role.KeyIDs) {
			return fault.New(fault.Seal, "it names keys of %q that can't be", name)
		}
	}
	return nil
}

// sameDelegations reports whether two versions of targets delegate the same
// paths to the same roles; with other keys only if rekeyed.
func sameDelegations(a, b *metadata.Metadata[metadata.TargetsType], rekeyed bool) bool {
	form := func(m *metadata.Metadata[metadata.TargetsType]) string {
		d := m.Signed.Delegations
		if d == nil {
			return ""
		}
		shown := *d
		shown.Roles = slices.Clone(d.Roles)
		if rekeyed {
			shown.Keys = nil
			for i := range shown.Roles {
				shown.Roles[i].KeyIDs, shown.Roles[i].Threshold = nil, 0
			}
		}
		data, err := json.Marshal(shown)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	return form(a) == form(b)
}

// ParseCeremony reads a ceremony, and checks that the steps belong together
// and build on the metadata that came with them. That proves nothing else; the
// signer decides by Steps and List.
func ParseCeremony(data []byte) (*Ceremony, error) {
	c, err := parseCeremony(data)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "cannot read the ceremony: %w", err)
	}
	return c, nil
}

var ceremonyName = pattern.Lazy(`^(root|targets|recall|advice|rollout)-v[1-9][0-9]{0,17}$`)

// CheckCeremonyName says whether a name can be a ceremony's.
func CheckCeremonyName(name string) error {
	if !ceremonyName.MatchString(name) {
		return fmt.Errorf("%q can't be the name of a ceremony", name)
	}
	return nil
}

func parseCeremony(data []byte) (*Ceremony, error) {
	if len(data) > MaxCeremony {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(data), MaxCeremony)
	}
	var f ceremonyFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if f.Schema != ceremonySchema {
		return nil, fmt.Errorf("schema %q is not %q", f.Schema, ceremonySchema)
	}
	if err := CheckCeremonyName(f.Name); err != nil {
		return nil, err
	}
	c := &Ceremony{Name: f.Name, rootRaw: f.Root, topRaw: f.Targets, present: map[string][]byte{}}
	var err error
	if c.root, err = metadata.Root().FromBytes(f.Root); err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if err := c.root.VerifyDelegate(Root, c.root); err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	if c.targets, err = metadata.Targets().FromBytes(f.Targets); err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	for _, s := range f.Steps {
		d, err := c.read(s)
		if err != nil {
			return nil, err
		}
		c.steps = append(c.steps, d)
	}
	if err := c.link(); err != nil {
		return nil, err
	}
	if f.List == "" {
		return c, nil
	}
	c.list = []byte(f.List)
	return c, c.checkList()
}

func (c *Ceremony) read(s stepFile) (*Draft, error) {
	switch {
	case s.Role == Root:
		return readRootDraft(c.root, s.Draft)
	case s.Role == Targets:
		return readDraft(Targets, c.targets, keySet{}, s.Draft)
	case isDelegated(s.Role):
		present, err := metadata.Targets().FromBytes(s.Present)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Role, err)
		}
		c.present[s.Role] = s.Present
		return readDraft(s.Role, present, keySet{}, s.Draft)
	}
	return nil, fmt.Errorf("no ceremony is about %q", s.Role)
}

// checkList makes sure that the list shown is the one that is signed.
func (c *Ceremony) checkList() error {
	d := c.steps[0]
	if len(c.steps) != 1 || !isDelegated(d.role) {
		return fmt.Errorf("a list in a ceremony of %s", d.role)
	}
	added, _ := d.Changed()
	for _, t := range added {
		if want, err := Measure(t.Path, bytes.NewReader(c.list)); err == nil && want.SHA256 == t.SHA256 && want.Length == t.Length {
			return nil
		}
	}
	return fault.New(fault.Seal, "it shows a list that it does not publish")
}

// Encode is the ceremony's file.
func (c *Ceremony) Encode() ([]byte, error) {
	f := ceremonyFile{Schema: ceremonySchema, Name: c.Name, Root: c.rootRaw, Targets: c.topRaw, List: string(c.list)}
	for _, d := range c.steps {
		data, err := d.Encode()
		if err != nil {
			return nil, fmt.Errorf("cannot write the ceremony: %w", err)
		}
		f.Steps = append(f.Steps, stepFile{Role: d.role, Present: c.present[d.role], Draft: data})
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	err := enc.Encode(f)
	return out.Bytes(), err
}

// BuildsOn reports whether the ceremony builds on this root metadata.
func (c *Ceremony) BuildsOn(root []byte) (bool, error) {
	var mine, theirs bytes.Buffer
	if err := json.Compact(&mine, c.rootRaw); err != nil {
		return false, err
	}
	if err := json.Compact(&theirs, root); err != nil {
		return false, fmt.Errorf("cannot read the root metadata: %w", err)
	}
	return bytes.Equal(mine.Bytes(), theirs.Bytes()), nil
}

// List is the recall, advice or rollout list that the ceremony publishes, nil
// if none.
func (c *Ceremony) List() []byte { return c.list }

// Sign adds the signatures of those keys that count in any step, and returns
// their ids.
func (c *Ceremony) Sign(signers ...crypto.Signer) ([]string, error) {
	var all []string
	for _, d := range c.steps {
		ids, err := d.Sign(signers...)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Wanted lists the ids of all keys whose signature counts in any step.
func (c *Ceremony) Wanted() []string {
	var all []string
	for _, d := range c.steps {
		for _, k := range d.keys {
			all = append(all, k.ids...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Enough reports whether every step has the signatures that it needs.
func (c *Ceremony) Enough() bool {
	return !slices.ContainsFunc(c.steps, func(d *Draft) bool { return !d.Signed().Enough() })
}

// Perform publishes a ceremony that enough people signed, every step or, if the
// first can't be, none. Repeating it after a crash completes it. Devices see it
// after the next Refresh, but for a new root: that they see at once.
func (r *Repository) Perform(c *Ceremony) error {
	for _, d := range c.steps {
		if s := d.Signed(); !s.Enough() {
			return fault.New(fault.Refused, "cannot publish %s: %s version %d has %d of %d signatures", c.Name, d.role, d.Version(), s.Valid, s.Threshold).
				Hint("more of the %d who may must sign: sealpub sign", s.Keys)
		}
	}
	if c.list != nil {
		for _, t := range first(c.steps[0].Changed()) {
			if got, err := Measure(t.Path, bytes.NewReader(c.list)); err != nil || got.SHA256 != t.SHA256 {
				continue
			}
			if _, err := r.Store(t.Path, bytes.NewReader(c.list)); err != nil {
				return fmt.Errorf("cannot publish %s: %w", c.Name, err)
			}
		}
	}
	for _, d := range c.steps {
		data, err := d.Encode()
		if err != nil {
			return fmt.Errorf("cannot publish %s: %w", c.Name, err)
		}
		switch there, err := r.read(d.role, d.Version()); {
		case err == nil && bytes.Equal(there, data):
			continue // by a run that ended before it was done
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("cannot publish %s: %w", c.Name, err)
		}
		if err := r.Publish(d); err != nil {
			return err
		}
	}
	return nil
}

func first(added []Target, _ []string) []Target { return added }
