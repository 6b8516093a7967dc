package evidence

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/wording"
	"github.com/sealant-os/sealant/internal/eprocess"
)

func TestVerdicts(t *testing.T) {
	const h = time.Hour
	crashes := func(l *life, n int) {
		for range n {
			l.crash("mail", fixA, 30*time.Minute)
			l.skip(20 * h)
		}
	}
	for name, c := range map[string]struct {
		listed int
		run    func(*life)
		want   eprocess.Verdict
	}{
		"clear":                {1, func(l *life) { l.use("mail", baseline, 60*h); crashes(l, 4) }, eprocess.RecommendRemoval},
		"enough for one app":   {1, func(l *life) { l.use("mail", baseline, 60*h); l.use("mail", fixA, 4*h); crashes(l, 2) }, eprocess.RecommendRemoval},
		"not enough for three": {3, func(l *life) { l.use("mail", baseline, 60*h); l.use("mail", fixA, 4*h); crashes(l, 2) }, eprocess.NotSignificant},
		"three, clear":         {3, func(l *life) { l.use("mail", baseline, 60*h); crashes(l, 4) }, eprocess.RecommendRemoval},
		"one crash":            {1, func(l *life) { l.use("mail", baseline, 60*h); crashes(l, 1) }, eprocess.NotEnoughData},
		"little use before":    {1, func(l *life) { l.use("mail", baseline, 4*h); crashes(l, 9) }, eprocess.NotEnoughData},
		"no use before":        {1, func(l *life) { crashes(l, 9) }, eprocess.NotEnoughData},
		"never ran with it":    {1, func(l *life) { l.use("mail", baseline, 60*h) }, NotActive},
		"nothing known":        {1, func(l *life) {}, NotActive},
		"crashed as much before": {1, func(l *life) {
			for range 20 {
				l.crash("mail", baseline, 2*h)
				l.skip(6 * h)
			}
			crashes(l, 4)
		}, eprocess.NotSignificant},
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t)
			c.run(l)
			j := l.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain, Listed: c.listed, Minimum: 20})
			if j.Verdict != c.want {
				t.Errorf("%s, want %s (%+v, E %.3g)", j.Verdict, c.want, j.Counts, j.E.Value())
			}
			if Words(j.Verdict) == string(j.Verdict) {
				t.Errorf("no words for %s", j.Verdict)
			}
		})
	}
}

// An app that was updated together with the improvement is never judged; one that
// was updated before or after is judged by the version that ran in both arms.
func TestConfounded(t *testing.T) {
	const h = time.Hour
	run := func(l *life, version string, arm Arm, crash bool) {
		l.pid++
		if err := l.Launch(Launch{PID: l.pid, App: "mail", Version: version, Arm: arm}, l.at); err != nil {
			t.Fatal(err)
		}
		if crash {
			l.pass(10 * time.Minute)
			l.end(l.pid, segv)
			l.skip(20 * h)
			return
		}
		l.pass(60 * h)
		l.end(l.pid, 0)
	}
	judge := func(l *life, version string) eprocess.Verdict {
		return l.Judge(Question{App: "mail", Version: version, Arm: fixA, Scope: ScopeMain, Listed: 1}).Verdict
	}
	l := begin(t)
	run(l, "1.0", baseline, false)
	for range 5 {
		run(l, "1.1", fixA, true)
	}
	if v := judge(l, "1.1"); v != Confounded {
		t.Errorf("updated together: %s", v)
	}
	l = begin(t)
	run(l, "1.0", baseline, false)
	run(l, "1.1", baseline, false)
	for range 5 {
		run(l, "1.1", fixA, true)
	}
	if v := judge(l, "1.1"); v != eprocess.RecommendRemoval {
		t.Errorf("updated before: %s", v)
	}
	if v, ok := l.Version("mail", fixA); v != "1.1" || !ok {
		t.Errorf("version %q %v", v, ok)
	}
}

