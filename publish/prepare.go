package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// Order is what a publisher asks for: one improvement.
type Order struct {
	ID          string
	Level       int    // 0: one more than the previous one's
	Previous    string // "" for the first
	Baseline    release.Digest
	Cryptexes   []Pair
	CVEs        []release.CVE // that this improvement is the first to fix; Since is filled in
	Severity    string
	Title, Text string
	Acknowledge []string // codes of findings that are meant
}

// Pair is one cryptex's two image files.
type Pair struct {
	Name     string
	Old, New string // paths
}

// Account is what Prepare found and made.
type Account struct {
	Manifest  release.Manifest
	Cryptexes []CryptexAccount
}

// CryptexAccount is the part of one cryptex.
type CryptexAccount struct {
	Name       string
	Comparison *Comparison
	Patch      int64 // bytes
	Antipatch  int64
	Shortcut   int64 // from the previous improvement's image; 0 if none
	Image      int64
}

// Findings are all findings, and those whose codes were not acknowledged.
func (a *Account) Findings(acknowledged []string) (all, open []Finding) {
	for _, c := range a.Cryptexes {
		for _, f := range c.Comparison.Findings {
			all = append(all, f)
			if !slices.Contains(acknowledged, f.Code) {
				open = append(open, f)
			}
		}
	}
	return all, open
}

// ErrFindings is the failure of a release that does what a security fix should
// not do. The account that comes with it tells what.
var ErrFindings = errors.New("the improvement changes what others rely on")

// Progress is told what is being done: a step's name, and bytes of how many.
type Progress func(step string, done, total int64)

// preparation is one run of Prepare.
type preparation struct {
	v        *Vendor
	ctx      context.Context
	order    Order
	progress Progress
	repo     *catalog.Repository
	base     release.Baseline
	previous *release.Manifest
	dir      string
	account  *Account
	targets  []catalog.Target
}

// Prepare makes a release and leaves it in prepared/ID, unsigned. With open
// findings it fails with ErrFindings and the account of them.
func (v *Vendor) Prepare(ctx context.Context, o Order, progress Progress) (*Account, *Bundle, error) {
	repo, err := v.Repository()
	if err != nil {
		return nil, nil, err
	}
	p := &preparation{v: v, ctx: ctx, order: o, progress: progress, repo: repo, account: &Account{}}
	if p.progress == nil {
		p.progress = func(string, int64, int64) {}
	}
	if err := p.check(); err != nil {
		return nil, nil, fmt.Errorf("cannot prepare %s: %w", o.ID, err)
	}
	p.dir = v.path(preparedName, o.ID)
	if err := os.RemoveAll(p.dir); err != nil {
		return nil, nil, fmt.Errorf("cannot prepare %s: %w", o.ID, err)
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "work"), 0o755); err != nil {
		return nil, nil, fmt.Errorf("cannot prepare %s: %w", o.ID, err)
	}
	b, err := p.run()
	if err != nil {
		os.RemoveAll(p.dir)
		return p.account, nil, fmt.Errorf("cannot prepare %s: %w", o.ID, err)
	}
	return p.account, b, os.RemoveAll(filepath.Join(p.dir, "work"))
}

// check is all that can be said before the images are read.
func (p *preparation) check() error {
	o := &p.order
	if err := release.CheckID(o.ID); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	if len(o.Cryptexes) == 0 {
		return fault.New(fault.Usage, "no cryptex is named").Hint("--cryptex web=OLD:NEW")
	}
	for _, code := range o.Acknowledge {
		if !slices.Contains(Codes(), code) {
			return fault.New(fault.Usage, "there is no finding %q to acknowledge (there are %s)", code, strings.Join(Codes(), ", "))
		}
	}
	var err error
	if p.base, err = p.repo.Baseline(o.Baseline); err != nil {
		return fault.New(fault.Usage, "the catalog has no baseline %.12s…: %w", o.Baseline, err).Hint("publish it first: sealpub release baseline")
	}
	if p.base.Product != p.v.Product {
		return fault.New(fault.Usage, "the baseline is for %s, not %s", p.base.Product, p.v.Product)
	}
	all, err := p.repo.Manifests()
	if err != nil {
		return err
	}
	recalls, err := p.repo.RecallList(p.v.Product)
	if err != nil {
		return err
	}
	highest := 0
	for i, m := range all {
		if m.ID == o.ID {
			return fault.New(fault.Usage, "the catalog has it already").Hint("an improvement never changes: take the next id")
		}
		if m.Baseline == o.Baseline {
			highest = max(highest, m.Level)
		}
		if m.ID == o.Previous {
			p.previous = &all[i]
		}
	}
	return p.checkPrevious(highest, recalls)
}

