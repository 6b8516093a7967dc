package device

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/ticket"
)

// VerifyOptions say what to verify: the device, or one ticket given as bytes.
type VerifyOptions struct {
	Ticket []byte `json:"ticket,omitempty"`
}

// Verified is what was found. Everything is checked, whatever is wrong before.
type Verified struct {
	Checks      []Finding      `json:"checks"`
	Ticket      []ticket.Field `json:"ticket,omitempty"` // decoded, when one was given
	Enforcement string         `json:"enforcement"`
	OK          bool           `json:"ok"`
}

// Finding is one check.
type Finding struct {
	What  string `json:"what"` // root, catalog, log, ticket, a cryptex, mounts, history
	OK    bool   `json:"ok"`
	Level string `json:"level"` // ok, warn, bad
	Text  string `json:"text"`
	Code  string `json:"reason"` // a name of internal/fault when it failed
}

func (v *Verified) add(what string, err error, format string, args ...any) {
	f := Finding{What: what, OK: err == nil, Level: "ok", Text: fmt.Sprintf(format, args...)}
	if err != nil {
		f.Level, f.Text, f.Code = "bad", err.Error(), fault.KindOf(err).String()
	}
	v.Checks = append(v.Checks, f)
}

func (v *Verified) warn(what, code, format string, args ...any) {
	v.Checks = append(v.Checks, Finding{What: what, OK: true, Level: "warn", Text: fmt.Sprintf(format, args...), Code: code})
}

// Kind is the kind of the first failed check; ok is false if there is none.
func (v Verified) Kind() (k fault.Kind, ok bool) {
	for _, c := range v.Checks {
		if !c.OK {
			return fault.Parse(c.Code), true
		}
	}
	return 0, false
}

// Verify checks everything that this device relies on, offline: the pinned
// roots, the catalog, the ticket of each set in force, every byte of every
// image, the mounts, the history.
func (d *Device) Verify(ctx context.Context, o VerifyOptions, report Report) (Verified, error) {
	e, why := d.enforcement()
	v := Verified{Checks: []Finding{}, Enforcement: string(e)}
	if _, err := d.enrolled(); err != nil {
		return v, err
	}
	if _, err := d.Store.Nonces(); errors.Is(err, os.ErrPermission) {
		return v, fault.New(fault.Failed, "cannot verify: %w", err).Hint("run it with sudo, or start the agent")
	}
	st, err := d.state()
	if err != nil {
		return v, err
	}
	if len(o.Ticket) > 0 {
		return v, d.verifyGiven(st, o.Ticket, &v)
	}
	d.verifyCatalog(&v)
	d.verifyLog(&v)
	if d.identityPlace() == IdentityTPM {
		v.add("nonces", activate.CheckNonces(d.Store), "no old copy, by the TPM's counter")
	}
	sets := d.inForce(st)
	for _, s := range sets {
		d.verifySet(st, s, &v)
	}
	if err := d.verifyImages(ctx, sets, &v, report); err != nil {
		return v, err
	}
	d.verifyMounts(&v)
	records, err := d.Store.History()
	v.add("history", err, "%d records whole", len(records))
	if e == activate.AtMount {
		v.warn("enforcement", "V2", "checked when mounted; later disk changes not caught (doctor V2): %s", why)
	}
	_, bad := v.Kind()
	v.OK = !bad
	return v, nil
}

// inForce are the sets that a boot may use now, each once.
func (d *Device) inForce(st state) []store.Set {
	var sets []store.Set
	seen := map[string]bool{}
	for _, s := range []*store.Set{st.next, st.current, st.base} {
		if s != nil && !seen[s.ID] && !st.inert(s) {
			seen[s.ID] = true
			sets = append(sets, *s)
		}
	}
	return sets
}

func (d *Device) verifyCatalog(v *Verified) {
	cat, err := d.catalog()
	if err != nil {
		v.add("catalog", err, "")
		return
	}
	text := fmt.Sprintf("%d", cat.RootVersion())
	if s, err := cat.Signed("root"); err == nil {
		text += fmt.Sprintf(" (%s)", signedText(s.Valid, s.Keys))
	}
	v.add("root", nil, "%s, pinned in base image", text)
	if cat.Version() == 0 {
		v.warn("catalog", "never", "never asked: sealant check")
		return
	}
	if cat.Clock().After(cat.Expires()) {
		v.add("catalog", fault.New(fault.Stale, "v%d expired on %s", cat.Version(), cat.Expires().UTC().Format("2006-01-02")), "")
		return
	}
	v.add("catalog", nil, "v%d ≥ highest seen · expires %s", cat.Version(), cat.Expires().UTC().Format("2006-01-02"))
}

// checkTicket verifies the ticket of a set in force, against all that it must
// say on this device.
func (d *Device) checkTicket(st state, set store.Set) (*ticket.Ticket, error) {
	images, err := d.imagesOf(st, set)
	if err != nil {
		return nil, err
	}
	want := ticket.Expect{Cryptexes: claims(images), Release: set.Release, OfBaseline: set.IsBaseline()}
	if !set.IsBaseline() {
		n, err := d.Store.Nonces()
		if err != nil {
			return nil, err
		}
		want.Nonce = n.Current()
		if st.next != nil && st.next.ID == set.ID {
			want.Nonce = n.Staged()
		}
	}
	return d.verifyTicket(set.Ticket, st.baseline, want)
}

