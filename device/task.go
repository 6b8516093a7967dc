package device

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/sealant-os/sealant/device/build"
	"github.com/sealant-os/sealant/device/change"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/nonce"
	"github.com/sealant-os/sealant/trust/ticket"
)

// The kinds of task that changes are made of. Their names and arguments are
// part of the journal's format (spec/state.md).
const (
	taskManifest = "manifest" // release: keep the manifest beside the patches
	taskFetch    = "fetch"    // release, cryptex, kind: download a patch or antipatch
	taskBuild    = "build"    // release, cryptex: make the improved image
	taskProve    = "prove"    // release, cryptex: try the antipatch
	taskTicket   = "ticket"   // release: have the set authorised; sets the var "set"
	taskKeep     = "keep"     // release: move the patches to where they stay
	taskPreroll  = "preroll"  // prepare a nonce, so that what is removed ends
	taskRestore  = "restore"  // release, cryptex: have the baseline's image, by antipatch if need be
	taskStage    = "stage"    // set or the var "set", was: what the next boot tries
	taskUnstage  = "unstage"  // was: the next boot tries nothing new
	taskDiscard  = "discard"  // drop the prepared nonce and the ticket made for it
	taskRoll     = "roll"     // step: the prepared nonce takes force
	taskPromote  = "promote"  // set: next becomes current
	taskHold     = "hold"     // release, level, scope: refuse it until something newer
	taskRelease  = "unhold"   // release: an explicit reapply ends the hold
	taskRecord   = "record"   // event, text: write it down
	taskTidy     = "tidy"     // throw away what nobody needs
)

// tasks says what each kind does. The catalog is nil for changes that ask
// nobody; after a crash it is opened as it was last verified.
func (d *Device) tasks(cat *catalog.Client, report Report) change.Steps {
	type args = map[string]string
	do := func(f func(ctx context.Context, c *change.Change, a args) error) change.Step {
		return change.Step{Do: f}
	}
	b := d.builder(cat, report)
	// with hands a release's change of one cryptex to one step of building it.
	with := func(f func(ctx context.Context, rel string, c release.Change) error) func(context.Context, *change.Change, args) error {
		return func(ctx context.Context, _ *change.Change, a args) error {
			c, err := d.changeOf(a["release"], a["cryptex"])
			if err != nil {
				return err
			}
			return f(ctx, a["release"], c)
		}
	}
	return change.Steps{
		taskManifest: {
			Do: func(ctx context.Context, c *change.Change, a args) error {
				if _, err := d.manifest(a["release"]); err == nil {
					return nil
				}
				m, err := cat.Manifest(ctx, a["release"])
				if err != nil {
					return err
				}
				data, err := m.Encode()
				if err != nil {
					return err
				}
				return d.Store.KeepManifest(m.ID, data)
			},
			Undo: func(_ context.Context, _ *change.Change, a args) error {
				if a["kept"] != "" {
					return nil // the release was known before
				}
				return d.Store.RemovePatches(a["release"])
			},
		},
		// What was downloaded stays: the next attempt takes it up.
		taskFetch: do(func(ctx context.Context, _ *change.Change, a args) error {
			c, err := d.changeOf(a["release"], a["cryptex"])
			if err != nil {
				return err
			}
			return b.Fetch(ctx, a["release"], c, store.PatchKind(a["kind"]))
		}),
		taskBuild: {
			Do: with(b.Build),
			Undo: func(_ context.Context, _ *change.Change, a args) error {
				c, err := d.changeOf(a["release"], a["cryptex"])
				if err != nil {
					return nil // nothing was built without its manifest
				}
				return d.removeUnused(store.Digest(c.To.Digest))
			},
		},
		taskProve: do(with(b.Prove)),
		taskTicket: {
			Do: func(ctx context.Context, c *change.Change, a args) error {
				id, err := d.authorise(ctx, a["release"], cat, report)
				c.Vars["set"] = id
				return err
			},
			Undo: func(_ context.Context, c *change.Change, _ args) error { return d.dropSet(c.Vars["set"]) },
		},
		taskKeep: do(func(_ context.Context, _ *change.Change, a args) error {
			m, err := d.manifest(a["release"])
			if err != nil {
				return err
			}
			return build.Keep(d.Store, m)
		}),
		taskPreroll: do(func(context.Context, *change.Change, args) error {
			_, err := d.preroll()
			return err
		}),
		taskRestore: do(with(b.Restore)),
		taskStage: {
			Do: func(_ context.Context, c *change.Change, a args) error {
				id := a["set"]
				if id == "" {
					id = c.Vars["set"]
				}
				return d.Store.Stage(id)
			},
			Undo: func(_ context.Context, _ *change.Change, a args) error { return d.restage(a["was"]) },
			Happened: func(c *change.Change, a args) bool {
				next := d.Store.SlotID(store.Next)
				return next != "" && (next == a["set"] || a["set"] == "" && next == c.Vars["set"])
			},
		},
		taskUnstage: {
			Do:   func(context.Context, *change.Change, args) error { return d.Store.Point(store.Next, "") },
			Undo: func(_ context.Context, _ *change.Change, a args) error { return d.restage(a["was"]) },
		},
		taskDiscard: do(func(context.Context, *change.Change, args) error {
			n, err := d.Store.Nonces()
			if err != nil {
				return err
			}
			return d.writeNonces(n.Discard())
		}),
		taskRoll: {
			Do: func(_ context.Context, _ *change.Change, a args) error { return d.roll(a["step"]) },
			Happened: func(_ *change.Change, a args) bool {
				n, err := d.Store.Nonces()
				return err == nil && fmt.Sprint(n.Step()) != a["step"]
			},
		},
		taskPromote: do(func(_ context.Context, _ *change.Change, a args) error {
			return d.Store.Promote(a["set"])
		}),
		taskHold: {
			Do: func(_ context.Context, c *change.Change, a args) error { return d.hold(c, a) },
			Undo: func(_ context.Context, _ *change.Change, a args) error {
				return d.unhold(a["release"])
			},
		},
		taskRelease: do(func(_ context.Context, _ *change.Change, a args) error { return d.unhold(a["release"]) }),
		taskRecord: do(func(_ context.Context, c *change.Change, a args) error {
			return d.Store.Append(store.Record{
				Time: d.Now(), Event: a["event"], Release: c.Release, Set: c.Vars["set"], Reason: c.Reason,
				Actor: c.Actor, Text: a["text"], Change: c.ID,
			})
		}),
		// What can't be tidied away now can be another time: no reason to fail.
		taskTidy: do(func(context.Context, *change.Change, args) error {
			if err := d.tidy(); err != nil {
				report.warn("tidy", "%v", err)
			}
			if err := d.Store.Reserve(); err != nil {
				report.warn("space", "%v", err)
			}
			return nil
		}),
	}
}