func (p *preparation) checkPrevious(highest int, recalls release.RecallList) error {
	o := &p.order
	if o.Previous == "" {
		o.Level = max(o.Level, 1)
		switch {
		case highest > 0:
			return fault.New(fault.Usage, "this baseline has improvements up to %s: the one before must be named", release.Label(highest)).Hint("--previous SI-…")
		case o.Level != 1:
			return fault.New(fault.Usage, "level %d needs the improvement before it", o.Level).Hint("--previous SI-…")
		}
		return nil
	}
	if p.previous == nil || p.previous.Baseline != o.Baseline {
		return fault.New(fault.Usage, "the catalog has no %s for this baseline", o.Previous)
	}
	if r, recalled := recalls.Find(o.Previous); recalled {
		return fault.New(fault.Usage, "%s was recalled (%s)", o.Previous, r.Reason).Hint("name the improvement before it as the previous one")
	}
	if o.Level == 0 {
		o.Level = highest + 1
	}
	if o.Level <= highest {
		return fault.New(fault.Usage, "level %d %s is taken on this baseline; the next is %d", o.Level, release.Label(o.Level), highest+1)
	}
	for _, c := range p.previous.Cryptexes {
		if !slices.ContainsFunc(o.Cryptexes, func(q Pair) bool { return q.Name == c.Name }) {
			return fault.New(fault.Usage, "%s improved %q too: improvements are cumulative", o.Previous, c.Name).Hint("add --cryptex %s=OLD:NEW", c.Name)
		}
	}
	return nil
}

func (p *preparation) run() (*Bundle, error) {
	o := p.order
	m := release.Manifest{
		Schema: release.ManifestSchema, ID: o.ID, Level: o.Level, Product: p.base.Product, OSVersion: p.base.OSVersion,
		Baseline: o.Baseline, Previous: o.Previous, Published: release.Time(p.v.now()), Severity: o.Severity, Title: o.Title, Text: o.Text,
	}
	var err error
	if m.CVEs, err = p.cves(); err != nil {
		return nil, err
	}
	sort.Slice(o.Cryptexes, func(i, j int) bool { return o.Cryptexes[i].Name < o.Cryptexes[j].Name })
	// Everything is compared before the first patch, which takes long, is made.
	var pairs []*opened
	defer func() {
		for _, q := range pairs {
			q.close()
		}
	}()
	for _, pair := range o.Cryptexes {
		q, err := p.open(pair)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, q)
		comparison, err := Compare(p.ctx, q.old, q.new, o.ID, m.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pair.Name, err)
		}
		p.account.Cryptexes = append(p.account.Cryptexes, CryptexAccount{Name: pair.Name, Comparison: comparison, Image: q.new.Size})
	}
	p.account.Manifest = m
	if _, open := p.account.Findings(o.Acknowledge); len(open) > 0 {
		return nil, fault.New(fault.Failed, "%w: %s", ErrFindings, codesOf(open)).Hint("change it, or say that it is meant: --acknowledge CODE")
	}
	for i, q := range pairs {
		c, err := p.patch(q, &p.account.Cryptexes[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.pair.Name, err)
		}
		m.Cryptexes = append(m.Cryptexes, c)
	}
	p.account.Manifest = m
	if _, err := m.Set(p.base); err != nil {
		return nil, err
	}
	return p.bundle(m)
}

