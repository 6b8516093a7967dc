package catalog

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// maxDocument is the largest target that is read into memory.
const maxDocument = 1 << 20

// ErrNoTarget says that the catalog, verified and whole, does not name a file.
// It is not the error of a named file whose bytes are missing.
var ErrNoTarget = errors.New("the catalog has no")

// note is what a manifest's target says about it in its custom field, so that
// a device fetches only the manifests that are for its baseline.
type note struct {
	Baseline release.Digest `json:"baseline"`
	Level    int            `json:"level"`
}

// Note is the Custom of a manifest's target.
func Note(m release.Manifest) json.RawMessage {
	data, err := json.Marshal(note{Baseline: m.Baseline, Level: m.Level})
	if err != nil {
		return nil
	}
	return data
}

// Target finds a published file in the role that may sign for its path.
func (r *Repository) Target(name string) (Target, error) {
	m, _, err := r.targets(roleFor(name))
	if err != nil {
		return Target{}, err
	}
	f, ok := m.Signed.Targets[name]
	if !ok {
		return Target{}, fmt.Errorf("%w %s", ErrNoTarget, name)
	}
	return targetOf(name, f)
}

// roleFor is the role that signs for a path in the catalogs that Create makes.
func roleFor(name string) string {
	for _, d := range delegated {
		if strings.HasPrefix(name, strings.TrimSuffix(d.paths, "*")) {
			return d.role
		}
	}
	return Targets
}

// Open opens a published file of any size. Its bytes are not checked.
func (r *Repository) Open(name string) (*os.File, error) {
	t, err := r.Target(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(r.dir, filepath.FromSlash(t.Remote)))
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", name, err)
	}
	return f, nil
}

// Metadata returns the newest metadata of targets, or of a role below it,
// verified: what ParseDraft needs on a machine without the catalog.
func (r *Repository) Metadata(role string) ([]byte, error) {
	_, data, err := r.targets(role)
	return data, err
}

// Read returns a published document of at most 1 MiB, its hash checked.
func (r *Repository) Read(name string) ([]byte, error) {
	t, err := r.Target(name)
	if err != nil {
		return nil, err
	}
	if t.Length > maxDocument {
		return nil, fmt.Errorf("cannot read %s: %d bytes, the limit is %d", name, t.Length, maxDocument)
	}
	data, err := readFile(filepath.Join(r.dir, filepath.FromSlash(t.Remote)), t.Length)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if sha256.Sum256(data) != t.SHA256 {
		return nil, fault.New(fault.Seal, "cannot read %s: its content is not what was signed", name)
	}
	return data, nil
}

// Manifest returns a published manifest.
func (r *Repository) Manifest(id string) (release.Manifest, error) {
	data, err := r.Read(release.ManifestPath(id))
	if err != nil {
		return release.Manifest{}, err
	}
	return release.ParseManifest(data)
}

// Baseline returns a published baseline.
func (r *Repository) Baseline(d release.Digest) (release.Baseline, error) {
	data, err := r.Read(release.BaselinePath(d))
	if err != nil {
		return release.Baseline{}, err
	}
	return release.ParseBaseline(data)
}

// Manifests returns every published manifest, by id.
func (r *Repository) Manifests() ([]release.Manifest, error) {
	return collect(r, "releases/", release.ParseManifest)
}

// Baselines returns every published baseline, in no particular order.
func (r *Repository) Baselines() ([]release.Baseline, error) {
	return collect(r, "baselines/", release.ParseBaseline)
}

