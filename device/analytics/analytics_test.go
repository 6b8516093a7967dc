package analytics

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/report"
)

var monday = time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)

const hour, day = time.Hour, 24 * time.Hour

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waits(t *testing.T, d *Desk, o Origin) int {
	t.Helper()
	list, err := d.Waiting(o)
	must(t, err)
	return len(list)
}

// sent sends what is due and returns the bodies.
func sent(t *testing.T, d *Desk, now time.Time, forbidden bool) (bodies []string) {
	t.Helper()
	must(t, d.Send(now, forbidden, false, func(body []byte, _ string) bool {
		bodies = append(bodies, string(body))
		return true
	}))
	return bodies
}

func recommend(t *testing.T, d *Desk, now time.Time) {
	t.Helper()
	must(t, d.Recommended(now, "SI-2026-0007", "mail", report.Shown))
}

func TestOffUntilSwitchedOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	d := Open(dir)
	for _, o := range []Origin{Own, Paired} {
		if _, on, err := d.On(o); on || err != nil {
			t.Errorf("%s is on: %v", o, err)
		}
	}
	recommend(t, d, monday)
	if n := len(sent(t, d, monday.Add(9*day), false)); n != 0 {
		t.Errorf("%d sent without consent", n)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "state*")); len(files) != 0 {
		t.Errorf("something was kept: %v", files)
	}
}

func TestNeverRetroactive(t *testing.T) {
	d := Open(t.TempDir())
	must(t, d.Switch(Own, true, monday))
	if since, on, err := d.On(Own); since != "2026-11-24" || !on || err != nil {
		t.Errorf("%q, %v, %v", since, on, err)
	}
	recommend(t, d, monday.Add(hour)) // the same day
	if waits(t, d, Own) != 0 {
		t.Error("the day of the consent is told")
	}
	recommend(t, d, monday.Add(10*hour)) // 01:00 on Tuesday
	if waits(t, d, Own) != 1 {
		t.Error("the day after is not told")
	}
	must(t, d.Switch(Own, true, monday.Add(30*day)))
	if since, _, _ := d.On(Own); since != "2026-11-24" {
		t.Error("switching on twice moved the day")
	}
	// Off and on again: what was before the second time is never told.
	must(t, d.Switch(Own, false, monday.Add(2*day)))
	must(t, d.Switch(Own, true, monday.Add(3*day)))
	body, err := d.Daily("2026-11-25", "amd64", true, Improvement{Release: "SI-2026-0007", OSBuild: "42.3.0", Began: "2026-11-20"}, []string{"mail"},
		func(string, string, string) Use { return Use{Used: true} })
	must(t, err)
	if kept, err := d.Add(Own, body, monday.Add(5*day)); kept || err != nil {
		t.Errorf("kept %v, %v", kept, err)
	}
}

func TestTwoSwitches(t *testing.T) {
	d := Open(t.TempDir())
	body, err := report.Recommendation{Schema: report.RecommendationSchema, Name: strings.Repeat("0", 32), Improvement: "SI-2026-0007", App: "mail", Outcome: report.Shown}.Encode()
	must(t, err)
	later := monday.Add(2 * day)
	add := func(o Origin) bool {
		kept, err := d.Add(o, body, later)
		must(t, err)
		return kept
	}
	must(t, d.Switch(Own, true, monday))
	if !add(Own) || add(Paired) {
		t.Error("the first switch is for this device alone")
	}
	must(t, d.Switch(Paired, true, monday))
	if !add(Paired) {
		t.Error("the second switch lets a paired device's report pass")
	}
	must(t, d.Switch(Own, false, later))
	if waits(t, d, Own) != 0 || waits(t, d, Paired) != 1 {
		t.Error("off purges its own reports, at once")
	}
	if _, err := d.Add(Paired, []byte(`{"schema":"sealant.daily/1","device":"7c1e-90af"}`), later); err == nil {
		t.Error("a report that is none passes")
	}
	if err := d.Switch("other", true, monday); err == nil {
		t.Error("a third switch")
	}
}