// codesOf counts findings by code: "file-added (2), symbol-removed (1)".
func codesOf(findings []Finding) string {
	var parts []string
	for _, code := range Codes() {
		n := 0
		for _, f := range findings {
			if f.Code == code {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s (%d)", code, n))
		}
	}
	return strings.Join(parts, ", ")
}

// cves are the flaws fixed before and those fixed now. One that was fixed
// before keeps its Since; new words about it replace the old.
func (p *preparation) cves() ([]release.CVE, error) {
	all := []release.CVE{}
	if p.previous != nil {
		all = append(all, p.previous.CVEs...)
	}
	for _, c := range p.order.CVEs {
		c.Since = p.order.ID
		i := slices.IndexFunc(all, func(old release.CVE) bool { return old.ID == c.ID })
		if i < 0 {
			all = append(all, c)
			continue
		}
		if all[i].Since == p.order.ID {
			return nil, fault.New(fault.Usage, "%s is named twice", c.ID)
		}
		all[i].Exploited = all[i].Exploited || c.Exploited
		if c.Text != "" {
			all[i].Text = c.Text
		}
		if c.Credit != "" {
			all[i].Credit = c.Credit
		}
	}
	slices.SortFunc(all, func(a, b release.CVE) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// opened is a pair whose images were read and verified.
type opened struct {
	pair             Pair
	oldFile, newFile *source
	old, new         *image.Cryptex
	from, to         release.Image
}

func (q *opened) close() {
	for _, f := range []*source{q.oldFile, q.newFile} {
		if f != nil {
			f.Close()
		}
	}
}

// open opens and verifies a pair: the old image must be the baseline's.
func (p *preparation) open(pair Pair) (*opened, error) {
	want, ok := p.base.Cryptex(pair.Name)
	if !ok {
		return nil, fault.New(fault.Usage, "the baseline has no cryptex %q", pair.Name)
	}
	q := &opened{pair: pair}
	var err error
	q.oldFile, q.old, q.from, err = p.openImage(pair.Old)
	if err != nil {
		return nil, fmt.Errorf("%s: old image: %w", pair.Name, err)
	}
	q.newFile, q.new, q.to, err = p.openImage(pair.New)
	if err != nil {
		q.close()
		return nil, fmt.Errorf("%s: new image: %w", pair.Name, err)
	}
	switch {
	case q.from != want:
		err = fault.New(fault.Seal, "%s: %s is not the baseline's image (%.12s…, the baseline has %.12s…)", pair.Name, pair.Old, q.from.Digest, want.Digest)
	case q.to.Name != pair.Name || q.to.Subtype != want.Subtype:
		err = fault.New(fault.Usage, "%s: %s is the image of %s %q", pair.Name, pair.New, q.to.Subtype, q.to.Name)
	case q.to.Digest == q.from.Digest:
		err = fault.New(fault.Usage, "%s: the two images are the same", pair.Name)
	}
	if err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (p *preparation) openImage(name string) (*source, *image.Cryptex, release.Image, error) {
	f, err := openSource(name)
	if err != nil {
		return nil, nil, release.Image{}, err
	}
	c, img, err := Read(p.ctx, f, f.size, func(done, total int64) { p.progress("verify "+filepath.Base(name), done, total) })
	if err != nil {
		f.Close()
		return nil, nil, release.Image{}, err
	}
	return f, c, img, nil
}

// Read opens an image, verifies every byte of it, and says what it is.
func Read(ctx context.Context, r io.ReaderAt, size int64, progress func(done, total int64)) (*image.Cryptex, release.Image, error) {
	c, err := image.Open(r, size)
	if err != nil {
		return nil, release.Image{}, err
	}
	digest, err := c.VerifyDigest(ctx, progress)
	if err != nil {
		return nil, release.Image{}, err
	}
	return c, release.Image{
		Name: c.Name, Subtype: release.Subtype(c.Subtype), Digest: release.Digest(digest), Size: c.Size,
		Seal: release.Seal{
			Root: c.Seal.Root, Salt: c.Seal.Salt, DataBlocks: int64(c.Seal.DataBlocks), Digest: c.Seal.Digest(),
		},
		TrustCache: release.Digest(c.TrustCacheDigest),
	}, nil
}

// bundle writes the manifest and drafts the catalog's next version.
func (p *preparation) bundle(m release.Manifest) (*Bundle, error) {
	data, err := m.Encode()
	if err != nil {
		return nil, err
	}
	t, err := p.keep(release.ManifestPath(m.ID), bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	t.Custom = catalog.Note(m)
	p.targets = append(p.targets, t)
	b, err := p.v.newBundle(p.repo, m.ID, p.targets)
	if err != nil {
		return nil, err
	}
	b.Manifest, b.manifest = &m, data
	return b, b.Write(filepath.Join(p.dir, bundleName))
}

// bundleName is the bundle's name within prepared/ID.
const bundleName = "bundle.json"

// newBundle drafts the catalog's next version with more targets.
func (v *Vendor) newBundle(repo *catalog.Repository, name string, targets []catalog.Target) (*Bundle, error) {
	draft, err := repo.Draft(catalog.Targets, v.now())
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if err := draft.Set(t); err != nil {
			return nil, err
		}
	}
	b := &Bundle{Name: name, draft: draft}
	if b.root, err = repo.RootBytes(); err != nil {
		return nil, err
	}
	b.present, err = repo.Metadata(catalog.Targets)
	return b, err
}

// keep writes a target's content below prepared/ID.
func (p *preparation) keep(name string, content io.Reader) (catalog.Target, error) {
	return keep(p.dir, name, content)
}

func keep(dir, name string, content io.Reader) (catalog.Target, error) {
	file := filepath.Join(dir, "targets", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return catalog.Target{}, err
	}
	f, err := os.Create(file)
	if err != nil {
		return catalog.Target{}, err
	}
	defer f.Close()
	t, err := catalog.Measure(name, io.TeeReader(content, f))
	if err != nil {
		return catalog.Target{}, err
	}
	return t, f.Sync()
}

// source is an open regular file of known size.
type source struct {
	*os.File
	size int64
}

func (s *source) Size() int64 { return s.size }

func (s *source) reader() io.Reader { return io.NewSectionReader(s.File, 0, s.size) }

func openSource(name string) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the file: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fault.New(fault.Usage, "%s is no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &source{f, st.Size()}, nil
}