// begin takes the lock, finishes or undoes what was interrupted, and returns
// what lets go of the lock.
func (d *Device) begin(ctx context.Context, report Report) (done func(), err error) {
	return d.beginWith(ctx, func() error { return nil }, report)
}

// beginWith also does something as soon as the lock is held.
func (d *Device) beginWith(ctx context.Context, first func() error, report Report) (done func(), err error) {
	if _, err := d.enrolled(); err != nil {
		return nil, err
	}
	lock, err := d.Store.Lock()
	if err != nil {
		return nil, err
	}
	done = func() { lock.Unlock() }
	if err := first(); err != nil {
		done()
		return nil, err
	}
	if err := d.settleNonces(report); err != nil {
		done()
		return nil, err
	}
	if err := d.recover(ctx, report); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

func (d *Device) recover(ctx context.Context, report Report) error {
	if err := d.Store.Tidy(); err != nil {
		return err
	}
	// Tasks after a point of no return ask nobody; a catalog that can't be
	// opened must not keep a device from finishing.
	cat, _ := d.catalog()
	c, outcome, err := change.Recover(ctx, d.Store, d.tasks(cat, report))
	if err != nil {
		return fmt.Errorf("cannot recover what was interrupted: %w", err)
	}
	if outcome == change.Nothing {
		return nil
	}
	report.note("recovered", "an interrupted %s was %s", c.Journey, outcome)
	return d.Store.Append(store.Record{
		Time: d.Now(), Event: "recovered", Release: c.Release, Reason: string(outcome), Actor: string(Auto),
		Text: "an interrupted " + c.Journey + " was " + string(outcome), Change: c.ID,
	})
}

// newChange begins a change; its id is random.
func newChange(journey string, actor Actor, reason, rel string, tasks ...change.Task) *change.Change {
	var b [6]byte
	rand.Read(b[:])
	return &change.Change{ID: hex.EncodeToString(b[:]), Journey: journey, Actor: string(actor), Reason: reason, Release: rel, Tasks: tasks}
}

// task makes one from a kind and pairs of argument and value.
func task(kind string, pairs ...string) change.Task {
	t := change.Task{Kind: kind, Args: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		t.Args[pairs[i]] = pairs[i+1]
	}
	return t
}

// final marks a task as the point of no return.
func final(t change.Task) change.Task { t.Final = true; return t }

// builder builds images with what the device has and the catalog offers, if
// there is one.
func (d *Device) builder(cat *catalog.Client, report Report) *build.Builder {
	return &build.Builder{Store: d.Store, Catalog: cat, Progress: report.progress, Warn: report.warn, Note: report.note}
}

func (d *Device) changeOf(rel, cryptex string) (release.Change, error) {
	m, err := d.manifest(rel)
	if err != nil {
		return release.Change{}, err
	}
	for _, c := range m.Cryptexes {
		if c.Name == cryptex {
			return c, nil
		}
	}
	return release.Change{}, fmt.Errorf("%s does not change %s", rel, cryptex)
}

// authorise asks the signing service for the ticket of a release's set, checks
// every claim of it and that the public log has the set, and writes the set. It returns the set's id.
func (d *Device) authorise(ctx context.Context, rel string, cat *catalog.Client, report Report) (string, error) {
	st, err := d.state()
	if err != nil {
		return "", err
	}
	m, err := d.manifest(rel)
	if err != nil {
		return "", err
	}
	images, err := m.Set(st.baseline)
	if err != nil {
		return "", fault.New(fault.NotEligible, "%w", err)
	}
	nonces, err := d.preroll()
	if err != nil {
		return "", err
	}
	nonce, _ := nonces.Prerolled()
	der, err := d.ticket(ctx, st.baseline, rel, nonce)
	if err != nil {
		return "", err
	}
	want := ticket.Expect{Nonce: nonce, Release: rel, Cryptexes: claims(images)}
	if cat != nil {
		recalls, err := cat.RecallList(ctx)
		if err != nil {
			return "", err
		}
		want.Since, want.Revoked = cat.Checked(), recalls.Revoked()
	}
	t, err := d.verifyTicket(der, st.baseline, want)
	if err != nil {
		return "", err
	}
	if err := d.checkLog(ctx, d.server(), t.Claims, report); err != nil {
		return "", err
	}
	set := setOf(st.baseline, rel, m.Level, images, der)
	if err := d.Store.AddSet(set); err != nil {
		return "", err
	}
	id := t.ID()
	report.done("authorised", "ticket %x… for this device, nonce fresh", id[:2])
	return set.ID, nil
}

type ticketRequest struct {
	Product  string `json:"product"`
	Baseline string `json:"baseline"`
	Release  string `json:"release"`
	Domain   uint32 `json:"domain"`
	Nonce    string `json:"nonce"`
}

type ticketAnswer struct {
	Ticket string `json:"ticket"`
}

// ticket asks for one; rel "" is the baseline itself, which has no nonce.
func (d *Device) ticket(ctx context.Context, b release.Baseline, rel string, nonce [48]byte) ([]byte, error) {
	req := ticketRequest{Product: b.Product, Baseline: b.Digest().String(), Release: rel, Domain: ticket.Domain}
	if rel != "" {
		req.Nonce = hex.EncodeToString(nonce[:])
	}
	var answer ticketAnswer
	server, err := d.upstream()
	if err != nil {
		return nil, err
	}
	if err := server.Post(ctx, "/v1/tickets", req, &answer); err != nil {
		return nil, err
	}
	return decodeTicket(answer.Ticket)
}

func decodeTicket(text string) ([]byte, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(der) == 0 || len(der) > ticket.MaxSize {
		return nil, fault.New(fault.Ticket, "cannot use the server's ticket: %d bytes (%w)", len(der), err)
	}
	return der, nil
}

// ticketRoot is the root of tickets that the operating system pins.
func (d *Device) ticketRoot() (*x509.Certificate, error) {
	text, err := store.ReadFile(d.Store.TicketRootPath(), 64<<10)
	if err != nil {
		return nil, fmt.Errorf("cannot read the root certificate of tickets: %w", err)
	}
	return ticket.ParseRoot(text)
}

// verifyTicket fills in who this device is and checks a ticket against the
// pinned root.
func (d *Device) verifyTicket(der []byte, b release.Baseline, want ticket.Expect) (*ticket.Ticket, error) {
	root, err := d.ticketRoot()
	if err != nil {
		return nil, err
	}
	id, err := d.keyID()
	if err != nil {
		return nil, err
	}
	want.Device, want.Product, want.Baseline = id, b.Product, b.Digest()
	return ticket.Verify(der, root, want)
}

// preroll makes sure that a next nonce is prepared and written.
func (d *Device) preroll() (nonce.State, error) {
	n, err := d.Store.Nonces()
	if err != nil {
		return n, err
	}
	next, err := n.Next(d.Rand)
	if err != nil || next == n {
		return n, err
	}
	return next, d.writeNonces(next)
}

// roll puts the prepared nonce in force. Step is the state's count before, by
// which a second call knows that it is done.
func (d *Device) roll(step string) error {
	n, err := d.Store.Nonces()
	if err != nil {
		return err
	}
	if fmt.Sprint(n.Step()) != step {
		return nil
	}
	rolled, err := n.Confirm()
	if err != nil {
		return err
	}
	return d.writeNonces(rolled)
}

// restage puts back what the next boot tried before.
func (d *Device) restage(was string) error {
	if was == "" {
		return d.Store.Point(store.Next, "")
	}
	return d.Store.Stage(was)
}

// dropSet deletes a set unless a slot has it.
func (d *Device) dropSet(id string) error {
	if id == "" {
		return nil
	}
	for _, slot := range store.Slots {
		if d.Store.SlotID(slot) == id {
			return nil
		}
	}
	return d.Store.RemoveSet(id)
}