// Thirty days through the recorder's own input, as the simulator has them: the
// false alarms stay as rare and the power as high as the formula promises.
func TestMonteCarloThroughTheRecorder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	flagged := func(seed uint64, rise, rate float64, days int) bool {
		rng := rand.New(rand.NewPCG(seed, 42))
		l := begin(t)
		for day := -30; day < days; day++ {
			arm, hourly := baseline, rate
			if day >= 0 {
				arm, hourly = fixA, rate*rise
			}
			morning := l.at
			evening := morning.Add(2 * time.Hour)
			for l.at.Mono < evening.Mono {
				pid := l.start("mail", arm)
				gap := time.Duration(rng.ExpFloat64() / hourly * float64(time.Hour))
				if gap < 0 || gap > evening.Mono-l.at.Mono {
					l.at = evening
					l.Tick(l.at, nil)
					l.end(pid, 0)
					break
				}
				l.at = l.at.Add(gap)
				c := l.end(pid, segv)
				if c.Main && arm == fixA && l.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain, Listed: 1}).Verdict == eprocess.RecommendRemoval {
					return true
				}
			}
			l.at = morning.Add(24 * time.Hour)
		}
		return false
	}
	const devices = 600
	var found, wrong int
	for i := range uint64(devices) {
		if flagged(i, 20, 0.01, 30) {
			found++
		}
		if flagged(1000+i, 1, 0.05, 60) {
			wrong++
		}
	}
	if found < devices*65/100 {
		t.Errorf("power %d of %d", found, devices)
	}
	if wrong > devices*3/100 {
		t.Errorf("false alarms %d of %d", wrong, devices)
	}
	t.Logf("power %d, false alarms %d, of %d", found, wrong, devices)
}

func TestNoticeText(t *testing.T) {
	n := Notice{Name: "Mail", Label: "(b)", Back: "ExampleOS 42.3", Crashes: 6, Before: 1, Days: 14, Opens: []string{"CVE-2026-1101 (exploited)", "CVE-2026-1142", "CVE-2026-1090"}}
	want := "Mail closed unexpectedly 6 times since improvement (b); before, once in two weeks. The improvement may be contributing. " +
		"You can remove all improvements and return to ExampleOS 42.3; this reopens 3 fixed flaws: CVE-2026-1101 (exploited), CVE-2026-1142, CVE-2026-1090."
	if got := n.Text(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	german := n.In(wording.For("de_DE.UTF-8"))
	for _, want := range []string{"Mail wurde seit Verbesserung (b) 6-mal unerwartet beendet; vorher einmal in zwei Wochen.", "öffnet 3 geschlossene Lücken wieder: CVE-2026-1101 (wird angegriffen), CVE"} {
		if !strings.Contains(german, want) {
			t.Errorf("%s\nlacks %s", german, want)
		}
	}
}

func TestAsks(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, 60*time.Hour)
	var crash Crash
	for range 4 {
		crash = l.crash("mail", fixA, 10*time.Minute)
		l.skip(20 * time.Hour)
	}
	j := l.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain, Listed: 1})
	p, err := l.store.Prompts()
	if err != nil {
		t.Fatal(err)
	}
	now := l.at.Wall
	asks := func(c Crash, now time.Time) bool { ok, _ := p.Asks(j, c, now); return ok }
	if !asks(crash, now) {
		t.Fatal("a clear case does not ask")
	}
	for name, change := range map[string]func(*Crash){
		"of a burst":             func(c *Crash) { c.Main, c.Any = false, false },
		"of a child":             func(c *Crash) { c.Main = false },
		"with damaged content":   func(c *Crash) { c.Broken = true },
		"without the fix":        func(c *Crash) { c.Arm = baseline },
		"of another app version": func(c *Crash) { c.Version = "2" },
	} {
		c := crash
		change(&c)
		if asks(c, now) {
			t.Errorf("a crash %s asks", name)
		}
	}
	if err := p.Ask(NoticeOf(j, now)); err != nil {
		t.Fatal(err)
	}
	if p, err = l.store.Prompts(); err != nil {
		t.Fatal(err)
	}
	if asks(crash, now.Add(8*24*time.Hour)) {
		t.Error("asked again while a question waits")
	}
	n, err := p.Answer(Keep)
	if err != nil || n.Crashes != 4 || n.App != "mail" {
		t.Fatalf("%+v, %v", n, err)
	}
	if _, err := p.Answer(Keep); err == nil {
		t.Error("an answer without a question")
	}
	for after, want := range map[time.Duration]bool{
		time.Hour: false, 6 * 24 * time.Hour: false, 7*24*time.Hour + time.Second: true, -time.Hour: false, -30 * 24 * time.Hour: true,
	} {
		if got := asks(crash, now.Add(after)); got != want {
			t.Errorf("asks after %v: %v", after, got)
		}
	}
	other := j
	other.Arm = fixB
	c := crash
	c.Arm = fixB
	if ok, _ := p.Asks(other, c, now); !ok {
		t.Error("another improvement has its own 7 days")
	}
}
