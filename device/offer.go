package device

import (
	"context"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/build"
	"github.com/sealant-os/sealant/device/gate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// offer is one improvement with every gate's answer.
type offer struct {
	manifest release.Manifest
	gates    []gate.Result
	download int64 // bytes that are still to be downloaded
	images   int64 // bytes of the improved images
}

// err is the first closed gate.
func (o offer) err() error { return gate.First(o.gates) }

// newest finds the newest improvement for the installed baseline that was not
// recalled; if all were, the newest of all, so that a person is told why.
// ok is false if there is none at all.
func newest(ctx context.Context, cat *catalog.Client, baseline release.Digest) (m release.Manifest, ok bool, err error) {
	all, err := cat.Manifests(ctx, baseline)
	if err != nil || len(all) == 0 {
		return m, false, err
	}
	recalls, err := cat.RecallList(ctx)
	if err != nil {
		return m, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if _, recalled := recalls.Find(all[i].ID); !recalled {
			return all[i], true, nil
		}
	}
	return all[len(all)-1], true, nil
}

// asking is who asks for an installation, and for what.
type asking struct {
	person bool // not automatic
	again  bool // a reapply: it was offered before, its hold ends
}

// consider asks every gate about an improvement.
func (d *Device) consider(ctx context.Context, cat *catalog.Client, st state, m release.Manifest, by asking) (offer, error) {
	o := offer{manifest: m}
	id, err := d.id()
	if err != nil {
		return o, err
	}
	recalls, err := cat.RecallList(ctx)
	if err != nil {
		return o, err
	}
	rollout, err := cat.Rollout(ctx)
	if err != nil {
		return o, err
	}
	f := gate.Facts{
		Now: cat.Clock(), Device: id, Product: st.baseline.Product, Baseline: st.digest, Policy: d.Config.Policy,
		Asked: by.person, Toggle: d.automaticOn(), Deadline: d.Config.Set("install.deadline"), Power: gate.ReadPower(d.Store.Root()),
		Metered: gate.Metered(ctx, d.Store.Root(), d.Config.Agent.Metered), Manifest: m, Recalls: recalls, Rollout: rollout, Again: by.again,
		Urgent: urgent(st, m), Kernel: activate.Enforced() == activate.Kernel,
	}
	if !by.again {
		all, err := d.Holds()
		if err != nil {
			return o, err
		}
		f.Held = held(all, m)
	}
	if f.Free, f.Where, err = d.Store.Free(); err != nil {
		return o, err
	}
	f.Download, f.Need = d.needs(m)
	o.download = f.Download
	for _, c := range m.Cryptexes {
		o.images += c.To.Size
	}
	o.gates = gate.Check(f)
	return o, nil
}

// needs is what an installation has to download and the room it takes: the new
// images, the downloads, and one baseline image to try the antipatch on.
func (d *Device) needs(m release.Manifest) (download, room int64) {
	const records = 2 << 20 // journal, set, history
	var scratch int64
	for _, c := range m.Cryptexes {
		for kind, f := range map[store.PatchKind]release.File{store.Patch: c.Patch, store.Antipatch: c.Antipatch} {
			if p, err := d.Store.OpenPatch(m.ID, c.Name, kind); err == nil {
				p.Close()
				continue
			}
			download += build.Missing(d.Store, f)
		}
		if !d.Store.HasImage(store.Digest(c.To.Digest)) {
			room += c.To.Size
		}
		scratch = max(scratch, c.From.Size)
	}
	return download, room + download + scratch + records
}

// urgent says whether an improvement closes a flaw with known attacks that is
// open on this device.
func urgent(st state, m release.Manifest) bool {
	level := 0
	if r := st.running(); r != nil {
		level = r.Level
	}
	for _, c := range m.CVEs {
		if c.Exploited && (level == 0 || c.Since == m.ID) {
			return true
		}
	}
	return false
}

// newestOffer is the newest improvement with its gates; nil if there is none.
func (d *Device) newestOffer(ctx context.Context, cat *catalog.Client, st state, by asking) (*offer, error) {
	m, ok, err := newest(ctx, cat, st.digest)
	if err != nil || !ok {
		return nil, err
	}
	o, err := d.consider(ctx, cat, st, m, by)
	return &o, err
}

// already says whether a set is at least as new as an improvement.
func already(s *store.Set, m release.Manifest) bool {
	return s != nil && !s.IsBaseline() && release.Digest(s.Baseline) == m.Baseline && s.Level >= m.Level
}

// errNothing says that the vendor has no improvement for this baseline.
func errNothing(st state) error {
	return fault.New(fault.NotEligible, "there is no improvement for %s %s", st.baseline.Product, release.DisplayVersion(st.baseline.OSVersion)).
		Hint("nothing is wrong: this device has the newest")
}
