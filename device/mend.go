package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/build"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// Mended is what became of damage that the kernel found.
type Mended struct {
	Damaged  []string `json:"damaged"`  // cryptexes of which the kernel refused to read a block
	Repaired []string `json:"repaired"` // those whose images were made anew
}

// Mend looks for content of which the kernel refused to read a block, makes its
// image anew from what is kept or from the vendor, and attaches it in the place
// of the damaged one. Who has files of the damaged one open keeps them: an app
// gets the good ones when it is relaunched.
func (d *Device) Mend(ctx context.Context, report Report) (Mended, error) {
	res := Mended{Damaged: []string{}, Repaired: []string{}}
	done, err := d.begin(ctx, report)
	if err != nil {
		return res, err
	}
	defer done()
	list, err := activate.Damaged(d.Store)
	if err != nil || len(list) == 0 {
		return res, err
	}
	for _, c := range list {
		res.Damaged = append(res.Damaged, c.Name)
		if err := d.tellDamage(c, report); err != nil {
			return res, err
		}
	}
	cat, err := d.refreshed(ctx)
	if err != nil {
		if cat, err = d.catalog(); err != nil {
			return res, err
		}
	}
	for _, c := range list {
		if build.Intact(ctx, d.Store, release.Digest(c.Image)) {
			continue // the disk gave wrong bytes, and now right ones
		}
		if err := d.remake(ctx, cat, c, report); err != nil {
			return res, err
		}
		res.Repaired = append(res.Repaired, c.Name)
	}
	return res, d.attachAgain(ctx, report)
}

// tellDamage writes damage into the history, once for each image and boot.
func (d *Device) tellDamage(c present.Content, report Report) error {
	text := fmt.Sprintf("the kernel refused to read damaged blocks of %s (%.12s…)", c.Name, c.Image)
	report.warn("damaged", "%s", text)
	records, err := d.Store.History()
	if err != nil {
		return err
	}
	for i := len(records) - 1; i >= 0 && records[i].Event != "confirmed"; i-- {
		if records[i].Event == "damaged" && records[i].Text == text {
			return nil
		}
	}
	r := store.Record{Time: d.Now(), Event: "damaged", Set: d.Store.SlotID(store.Current), Reason: fault.Seal.String(), Actor: string(Auto), Text: text}
	if set, err := d.Store.Slot(store.Current); err == nil {
		r.Release = set.Release
	}
	return d.Store.Append(r)
}

// remake makes a damaged image anew: that of an improvement as it was made, that
// of the baseline from the vendor.
func (d *Device) remake(ctx context.Context, cat *catalog.Client, c present.Content, report Report) error {
	st, err := d.state()
	if err != nil {
		return err
	}
	for _, set := range d.inForce(st) {
		if set.IsBaseline() {
			continue
		}
		m, err := d.manifest(set.Release)
		if err != nil {
			continue
		}
		for _, change := range m.Cryptexes {
			if store.Digest(change.To.Digest) == c.Image {
				var made Installed
				return d.repair(ctx, cat, set, m, &made, Auto, report)
			}
		}
	}
	for _, image := range st.baseline.Cryptexes {
		if store.Digest(image.Digest) == c.Image {
			return d.refetch(ctx, cat, image, report)
		}
	}
	return fault.New(fault.Failed, "cannot repair %s: nothing says what its image should be", c.Name)
}

// refetch brings an image of the baseline, which lies on the operating system's
// own disk: a copy in the state takes its place.
func (d *Device) refetch(ctx context.Context, cat *catalog.Client, image release.Image, report Report) error {
	if err := d.builder(cat, report).Whole(ctx, image); err != nil {
		return fmt.Errorf("cannot repair %s: %w", image.Name, err)
	}
	return d.Store.Append(store.Record{
		Time: d.Now(), Event: "repaired", Reason: "damaged", Actor: string(Auto), Text: image.Name + " of the baseline",
	})
}

// Times of the agent's care for what is mounted.
const (
	careEvery = 10 * time.Minute // in case the kernel's word was missed
	careAfter = 2 * time.Second  // damage seldom comes in single blocks
)

// keepWhole is the part of the agent that hears of damage from the kernel, and
// mends it.
func keepWhole(ctx context.Context, open Opener, log *slog.Logger) error {
	if activate.Enforced() != activate.Kernel {
		<-ctx.Done() // nobody would tell
		return nil
	}
	heard := make(chan struct{}, 1)
	damages, err := linux.WatchDamage()
	if err != nil {
		log.Warn("damage is noticed late", "error", err)
	} else {
		defer damages.Close()
		go listen(damages, heard)
	}
	for ctx.Err() == nil {
		mendNow(ctx, open, log)
		select {
		case <-ctx.Done():
		case <-time.After(careEvery):
		case <-heard:
			select {
			case <-ctx.Done():
			case <-time.After(careAfter):
			}
		}
	}
	return nil
}

func listen(damages *linux.Damages, heard chan<- struct{}) {
	for {
		_, err := damages.Next()
		if errors.Is(err, os.ErrClosed) || err != nil && !linux.Overrun(err) {
			return
		}
		select {
		case heard <- struct{}{}:
		default: // somebody will look anyway
		}
	}
}

func mendNow(ctx context.Context, open Opener, log *slog.Logger) {
	list, err := damagedNow(open)
	if err == nil && len(list) == 0 {
		return
	}
	if err == nil {
		var d *Device
		if d, err = open(); err == nil {
			_, err = d.Mend(ctx, logged(log, "mend"))
		}
	}
	if err != nil && ctx.Err() == nil {
		log.Error("cannot mend damaged content", "error", err, "reason", fault.KindOf(err).String())
	}
}

// damagedNow looks without taking the lock.
func damagedNow(open Opener) ([]present.Content, error) {
	d, err := open()
	if err != nil {
		return nil, err
	}
	if _, err := d.Store.Enrolment(); err != nil {
		return nil, nil
	}
	return activate.Damaged(d.Store)
}
