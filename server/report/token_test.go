package report_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/token"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// batch gets a device's tokens for the present day.
func batch(t *testing.T, d *servertest.Device, n *servertest.Node, key *token.Key, day string, count int) ([]token.Token, servertest.Answer) {
	t.Helper()
	r, err := key.Public().NewRequest(day, count)
	if err != nil {
		t.Fatal(err)
	}
	a := d.Post(n, "/v1/reports/tokens", server.TokenRequest{Day: day, Blinded: r.Blinded})
	if a.Status != http.StatusOK {
		return nil, a
	}
	var got server.Tokens
	if err := json.Unmarshal(a.Body, &got); err != nil {
		t.Fatal(err)
	}
	tokens, err := r.Finish(token.Answer{Points: got.Points, Proof: got.Proof})
	if err != nil {
		t.Fatal(err)
	}
	return tokens, a
}

func spend(t *testing.T, w *servertest.World, n *servertest.Node, report int, tok string) servertest.Answer {
	t.Helper()
	body, err := daily(w, report).Encode()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", n.HTTP.URL+"/v1/reports", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if tok != "" {
		req.Header.Set("Sealant-Token", tok)
	}
	return n.Do(req)
}

func refused(t *testing.T, what string, a servertest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %s, want %d %s", what, a, status, code)
	}
}

// TestStuffing: a report counts with a token of an earlier day, and each token
// once; nobody has more than a device's batch, on whatever server.
func TestStuffing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		w.Release(1, 100)
		key, err := token.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		with := func(c *server.Config) { c.Tokens = key }
		one, two := w.Start(database, with), w.Start(database, with)
		d, today := one.Enrolled(), token.Day(w.Now())

		tokens, _ := batch(t, d, one, key, today, token.Batch)
		for _, n := range []*servertest.Node{one, two} {
			_, a := batch(t, d, n, key, today, 1)
			refused(t, "a second batch", a, 403, "refused")
		}
		_, a := batch(t, w.Device(), one, key, today, 1)
		refused(t, "an unknown device", a, 401, "unknown-device")
		_, a = batch(t, one.Enrolled(), one, key, token.Day(w.Now().AddDate(0, 0, 2)), 1)
		refused(t, "a day to come", a, 401, "clock")
		_, a = batch(t, one.Enrolled(), one, key, token.Day(w.Now().AddDate(0, 0, -1)), 1)
		refused(t, "a day gone by", a, 401, "clock")
		blocked := one.Enrolled()
		if err := one.DB.Block(t.Context(), blocked.ID, "stolen", w.Now()); err != nil {
			t.Fatal(err)
		}
		_, a = batch(t, blocked, one, key, today, 1)
		refused(t, "a blocked device", a, 403, "refused")
		nobody := tokens[0]
		nobody.Tag[0] ^= 1
		many := make([][]byte, token.Batch+1)
		refused(t, "too many at once", one.Enrolled().Post(one, "/v1/reports/tokens", server.TokenRequest{Day: today, Blinded: many}), 422, "bad-request")
		refused(t, "no points", one.Enrolled().Post(one, "/v1/reports/tokens", server.TokenRequest{Day: today, Blinded: [][]byte{{1}}}), 400, "bad-request")

		refused(t, "on the token's own day", spend(t, w, one, 1, tokens[0].String()), 403, "refused")
		w.Pass(24 * time.Hour)
		w.Refresh()
		refused(t, "without a token", spend(t, w, one, 1, ""), 403, "refused")
		refused(t, "not a token", spend(t, w, one, 1, "2026-11-23.AAAA"), 400, "bad-request")
		refused(t, "a forged one", spend(t, w, one, 1, nobody.String()), 403, "refused")
		for i := range 3 {
			// Sent twice, to both servers: counted once, and not refused.
			for _, n := range []*servertest.Node{one, two} {
				if a := spend(t, w, n, i, tokens[i].String()); a.Status != http.StatusNoContent {
					t.Errorf("report %d: %s", i, a)
				}
			}
			refused(t, "spent", spend(t, w, two, 100+i, tokens[i].String()), 403, "refused")
		}
		w.Pass(2 * 24 * time.Hour)
		w.Refresh()
		if a := spend(t, w, one, 50, tokens[3].String()); a.Status != http.StatusNoContent {
			t.Errorf("on the last day: %s", a)
		}
		w.Pass(24 * time.Hour)
		w.Refresh()
		refused(t, "a token of an old day", spend(t, w, one, 51, tokens[4].String()), 403, "refused")
		// What is over is forgotten.
		if _, a := batch(t, d, one, key, token.Day(w.Now()), 1); a.Status != http.StatusOK {
			t.Errorf("days later: %s", a)
		}
		cells, err := one.DB.Cells(t.Context(), servertest.ID(1))
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, c := range cells {
			if c.App == "mail" {
				sum += c.AtRisk
			}
		}
		if sum != 4 {
			t.Errorf("%d reports were counted, want 4", sum)
		}
	})
}

// TestServerWithoutTokens takes reports as they come, and gives no tokens.
func TestServerWithoutTokens(t *testing.T) {
	w, n := start(t)
	key, err := token.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, a := batch(t, n.Enrolled(), n, key, token.Day(w.Now()), 1)
	refused(t, "no tokens here", a, 404, "not-found")
	if a := spend(t, w, n, 1, "whatever"); a.Status != http.StatusNoContent {
		t.Error(a)
	}
}
