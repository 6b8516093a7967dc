// Package signing decides who gets a ticket, and signs it.
//
// A ticket is issued for a set that the verified catalog holds: a published
// baseline, or a published improvement that nobody recalled, on exactly its
// baseline; for a device that is enrolled for that product and not blocked; and
// for an improvement only if the device is in its ring (release.InRollout: the
// same hash that the device computes). Everything else has an answer of its own
// (Code), so that a device can tell its person the real reason.
//
// Two sources can end the signing of a release: the recall list in the catalog
// and the table of stops in the database. Either is enough, and neither needs
// the other: a server whose database was restored from last week still obeys
// the catalog, one whose copy of the catalog is late still obeys the database.
//
// The request was authenticated before it comes here: Request.Device is proven.
//
// # Repeating
//
// Issue is deterministic with a software key: the same request under the same
// leaf gives the same bytes and counts in the same audit row. So a device that
// lost the answer asks again, and nothing is wasted but a signature.
package signing

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Request asks for one ticket. The device is authenticated already.
type Request struct {
	Device   identity.ID
	Product  string
	Baseline [48]byte
	Release  string // "" for the baseline itself
	Domain   uint32
	Nonce    [48]byte // zero exactly when Release is ""
}

// Answer is a ticket that was issued and recorded.
type Answer struct {
	Ticket   []byte
	Set      *catalog.Set
	Repeated bool // the same ticket was issued before
	Diverged bool // the nonce was dead: see store.Recorded
	// Landed is when the recall was published that led the device here; zero
	// if none did.
	Landed time.Time
}

// Authority signs tickets. Its methods may be called concurrently.
type Authority struct {
	DB      *store.DB
	Catalog *catalog.Source
	Leaf    *LeafFile
	Log     *setlog.Log // the public log of sets; nil for none
	Now     func() time.Time
}

// Issue decides and signs. Every error is a *Refusal.
func (a *Authority) Issue(ctx context.Context, r Request) (Answer, error) {
	d, err := a.DB.Device(ctx, r.Device)
	if errors.Is(err, store.ErrNotFound) {
		return Answer{}, refuse(UnknownDevice, "this device is not enrolled")
	} else if err != nil {
		return Answer{}, busy(retryDatabase, fmt.Errorf("cannot read the device: %w", err))
	}
	return a.IssueTo(ctx, d, r)
}

// IssueTo is Issue for a device whose row was read before. A row that is out of
// date can't lead to a ticket that must not be: what is decided by it (that the
// device is enrolled, for that product, and not blocked) is decided once more
// by the database when the ticket is recorded. A refusal by it may be wrong.
func (a *Authority) IssueTo(ctx context.Context, d store.Device, r Request) (Answer, error) {
	view, err := a.Catalog.View(ctx)
	if err != nil {
		return Answer{}, busy(retryCatalog, fmt.Errorf("cannot read the catalog: %w", err))
	}
	if err := check(r); err != nil {
		return Answer{}, refuse(BadRequest, "%v", err)
	}
	switch {
	case !d.Blocked.IsZero():
		return Answer{}, refuse(Refused, "this device is blocked")
	case d.Product != r.Product:
		return Answer{}, refuse(Refused, "this device is enrolled as %s, not as %s", d.Product, r.Product)
	}
	set, ok := view.Set(r.Product, r.Baseline, r.Release)
	if !ok {
		return Answer{}, unknown(view, r)
	}
	var landed time.Time
	if r.Release != "" {
		if e, recalled := view.Recall.Find(r.Release); recalled {
			return Answer{}, refuse(Recalled, "%s was recalled: %s", r.Release, e.Reason)
		}
		if landed, err = a.ring(ctx, view, d, r); err != nil {
			return Answer{}, err
		}
	}
	return a.sign(ctx, view, set, d, r, landed)
}

// check holds the rules a request must satisfy by itself.
func check(r Request) error {
	if err := release.CheckProduct(r.Product); err != nil {
		return err
	}
	if r.Domain != ticket.Domain {
		return fmt.Errorf("nonce domain %d is not in use, only %d is", r.Domain, ticket.Domain)
	}
	if (r.Release == "") != (r.Nonce == [48]byte{}) {
		return errors.New("a release needs a nonce, and the baseline must have none")
	}
	if r.Release != "" {
		return release.CheckID(r.Release)
	}
	return nil
}

