package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func sqlite(t testing.TB) string { return filepath.Join(t.TempDir(), "fleet.db") }

func decode[T any](t *testing.T, a servertest.Answer) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(a.Body))
	d.DisallowUnknownFields()
	if a.Status != http.StatusOK {
		t.Fatalf("refused: %s", a)
	}
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, a)
	}
	return v
}

func want(t *testing.T, a servertest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("got %s, want %d %s", a, status, code)
	}
	if status != http.StatusOK && a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a problem of type %q: %s", a.Header.Get("Content-Type"), a)
	}
}

func TestEnrolAndAsk(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		n := w.Start(database)
		d := w.Device()
		token := n.Token(1)
		in := decode[server.Enrolled](t, d.Enrol(n, token))
		if in.Device != d.ID.Hex() {
			t.Errorf("device %s, want %s", in.Device, d.ID.Hex())
		}
		if _, err := ticket.Verify(in.BaselineTicket, w.Root, d.Expect(0, 0)); err != nil {
			t.Errorf("baseline ticket: %v", err)
		}
		again := decode[server.Enrolled](t, d.Enrol(n, token))
		if !bytes.Equal(again.BaselineTicket, in.BaselineTicket) {
			t.Error("asking again gave another ticket")
		}
		want(t, w.Device().Enrol(n, token), http.StatusForbidden, "bad-token")

		first := decode[server.Ticket](t, d.Ask(n, 1, 1))
		tk, err := ticket.Verify(first.Ticket, w.Root, d.Expect(1, 1))
		if err != nil {
			t.Fatal(err)
		}
		set, err := w.Manifest(1).Set(w.Baseline)
		if err != nil || len(set) != len(tk.Claims.Cryptexes) {
			t.Fatalf("%d cryptexes, %v", len(tk.Claims.Cryptexes), err)
		}
		for i, c := range tk.Claims.Cryptexes {
			if c.Name != set[i].Name || c.Image != set[i].Digest || c.Seal != set[i].Seal.Digest || c.Root != set[i].Seal.Root || c.TrustCache != set[i].TrustCache {
				t.Errorf("cryptex %d is %+v, want %+v", i, c, set[i])
			}
		}
		if second := decode[server.Ticket](t, d.Ask(n, 1, 1)); !bytes.Equal(first.Ticket, second.Ticket) {
			t.Error("asking again gave another ticket")
		}
		list, err := n.DB.Tickets(t.Context(), d.ID, 10)
		if err != nil || len(list) != 2 {
			t.Fatalf("%d audit rows, want one for each of two tickets: %v", len(list), err)
		}
		row, err := n.DB.Device(t.Context(), d.ID)
		if err != nil || row.Release != servertest.ID(1) {
			t.Errorf("device row %+v, %v", row, err)
		}
	})
}

func TestTokenUsedTwiceAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		nodes := []*servertest.Node{w.Start(database), w.Start(database)}
		token := nodes[0].Token(1)
		var wg sync.WaitGroup
		codes := make([]string, 16)
		for i := range codes {
			wg.Go(func() {
				a := w.Device().Enrol(nodes[i%2], token)
				codes[i] = fmt.Sprint(a.Status, a.Code())
			})
		}
		wg.Wait()
		count := map[string]int{}
		for _, c := range codes {
			count[c]++
		}
		if count["200"] != 1 || count["403bad-token"]+count["403 bad-token"] != 15 {
			t.Errorf("%v", count)
		}
	})
}

func TestRings(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, -1)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	want(t, d.Ask(n, 1, 1), 403, "not-in-ring") // not begun
	w.Offer(1, 0, false)
	want(t, d.Ask(n, 1, 1), 403, "not-in-ring")
	w.Offer(1, 100, true)
	want(t, d.Ask(n, 1, 1), 403, "not-in-ring") // halted
	w.Offer(1, 50, false)
	var in, out *servertest.Device
	for in == nil || out == nil {
		e := n.Enrolled()
		switch a := e.Ask(n, 1, 1); a.Code() {
		case "":
			in = e
		case "not-in-ring":
			out = e
		default:
			t.Fatal(a)
		}
	}
	w.Offer(1, 100, true)
	want(t, in.Ask(n, 1, 1), 200, "") // who has it keeps it
	want(t, out.Ask(n, 1, 1), 403, "not-in-ring")
	want(t, out.Ask(n, 0, 0), 200, "") // the baseline has no ring
}