func collect[T any](r *Repository, prefix string, parse func([]byte) (T, error)) ([]T, error) {
	m, _, err := r.targets(Targets)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range m.Signed.Targets {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var all []T
	for _, name := range names {
		data, err := r.Read(name)
		if err != nil {
			return nil, err
		}
		v, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// RecallList returns the published recall list; its Version is 0 if there is
// none yet, and With makes the first from it.
func (r *Repository) RecallList(product string) (release.RecallList, error) {
	data, err := r.Read(release.RecallPath)
	if errors.Is(err, ErrNoTarget) {
		return release.RecallList{Schema: release.RecallSchema, Product: product, Entries: []release.Recall{}}, nil
	}
	if err != nil {
		return release.RecallList{}, err
	}
	return release.ParseRecallList(data)
}

// AdviceList returns the published advice list, with Version 0 if none.
func (r *Repository) AdviceList(product string) (release.AdviceList, error) {
	data, err := r.Read(release.AdvicePath)
	if errors.Is(err, ErrNoTarget) {
		return release.AdviceList{Schema: release.AdviceSchema, Product: product, Entries: []release.Advice{}}, nil
	}
	if err != nil {
		return release.AdviceList{}, err
	}
	return release.ParseAdviceList(data)
}

// Rollout returns the published rollout list, with Version 0 if none.
func (r *Repository) Rollout(product string) (release.Rollout, error) {
	data, err := r.Read(release.RolloutPath)
	if errors.Is(err, ErrNoTarget) {
		return release.Rollout{Schema: release.RolloutSchema, Product: product, Entries: []release.Ring{}}, nil
	}
	if err != nil {
		return release.Rollout{}, err
	}
	return release.ParseRollout(data)
}

// PublishRecall signs and publishes a recall list. Refresh shows it.
func (r *Repository) PublishRecall(l release.RecallList, signers []crypto.Signer, now time.Time) error {
	return r.publishList(Recall, release.RecallPath, l, signers, now)
}

// PublishAdvice signs and publishes an advice list. Refresh shows it.
func (r *Repository) PublishAdvice(l release.AdviceList, signers []crypto.Signer, now time.Time) error {
	return r.publishList(Advice, release.AdvicePath, l, signers, now)
}

// PublishRollout signs and publishes a rollout list. Refresh shows it.
func (r *Repository) PublishRollout(l release.Rollout, signers []crypto.Signer, now time.Time) error {
	return r.publishList(Rollout, release.RolloutPath, l, signers, now)
}

func (r *Repository) publishList(role, name string, l interface{ Encode() ([]byte, error) }, signers []crypto.Signer, now time.Time) error {
	d, err := r.DraftList(role, name, l, now)
	if err != nil {
		return err
	}
	if _, err := d.Sign(signers...); err != nil {
		return fmt.Errorf("cannot publish %s: %w", name, err)
	}
	return r.Publish(d)
}

// DraftList stores a list and drafts the metadata that names it, for roles
// whose threshold needs several people.
func (r *Repository) DraftList(role, name string, l interface{ Encode() ([]byte, error) }, now time.Time) (*Draft, error) {
	if roleFor(name) != role {
		return nil, fmt.Errorf("cannot publish %s: role %s may not sign for it", name, role)
	}
	data, err := l.Encode()
	if err != nil {
		return nil, err
	}
	t, err := r.Store(name, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	d, err := r.Draft(role, now)
	if err != nil {
		return nil, err
	}
	// After the draft began: whoever publishes from here on makes it void.
	if err := r.succeeds(name, data); err != nil {
		return nil, err
	}
	return d, d.Set(t)
}

// succeeds says whether a list is the next version of the published one. If not
// somebody changed the list since it was read, and their change would be lost.
func (r *Repository) succeeds(name string, list []byte) error {
	var next, present struct {
		Version int64 `json:"version"`
	}
	if err := json.Unmarshal(list, &next); err != nil {
		return fmt.Errorf("cannot publish %s: %w", name, err)
	}
	data, err := r.Read(name)
	switch {
	case errors.Is(err, ErrNoTarget):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, &present); err != nil {
			return fmt.Errorf("cannot publish %s: %w", name, err)
		}
	}
	if next.Version != present.Version+1 {
		return fault.New(fault.Busy, "cannot publish %s version %d: version %d stands in the catalog", name, next.Version, present.Version).
			Hint("somebody changed it meanwhile: read it again")
	}
	return nil
}