func TestSending(t *testing.T) {
	d := Open(t.TempDir())
	d.Rand = bytes.NewReader(bytes.Repeat([]byte{0x40, 0x11, 0x80, 0x23, 9}, 100_000))
	must(t, d.Switch(Own, true, monday))
	made := monday.Add(day)
	for range 20 {
		recommend(t, d, made)
	}
	before, err := d.Waiting(Own)
	must(t, err)
	var out []string
	spread := map[int]bool{}
	for at := made; at.Before(made.Add(MaxDelay + hour)); at = at.Add(hour) {
		now := sent(t, d, at, false)
		if len(now) > 0 {
			spread[int(at.Sub(made)/hour)] = true
		}
		out = append(out, now...)
	}
	if len(out) != 20 || waits(t, d, Own) != 0 {
		t.Errorf("%d of 20 sent within a day, %d wait", len(out), waits(t, d, Own))
	}
	if len(spread) < 3 {
		t.Errorf("all leave at the same time: %v", spread)
	}
	for _, body := range before {
		if !strings.Contains(strings.Join(out, "\n"), string(body)) {
			t.Errorf("other bytes were sent than shown: %s", body)
		}
	}
}

func TestConsentAtSending(t *testing.T) {
	dir := t.TempDir()
	d, other := Open(dir), Open(dir)
	must(t, d.Switch(Own, true, monday))
	for range 5 {
		recommend(t, d, monday.Add(day))
	}
	// Another process turns the switch off while the first report is on its way.
	var out int
	must(t, d.Send(monday.Add(3*day), false, false, func([]byte, string) bool {
		out++
		must(t, other.Switch(Own, false, monday.Add(3*day)))
		return true
	}))
	if _, on, _ := d.On(Own); on || out != 1 || waits(t, d, Own) != 0 {
		t.Errorf("%d sent, on %v, %d wait", out, on, waits(t, d, Own))
	}
	// Policy forbids: nothing leaves, nothing stays.
	must(t, d.Switch(Own, true, monday))
	recommend(t, d, monday.Add(day))
	if n := len(sent(t, d, monday.Add(3*day), true)); n != 0 || waits(t, d, Own) != 0 {
		t.Errorf("%d sent, %d wait although policy forbids", n, waits(t, d, Own))
	}
}

func TestServerDown(t *testing.T) {
	d := Open(t.TempDir())
	must(t, d.Switch(Own, true, monday))
	recommend(t, d, monday.Add(day))
	tries := 0
	for at := monday.Add(day); at.Before(monday.Add(8 * day)); at = at.Add(10 * time.Minute) {
		must(t, d.Send(at, false, false, func([]byte, string) bool { tries++; return false }))
	}
	if waits(t, d, Own) != 0 || tries < 48 || tries > 24*4 {
		t.Errorf("%d tries, %d wait: once an hour for four days", tries, waits(t, d, Own))
	}
	// Clocks that jump neither hold reports for ever nor lose the state.
	recommend(t, d, monday.AddDate(50, 0, 0))
	if n := len(sent(t, d, monday.Add(9*day), false)); n != 1 {
		t.Errorf("%d sent after the clock was set back", n)
	}
}

func TestBounds(t *testing.T) {
	d := Open(t.TempDir())
	must(t, d.Switch(Own, true, monday))
	for range maxWaiting + 20 {
		recommend(t, d, monday.Add(day))
	}
	if n := waits(t, d, Own); n != maxWaiting {
		t.Errorf("%d wait", n)
	}
	if maxWaiting*report.MaxBytes*2 > 8<<20 {
		t.Error("the state can grow too large")
	}
}

