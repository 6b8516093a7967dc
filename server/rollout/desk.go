// Package rollout is the operator's desk: who is offered an improvement, what
// is taken back, and for which apps devices may recommend removal.
//
// Every decision is a document in the signed catalog, under the role whose key
// the decision needs: rollout (the server's own key), recall and advice (keys
// of people). The database only adds what must hold between two publications:
// that a recalled release is signed no more from the very moment, and that a
// paused rollout gets no wider. Each act leaves an event in the operators' log.
//
// An act that fails half way can be repeated and goes on where it stopped.
package rollout

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/store"
)

// Desk is where an operator acts.
type Desk struct {
	DB         *store.DB
	Source     *catalog.Source
	Repository *signed.Repository
	Online     []crypto.Signer // rollout, snapshot, timestamp
	Recallers  []crypto.Signer // recall
	Advisers   []crypto.Signer // advice
	Actor      string          // who acts, for the log
	Now        func() time.Time
}

// attempts is how often an act is tried while somebody else changes the same
// list of the catalog.
const attempts = 5

// SmallFleet is the number of devices up to which a rollout that names no
// percentage goes to all of them.
const SmallFleet = 100

// find returns a published release, with the state of the catalog it is in.
func (d *Desk) find(ctx context.Context, id string) (*catalog.View, release.Manifest, error) {
	if err := release.CheckID(id); err != nil {
		return nil, release.Manifest{}, fault.New(fault.Usage, "%w", err)
	}
	view, err := d.Source.View(ctx)
	if err != nil {
		return nil, release.Manifest{}, fmt.Errorf("cannot read the catalog: %w", err)
	}
	m, ok := view.Release(id)
	if !ok {
		return nil, release.Manifest{}, fault.New(fault.Usage, "%s is not published", id).Hint("sealpub release publishes it; then wait until the server shows it")
	}
	return view, m, nil
}

// Start offers a release to percent of the devices, or changes how many it is
// offered to. percent -1 means all, and is accepted for a small fleet only. It
// returns the ring as published.
func (d *Desk) Start(ctx context.Context, id string, percent int) (release.Ring, error) {
	view, m, err := d.find(ctx, id)
	if err != nil {
		return release.Ring{}, fmt.Errorf("cannot start the rollout: %w", err)
	}
	if e, recalled := view.Recall.Find(id); recalled {
		return release.Ring{}, fault.New(fault.Recalled, "cannot start the rollout: %s was recalled: %s", id, e.Reason)
	}
	if percent == -1 {
		n, _, err := d.DB.Counts(ctx)
		if err != nil {
			return release.Ring{}, err
		}
		if n > SmallFleet {
			return release.Ring{}, fault.New(fault.Usage, "cannot start the rollout: say to how many of the %d devices", n).Hint("--percent 1")
		}
		percent = 100
	}
	if percent < 0 || percent > 100 {
		return release.Ring{}, fault.New(fault.Usage, "cannot start the rollout: %d is not a percentage from 0 to 100", percent)
	}
	return d.change(ctx, m, "rollout.start", "", func(ring *release.Ring) error {
		if percent > ring.Percent {
			at, err := d.DB.Paused(ctx, id)
			if err != nil {
				return err
			}
			if !at.IsZero() {
				return fault.New(fault.Refused, "cannot widen the rollout: it is paused since %s", at.Format(time.DateTime)).Hint("sealsrv rollout resume %s", id)
			}
		}
		if ring.Halted {
			return fault.New(fault.Refused, "cannot start the rollout: it is halted").Hint("sealsrv rollout resume %s", id)
		}
		ring.Percent = percent
		return nil
	})
}

// Pause keeps the rollout as wide as it is: who is in the ring goes on being
// offered the release, and nobody can widen it before Resume.
func (d *Desk) Pause(ctx context.Context, id string) (release.Ring, error) {
	ring, err := d.begun(ctx, id)
	if err != nil {
		return ring, fmt.Errorf("cannot pause the rollout: %w", err)
	}
	if err := d.DB.Pause(ctx, id, d.Now()); err != nil {
		return ring, fmt.Errorf("cannot pause the rollout: %w", err)
	}
	return ring, d.note(ctx, "rollout.pause", id, fmt.Sprintf("at %d %%", ring.Percent))
}

// Halt stops offering the release. Who has it keeps it.
func (d *Desk) Halt(ctx context.Context, id, reason string) (release.Ring, error) {
	_, m, err := d.find(ctx, id)
	if err == nil {
		_, err = d.begun(ctx, id)
	}
	if err != nil {
		return release.Ring{}, fmt.Errorf("cannot halt the rollout: %w", err)
	}
	return d.change(ctx, m, "rollout.halt", reason, func(ring *release.Ring) error {
		ring.Halted = true
		return nil
	})
}