// imagesOf are a set's images as its release names them, from the manifest
// that is kept, or for the baseline from the operating system.
func (d *Device) imagesOf(st state, set store.Set) ([]release.Image, error) {
	if set.IsBaseline() {
		return st.baseline.Cryptexes, nil
	}
	m, err := d.manifest(set.Release)
	if err != nil {
		return nil, err
	}
	return m.Set(st.baseline)
}

func (d *Device) verifySet(st state, set store.Set, v *Verified) {
	t, err := d.checkTicket(st, set)
	if err != nil {
		v.add("ticket", fmt.Errorf("%s: %w", setName(set), err), "")
		return
	}
	nonce := "nonce ours"
	if set.IsBaseline() {
		nonce = "no nonce: always bootable"
	}
	v.add("ticket", nil, "%s: this device · base %s · %s · key %s", setName(set), set.OSVersion, nonce, t.Leaf.Subject.CommonName)
}

// verifyImages reads every byte of every image that a boot may use.
func (d *Device) verifyImages(ctx context.Context, sets []store.Set, v *Verified, report Report) error {
	seen := map[store.Digest]bool{}
	for _, set := range sets {
		for _, c := range set.Cryptexes {
			if seen[c.Image] {
				continue
			}
			seen[c.Image] = true
			entries, err := d.verifyImage(ctx, c, report)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.add(c.Name, err, "%s: seal = ticket (all bytes read) · trust cache %d", setName(set), entries)
		}
	}
	return nil
}

func (d *Device) verifyImage(ctx context.Context, c store.Cryptex, report Report) (entries int, err error) {
	path := d.Store.ImagePath(c.Image)
	fail := func(err error) (int, error) {
		return 0, fault.New(fault.Seal, "%s: %w", path, err).Hint("sealant install makes it anew")
	}
	f, err := d.Store.OpenImage(c.Image)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	x, err := image.Open(f, fi.Size())
	if err != nil {
		return fail(err)
	}
	got, err := x.VerifyDigest(ctx, report.progress("verify "+c.Name))
	if err != nil {
		return fail(err)
	}
	if store.Digest(got) != c.Image || x.Seal.Root != c.Seal.Root || store.Digest(x.TrustCacheDigest) != c.TrustCache {
		return fail(errors.New("its digest, seal or trust cache is not the ticket's"))
	}
	cache, err := x.TrustCache()
	if err != nil {
		return fail(err)
	}
	return len(cache.Entries), nil
}

func (d *Device) verifyMounts(v *Verified) {
	set := d.bootedSet()
	u, err := d.usage()
	if err != nil {
		v.add("mounts", err, "")
		return
	}
	good := 0
	for _, c := range set.Cryptexes {
		if _, same := u.mounted(c); same {
			good++
		}
	}
	if good < len(set.Cryptexes) {
		v.add("mounts", fault.New(fault.Seal, "%d of %d are the verified files", good, len(set.Cryptexes)), "")
		return
	}
	text := "%d of %d are the verified files"
	if v.Enforcement == string(activate.Kernel) {
		text += ", read through their seals"
	}
	err = d.verifyGuards(set)
	if damaged := d.damage(); err == nil && len(damaged) > 0 {
		err = fault.New(fault.Seal, "the kernel refused to read damaged blocks of %s", strings.Join(damaged, ", ")).Hint("sealant install makes it anew")
	}
	v.add("mounts", err, text, good, len(set.Cryptexes))
}

// verifyGiven decodes one ticket and checks what can be checked of it here.
func (d *Device) verifyGiven(st state, der []byte, v *Verified) error {
	t, err := ticket.Parse(der)
	if err != nil {
		return err
	}
	v.Ticket = t.Describe()
	c := t.Claims
	id, err := d.id()
	if err != nil {
		return err
	}
	check := func(what string, ok bool, good, bad string) {
		if ok {
			v.add(what, nil, "%s", good)
			return
		}
		v.add(what, fault.New(fault.Ticket, "%s", bad), "")
	}
	root, err := d.ticketRoot()
	if err != nil {
		return err
	}
	check("device", c.Device == id, "this device", "another device's: "+hex.EncodeToString(c.Device[:4])+"…")
	check("product", c.Product == st.baseline.Product, c.Product, "another product's: "+c.Product)
	check("baseline", c.Baseline == st.digest, "base "+st.baseline.OSVersion, "for another baseline")
	if c.Domain != ticket.Domain {
		check("domain", false, "", "its nonce is of another domain")
	}
	if !t.OfBaseline() {
		n, nerr := d.Store.Nonces()
		if nerr != nil {
			return nerr
		}
		next, _ := n.Prerolled()
		check("nonce", c.Nonce == n.Current() || c.Nonce == next, "ours, in force", "not in force: it was used up, or is another device's")
	}
	v.add("signature", t.Authentic(root), "by %s under the pinned root", t.Leaf.Subject.CommonName)
	_, failed := v.Kind()
	v.OK = !failed
	return nil
}