// unknown says what about a request is not in the catalog.
func unknown(view *catalog.View, r Request) error {
	if m, ok := view.Release(r.Release); ok && r.Release != "" {
		if m.Product == r.Product && m.Baseline != r.Baseline {
			return refuse(UnknownRelease, "%s is for another baseline (%.12s…)", r.Release, m.Baseline)
		}
		return refuse(UnknownRelease, "%s is not for %s", r.Release, r.Product)
	}
	if b, ok := view.Baseline(r.Baseline); !ok || b.Product != r.Product {
		return refuse(UnknownRelease, "the baseline %.12s… of %s is not published", release.Digest(r.Baseline), r.Product)
	}
	return refuse(UnknownRelease, "%s is not published", r.Release)
}

// ring tells whether the device may have the release now: it is offered to it;
// or it had it before (a halt and a narrower ring are about new devices); or a
// recall takes it back there, which was decided when the recall was signed.
// landed is the date of the recall that brings the device here right now.
func (a *Authority) ring(ctx context.Context, view *catalog.View, d store.Device, r Request) (landed time.Time, err error) {
	if e, ok := view.Recall.Find(d.Release); ok && view.Takes(d.Release, r.Release) {
		return e.Date, nil
	}
	if view.Rollout.Offers(d.ID, r.Release) {
		return time.Time{}, nil
	}
	enough := []string{r.Release}
	for _, e := range view.Recall.Entries {
		if view.Takes(e.Release, r.Release) {
			enough = append(enough, e.Release)
		}
	}
	for _, id := range enough {
		had, err := a.DB.HasTicketFor(ctx, d.ID, id)
		if err != nil {
			return time.Time{}, busy(retryDatabase, fmt.Errorf("cannot read the device's tickets: %w", err))
		}
		if had {
			return time.Time{}, nil
		}
	}
	switch ring, ok := view.Rollout.Find(r.Release); {
	case !ok:
		return time.Time{}, refuse(NotInRing, "the rollout of %s has not begun", r.Release)
	case ring.Halted:
		return time.Time{}, refuse(NotInRing, "the rollout of %s is halted", r.Release)
	default:
		return time.Time{}, refuse(NotInRing, "%s is offered to %d %% of the devices so far, and this is not one of them", r.Release, ring.Percent)
	}
}

func (a *Authority) sign(ctx context.Context, view *catalog.View, set *catalog.Set, d store.Device, r Request, landed time.Time) (Answer, error) {
	// What was signed for anybody must be there for everybody to see, before it
	// can be seen by one.
	if a.Log != nil {
		if err := a.Log.Include(ctx, set); err != nil {
			return Answer{}, busy(retryDatabase, err)
		}
	}
	now := a.Now()
	leaf, err := a.Leaf.Leaf(now)
	if err != nil {
		return Answer{}, busy(retryLeaf, err)
	}
	if slices.Contains(view.Recall.Revoked(), ticket.LeafID(leaf.Certificate())) {
		return Answer{}, busy(retryLeaf, errors.New("cannot sign: the leaf was revoked"))
	}
	der, err := ticket.Issue(nil, leaf, ticket.Claims{
		Device: r.Device, Product: r.Product, Baseline: r.Baseline, Release: r.Release,
		Domain: r.Domain, Nonce: r.Nonce, Cryptexes: set.Cryptexes,
	})
	if err != nil {
		// The set is published, but this leaf may not sign it: its constraints
		// are narrower, or the set has too many members for a ticket.
		return Answer{}, &Refusal{Code: Refused, Detail: "this server may not sign this set", cause: err}
	}
	row := store.Ticket{
		Digest: sha256.Sum256(der), Device: r.Device, Product: r.Product, Baseline: r.Baseline, Release: r.Release,
		Domain: store.NoDomain, Content: set.Content, Leaf: ticket.LeafID(leaf.Certificate()), Issued: now,
	}
	if r.Release != "" {
		row.Domain, row.Nonce = int64(r.Domain), r.Nonce[:]
	}
	rec, err := a.DB.Record(ctx, row)
	switch {
	case errors.Is(err, store.ErrBlocked):
		return Answer{}, refuse(Refused, "this device is blocked")
	case errors.Is(err, store.ErrProduct):
		return Answer{}, refuse(Refused, "this device is enrolled as another product than %s", r.Product)
	case errors.Is(err, store.ErrStopped):
		return Answer{}, refuse(Recalled, "%s was recalled", r.Release)
	case errors.Is(err, store.ErrNotFound):
		return Answer{}, refuse(UnknownDevice, "this device is not enrolled")
	case err != nil:
		return Answer{}, busy(retryDatabase, fmt.Errorf("cannot record the ticket: %w", err))
	}
	return Answer{Ticket: der, Set: set, Repeated: rec.Repeated, Diverged: rec.Diverged, Landed: landed}, nil
}