func TestRecall(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 0)
	w.Release(2, 100)
	n := w.Start(sqlite(t))
	d, other := n.Enrolled(), n.Enrolled()
	want(t, d.Ask(n, 2, 1), 200, "")
	want(t, d.Ask(n, 1, 2), 403, "not-in-ring")
	w.Recall(2)
	a := d.Ask(n, 2, 2)
	want(t, a, 410, "recalled")
	if !strings.Contains(string(a.Body), "it harms") {
		t.Errorf("the reason is missing: %s", a)
	}
	// Taken back to (a), which it was never offered; nobody else is let in.
	want(t, d.Ask(n, 1, 2), 200, "")
	want(t, d.Ask(n, 1, 2), 200, "")
	want(t, other.Ask(n, 1, 2), 403, "not-in-ring")
	want(t, other.Ask(n, 2, 2), 410, "recalled")
	if m := string(n.Get("/metrics").Body); !strings.Contains(m, "sealsrv_recall_propagation_seconds_count 1") {
		t.Error("the recall's propagation was not measured once")
	}
}

func TestStopBeforeTheCatalogKnows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		n, operator := w.Start(database), w.Start(database)
		d := n.Enrolled()
		want(t, d.Ask(n, 1, 1), 200, "")
		if err := operator.DB.Stop(t.Context(), servertest.ID(1), "harms", w.Now()); err != nil {
			t.Fatal(err)
		}
		want(t, d.Ask(n, 1, 1), 410, "recalled")
		want(t, d.Ask(n, 0, 0), 200, "")
	})
}

func TestRecallWithoutTheDatabase(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	w.Start(sqlite(t))
	w.Recall(1)
	n := w.Start(sqlite(t)) // a new database, which knows nothing
	want(t, n.Enrolled().Ask(n, 1, 1), 410, "recalled")
}

