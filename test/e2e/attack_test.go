package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/servertest"
)

// hostility is what a server between the devices and the vendor may do.
type hostility func(w http.ResponseWriter, r *http.Request) bool

// rewrite changes the bodies of answers whose path contains a word.
func (v *vendor) rewrite(word string, change func([]byte) []byte) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, word) {
			return false
		}
		rec := httptest.NewRecorder()
		v.node.Server.ServeHTTP(rec, r)
		for k, vs := range rec.Header() {
			if k != "Content-Length" {
				w.Header()[k] = vs
			}
		}
		w.WriteHeader(rec.Code)
		w.Write(change(rec.Body.Bytes()))
		return true
	}
}

func flipped(b []byte) []byte {
	c := bytes.Clone(b)
	if len(c) > 0 {
		c[len(c)/2] ^= 0x10
	}
	return c
}

// refuse answers every request for a path with a problem document.
func refuse(word string, status int, code string) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, word) {
			return false
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "0")
		w.Header().Set("Date", "Mon, 23 Nov 2037 18:00:00 GMT")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"title": "No", "detail": "for a reason\x1b[31m", "code": code, "status": status})
		return true
	}
}

func both(all ...hostility) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for _, h := range all {
			if h(w, r) {
				return true
			}
		}
		return false
	}
}

// snapshot lists what decides a device's next boot, and its images.
func (m *machine) snapshot() string {
	m.t.Helper()
	var lines []string
	dir := filepath.Join(m.root, "var/lib/sealant")
	for _, slot := range []string{"base", "current", "next", "previous"} {
		to, _ := os.Readlink(filepath.Join(dir, slot))
		lines = append(lines, slot+" "+to)
	}
	for _, folder := range []string{"images", "sets", "patches", "journal"} {
		entries, _ := os.ReadDir(filepath.Join(dir, folder))
		for _, e := range entries {
			lines = append(lines, folder+"/"+e.Name())
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// forget throws away what the device has downloaded and cached, so that it
// must ask for everything again.
func (m *machine) forget() {
	m.t.Helper()
	for _, folder := range []string{"downloads", "trust"} {
		dir := filepath.Join(m.root, "var/lib/sealant", folder)
		m.v.must(os.RemoveAll(dir))
		m.v.must(os.Mkdir(dir, 0o755))
	}
}

// TestHostileServer: whatever the server does, the device keeps its state and
// says what it is; afterwards an honest server can install.
func TestHostileServer(t *testing.T) {
	v := newVendor(t)
	m1 := v.release(1, 100)
	c := m1.Cryptexes[0]
	patchName, antiName, whole := c.Patch.Digest.String(), c.Antipatch.Digest.String(), c.To.Digest.String()
	other := v.enrolled("") // another device, whose ticket is stolen
	stolen := v.stealTicket(other)
	other.down() // all devices of a test share one namespace
	empty := func([]byte) []byte { return nil }
	html := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>Welcome to the hotel's network</html>")
		return true
	}
	m := v.enrolled("")
	before := m.snapshot()
	for name, tt := range map[string]struct {
		do   hostility
		kind fault.Kind
		text string
		hint string
	}{
		"offline":                  {hangUp, fault.Unreachable, "", ""},
		"hotel":                    {html, fault.Stale, "", ""},
		"timestamp flipped":        {v.rewrite("metadata/timestamp", flipped), fault.Stale, "", ""},
		"snapshot flipped":         {v.rewrite("snapshot", flipped), fault.Stale, "", ""},
		"targets flipped":          {v.rewrite("targets.json", flipped), fault.Stale, "", ""},
		"metadata empty":           {v.rewrite("metadata/timestamp", empty), fault.Stale, "", ""},
		"manifest flipped":         {v.rewrite("releases", flipped), fault.Stale, "", ""},
		"patch and whole flipped":  {both(v.rewrite(patchName, flipped), v.rewrite(whole, flipped)), fault.Seal, "digest", ""},
		"antipatch flipped":        {v.rewrite(antiName, flipped), fault.Seal, "digest", ""},
		"antipatch is the patch":   {v.rewrite(antiName, func([]byte) []byte { return v.made[c.Patch.Digest] }), fault.Seal, "", ""},
		"ticket flipped":           {v.rewrite("/v1/tickets", inTicket(flipped)), fault.Ticket, "", ""},
		"ticket cut":               {v.rewrite("/v1/tickets", inTicket(func(b []byte) []byte { return b[:len(b)-1] })), fault.Ticket, "", ""},
		"ticket longer":            {v.rewrite("/v1/tickets", inTicket(func(b []byte) []byte { return append(b, 0) })), fault.Ticket, "", ""},
		"ticket empty":             {v.rewrite("/v1/tickets", inTicket(empty)), fault.Ticket, "", ""},
		"ticket huge":              {v.rewrite("/v1/tickets", inTicket(func([]byte) []byte { return make([]byte, 100_000) })), fault.Ticket, "", ""},
		"another device's ticket":  {v.rewrite("/v1/tickets", inTicket(func([]byte) []byte { return stolen })), fault.Ticket, "", ""},
		"answer without end":       {v.rewrite("/v1/tickets", func([]byte) []byte { return make([]byte, 1<<20) }), fault.Unreachable, "", ""},
		"answer is not JSON":       {v.rewrite("/v1/tickets", func([]byte) []byte { return []byte("hello") }), fault.Unreachable, "", ""},
		"busy":                     {refuse("/v1/tickets", 503, "busy"), fault.Busy, "server is busy", "try again later"},
		"crashed":                  {refuse("/v1/tickets", 500, ""), fault.Busy, "server failed", "try again later"},
		"refused":                  {refuse("/v1/tickets", 403, "refused"), fault.Refused, "refused", ""},
		"not in ring":              {refuse("/v1/tickets", 403, "not-in-ring"), fault.NotEligible, "not in your ring yet", "later"},
		"unknown device":           {refuse("/v1/tickets", 401, "unknown-device"), fault.Refused, "does not know this device", "sealant enroll"},
		"recalled":                 {refuse("/v1/tickets", 410, "recalled"), fault.Recalled, "took this improvement back", ""},
		"clock":                    {refuse("/v1/tickets", 401, "clock"), fault.Refused, "clock is wrong", "the server says 2037-11-23"},
		"unknown release":          {refuse("/v1/tickets", 404, "unknown-release"), fault.NotEligible, "does not have", ""},
		"a code from the future":   {refuse("/v1/tickets", 403, "too-purple"), fault.Refused, "", ""},
		"no code at all":           {refuse("/v1/tickets", 418, ""), fault.Refused, "", ""},
		"redirect of a signed one": {redirect("/v1/tickets", "http://127.0.0.1:1/"), fault.Unreachable, "307", ""},
	} {
		m.forget()
		v.hostile(tt.do)
		_, err := m.install("")
		v.hostile(nil)
		if err == nil || fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) || !strings.Contains(fault.HintOf(err), tt.hint) {
			t.Errorf("%s: %v (kind %v, hint %q), want %v", name, err, fault.KindOf(err), fault.HintOf(err), tt.kind)
		}
		if strings.Contains(fmt.Sprint(err), "\x1b") {
			t.Errorf("%s: the server writes on the terminal: %q", name, err)
		}
		if after := m.snapshot(); after != before {
			t.Errorf("%s: the state changed:\n%s\nbefore:\n%s", name, after, before)
		}
	}
	if r, err := m.install(""); err != nil || r.State != device.StateStaged {
		t.Errorf("afterwards: %+v %v", r, err)
	}
	if m.boot(); m.level("web") != 1 {
		t.Error("afterwards it is not active")
	}
}

func redirect(word, to string) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, word) {
			return false
		}
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return true
	}
}