func TestBrokenState(t *testing.T) {
	d := Open(t.TempDir())
	must(t, d.Switch(Own, true, monday))
	recommend(t, d, monday.Add(day))
	file := filepath.Join(d.dir, "state.json")
	whole, err := os.ReadFile(file)
	must(t, err)
	for name, data := range map[string][]byte{
		"cut":             whole[:len(whole)/2],
		"empty":           {},
		"twice":           append(bytes.Clone(whole), whole...),
		"without consent": bytes.Replace(whole, []byte(`"device":"2026-11-24"`), nil, 1),
		"other schema":    bytes.Replace(whole, []byte("analytics/1"), []byte("analytics/2"), 1),
		"oversize":        bytes.Repeat([]byte(" "), maxState+1),
	} {
		must(t, os.WriteFile(file, data, 0o600))
		if _, on, err := d.On(Own); on || err == nil {
			t.Errorf("%s: on %v, %v", name, on, err)
		}
		if n := len(sent(t, d, monday.Add(9*day), false)); n != 0 {
			t.Errorf("%s: %d sent", name, n)
		}
	}
	must(t, os.WriteFile(file, whole[:9], 0o600))
	must(t, d.Switch(Own, true, monday))
	if _, on, err := d.On(Own); !on || err != nil {
		t.Errorf("a broken state can't be replaced: %v, %v", on, err)
	}
}

func TestDays(t *testing.T) {
	d := Open(t.TempDir())
	i := Improvement{Release: "SI-2026-0007", OSBuild: "42.3.0", Began: "2026-11-22"}
	crash := map[string]string{"mail": "2026-11-26"}
	use := func(app, day, began string) Use {
		if began != i.Began {
			t.Errorf("asked from %s", began)
		}
		return Use{Used: app != "clock", Crashed: crash[app] == day, Before: crash[app] != "" && crash[app] < day}
	}
	build := func(now time.Time, offered bool) {
		t.Helper()
		i.Offered = offered
		must(t, d.Days(now, "amd64", []Improvement{i}, []string{"mail", "browser", "clock"}, use))
	}
	build(monday, false) // no consent: nothing is even remembered
	if files, _ := os.ReadDir(d.dir); len(files) != 0 {
		t.Error("something was kept without consent")
	}
	must(t, d.Switch(Own, true, monday))
	build(monday, false)
	build(monday.Add(1*day), false)
	build(monday.Add(2*day), true) // tells Tuesday; offered when Wednesday began for it
	build(monday.Add(3*day), true) // tells Wednesday
	build(monday.Add(3*day+hour), true)
	build(monday.Add(7*day), true) // Thursday to Sunday, after some days off
	list, err := d.Waiting(Own)
	must(t, err)
	var got []string
	for _, body := range list {
		r, _, err := report.Parse(body)
		must(t, err)
		line := r.Day + " " + r.Arm
		for _, a := range r.Apps {
			line += " " + a.App
			if a.AtRisk {
				line += "+"
			}
			if a.FirstCrash {
				line += "!"
			}
		}
		got = append(got, line)
	}
	want := []string{
		"2026-11-24 control browser+ mail+",
		"2026-11-25 offered browser+ mail+",
		"2026-11-26 offered browser+ mail+!",
		"2026-11-27 offered browser+ mail",
		"2026-11-28 offered browser+ mail",
		"2026-11-29 offered browser+ mail",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNames(t *testing.T) {
	d := Open(t.TempDir())
	seen := map[string]bool{}
	for range 1000 {
		name, err := d.Name()
		must(t, err)
		if seen[name] {
			t.Fatal("a name twice")
		}
		seen[name] = true
	}
	d.Rand = bytes.NewReader(nil)
	if _, err := d.Name(); err == nil {
		t.Error("a name without randomness")
	}
}

func TestAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	must(t, Open(dir).Switch(Own, true, monday))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			d := Open(dir)
			for range 5 {
				if err := d.Recommended(monday.Add(day), "SI-2026-0007", "mail", report.Shown); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := waits(t, Open(dir), Own); n != 40 {
		t.Errorf("%d of 40 wait", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.analytics/1","since":{"device":"2026-11-24"},"built":"","offered":{},"waiting":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parse(data)
		if err != nil {
			return
		}
		for _, w := range s.Waiting {
			if _, on := s.Since[w.Origin]; !on {
				t.Fatal("waits without consent")
			}
		}
	})
}
