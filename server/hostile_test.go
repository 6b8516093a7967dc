package server_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/trust/identity"
)

func TestHostileTicketRequests(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d, other := n.Enrolled(), n.Enrolled()
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	good := d.Request(1, 1)
	fields := func(change func(map[string]any)) []byte {
		m := map[string]any{"product": good.Product, "baseline": good.Baseline, "release": good.Release, "domain": good.Domain, "nonce": good.Nonce}
		change(m)
		data, _ := json.Marshal(m)
		return data
	}
	for _, tt := range []struct {
		name   string
		body   any
		tamper func(*http.Request)
		status int
		code   string
	}{
		{"as it should be", good, nil, 200, ""},
		{"another device's name", good, set(identity.DeviceHeader, other.ID.Hex()), 401, "bad-signature"},
		{"an unknown device", good, set(identity.DeviceHeader, w.Device().ID.Hex()), 401, "unknown-device"},
		{"another signature", good, set(identity.SignatureHeader, "MEUCIQ=="), 401, "bad-signature"},
		{"no signature", good, func(r *http.Request) { r.Header.Del(identity.SignatureHeader) }, 401, "bad-signature"},
		{"another date than was signed", good, set(identity.DateHeader, w.Now().Add(time.Second).Format(time.RFC3339)), 401, "bad-signature"},
		{"a query that was not signed", good, func(r *http.Request) { r.URL.RawQuery = "x=1" }, 422, "bad-request"},
		{"an unknown field", fields(func(m map[string]any) { m["admin"] = true }), nil, 422, "bad-request"},
		{"a missing field", fields(func(m map[string]any) { delete(m, "domain") }), nil, 422, "bad-request"},
		{"a release id with a path", fields(func(m map[string]any) { m["release"] = "../../etc/passwd" }), nil, 400, "bad-request"},
		{"a release nobody published", fields(func(m map[string]any) { m["release"] = "SI-2026-0099" }), nil, 404, "unknown-release"},
		{"another baseline", fields(func(m map[string]any) { m["baseline"] = strings.Repeat("ab", 48) }), nil, 404, "unknown-release"},
		{"another product", fields(func(m map[string]any) { m["product"] = "OtherOS" }), nil, 403, "refused"},
		{"a product with a line end", fields(func(m map[string]any) { m["product"] = "Example\nOS" }), nil, 400, "bad-request"},
		{"a short nonce", fields(func(m map[string]any) { m["nonce"] = "abcd" }), nil, 400, "bad-request"},
		{"a release without a nonce", fields(func(m map[string]any) { m["nonce"] = "" }), nil, 400, "bad-request"},
		{"a zero nonce", fields(func(m map[string]any) { m["nonce"] = strings.Repeat("00", 48) }), nil, 400, "bad-request"},
		{"a baseline with a nonce", fields(func(m map[string]any) { m["release"] = "" }), nil, 400, "bad-request"},
		{"another nonce domain", fields(func(m map[string]any) { m["domain"] = 2 }), nil, 400, "bad-request"},
		{"a negative nonce domain", fields(func(m map[string]any) { m["domain"] = -1 }), nil, 422, "bad-request"},
		{"a nonce in capitals", fields(func(m map[string]any) { m["nonce"] = strings.ToUpper(good.Nonce) }), nil, 400, "bad-request"},
		{"a member in capitals", fields(func(m map[string]any) { m["Product"] = m["product"]; delete(m, "product") }), nil, 422, "bad-request"},
		{"null in place of a text", fields(func(m map[string]any) { m["release"] = nil }), nil, 422, "bad-request"},
		{"a list in place of a text", fields(func(m map[string]any) { m["release"] = []string{good.Release} }), nil, 422, "bad-request"},
		{"a text in place of a number", fields(func(m map[string]any) { m["domain"] = "1" }), nil, 422, "bad-request"},
		{"a number with a fraction", fields(func(m map[string]any) { m["domain"] = 1.5 }), nil, 422, "bad-request"},
		{"a member twice", []byte(`{"product":"ExampleOS","product":"ExampleOS"}`), nil, 422, "bad-request"},
		{"a list", []byte(`[]`), nil, 422, "bad-request"},
		{"null", []byte(`null`), nil, 422, "bad-request"},
		{"an empty object", []byte(`{}`), nil, 422, "bad-request"},
		{"no JSON", []byte("hello"), nil, 422, "bad-request"},
		{"an empty body", []byte(""), nil, 400, "bad-request"},
		{"an oversized body", bytes.Repeat([]byte(" "), 17<<10), nil, 413, "bad-request"},
		{"another content type", good, set("Content-Type", "text/plain"), 422, "bad-request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tamper []func(*http.Request)
			if tt.tamper != nil {
				tamper = append(tamper, tt.tamper)
			}
			want(t, d.Post(n, "/v1/tickets", tt.body, tamper...), tt.status, tt.code)
		})
	}
	if list, err := n.DB.Tickets(t.Context(), d.ID, 100); err != nil || len(list) != 2 {
		t.Errorf("%d tickets were recorded, want the baseline's and one: %v", len(list), err)
	}
	if list, err := n.DB.Tickets(t.Context(), other.ID, 100); err != nil || len(list) != 1 {
		t.Errorf("%d tickets were recorded for the device that did nothing: %v", len(list), err)
	}
}