// Resume ends a pause or a halt, and sets the percentage if it is not -1.
func (d *Desk) Resume(ctx context.Context, id string, percent int) (release.Ring, error) {
	view, m, err := d.find(ctx, id)
	if err == nil {
		_, err = d.begun(ctx, id)
	}
	if err != nil {
		return release.Ring{}, fmt.Errorf("cannot resume the rollout: %w", err)
	}
	if _, recalled := view.Recall.Find(id); recalled {
		return release.Ring{}, fault.New(fault.Recalled, "cannot resume the rollout: %s was recalled", id)
	}
	if percent < -1 || percent > 100 {
		return release.Ring{}, fault.New(fault.Usage, "cannot resume the rollout: %d is not a percentage from 0 to 100", percent)
	}
	if err := d.DB.Resume(ctx, id); err != nil {
		return release.Ring{}, fmt.Errorf("cannot resume the rollout: %w", err)
	}
	return d.change(ctx, m, "rollout.resume", "", func(ring *release.Ring) error {
		ring.Halted = false
		if percent >= 0 {
			ring.Percent = percent
		}
		return nil
	})
}

// begun returns the ring of a release whose rollout has begun.
func (d *Desk) begun(ctx context.Context, id string) (release.Ring, error) {
	_, m, err := d.find(ctx, id)
	if err != nil {
		return release.Ring{}, err
	}
	list, err := d.Repository.Rollout(m.Product)
	if err != nil {
		return release.Ring{}, err
	}
	ring, ok := list.Find(id)
	if !ok {
		return release.Ring{}, fault.New(fault.Usage, "the rollout of %s has not begun", id).Hint("sealsrv rollout start %s --percent 1", id)
	}
	return ring, nil
}

// change edits one ring and publishes the list. A ring that stays as it is is
// not published again.
func (d *Desk) change(ctx context.Context, m release.Manifest, action, reason string, edit func(*release.Ring) error) (release.Ring, error) {
	var ring release.Ring
	err := d.publish(signed.Rollout, release.RolloutPath, d.Online, func() (document, error) {
		list, err := d.Repository.Rollout(m.Product)
		if err != nil {
			return nil, err
		}
		var known bool
		if ring, known = list.Find(m.ID); !known {
			var salt [16]byte
			rand.Read(salt[:])
			ring = release.Ring{Release: m.ID, Salt: hex.EncodeToString(salt[:])}
		}
		before := ring
		if err := edit(&ring); err != nil {
			return nil, err
		}
		if known && ring == before {
			return nil, nil
		}
		return list.With(ring), nil
	})
	if err != nil {
		return ring, err
	}
	detail := fmt.Sprintf("%d %%", ring.Percent)
	if reason != "" {
		detail += ": " + reason
	}
	return ring, d.note(ctx, action, m.ID, detail)
}

// document is a list of the catalog.
type document interface{ Encode() ([]byte, error) }

// publish edits one list of the catalog, signs it and shows it to devices. edit
// reads the list and returns the next one, nil if there is nothing to change.
// If somebody else changes the list meanwhile, it begins anew.
func (d *Desk) publish(role, path string, signers []crypto.Signer, edit func() (document, error)) error {
	for i := 1; ; i++ {
		err := d.publishOnce(role, path, signers, edit)
		if err == nil || i == attempts || fault.KindOf(err) != fault.Busy {
			return err
		}
	}
}

func (d *Desk) publishOnce(role, path string, signers []crypto.Signer, edit func() (document, error)) error {
	// The draft comes first: a list that is published between here and the end
	// takes the draft's version, and this act starts again from that list.
	draft, err := d.Repository.Draft(role, d.Now())
	if err != nil {
		return err
	}
	next, err := edit()
	if err != nil {
		return err
	}
	if next != nil {
		data, err := next.Encode()
		if err != nil {
			return fault.New(fault.Usage, "%w", err)
		}
		if len(signers) == 0 {
			return fault.New(fault.Usage, "cannot sign: the key of role %s is not at hand", role).Hint("name it in the configuration: keys.%s", role)
		}
		target, err := d.Repository.Store(path, bytes.NewReader(data))
		if err != nil {
			return err
		}
		if err := draft.Set(target); err != nil {
			return err
		}
		by, err := draft.Sign(signers...)
		if err != nil {
			return err
		}
		if len(by) > 0 && !draft.Signed().Enough() {
			c, err := d.Repository.PrepareList(draft, data)
			if err != nil {
				return err
			}
			return &Unfinished{Ceremony: c}
		}
		if err := d.Repository.Publish(draft); err != nil {
			return err
		}
	}
	// Where the online keys are not at hand, the server that has them shows it
	// within a second.
	if len(d.Online) == 0 {
		return nil
	}
	_, err = d.Repository.Refresh(d.Online, d.Now())
	return err
}

func (d *Desk) note(ctx context.Context, action, target, detail string) error {
	err := d.DB.Note(ctx, store.Event{At: d.Now(), Actor: d.Actor, Action: action, Target: target, Detail: detail})
	if err != nil {
		return fmt.Errorf("it is done, but not in the operators' log: %w", err)
	}
	return nil
}
