package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
)

// Plan is what a recall would do, to be shown before somebody confirms it.
type Plan struct {
	Release release.Manifest
	To      string        // the release that devices land on; "" for the baseline
	Devices int64         // devices whose latest ticket is for the release
	Opens   []release.CVE // flaws that are open again
	Stays   []release.CVE // flaws that stay fixed
	Done    bool          // it is recalled already; repeating makes sure of it
}

// PlanRecall says what recalling a release means. Only the most recent
// improvement on a baseline can be taken back: later ones contain it.
func (d *Desk) PlanRecall(ctx context.Context, id string) (Plan, error) {
	view, m, err := d.find(ctx, id)
	if err != nil {
		return Plan{}, fmt.Errorf("cannot recall: %w", err)
	}
	p := Plan{Release: m, To: view.Recall.Landing(m.Previous)}
	_, p.Done = view.Recall.Find(id)
	for _, later := range view.Releases() {
		_, gone := view.Recall.Find(later.ID)
		if later.Baseline == m.Baseline && later.Level > m.Level && !gone && !p.Done {
			return Plan{}, fault.New(fault.Refused, "cannot recall %s: %s came after it and contains it", id, later.ID).
				Hint("recall %s first, or publish a newer improvement", later.ID)
		}
	}
	kept := map[string]bool{}
	if p.To != "" {
		if before, ok := view.Release(p.To); ok {
			for _, c := range before.CVEs {
				kept[c.ID] = true
			}
		}
	}
	for _, c := range m.CVEs {
		if kept[c.ID] {
			p.Stays = append(p.Stays, c)
		} else {
			p.Opens = append(p.Opens, c)
		}
	}
	p.Devices, err = d.DB.LatestOf(ctx, id)
	return p, err
}

// Recall takes a release back. First it stops signing in every server on the
// database; then it signs the recall and shows it to devices. Repeating a
// recall that failed half way completes it. Where the keys at hand are not
// enough it fails with *Unfinished; signing has stopped nonetheless.
func (d *Desk) Recall(ctx context.Context, id, reason, text string) (Plan, error) {
	reason = strings.TrimSpace(reason)
	if reason == "" {
		return Plan{}, fault.New(fault.Usage, "cannot recall %s: devices show their people why", id).Hint(`--reason "Mail closes on attachments"`)
	}
	p, err := d.PlanRecall(ctx, id)
	if err != nil {
		return p, err
	}
	entry := release.Recall{Release: id, To: p.Release.Previous, Reason: reason, Text: text, Date: release.Time(d.Now())}
	if !p.Done {
		// Everything that can be wrong with the words shows now, before
		// anything is stopped.
		list, err := d.Repository.RecallList(p.Release.Product)
		if err != nil {
			return p, fmt.Errorf("cannot recall %s: %w", id, err)
		}
		if _, err := list.With(entry).Encode(); err != nil {
			return p, fault.New(fault.Usage, "cannot recall %s: %w", id, err)
		}
		if len(d.Recallers) == 0 {
			return p, fault.New(fault.Usage, "cannot recall %s: the recall key is not at hand", id).Hint("name the recall key: keys.recall in the configuration")
		}
	}
	if err := d.DB.Stop(ctx, id, reason, d.Now()); err != nil {
		return p, fmt.Errorf("cannot recall %s: %w", id, err)
	}
	err = d.publish(signed.Recall, release.RecallPath, d.Recallers, func() (document, error) {
		list, err := d.Repository.RecallList(p.Release.Product)
		if err != nil {
			return nil, err
		}
		if _, ok := list.Find(id); ok {
			return nil, nil
		}
		return list.With(entry), nil
	})
	if waits := (*Unfinished)(nil); errors.As(err, &waits) {
		return p, errors.Join(err, d.note(ctx, "recall.prepare", id, reason))
	}
	if err != nil {
		return p, fault.New(fault.KindOf(err), "cannot publish the recall of %s: %w", id, err).
			Hint("signing of %s has stopped already; repeat the command to publish the recall", id)
	}
	if p.Done {
		return p, nil
	}
	return p, d.note(ctx, "recall", id, reason)
}

// Recommend puts an app on the list of those that an improvement may harm, or
// changes its entry. It removes nothing from any device.
func (d *Desk) Recommend(ctx context.Context, a release.Advice) (release.AdviceList, error) {
	_, m, err := d.find(ctx, a.Release)
	if err != nil {
		return release.AdviceList{}, fmt.Errorf("cannot recommend: %w", err)
	}
	a.Date = release.Time(d.Now())
	return d.advise(ctx, m, "recommend.add", a.App, func(l release.AdviceList) (release.AdviceList, error) { return l.With(a), nil })
}

// Drop takes an app off the list again.
func (d *Desk) Drop(ctx context.Context, id, app string) (release.AdviceList, error) {
	_, m, err := d.find(ctx, id)
	if err != nil {
		return release.AdviceList{}, fmt.Errorf("cannot drop a recommendation: %w", err)
	}
	return d.advise(ctx, m, "recommend.drop", app, func(l release.AdviceList) (release.AdviceList, error) {
		if _, ok := l.Find(id, app); !ok {
			return l, fault.New(fault.Usage, "%s is not on the list for %s", app, id)
		}
		return l.Without(id, app), nil
	})
}

func (d *Desk) advise(ctx context.Context, m release.Manifest, action, app string, edit func(release.AdviceList) (release.AdviceList, error)) (release.AdviceList, error) {
	var list release.AdviceList
	err := d.publish(signed.Advice, release.AdvicePath, d.Advisers, func() (document, error) {
		old, err := d.Repository.AdviceList(m.Product)
		if err != nil {
			return nil, err
		}
		list, err = edit(old)
		return list, err
	})
	if err != nil {
		return list, fmt.Errorf("cannot publish the advice list: %w", err)
	}
	return list, d.note(ctx, action, m.ID, app)
}
