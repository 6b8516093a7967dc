package device

import (
	"context"
	"time"

	"github.com/sealant-os/sealant/device/gate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/ticket"
)

// CheckOptions are what a check may do.
type CheckOptions struct {
	// DryRun asks for news, but takes nothing back that was recalled.
	DryRun bool `json:"dry_run"`
}

// Checked is what a check found.
type Checked struct {
	Catalog   int64         `json:"catalog_version"`
	Signed    string        `json:"signed"` // "2 of 3"
	Expires   time.Time     `json:"expires"`
	Release   string        `json:"release,omitempty"` // the newest improvement for this baseline
	Name      string        `json:"name,omitempty"`    // "42.3 (b)"
	Title     string        `json:"title,omitempty"`
	Severity  string        `json:"severity,omitempty"`
	Exploited bool          `json:"exploited,omitempty"`
	CVEs      int           `json:"cves,omitempty"`
	Download  int64         `json:"download_bytes,omitempty"`
	Images    int64         `json:"image_bytes,omitempty"`
	State     string        `json:"state"` // available, not-eligible, staged, active, none
	Gates     []gate.Result `json:"gates"`
	Recall    *Recalled     `json:"recall,omitempty"` // what this check took back
}

// The states of the newest improvement on this device.
const (
	StateNone      = "none"         // the vendor has none for this baseline
	StateAvailable = "available"    // every gate is open
	StateClosed    = "not-eligible" // some gate is closed
	StateStaged    = "staged"
	StateActive    = "active" // booted into
)

// Check asks for news: it refreshes the catalog, takes back what was recalled,
// and says of the newest improvement which gates are open. It installs nothing.
func (d *Device) Check(ctx context.Context, o CheckOptions, report Report) (Checked, error) {
	done, err := d.begin(ctx, report)
	if err != nil {
		return Checked{}, err
	}
	defer done()
	return d.check(ctx, o, report)
}

func (d *Device) check(ctx context.Context, o CheckOptions, report Report) (Checked, error) {
	cat, err := d.refreshed(ctx)
	if err != nil {
		return Checked{}, err
	}
	if err := d.followBaseline(ctx, report); err != nil {
		return Checked{}, err
	}
	res := Checked{Catalog: cat.Version(), Expires: cat.Expires(), State: StateNone, Gates: []gate.Result{}}
	if s, err := cat.Signed("targets"); err == nil {
		res.Signed = signedText(s.Valid, s.Keys)
	}
	if !o.DryRun {
		if res.Recall, err = d.followRecall(ctx, cat, report); err != nil {
			return res, err
		}
	}
	st, err := d.state()
	if err != nil {
		return res, err
	}
	best, err := d.newestOffer(ctx, cat, st, asking{person: true})
	if err != nil || best == nil {
		return res, err
	}
	m := best.manifest
	res.Release, res.Name, res.Title, res.Severity, res.Exploited = m.ID, m.Name(), m.Title, m.Severity, m.Exploited()
	res.CVEs, res.Download, res.Images, res.Gates = len(m.CVEs), best.download, best.images, best.gates
	switch {
	case already(st.next, m):
		res.State = StateStaged
	case already(st.current, m) && st.next == nil:
		res.State = StateActive
	case best.err() == nil:
		res.State = StateAvailable
	default:
		res.State = StateClosed
	}
	return res, nil
}

// Answer is the exit code that tells a script what a check found: nil where
// there is nothing to do.
func (c Checked) Answer() fault.Kind {
	if c.Recall != nil && c.Recall.State != "declined" {
		return fault.Recalled
	}
	switch c.State {
	case StateAvailable:
		return fault.Available
	case StateStaged:
		return fault.Restart
	case StateClosed:
		for _, g := range c.Gates {
			if !g.Open {
				return kindOf(g)
			}
		}
	}
	return 0
}

// kindOf is the kind of a closed gate, also of one that came over the wire.
func kindOf(g gate.Result) fault.Kind {
	if g.Kind != 0 {
		return g.Kind
	}
	return gate.KindOf(g.Code)
}

// followBaseline notices an OS update: what was made for the old baseline is
// inert (sealant-boot did not use it); now it is tidied away, and the new
// baseline gets its ticket.
func (d *Device) followBaseline(ctx context.Context, report Report) error {
	st, err := d.state()
	if err != nil {
		return err
	}
	if st.base != nil && !st.inert(st.base) {
		return nil
	}
	if err := d.linkBase(ctx, st.baseline, nil); err != nil {
		return err
	}
	der, err := d.ticket(ctx, st.baseline, "", [48]byte{})
	if err != nil {
		return err
	}
	if _, err := d.verifyTicket(der, st.baseline, ticket.Expect{OfBaseline: true, Cryptexes: claims(st.baseline.Cryptexes)}); err != nil {
		return err
	}
	was := ""
	if st.current != nil {
		was = setName(*st.current)
	}
	if err := d.Store.Point(store.Next, ""); err != nil {
		return err
	}
	n, err := d.Store.Nonces()
	if err != nil {
		return err
	}
	// What was staged or current for the old system must never come back.
	// Each step is written down by itself, as the TPM counts it.
	if err := d.writeNonces(n.Discard()); err != nil {
		return err
	}
	if n, err = d.preroll(); err != nil {
		return err
	}
	if n, err = n.Confirm(); err != nil {
		return err
	}
	if err := d.writeNonces(n); err != nil {
		return err
	}
	if err := d.Store.Point(store.Previous, ""); err != nil {
		return err
	}
	// Base is switched last: as long as it is the old one this is done again.
	if err := d.adoptBaseline(st.baseline, der); err != nil {
		return err
	}
	name := release.DisplayVersion(st.baseline.OSVersion)
	report.note("baseline", "the operating system is now %s; improvements of %s are inert and tidied away", name, was)
	if err := d.Store.Append(store.Record{
		Time: d.Now(), Event: "baseline", Set: d.Store.SlotID(store.Base), Reason: "os-update", Actor: string(Auto),
		Text: "the operating system is now " + name + ", it was " + was,
	}); err != nil {
		return err
	}
	return d.tidy()
}