func TestBlockedDevice(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	database := sqlite(t)
	n, operator := w.Start(database), w.Start(database)
	d := n.Enrolled()
	if err := operator.DB.Block(t.Context(), d.ID, "stolen", w.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, d.Ask(n, 1, 1), 403, "refused")
	want(t, d.Ask(n, 0, 0), 403, "refused")
	want(t, d.Enrol(n, n.Token(1)), 403, "refused")
	if err := operator.DB.Unblock(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	want(t, d.Ask(n, 1, 1), 200, "")
}

func TestUnpublishedReleaseIsUnknown(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	// A file that merely lies in the folder, at the place of a target.
	data, err := w.Manifest(2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Repo.Store("releases/"+servertest.ID(2)+".json", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	w.Offer(2, 100, false)
	want(t, d.Ask(n, 2, 1), 404, "unknown-release")
}

func TestCatalogThatDoesNotVerifySignsNothing(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	want(t, n.Get("/healthz"), 200, "")
	w.Pass(8 * 24 * time.Hour) // nobody refreshed it
	a := d.Ask(n, 1, 1)
	want(t, a, 503, "busy")
	if a.Header.Get("Retry-After") == "" {
		t.Error("busy without Retry-After")
	}
	want(t, n.Get("/healthz"), 503, "busy")
	w.Refresh()
	w.NewLeaf(time.Hour)
	want(t, d.Ask(n, 1, 1), 200, "")
	want(t, n.Get("/healthz"), 200, "")
}

func TestLeafRotatesAndExpires(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	w.NewLeaf(time.Hour)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	before := decode[server.Ticket](t, d.Ask(n, 1, 1))
	w.Pass(30 * time.Minute)
	w.NewLeaf(2 * time.Hour)
	after := decode[server.Ticket](t, d.Ask(n, 1, 1))
	if bytes.Equal(before.Ticket, after.Ticket) {
		t.Error("the new leaf is not in use")
	}
	if _, err := ticket.Verify(after.Ticket, w.Root, d.Expect(1, 1)); err != nil {
		t.Error(err)
	}
	w.Pass(3 * time.Hour)
	want(t, d.Ask(n, 1, 1), 503, "busy")
	if m := string(n.Get("/metrics").Body); !strings.Contains(m, `sealsrv_key_expiry_seconds{key="leaf"} -`) {
		t.Error("the metric does not tell that the leaf is over")
	}
	w.NewLeaf(time.Hour)
	want(t, d.Ask(n, 1, 1), 200, "")
}

func TestRateLimitIsPerDevice(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t), func(c *server.Config) { c.Burst, c.PerHour = 5, 60 })
	d, other := n.Enrolled(), n.Enrolled()
	// Others can't use its share up: what is not signed by it does not count.
	for range 20 {
		want(t, other.Post(n, "/v1/tickets", other.Request(1, 1), func(r *http.Request) { r.Header.Set(identity.DeviceHeader, d.ID.Hex()) }), 401, "bad-signature")
	}
	for range 4 { // the enrolment was the first
		want(t, d.Ask(n, 1, 1), 200, "")
	}
	a := d.Ask(n, 1, 1)
	want(t, a, 429, "busy")
	if a.Header.Get("Retry-After") != "60" {
		t.Errorf("Retry-After %q, want 60", a.Header.Get("Retry-After"))
	}
	want(t, other.Ask(n, 1, 1), 200, "")
	w.Pass(time.Minute)
	want(t, d.Ask(n, 1, 1), 200, "")
	want(t, d.Ask(n, 1, 1), 429, "busy")
}

func TestCrowdIsSentAway(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t), func(c *server.Config) { c.MaxAtOnce = 1 })
	devices := make([]*servertest.Device, 16)
	for i := range devices {
		devices[i] = n.Enrolled()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	for _, d := range devices {
		wg.Go(func() {
			a := d.Ask(n, 1, 1)
			mu.Lock()
			defer mu.Unlock()
			count[a.Code()]++
			if a.Code() == "busy" && (a.Status != 503 || a.Header.Get("Retry-After") == "") {
				t.Errorf("busy without Retry-After: %s", a)
			}
		})
	}
	wg.Wait()
	if count[""] < 1 || count[""]+count["busy"] != len(devices) {
		t.Errorf("%v", count)
	}
}

func TestManyInParallel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		nodes := []*servertest.Node{w.Start(database), w.Start(database)}
		token := nodes[0].Token(200)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				n := nodes[i%2]
				d := w.Device()
				if a := d.Enrol(n, token); a.Status != 200 {
					t.Error(a)
					return
				}
				a := d.Ask(n, 1, i)
				if a.Status != 200 {
					t.Error(a)
					return
				}
				var got server.Ticket
				if err := json.Unmarshal(a.Body, &got); err != nil {
					t.Error(err)
				}
				if _, err := ticket.Verify(got.Ticket, w.Root, d.Expect(1, i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		sets, err := nodes[0].DB.Authorised(t.Context())
		if err != nil || len(sets) != 2 || sets[0].Tickets != 200 || sets[1].Tickets != 200 {
			t.Errorf("%+v, %v", sets, err)
		}
	})
}

func TestRestartRemembers(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	database := sqlite(t)
	n := w.Start(database)
	d := n.Enrolled()
	first := decode[server.Ticket](t, d.Ask(n, 1, 1))
	n.HTTP.Close()
	n.DB.Close()
	n = w.Start(database)
	if second := decode[server.Ticket](t, d.Ask(n, 1, 1)); !bytes.Equal(first.Ticket, second.Ticket) {
		t.Error("after a restart the same request gave another ticket")
	}
}

func TestCloneIsNoted(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	for _, nonce := range []int{1, 1, 2, 3, 2} {
		want(t, d.Ask(n, 1, nonce), 200, "")
		w.Pass(time.Second)
	}
	row, err := n.DB.Device(t.Context(), d.ID)
	if err != nil || row.Divergences != 1 {
		t.Errorf("%+v, %v", row, err)
	}
	if !strings.Contains(n.Log.String(), "dead nonce") {
		t.Error("the log does not say so")
	}
}