// inTicket changes the ticket inside an answer.
func inTicket(change func([]byte) []byte) func([]byte) []byte {
	return func(body []byte) []byte {
		var a struct {
			Ticket string `json:"ticket"`
		}
		if json.Unmarshal(body, &a) != nil {
			return body
		}
		der, err := base64.StdEncoding.DecodeString(a.Ticket)
		if err != nil {
			return body
		}
		a.Ticket = base64.StdEncoding.EncodeToString(change(der))
		out, _ := json.Marshal(a)
		return out
	}
}

// stealTicket is the ticket that another device got for the newest improvement.
func (v *vendor) stealTicket(m *machine) []byte {
	v.t.Helper()
	var stolen []byte
	v.hostile(v.rewrite("/v1/tickets", inTicket(func(b []byte) []byte { stolen = b; return b })))
	_, err := m.install("")
	v.must(err)
	v.hostile(nil)
	return stolen
}

// TestDamagedPatch falls back to the whole image.
func TestDamagedPatch(t *testing.T) {
	v := newVendor(t)
	m1 := v.release(1, 100)
	m := v.enrolled("")
	v.hostile(v.rewrite(m1.Cryptexes[0].Patch.Digest.String(), flipped))
	if r, err := m.install(""); err != nil || r.State != device.StateStaged {
		t.Fatalf("%+v %v", r, err)
	}
	if got := v.requests("/targets/images/"); len(got) != 1 {
		t.Errorf("whole images asked for: %v", got)
	}
	v.hostile(nil)
	if m.boot(); m.level("web") != 1 {
		t.Error("not active")
	}
}