func TestBodyChangedOnTheWay(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	for i := range 40 {
		a := d.Post(n, "/v1/tickets", d.Request(1, 1), func(r *http.Request) {
			data, _ := json.Marshal(d.Request(1, 2+i)) // well formed, and of the same length
			r.Body = http.NoBody
			r.GetBody = nil
			*r = *mustRequest(r, data)
		})
		want(t, a, 401, "bad-signature")
	}
}

func mustRequest(old *http.Request, body []byte) *http.Request {
	r, err := http.NewRequest(old.Method, old.URL.String(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header = old.Header
	return r
}

func TestReplay(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	var kept http.Header
	want(t, d.Post(n, "/v1/tickets", d.Request(1, 1), func(r *http.Request) { kept = r.Header.Clone() }), 200, "")
	replay := func() servertest.Answer {
		return d.Post(n, "/v1/tickets", d.Request(1, 1), func(r *http.Request) { r.Header = kept.Clone() })
	}
	want(t, replay(), 409, "replayed")
	w.Pass(4 * time.Minute)
	want(t, replay(), 409, "replayed")
	w.Pass(2 * time.Minute)
	want(t, replay(), 401, "clock")
	w.Pass(30 * time.Minute)
	want(t, replay(), 401, "clock")
	want(t, d.Ask(n, 1, 1), 200, "")
}

func TestClockIsNamed(t *testing.T) {
	w := servertest.New(t)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	body, _ := json.Marshal(d.Request(0, 0))
	for _, at := range []time.Time{time.Unix(0, 0), w.Now().AddDate(50, 0, 0), w.Now().Add(6 * time.Minute)} {
		sig, err := identity.SignRequest(d.Key, "POST", "/v1/tickets", body, at)
		if err != nil {
			t.Fatal(err)
		}
		a := d.Post(n, "/v1/tickets", body, func(r *http.Request) {
			r.Header.Set(identity.DateHeader, sig.Date)
			r.Header.Set(identity.SignatureHeader, sig.Signature)
		})
		want(t, a, 401, "clock")
		if !strings.Contains(string(a.Body), sig.Date) || a.Header.Get("Date") == "" {
			t.Errorf("both clocks must be named: %s", a)
		}
	}
}

func TestHostileEnrolments(t *testing.T) {
	w := servertest.New(t)
	n := w.Start(sqlite(t))
	d := w.Device()
	token := n.Token(1)
	body := func(change func(*server.Enrolment)) server.Enrolment {
		e := d.Enrolment(token)
		change(&e)
		return e
	}
	thief := w.Device()
	for _, tt := range []struct {
		name   string
		who    *servertest.Device
		body   any
		status int
		code   string
	}{
		{"another's key", thief, body(func(*server.Enrolment) {}), 401, "bad-signature"},
		{"an unknown token", d, body(func(e *server.Enrolment) { e.Token = "set-" + strings.Repeat("a", 32) }), 403, "bad-token"},
		{"an empty token", d, body(func(e *server.Enrolment) { e.Token = "" }), 400, "bad-request"},
		{"no key", d, body(func(e *server.Enrolment) { e.PublicKey = []byte("key") }), 400, "bad-request"},
		{"a key with more behind it", d, body(func(e *server.Enrolment) { e.PublicKey = append(e.PublicKey, 0) }), 400, "bad-request"},
		{"an unknown baseline", d, body(func(e *server.Enrolment) { e.Baseline = strings.Repeat("cd", 48) }), 404, "unknown-release"},
		{"another product", d, body(func(e *server.Enrolment) { e.Product = "OtherOS" }), 404, "unknown-release"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want(t, tt.who.Post(n, "/v1/enroll", tt.body), tt.status, tt.code)
		})
	}
	want(t, d.Enrol(n, token), 200, "") // none of that used the token up
	w.Pass(2 * time.Hour)
	want(t, w.Device().Enrol(n, token), 403, "bad-token")
}

// TestSecondSignatureOfOne: whoever sees a request can turn its signature
// (r, s) into another good one, (r, n-s), without the key. It is the same
// request all the same.
func TestSecondSignatureOfOne(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d := n.Enrolled()
	var seen http.Header
	request := d.Request(1, 1)
	want(t, d.Post(n, "/v1/tickets", request, func(r *http.Request) { seen = r.Header.Clone() }), 200, "")
	again := func(signature string) {
		t.Helper()
		want(t, d.Post(n, "/v1/tickets", request, func(r *http.Request) {
			r.Header = seen.Clone()
			r.Header.Set(identity.SignatureHeader, signature)
		}), 409, "replayed")
	}
	first := seen.Get(identity.SignatureHeader)
	again(first)
	raw, err := base64.StdEncoding.DecodeString(first)
	if err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(raw, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(d.Key.Params().N, rs.S)
	if raw, err = asn1.Marshal(rs); err != nil {
		t.Fatal(err)
	}
	second := base64.StdEncoding.EncodeToString(raw)
	if second == first {
		t.Fatal("there is only one")
	}
	again(second)
}
