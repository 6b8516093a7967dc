package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/trust/token"
)

// TestReportsSpendTokens: a device whose system pins the key asks for tokens in
// its name, and spends one with a report that nothing connects with it.
func TestReportsSpendTokens(t *testing.T) {
	v := newVendor(t)
	key, err := token.NewKey()
	v.must(err)
	v.node = v.world.Start(filepath.Join(v.dir, "server.db"), func(c *server.Config) { c.Tokens = key })
	v.must(os.WriteFile(filepath.Join(v.os, "usr/lib/sealant/report-key.txt"), []byte(key.Public().String()+"\n"), 0o644))
	m0 := v.release(1, 100)
	m := v.enrolled("")
	m.openToAll()

	var mu sync.Mutex
	var asked, reported []*http.Request
	bodies := map[*http.Request]string{}
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		data, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(data))
		mu.Lock()
		defer mu.Unlock()
		switch bodies[r] = string(data); r.URL.Path {
		case "/v1/reports/tokens":
			asked = append(asked, r)
		case "/v1/reports":
			reported = append(reported, r)
		}
		return false
	})
	count := func(list *[]*http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		return len(*list)
	}
	stop, _ := m.agent()
	time.Sleep(2 * time.Second)
	stop()
	if n := count(&asked); n != 0 {
		t.Fatalf("asked %d times for tokens without consent", n)
	}

	// The person agreed two days ago; the device was given tokens yesterday, and
	// a report is due.
	yesterday := time.Now().UTC().AddDate(0, 0, -1)
	request, err := key.Public().NewRequest(token.Day(yesterday), 2)
	v.must(err)
	answer, err := key.Issue(request.Day, request.Blinded)
	v.must(err)
	tokens, err := request.Finish(answer)
	v.must(err)
	daily := report.Daily{
		Schema: report.DailySchema, Name: strings.Repeat("5", 32), Improvement: m0.ID, OSBuild: m0.OSVersion, Arch: "amd64", Arm: report.Offered,
		Day: token.Day(yesterday), Apps: []report.App{{App: "mail", AtRisk: true}},
	}
	body, err := daily.Encode()
	v.must(err)
	state, err := json.Marshal(map[string]any{
		"schema": "sealant.analytics/1", "since": map[string]string{"device": token.Day(yesterday.AddDate(0, 0, -1))},
		"built": token.Day(yesterday), "offered": map[string]bool{},
		"waiting": []map[string]any{{"origin": "device", "made": time.Now().Add(-time.Hour), "due": time.Now().Add(-time.Minute), "body": string(body)}},
		"tokens":  []string{tokens[0].String(), tokens[1].String()},
	})
	v.must(err)
	dir := filepath.Join(m.root, "var/lib/sealant/analytics")
	v.must(os.MkdirAll(dir, 0o700))
	v.must(os.WriteFile(filepath.Join(dir, "state.json"), append(state, '\n'), 0o600))
	stop, _ = m.agent()
	defer stop()
	m.wait("the report is counted", func() bool {
		cells, err := v.node.DB.Cells(t.Context(), m0.ID)
		return err == nil && len(cells) == 1 && cells[0].AtRisk == 1
	})
	m.wait("today's tokens are there", func() bool {
		var s struct{ Tokens []string }
		data, err := os.ReadFile(filepath.Join(dir, "state.json"))
		return err == nil && json.Unmarshal(data, &s) == nil && len(s.Tokens) == 1+token.Batch
	})
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || len(reported) != 1 {
		t.Fatalf("%d requests for tokens, %d reports", len(asked), len(reported))
	}
	// What the server sees of the report names no device, and nothing of it was
	// in the request that did.
	id, err := m.open().Store.Enrolment()
	v.must(err)
	device := hex.EncodeToString(id.Device[:])
	if !strings.Contains(asked[0].Header.Get("Sealant-Device"), device) {
		t.Error("tokens were not asked for in the device's name")
	}
	for name, values := range reported[0].Header {
		switch name {
		case "Content-Type", "Content-Length", "User-Agent", "Connection":
		case "Sealant-Token":
			if values[0] != tokens[0].String() {
				t.Errorf("spent %q", values)
			}
		default:
			t.Errorf("the header %s: %q goes with the report", name, values)
		}
	}
	if strings.Contains(bodies[reported[0]], device[:16]) || asked[0].RemoteAddr == reported[0].RemoteAddr {
		t.Error("the report names the device, or came over its connection")
	}
	if list, err := v.node.DB.Tickets(t.Context(), id.Device, 10); err != nil || len(list) == 0 {
		t.Errorf("%v, %v", list, err)
	}
}
