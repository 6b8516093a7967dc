package device

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/release"
)

// Hold is an improvement that this device refuses until a newer one comes or a
// person reapplies it. It keeps a removed or recalled improvement from coming
// back at the next check.
type Hold struct {
	Release  string         `json:"release"`
	Level    int            `json:"level"`
	Baseline release.Digest `json:"baseline"`
	Scope    string         `json:"scope"`  // below: this one and all before it; only: this one
	Reason   string         `json:"reason"` // a stable code: removed, recalled, boot-failed
	Actor    string         `json:"actor"`
	Time     time.Time      `json:"time"`
}

// The scopes of a hold.
const (
	scopeBelow = "below"
	scopeOnly  = "only"
)

const holdSchema = "sealant.holds/1"

type holds struct {
	Schema string `json:"schema"`
	Holds  []Hold `json:"holds"`
}

// Holds lists them, the newest last.
func (d *Device) Holds() ([]Hold, error) {
	var doc holds
	if err := d.Store.ReadDocument("holds", holdSchema, &doc); err != nil && !errors.Is(err, store.ErrEmpty) {
		return nil, fmt.Errorf("cannot read holds: %w", err)
	}
	return doc.Holds, nil
}

// held says why the device refuses an improvement, "" if it doesn't.
func held(all []Hold, m release.Manifest) string {
	for _, h := range all {
		if h.Baseline != m.Baseline || h.Release != m.ID && (h.Scope != scopeBelow || m.Level > h.Level) {
			continue
		}
		switch h.Reason {
		case "removed":
			return "all improvements were removed by " + describe(Actor(h.Actor))
		case "recalled":
			return "it was taken back by the vendor"
		case "boot-failed":
			return "it did not come up at boot"
		}
		return h.Reason
	}
	return ""
}

// describe names an actor for people.
func describe(a Actor) string {
	switch {
	case a == ByRecall:
		return "the vendor"
	case a == ByPolicy:
		return "policy"
	case a.Person():
		return "a person (" + string(a) + ")"
	}
	return "the device itself"
}

func (d *Device) hold(c *change.Change, a map[string]string) error {
	all, err := d.Holds()
	if err != nil {
		return err
	}
	b, err := d.baseline()
	if err != nil {
		return err
	}
	level, err := strconv.Atoi(a["level"])
	if err != nil {
		return fmt.Errorf("cannot hold %s: level %q", a["release"], a["level"])
	}
	h := Hold{
		Release: a["release"], Level: level, Baseline: b.Digest(), Scope: a["scope"], Reason: a["why"],
		Actor: c.Actor, Time: d.Now().UTC().Truncate(time.Second),
	}
	return d.writeHolds(append(without(all, h.Release), h))
}

// unhold ends the hold of one release and of all before it.
func (d *Device) unhold(rel string) error {
	all, err := d.Holds()
	if err != nil || len(all) == len(without(all, rel)) {
		return err
	}
	return d.writeHolds(without(all, rel))
}

func (d *Device) writeHolds(all []Hold) error {
	const most = 100 // old ones go: their improvements are long superseded
	if len(all) > most {
		all = all[len(all)-most:]
	}
	return d.Store.WriteDocument("holds", holds{holdSchema, all})
}

func without(all []Hold, rel string) []Hold {
	kept := make([]Hold, 0, len(all)+1)
	for _, h := range all {
		if h.Release != rel {
			kept = append(kept, h)
		}
	}
	return kept
}
