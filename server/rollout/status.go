package rollout

import (
	"context"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/store"
)

// Status is how far a release has come, as far as a server can know: it knows
// what it signed, and devices tell it nothing more about themselves.
type Status struct {
	Release   release.Manifest
	Ring      release.Ring
	Begun     bool      // the rollout was started
	Paused    time.Time // zero: not paused
	Recalled  *release.Recall
	Devices   int64 // enrolled, not blocked, and on its baseline
	Offered   int64 // of those, the ones in the ring
	Ever      int64 // devices that ever got a ticket for it
	Now       int64 // devices whose latest ticket is for it
	TakenBack int64 // of Ever, the ones that have asked for another set since
	Silent    int64 // of Now, the ones not seen for a week
}

// silent is after how long without a request a device counts as silent.
const silent = 7 * 24 * time.Hour

// Status counts the fleet for one release.
func (d *Desk) Status(ctx context.Context, id string) (Status, error) {
	view, m, err := d.find(ctx, id)
	if err != nil {
		return Status{}, err
	}
	s := Status{Release: m}
	s.Ring, s.Begun = view.Rollout.Find(id)
	if e, ok := view.Recall.Find(id); ok {
		s.Recalled = &e
	}
	if s.Paused, err = d.DB.Paused(ctx, id); err != nil {
		return s, err
	}
	if s.Ever, s.Now, err = d.DB.DevicesOf(ctx, id); err != nil {
		return s, err
	}
	s.TakenBack = s.Ever - s.Now
	now := d.Now()
	err = d.DB.EachDevice(ctx, store.Filter{Product: m.Product}, func(v store.Device) error {
		if v.Release == id && now.Sub(v.Seen) > silent {
			s.Silent++
		}
		if !v.Blocked.IsZero() || v.Baseline != m.Baseline {
			return nil
		}
		s.Devices++
		if view.Rollout.Offers(v.ID, id) {
			s.Offered++
		}
		return nil
	})
	return s, err
}
