package report_test

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
	format "github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/report"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store"
)

func start(t *testing.T) (*servertest.World, *servertest.Node) {
	t.Helper()
	w := servertest.New(t)
	w.Release(1, 100)
	return w, w.Start(filepath.Join(t.TempDir(), "fleet.db"))
}

// name is the n-th report's random name.
func name(n int) string { return hex.EncodeToString(fmt.Appendf(nil, "%016d", n)) }

func daily(w *servertest.World, n int, change ...func(*format.Daily)) format.Daily {
	d := format.Daily{
		Schema: format.DailySchema, Name: name(n), Improvement: servertest.ID(1), OSBuild: "42.3.0", Arch: "amd64", Arm: format.Offered,
		Day: w.Now().Format(time.DateOnly), Apps: []format.App{{App: "browser", AtRisk: true}, {App: "mail", AtRisk: true, FirstCrash: n%5 == 0}},
	}
	for _, f := range change {
		f(&d)
	}
	return d
}

func post(t *testing.T, n *servertest.Node, body []byte) servertest.Answer {
	t.Helper()
	req, err := http.NewRequest("POST", n.HTTP.URL+"/v1/reports", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return n.Do(req)
}

func send(t *testing.T, n *servertest.Node, d interface{ Encode() ([]byte, error) }) servertest.Answer {
	t.Helper()
	body, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return post(t, n, body)
}

func TestReportsAreCountedOnce(t *testing.T) {
	w, n := start(t)
	for i := range 25 {
		for range 2 {
			if a := send(t, n, daily(w, i)); a.Status != http.StatusNoContent || len(a.Body) != 0 {
				t.Fatal(a)
			}
		}
	}
	for i := 25; i < 30; i++ {
		send(t, n, daily(w, i, func(d *format.Daily) { d.Arm = format.Control }))
	}
	cells, err := n.DB.Cells(t.Context(), servertest.ID(1))
	if err != nil || len(cells) != 4 {
		t.Fatalf("%+v, %v", cells, err)
	}
	days := report.Days(cells, "mail")
	if want := []eprocess.Day{{Stratum: "42.3.0 amd64", F1: 5, R1: 25, F0: 1, R0: 5}}; len(days) != 1 || days[0] != want[0] {
		t.Errorf("%+v", days)
	}
	lines := report.Lines(cells)
	if len(lines) != 2 {
		t.Fatalf("%+v", lines)
	}
	for _, l := range lines {
		if l.OfferedAtRisk == nil || *l.OfferedAtRisk != 25 || l.ControlAtRisk != nil || l.OfferedCrashed != nil || l.Suppressed != 1 || l.Days != 1 {
			t.Errorf("%+v: counts of fewer than ten devices must not be shown", l)
		}
	}
	if strings.Contains(n.Log.String(), "127.0.0.1") {
		t.Errorf("the log names the sender: %s", n.Log)
	}
	if m := string(n.Get("/metrics").Body); !strings.Contains(m, `sealsrv_reports_total{result="ok"} 30`) || !strings.Contains(m, `sealsrv_reports_total{result="replayed"} 25`) {
		t.Error("metrics")
	}
}

func TestSmallCellsDoNotAddUp(t *testing.T) {
	var cells []store.Cell
	for day := range 20 {
		cells = append(cells, store.Cell{Release: "SI-2026-0001", App: "mail", Arm: format.Offered, Day: fmt.Sprint(day), AtRisk: 9, Crashed: 9})
	}
	cells = append(cells, store.Cell{Release: "SI-2026-0001", App: "mail", Arm: format.Control, Day: "1", AtRisk: 10, Crashed: 10})
	l := report.Lines(cells)
	if len(l) != 1 || l[0].OfferedAtRisk != nil || l[0].OfferedCrashed != nil || l[0].Suppressed != 20 || *l[0].ControlCrashed != 10 {
		t.Errorf("%+v", l)
	}
}

func TestHostileReports(t *testing.T) {
	w, n := start(t)
	good, err := daily(w, 1).Encode()
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(change func(*format.Daily)) []byte {
		data, err := daily(w, 1, change).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for what, body := range map[string][]byte{
		"nothing":            nil,
		"no JSON":            []byte("hello"),
		"an unknown schema":  bytes.Replace(good, []byte("sealant.daily/1"), []byte("sealant.daily/9"), 1),
		"an unknown field":   bytes.Replace(good, []byte(`{"schema"`), []byte(`{"device":"7c1e","schema"`), 1),
		"white space":        append(good[:len(good):len(good)], '\n'),
		"two documents":      append(good[:len(good):len(good)], good...),
		"too many bytes":     bytes.Repeat([]byte(" "), format.MaxBytes+1),
		"another OS":         encoded(func(d *format.Daily) { d.OSBuild = "99.9" }),
		"an unknown release": encoded(func(d *format.Daily) { d.Improvement = "SI-2026-0099" }),
		"tomorrow":           encoded(func(d *format.Daily) { d.Day = w.Now().AddDate(0, 0, 2).Format(time.DateOnly) }),
		"last year":          encoded(func(d *format.Daily) { d.Day = w.Now().AddDate(-1, 0, 0).Format(time.DateOnly) }),
	} {
		if a := post(t, n, body); a.Code() != "bad-request" || a.Status < 400 || a.Status >= 500 {
			t.Errorf("%s: %s", what, a)
		}
	}
	if cells, err := n.DB.Cells(t.Context(), ""); err != nil || len(cells) != 0 {
		t.Errorf("%d cells, %v", len(cells), err)
	}
}

func TestTablesHaveAnEnd(t *testing.T) {
	w, n := start(t)
	counts := store.Counts{}
	for i := range 20_000 {
		counts.Cells = append(counts.Cells, store.Cell{
			Release: servertest.ID(1), OSBuild: "42.3.0", Arch: "amd64", Arm: format.Offered, Day: w.Now().Format(time.DateOnly), App: fmt.Sprint("app", i), AtRisk: 1,
		})
	}
	if _, err := n.DB.AddCounts(t.Context(), nil, counts, w.Now()); err != nil {
		t.Fatal(err)
	}
	if a := send(t, n, daily(w, 1)); a.Code() != "busy" {
		t.Error(a)
	}
	if a := send(t, n, daily(w, 1, func(d *format.Daily) { d.Day = w.Now().AddDate(0, 0, -1).Format(time.DateOnly) })); a.Status != 204 {
		t.Errorf("another day has room: %s", a)
	}
}

func TestRecommendations(t *testing.T) {
	w, n := start(t)
	r := format.Recommendation{Schema: format.RecommendationSchema, Name: name(1), Improvement: servertest.ID(1), App: "mail", Outcome: format.Shown}
	if a := send(t, n, r); a.Code() != "bad-request" {
		t.Errorf("an app that nobody listed: %s", a)
	}
	desk := rollout.Desk{DB: n.DB, Source: n.Source, Repository: w.Repo, Online: []crypto.Signer{w.Online}, Advisers: []crypto.Signer{w.AdviceK}, Now: w.Now}
	_, err := desk.Recommend(t.Context(), release.Advice{
		Release: servertest.ID(1), App: "mail", OSVersions: []string{}, AppVersions: []string{}, Scope: release.ScopeMain, MinEvidence: 20, TextKey: "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		r.Name = name(i)
		if a := send(t, n, r); a.Status != 204 {
			t.Fatal(a)
		}
	}
	r.Outcome, r.Name = format.Dismissed, name(100)
	send(t, n, r)
	list, err := n.DB.Recommendations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	sums := report.Sum(list)
	if len(sums) != 1 || sums[0].Shown == nil || *sums[0].Shown != 12 || sums[0].Dismissed != nil || sums[0].Accepted != nil {
		t.Errorf("%+v", sums)
	}
}
