// Package device is what a device does, one file per journey: enroll, check,
// install, status, remove, reapply, restart, recall, verify and so on. A
// journey is a method of Device that takes options and a function that is told
// of its progress, and returns what came of it.
//
// Parties: the server is believed in nothing that isn't signed. The catalog
// (release/catalog) says what exists and what was taken back; a ticket
// (trust/ticket) says that this device may have a set; the digests and seals
// in both say whether bytes are the right ones. The operating system's own
// files, under /usr/lib/sealant, are believed: they pin the two roots.
//
// Journeys import organs (store, change, activate, gate, policy, localapi);
// organs never import journeys. What a journey changes goes through
// device/change, under the store's lock: a crash at any point leaves the old
// state or the new one. Nothing that runs is touched before activation.
package device

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/identity"
)

// Device is one machine's Sealant.
type Device struct {
	Store  *store.Store
	Config *policy.Config
	Client *http.Client     // for everything that goes to the server
	Now    func() time.Time // the machine's clock
	Rand   io.Reader

	// What the agent counts, and how it learns of crashes; nil and "" in a
	// process that isn't the agent, or where it can't count.
	Agent    bool
	Recorder *evidence.Recorder
	Counting string

	began time.Time // when the change under way began
}

// Open opens the device whose file system starts at root ("" means /). It
// changes nothing and needs no network.
func Open(root string) (*Device, error) {
	s, err := store.Open(root)
	if err != nil {
		return nil, err
	}
	c, err := policy.Load(s.ConfigDir())
	if err != nil {
		return nil, err
	}
	d := &Device{Store: s, Config: c, Client: upstream.NewClient(), Now: time.Now, Rand: rand.Reader}
	s.Appended = d.tellJournal
	return d, nil
}

// Event is a moment of a journey, for whoever watches.
type Event struct {
	Kind  string `json:"kind"`            // progress, done, warn, note
	Step  string `json:"step"`            // eligible, catalog, authorised, download, apply web…
	Text  string `json:"text,omitempty"`  // what came of the step
	Done  int64  `json:"done,omitempty"`  // bytes, in progress
	Total int64  `json:"total,omitempty"` // bytes, in progress
}

// The kinds of event.
const (
	Progress = "progress" // Done of Total bytes of the step
	Finished = "done"     // the step came to its good end
	Warning  = "warn"     // worth a look, stops nothing
	Note     = "note"     // a remark
)

// Report is told of events; it must not block for long.
type Report func(Event)

func (r Report) progress(step string) func(done, total int64) {
	return func(done, total int64) { r.send(Event{Kind: Progress, Step: step, Done: done, Total: total}) }
}

func (r Report) done(step, format string, args ...any) {
	r.send(Event{Kind: Finished, Step: step, Text: fmt.Sprintf(format, args...)})
}

func (r Report) warn(step, format string, args ...any) {
	r.send(Event{Kind: Warning, Step: step, Text: fmt.Sprintf(format, args...)})
}

func (r Report) note(step, format string, args ...any) {
	r.send(Event{Kind: Note, Step: step, Text: fmt.Sprintf(format, args...)})
}

func (r Report) send(e Event) {
	if r != nil {
		r(e)
	}
}

// Actor is who wants something: auto, policy, recall or user:UID.
type Actor string

// The actors that are no person.
const (
	Auto     Actor = "auto"
	ByPolicy Actor = "policy"
	ByRecall Actor = "recall"
)

// User is the actor that is the person with that user id.
func User(uid uint32) Actor { return Actor(fmt.Sprintf("user:%d", uid)) }

// Person says whether the actor is one.
func (a Actor) Person() bool { return strings.HasPrefix(string(a), "user:") }

// enrolled refuses journeys on a device that isn't.
func (d *Device) enrolled() (store.Enrolment, error) {
	e, err := d.Store.Enrolment()
	if errors.Is(err, store.ErrEmpty) {
		return e, fault.New(fault.Failed, "cannot go on: this device is not enrolled").Hint("sealant enroll --token TOKEN")
	}
	return e, err
}

// id is the device's id.
func (d *Device) id() (identity.ID, error) {
	e, err := d.enrolled()
	return identity.ID(e.Device), err
}

// baseline is what the OS update installed.
func (d *Device) baseline() (release.Baseline, error) { return activate.ReadBaseline(d.Store) }

// server is the base URL of the server, "" if none is known.
func (d *Device) server() string {
	if s := d.Config.Agent.Server; s != "" {
		return strings.TrimSuffix(s, "/")
	}
	e, err := d.Store.Enrolment()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(e.Server, "/")
}

// upstream is this device's server.
func (d *Device) upstream() (*upstream.Server, error) {
	url := d.server()
	if url == "" {
		return nil, fault.New(fault.Unreachable, "cannot ask the server: none is configured").
			Hint("set server.url in %s/agent.toml", d.Store.ConfigDir())
	}
	return d.upstreamAt(url), nil
}

func (d *Device) upstreamAt(url string) *upstream.Server {
	return &upstream.Server{Base: url, Mirrors: d.Config.Agent.Mirrors, Client: d.Client, Key: d.key, Now: d.Now}
}

// fetcher is where the catalog's files come from, nil if no server is known.
func (d *Device) fetcher() catalog.Fetcher {
	s, err := d.upstream()
	if err != nil {
		return nil
	}
	return s.Fetcher()
}

// maxRoot bounds the pinned root metadata's file, in bytes.
const maxRoot = 1 << 20

// catalog opens the catalog as it was last verified; it asks nobody.
func (d *Device) catalog() (*catalog.Client, error) {
	root, err := store.ReadFile(d.Store.CatalogRootPath(), maxRoot)
	if err != nil {
		return nil, fmt.Errorf("cannot read the catalog's pinned root: %w", err)
	}
	return catalog.New(catalog.Config{
		Root: root, Dir: d.Store.CatalogDir(), Remote: d.fetcher(), Now: d.Now, Built: built(),
	})
}

// refreshed opens the catalog and brings it up to date.
func (d *Device) refreshed(ctx context.Context) (*catalog.Client, error) {
	if _, err := d.upstream(); err != nil {
		return nil, err
	}
	c, err := d.catalog()
	if err != nil {
		return nil, err
	}
	if err := c.Refresh(ctx); err != nil {
		return nil, d.blameClock(c, upstream.Explain(err))
	}
	return c, nil
}

// blameClock adds the clock to a failure about dates when the clock is what
// is wrong: before this program was built, nothing can be in date.
func (d *Device) blameClock(c *catalog.Client, err error) error {
	if fault.KindOf(err) != fault.Stale {
		return err
	}
	now := d.Now()
	if believed := c.Clock(); believed.Sub(now) > 24*time.Hour {
		return fault.New(fault.Stale, "%w (this machine's clock says %s, but it is at least %s)",
			err, now.UTC().Format(time.DateOnly), believed.UTC().Format(time.DateOnly)).Hint("set the clock")
	}
	return fault.New(fault.Stale, "%w", err).
		Hint("this machine's clock says %s; if that is right, somebody may be hiding updates", now.UTC().Format("2006-01-02 15:04Z"))
}

// built is when this program was built, as far as that is known: no clock is
// believed to be before it.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}