// TestResume: a download that broke off goes on where it stopped, in the same
// installation and in the next.
func TestResume(t *testing.T) {
	v := newVendor(t)
	m1 := v.release(1, 100)
	m := v.enrolled("")
	file := m1.Cryptexes[0].Patch
	// half sends one half of the file and breaks the connection.
	half := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(file.Size))
		w.Write(v.made[file.Digest][:file.Size/2])
		http.NewResponseController(w).Flush()
		return hangUp(w, r)
	}
	ours := func(r *http.Request) bool { return strings.Contains(r.URL.Path, file.Digest.String()) }
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		return ours(r) && r.Header.Get("Range") == "" && half(w, r)
	})
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("bytes=%d-", file.Size/2)
	if got := v.requests(file.Digest.String()); len(got) != 2 || !strings.HasSuffix(got[1], want) {
		t.Errorf("requests %q, want the second from %s", got, want)
	}

	// The connection is lost for good in the middle; later it is back.
	m.down()
	m = v.enrolled("")
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		return ours(r) && (r.Header.Get("Range") == "" && half(w, r) || hangUp(w, r))
	})
	_, err := m.install("")
	wantKind(t, err, fault.Unreachable)
	v.hostile(nil)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	if got := v.requests(file.Digest.String()); len(got) != 1 || !strings.HasSuffix(got[0], want) {
		t.Errorf("requests after the interruption %q, want one from %s", got, want)
	}
}

// TestBusyServer is asked again, with a fresh signature each time.
func TestBusyServer(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	var n atomic.Int32
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		return n.Load() < 2 && refuse("/v1/tickets", 503, "busy")(w, r) && n.Add(1) > 0
	})
	if _, err := m.install(""); err != nil {
		t.Error(err)
	}
	if got := v.requests("/v1/tickets"); len(got) != 3 {
		t.Errorf("asked %d times", len(got))
	}
}

// TestClock: at 1970 nothing is in date, and the message names the clock; in
// 50 years the catalog has expired.
func TestClock(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	for name, now := range map[string]time.Time{"1970": time.Unix(1000, 0), "in 50 years": time.Now().AddDate(50, 0, 0)} {
		m := v.enrolled("")
		d := m.open()
		d.Now = func() time.Time { return now }
		_, err := d.Install(t.Context(), device.InstallOptions{}, user, m.log)
		if err == nil || !strings.Contains(err.Error()+fault.HintOf(err), "clock") {
			t.Errorf("%s: %v (hint %q)", name, err, fault.HintOf(err))
		}
		if kind := fault.KindOf(err); kind != fault.Stale && kind != fault.Refused {
			t.Errorf("%s: kind %v", name, kind)
		}
		if m.boot().Set == "" || m.level("web") != 0 {
			t.Errorf("%s: the device did not come up", name)
		}
	}
}

// TestSecondOperation: only one change at a time, in whatever process.
func TestSecondOperation(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	begun, goOn := make(chan bool), make(chan bool)
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/v1/tickets") {
			close(begun)
			<-goOn
		}
		return false
	})
	ended := make(chan error)
	go func() {
		_, err := m.open().Install(context.Background(), device.InstallOptions{}, user, nil)
		ended <- err
	}()
	<-begun
	_, err := m.install("")
	wantKind(t, err, fault.Busy)
	_, err = m.open().Remove(t.Context(), device.RemoveOptions{}, user, nil)
	wantKind(t, err, fault.Busy)
	_, err = m.open().Check(t.Context(), device.CheckOptions{}, nil)
	wantKind(t, err, fault.Busy)
	m.status() // reading goes on
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCancel: a person who interrupts an installation finds the old state.
func TestCancel(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	before := m.snapshot()
	ctx, cancel := context.WithCancel(t.Context())
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/v1/tickets") {
			cancel()
		}
		return false
	})
	if _, err := m.open().Install(ctx, device.InstallOptions{}, user, m.log); err == nil {
		t.Error("installed all the same")
	}
	v.hostile(nil)
	if after := m.snapshot(); after != before {
		t.Errorf("the state changed:\n%s", after)
	}
}

// TestNotInRing: nobody gets what isn't offered, and knows why.
func TestNotInRing(t *testing.T) {
	v := newVendor(t)
	v.release(1, 0)
	m := v.enrolled("")
	_, err := m.install("")
	wantKind(t, err, fault.NotEligible)
	if err == nil || !strings.Contains(err.Error(), "not in your ring yet") {
		t.Errorf("%v", err)
	}
	if c := m.check(); c.State != device.StateClosed || c.Answer() != fault.NotEligible || len(c.Gates) == 0 {
		t.Errorf("%+v", c)
	}
	_, err = m.install("SI-2026-9999")
	wantKind(t, err, fault.NotEligible)
	_, err = m.install("../../etc")
	wantKind(t, err, fault.Usage)
	v.world.Offer(1, 100, false)
	if _, err := m.install(servertest.ID(1)); err != nil {
		t.Error(err)
	}
	v.world.Offer(1, 100, true) // halted: who has it keeps it
	if c := m.check(); c.State != device.StateStaged {
		t.Errorf("%+v", c)
	}
	late := v.enrolled("")
	_, err = late.install("")
	wantKind(t, err, fault.NotEligible)
}
