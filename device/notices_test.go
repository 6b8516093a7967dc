package device

import (
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/wording"
)

// here is a device in an empty folder, at a time that the test sets.
func here(t *testing.T, now *time.Time) *Device {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Store.Create(); err != nil {
		t.Fatal(err)
	}
	d.Now = func() time.Time { return *now }
	d.Config.Apps = []policy.App{{ID: "browser", Name: "Browser"}, {ID: "mail", Name: "Mail"}}
	return d
}

// staged is the status of a device with apps that run on old content.
func staged(restart bool, waiting ...string) Status {
	s := Status{Release: "SI-2026-0007", Product: "ExampleOS", State: StateStaged, Restart: restart}
	line := CryptexStatus{Name: "web", Changed: true}
	for _, app := range waiting {
		line.Apps = append(line.Apps, AppStatus{App: app})
	}
	s.Cryptexes = []CryptexStatus{line}
	return s
}

func said(l *wording.Language, n notice) string {
	t := n.say(l)
	var run []string
	for _, a := range n.actions {
		run = append(run, strings.Join(a.Run, " "))
	}
	return strings.Join([]string{t.Summary, t.Body, strings.Join(t.Labels, "/"), strings.Join(run, "/")}, "|")
}

func TestNotices(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := here(t, &now)
	d.Store = d.Store.WithRun(t.TempDir())
	root := " --root " + d.Store.Root()
	for _, tt := range []struct {
		s        Status
		en, de   string
		relaunch string
	}{
		{
			staged(true, "browser"), "Security fix ready for Browser|Quit and reopen it to use the fix. Nothing else changes.|Relaunch/Later|relaunch browser" + root + "/",
			"Sicherheitsverbesserung bereit für Browser|Zum Verwenden die App schließen und wieder öffnen. Sonst ändert sich nichts.|Neu öffnen/Später|relaunch browser" + root + "/", "notify",
		},
		{
			staged(true, "mail", "browser"), "Security fix ready for Browser and Mail|Quit and reopen them to use the fix. Nothing else changes.|Relaunch Browser/Relaunch Mail/Later|relaunch browser" + root + "/relaunch mail" + root + "/",
			"", "notify",
		},
		{
			staged(true, "mail"), "Restart to finish a security improvement|It takes no longer than a normal restart.|Restart Now/Later|restart" + root + "/",
			"Neustart schließt eine Sicherheitsverbesserung ab|Er dauert nicht länger als ein gewöhnlicher Neustart.|Jetzt neu starten/Später|restart" + root + "/", "never",
		},
		{staged(false), "", "", "notify"},
	} {
		d.Config.Policy.ActivateRelaunch = tt.relaunch
		got := d.stagedNotices(tt.s)
		if tt.en == "" {
			if len(got) != 0 {
				t.Errorf("says %s", said(wording.English(), got[0]))
			}
			continue
		}
		if len(got) != 1 {
			t.Fatalf("%d notices", len(got))
		}
		if en := said(wording.English(), got[0]); en != tt.en {
			t.Errorf("says\n%s, want\n%s", en, tt.en)
		}
		if de := said(wording.For("de"), got[0]); tt.de != "" && de != tt.de {
			t.Errorf("says\n%s, want\n%s", de, tt.de)
		}
	}
	d.Config.Policy.ActivateRestart = "never"
	if got := d.stagedNotices(staged(true)); len(got) != 0 {
		t.Error("asks for a restart that policy forbids")
	}
}

// Nothing is told twice within a day; something else is.
func TestOnceADay(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := here(t, &now)
	a, b := notice{key: "restart SI-2026-0007"}, notice{key: "restart SI-2026-0008"}
	for _, tt := range []struct {
		after time.Duration
		all   []notice
		want  int
	}{
		{0, []notice{a}, 1},
		{time.Minute, []notice{a}, 0},
		{23 * time.Hour, []notice{a, b}, 1},
		{time.Hour, []notice{a}, 1}, // a day has passed
		{-72 * time.Hour, []notice{a}, 1},
		{0, []notice{a}, 0},
		{0, nil, 0},
	} {
		now = now.Add(tt.after)
		news, err := d.fresh(tt.all)
		if err != nil || len(news) != tt.want {
			t.Errorf("at %s: %d notices, %v, want %d", now, len(news), err, tt.want)
		}
	}
}

// A restart by policy is told 15, 5 and 1 minute before, each once.
func TestCountdown(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := here(t, &now)
	d.Store = d.Store.WithRun(t.TempDir())
	if _, ok := d.plannedRestart(); ok {
		t.Fatal("a plan that nobody made")
	}
	p, err := d.planRestart()
	if err != nil {
		t.Fatal(err)
	}
	began := now
	var told []string
	for ; now.Before(began.Add(20 * time.Minute)); now = now.Add(10 * time.Second) {
		again, err := d.planRestart()
		if err != nil || !again.At.Equal(p.At) && now.Sub(p.At) <= Notice {
			t.Fatalf("at %s: planned for %s, %v", now, again.At, err)
		}
		n, ok := d.dueNotice(p)
		if !ok {
			if now.Before(p.At) {
				t.Errorf("nothing is said at %s", now)
			}
			continue
		}
		news, err := d.fresh([]notice{n})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range news {
			told = append(told, now.Sub(began).String()+" "+n.say(wording.English()).Summary)
		}
	}
	want := "0s This device restarts in 15 minutes,10m0s This device restarts in 5 minutes,14m0s This device restarts in 1 minute"
	if got := strings.Join(told, ","); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	if !p.At.Equal(began.Add(Notice)) {
		t.Errorf("planned for %s", p.At)
	}
	if err := d.cancelRestart(); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.plannedRestart(); ok {
		t.Error("a plan that was taken back")
	}
}
