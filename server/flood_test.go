package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// flooder is one device that asks, and what an operator does to it meanwhile.
type flooder struct {
	*servertest.Device
	ring    bool         // release 2 is offered to it
	blocked atomic.Int64 // when it was blocked, in ns; 0: it is not, or may not be
}

// flooded is what a flood has seen.
type flooded struct {
	issued, refused atomic.Int64
	mu              sync.Mutex
	digests         map[[32]byte]bool
}

// TestFlood floods two servers on one database with good, forged and senseless
// requests while an operator recalls, blocks, unblocks and replaces the leaf.
// Nothing wrong is ever signed: every ticket that leaves verifies for exactly
// what was asked by whom, for a published set that is offered to that device, of
// a release that was not recalled before the request, and its row is there.
func TestFlood(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		w.Release(2, 30)
		free := func(c *server.Config) { c.Burst, c.PerHour, c.MaxAtOnce = 1<<30, 1<<31-1, 24 }
		nodes := []*servertest.Node{w.Start(database, free), w.Start(database, free)}
		view, err := nodes[0].Source.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		devices := make([]*flooder, 24)
		for i := range devices {
			d := nodes[i%2].Enrolled()
			devices[i] = &flooder{Device: d, ring: view.Rollout.Offers(d.ID, servertest.ID(2))}
		}
		seen := &flooded{digests: map[[32]byte]bool{}}
		var recalled atomic.Int64
		end := time.Now().Add(floodTime)
		var all sync.WaitGroup
		for i, d := range devices {
			all.Go(func() {
				for n := 0; time.Now().Before(end); n++ {
					d.ask(t, seen, nodes[rand.N(2)], devices[(i+1)%len(devices)].Device, &recalled)
				}
			})
		}
		all.Go(func() {
			for time.Now().Before(end) {
				d := devices[rand.N(len(devices))]
				if err := nodes[0].DB.Block(t.Context(), d.ID, "flood", w.Now()); err != nil {
					t.Error(err)
				}
				d.blocked.Store(time.Now().UnixNano())
				time.Sleep(20 * time.Millisecond)
				d.blocked.Store(0)
				if err := nodes[1].DB.Unblock(t.Context(), d.ID); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
		all.Go(func() {
			time.Sleep(floodTime / 2)
			w.NewLeaf(time.Hour)
			w.Recall(2)
			recalled.Store(time.Now().UnixNano())
		})
		all.Wait()
		t.Logf("%d tickets, %d requests were refused", seen.issued.Load(), seen.refused.Load())
		if seen.issued.Load() < 50 || seen.refused.Load() < 50 {
			t.Errorf("that was no flood: %d tickets, %d refused", seen.issued.Load(), seen.refused.Load())
		}
		rows := map[[32]byte]bool{}
		for _, d := range devices {
			list, err := nodes[0].DB.Tickets(t.Context(), d.ID, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range list {
				rows[row.Digest] = true
			}
		}
		for digest := range seen.digests {
			if !rows[digest] {
				t.Errorf("the ticket %x left without a row", digest[:4])
			}
		}
	})
}

// ask sends one request of a random sort and judges the answer.
func (d *flooder) ask(t *testing.T, seen *flooded, n *servertest.Node, other *servertest.Device, recalled *atomic.Int64) {
	t.Helper()
	level, nonce := rand.N(4), rand.N(1<<30) // release 3 does not exist
	body := d.Request(level, nonce)
	forged := false
	var data any = body
	var tamper []func(*http.Request)
	switch rand.N(8) {
	case 0: // another device's name
		forged = true
		tamper = append(tamper, func(r *http.Request) { r.Header.Set(identity.DeviceHeader, other.ID.Hex()) })
	case 1: // no signature
		forged = true
		tamper = append(tamper, func(r *http.Request) { r.Header.Del(identity.SignatureHeader) })
	case 2: // another body than was signed
		if level == 0 {
			break // it has no nonce to change
		}
		forged = true
		tamper = append(tamper, func(r *http.Request) {
			text, _ := json.Marshal(d.Request(level, nonce+1))
			h := r.Header
			*r = *mustRequest(r, text)
			r.Header = h
		})
	case 3: // senseless, and signed
		whole, _ := json.Marshal(body)
		junk := append(bytes.Clone(whole[:rand.N(len(whole))]), strings.Repeat("}", rand.N(5))...)
		forged, data = !bytes.Equal(junk, whole), junk
	case 4: // another product's or baseline's
		forged = true
		wrong := body
		if rand.N(2) == 0 {
			wrong.Product = "OtherOS"
		} else {
			wrong.Baseline = strings.Repeat("ab", 48)
		}
		data = wrong
	}
	begun := time.Now().UnixNano()
	a := d.Post(n, "/v1/tickets", data, tamper...)
	if a.Status != http.StatusOK {
		seen.refused.Add(1)
		if a.Status >= 500 && a.Code() != "busy" {
			t.Errorf("the server failed: %s", a)
		}
		return
	}
	seen.issued.Add(1)
	switch at := d.blocked.Load(); {
	case forged:
		t.Errorf("a ticket for a forged request of %s", d.ID)
	case level == 3:
		t.Error("a ticket for what is not published")
	case level == 2 && !d.ring:
		t.Errorf("a ticket for %s, which release 2 is not offered to", d.ID)
	case level == 2 && recalled.Load() != 0 && begun > recalled.Load():
		t.Error("a ticket for what was recalled")
	case at != 0 && begun > at:
		t.Errorf("a ticket for %s, which is blocked", d.ID)
	}
	var answer server.Ticket
	if err := json.Unmarshal(a.Body, &answer); err != nil {
		t.Error(err)
		return
	}
	want := d.Expect(level, nonce)
	view, err := n.Source.View(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	id := ""
	if level > 0 {
		id = servertest.ID(level)
	}
	set, ok := view.Set(servertest.Product, release.Digest(want.Baseline), id)
	if !ok {
		t.Errorf("%q is in no catalog", id)
		return
	}
	want.AnySet, want.Cryptexes = false, set.Cryptexes
	if _, err := ticket.Verify(answer.Ticket, n.World.Root, want); err != nil {
		t.Errorf("level %d: %v", level, err)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	seen.digests[sha256.Sum256(answer.Ticket)] = true
}
