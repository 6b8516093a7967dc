package publish

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// bundleSchema names the form of a bundle.
const bundleSchema = "sealant.bundle/1"

// MaxBundle is the largest bundle, in bytes.
const MaxBundle = 64 << 20

// Bundle is a prepared publication that gathers signatures: small enough for a
// stick, complete enough for a machine that has nothing else. The files that it
// publishes stay behind; it names them by their hashes.
type Bundle struct {
	Name     string            // the improvement's id, or "baseline-" and the start of its digest
	Manifest *release.Manifest // nil for a baseline

	root, present []byte // TUF metadata that the draft builds on
	draft         *catalog.Draft
	manifest      []byte
}

type bundleFile struct {
	Schema   string          `json:"schema"`
	Name     string          `json:"name"`
	Manifest string          `json:"manifest"` // the document's bytes, as text
	Root     json.RawMessage `json:"root"`
	Present  json.RawMessage `json:"present"`
	Draft    json.RawMessage `json:"draft"`
}

// ParseBundle reads a bundle, and checks that what it shows to a signer is what
// would be signed.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("cannot read the bundle: %d bytes, the limit is %d", len(data), MaxBundle)
	}
	var f bundleFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("cannot read the bundle: %w", err)
	}
	if f.Schema != bundleSchema {
		return nil, fmt.Errorf("cannot read the bundle: schema %q is not %q", f.Schema, bundleSchema)
	}
	if release.CheckID(f.Name) != nil && !strings.HasPrefix(f.Name, baselinePrefix) {
		return nil, fmt.Errorf("cannot read the bundle: impossible name %q", f.Name)
	}
	draft, err := catalog.ParseDraft(f.Root, f.Present, f.Draft)
	if err != nil {
		return nil, fmt.Errorf("cannot read the bundle: %w", err)
	}
	b := &Bundle{Name: f.Name, root: f.Root, present: f.Present, draft: draft}
	if f.Manifest == "" {
		return b, nil
	}
	m, err := release.ParseManifest([]byte(f.Manifest))
	if err != nil {
		return nil, fmt.Errorf("cannot read the bundle: %w", err)
	}
	b.Manifest, b.manifest = &m, []byte(f.Manifest)
	return b, b.check()
}

// check makes sure that the manifest shown is the one that the draft names.
func (b *Bundle) check() error {
	want, err := catalog.Measure(release.ManifestPath(b.Manifest.ID), bytes.NewReader(b.manifest))
	if err != nil {
		return err
	}
	added, _ := b.draft.Changed()
	for _, t := range added {
		if t.Path == want.Path && t.SHA256 == want.SHA256 && t.Length == want.Length {
			return nil
		}
	}
	return fault.New(fault.Seal, "cannot read the bundle: it shows a manifest of %s that it does not publish", b.Manifest.ID)
}

// Encode is the bundle's bytes.
func (b *Bundle) Encode() ([]byte, error) {
	draft, err := b.draft.Encode()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	err = enc.Encode(bundleFile{
		Schema: bundleSchema, Name: b.Name, Manifest: string(b.manifest),
		Root: b.root, Present: b.present, Draft: draft,
	})
	return out.Bytes(), err
}

// ReadBundle reads a bundle's file.
func ReadBundle(name string) (*Bundle, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the bundle: %w", err)
	}
	if st.Size() > MaxBundle {
		return nil, fmt.Errorf("cannot read the bundle: %d bytes, the limit is %d", st.Size(), MaxBundle)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the bundle: %w", err)
	}
	return ParseBundle(data)
}

// Write writes the bundle's file, whole or not at all.
func (b *Bundle) Write(name string) error {
	data, err := b.Encode()
	if err != nil {
		return fmt.Errorf("cannot write the bundle: %w", err)
	}
	if err := writeFile(name, data, 0o644); err != nil {
		return fmt.Errorf("cannot write the bundle: %w", err)
	}
	return nil
}

// Changes lists the paths that signing publishes or takes away.
func (b *Bundle) Changes() (added []catalog.Target, removed []string) { return b.draft.Changed() }

// Sign adds the signatures of those keys that count, and returns their ids.
func (b *Bundle) Sign(signers ...crypto.Signer) ([]string, error) { return b.draft.Sign(signers...) }

// Signed tells how far the bundle is signed.
func (b *Bundle) Signed() catalog.Signed { return b.draft.Signed() }

// BuildsOn reports whether the bundle builds on this root metadata.
func (b *Bundle) BuildsOn(root []byte) (bool, error) {
	var mine, theirs bytes.Buffer
	if err := json.Compact(&mine, b.root); err != nil {
		return false, err
	}
	if err := json.Compact(&theirs, root); err != nil {
		return false, fmt.Errorf("cannot read the root metadata: %w", err)
	}
	return bytes.Equal(mine.Bytes(), theirs.Bytes()), nil
}
