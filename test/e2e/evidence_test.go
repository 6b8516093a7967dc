package e2e

import (
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/servertest"
)

// app describes an app that is a shell in the web cryptex's care.
func (m *machine) app(id string) {
	m.t.Helper()
	dir := filepath.Join(m.root, "etc/sealant/apps.d")
	m.v.must(os.MkdirAll(dir, 0o755))
	text := fmt.Sprintf("name = %q\ncryptexes = [\"web\"]\ncommand = [\"/bin/sh\", \"-c\", \"true\"]\n", strings.ToUpper(id[:1])+id[1:])
	m.v.must(os.WriteFile(filepath.Join(dir, id+".toml"), []byte(text), 0o644))
}

// recommend puts apps on the vendor's list for the n-th improvement.
func (v *vendor) recommend(n int, apps ...string) {
	v.t.Helper()
	for _, app := range apps {
		list, err := v.world.Repo.AdviceList(servertest.Product)
		v.must(err)
		list = list.With(release.Advice{
			Release: servertest.ID(n), App: app, OSVersions: []string{}, AppVersions: []string{}, Scope: release.ScopeMain,
			MinEvidence: 20, TextKey: "closes-unexpectedly", Date: release.Time(v.world.Now()),
		})
		v.must(v.world.Repo.PublishAdvice(list, []crypto.Signer{v.world.AdviceK}, v.world.Now()))
	}
	v.world.Refresh()
}

// past lets days of two hours pass, the last of them yesterday, some of them with
// a crash. The agent must be down.
func (m *machine) past(app string, arm evidence.Arm, version string, days, crashes int) {
	m.t.Helper()
	store, err := evidence.Open(filepath.Join(m.root, "var/lib/sealant/evidence"))
	m.v.must(err)
	r, err := evidence.NewRecorder(store)
	m.v.must(err)
	const day = 24 * time.Hour
	at := evidence.Instant{Wall: time.Now().UTC().Truncate(day).Add(-time.Duration(days) * day), Boot: "simulated"}
	for i := range days {
		m.v.must(r.Launch(evidence.Launch{PID: 1000 + i, App: app, Version: version, Arm: arm}, at))
		exit := evidence.Exit{PID: 1000 + i}
		if i >= days-crashes {
			exit.Signal = syscall.SIGSEGV
		}
		_, _, err := r.Exit(exit, at.Add(2*time.Hour))
		m.v.must(err)
		at = at.Add(day)
	}
	m.v.must(r.Flush())
}

// arms are the baseline and the improvement that is installed.
func (m *machine) arms() (base, fix evidence.Arm) {
	m.t.Helper()
	read := func(slot string) (arm evidence.Arm) {
		var set struct {
			Baseline, Release string
			Level             int
		}
		data, err := os.ReadFile(filepath.Join(m.root, "var/lib/sealant", slot, "set.json"))
		m.v.must(err)
		m.v.must(json.Unmarshal(data, &set))
		return evidence.Arm{Base: set.Baseline, Release: set.Release, Level: set.Level}
	}
	return read("base"), read("current")
}

// crash runs an app that dies of a signal, and waits until that was counted.
func (m *machine) crash(app string) device.AppEvidence {
	m.t.Helper()
	before := m.evidence(app)
	if out, code := m.as(0, "run", app, "--", "-c", "ulimit -c 0; kill -SEGV $$"); code != -1 {
		m.t.Logf("exit %d: %s", code, out)
	}
	var after device.AppEvidence
	m.wait("the crash is seen", func() bool {
		after = m.evidence(app)
		return after.Seen0+after.Seen1 > before.Seen0+before.Seen1
	})
	return after
}

func (m *machine) allEvidence() (e device.Evidence) {
	m.t.Helper()
	out, code := m.as(0, "evidence", "--json")
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 {
		m.t.Fatalf("exit %d, %v:\n%s", code, err, out)
	}
	return e
}

func (m *machine) evidence(app string) device.AppEvidence {
	m.t.Helper()
	for _, a := range m.allEvidence().Apps {
		if a.App == app {
			return a
		}
	}
	return device.AppEvidence{}
}

// version is how this machine stamps the version of /bin/sh, which all apps here
// are: the one of a first launch.
func (m *machine) version(fix evidence.Arm) string {
	m.t.Helper()
	m.app("probe")
	stop, _ := m.agent()
	m.crash("probe")
	stop()
	store, err := evidence.Open(filepath.Join(m.root, "var/lib/sealant/evidence"))
	m.v.must(err)
	r, err := evidence.NewRecorder(store)
	m.v.must(err)
	version, ok := r.Version("probe", fix)
	if !ok || version == "" {
		m.t.Fatalf("no version was stamped: %q, %v", version, ok)
	}
	return version
}

// TestEvidence is the story of an improvement after which some apps crash: the
// counts, the question, the answers, and all that must not ask.
func TestEvidence(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	for _, app := range []string{"mail", "clock", "news", "atlas", "loop"} {
		m.app(app)
	}
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	m.boot()
	base, fix := m.arms()
	version := m.version(fix)
	for _, app := range []string{"mail", "news"} { // crash since the improvement
		m.past(app, base, version, 30, 0)
		m.past(app, fix, version, 3, 3)
	}
	m.past("clock", base, version, 30, 20) // always crashed
	m.past("clock", fix, version, 3, 3)
	m.past("atlas", base, "an older version", 30, 0) // was updated together with the improvement
	m.past("atlas", fix, version, 3, 3)

	v.recommend(1, "atlas", "clock", "mail")
	stop, _ := m.agent()
	if out, code := m.as(0, "check"); code != 0 {
		t.Fatal(out)
	}
	v.hostile(hangUp) // from here on without a network
	quiet := func(app string, want eprocess.Verdict) {
		t.Helper()
		if got := m.crash(app); got.Verdict != want || got.X1 != 4 {
			t.Errorf("%s: %+v, want %s", app, got, want)
		}
		if e := m.allEvidence(); e.Pending != nil {
			t.Errorf("%s asks: %s", app, e.Pending.Text)
		}
	}
	quiet("clock", eprocess.NotSignificant)
	quiet("atlas", evidence.Confounded)
	quiet("news", eprocess.RecommendRemoval) // but the vendor does not list it
	if out, _ := m.as(0, "evidence"); !strings.Contains(out, "not listed") {
		t.Error(out)
	}
	for range 20 {
		m.as(0, "run", "loop", "--", "-c", "ulimit -c 0; kill -SEGV $$")
	}
	m.wait("20 crashes are seen", func() bool { return m.evidence("loop").Seen1 == 20 })
	if got := m.evidence("loop"); got.X1 != 1 {
		t.Errorf("a loop of 20 counts as %d", got.X1)
	}

	got := m.crash("mail")
	if got.Verdict != eprocess.RecommendRemoval || got.Needed != 60 || got.X0 != 0 || got.X1 != 4 {
		t.Errorf("%+v", got)
	}
	m.wait("the question", func() bool { return m.allEvidence().Pending != nil })
	text := m.allEvidence().Pending.Text
	for _, want := range []string{"Mail closed unexpectedly 4 times since improvement (a)", "before, never in four weeks", "return to ExampleOS 42.3", "reopens 1 fixed flaw: CVE-2026-1101 (exploited)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	if out, _ := m.as(0, "status"); !strings.Contains(out, "Advice mail") {
		t.Error(out)
	}
	if out, code := m.as(0, "evidence", "keep"); code != 0 {
		t.Error(out)
	}
	if out, code := m.as(0, "evidence", "keep"); code != 1 {
		t.Error(out)
	}
	if m.allEvidence().Pending != nil {
		t.Error("still asked after the answer")
	}
	if out, _ := m.as(0, "history"); !strings.Contains(out, "recommended") || !strings.Contains(out, "recommendation-answered") {
		t.Error(out)
	}

	// Removal, and a crash after it counts for the other side.
	if out, code := m.as(0, "remove", "--yes"); code != 0 {
		t.Fatal(out)
	}
	stop()
	m.boot()
	m.agent()
	if got := m.crash("mail"); got.X0 != 1 || got.X1 != 4 {
		t.Errorf("after removal: %+v", got)
	}
	if e := m.allEvidence(); e.Pending != nil || e.Release != "" {
		t.Errorf("after removal: %+v", e)
	}
}

// What must never ask whatever the counts: a kiosk, and a device whose policy
// says so. The answer that removes.
func TestEvidencePolicy(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	v.recommend(1, "mail")
	for _, c := range []struct {
		config string
		asks   bool
	}{
		{"[ui]\nmode = \"none\"\n", false},
		{"[recommend]\nshow = false\n", false},
		{"[ui]\nmode = \"tty\"\n", true},
	} {
		m := v.enrolled(c.config)
		m.app("mail")
		if out, code := m.as(0, "install"); code != 0 {
			t.Fatal(out)
		}
		m.boot()
		base, fix := m.arms()
		version := m.version(fix)
		m.past("mail", base, version, 30, 0)
		m.past("mail", fix, version, 3, 3)
		stop, log := m.agent()
		m.crash("mail")
		m.wait("the crash is weighed", func() bool { return strings.Contains(log.String(), "app=mail") })
		if e := m.allEvidence(); (e.Pending != nil) != c.asks {
			t.Errorf("%s: asked %v", c.config, e.Pending != nil)
		}
		if c.asks {
			if out, code := m.as(0, "evidence", "remove", "--yes"); code != 0 || !strings.Contains(out, "Opens again: CVE-2026-1101") {
				t.Errorf("exit %d: %s", code, out)
			}
			if out, _ := m.as(0, "status"); !strings.Contains(out, "Advice none") {
				t.Error(out)
			}
		}
		stop()
	}
}

// Damaged content crashes apps too: repair is due, never removal.
func TestEvidenceDamage(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	v.recommend(1, "mail")
	m := v.enrolled("")
	m.app("mail")
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	m.boot()
	base, fix := m.arms()
	version := m.version(fix)
	m.past("mail", base, version, 30, 0)
	m.past("mail", fix, version, 3, 3)
	stop, _ := m.agent()
	if out, code := m.as(0, "check"); code != 0 {
		t.Fatal(out)
	}
	m.damage("web")
	m.crash("mail")
	m.wait("the damage is told", func() bool { return m.allEvidence().Damage != nil })
	if e := m.allEvidence(); e.Pending != nil {
		t.Errorf("asks to remove: %s", e.Pending.Text)
	}
	if out, _ := m.as(0, "evidence"); !strings.Contains(out, "Repair it: sealant install") {
		t.Error(out)
	}
	stop()
}

// damage flips a bit in the image that is installed for a cryptex.
func (m *machine) damage(name string) {
	m.t.Helper()
	var set struct {
		Cryptexes []struct{ Name, Image string }
	}
	data, err := os.ReadFile(filepath.Join(m.root, "var/lib/sealant/current/set.json"))
	m.v.must(err)
	m.v.must(json.Unmarshal(data, &set))
	for _, c := range set.Cryptexes {
		if c.Name != name {
			continue
		}
		f, err := os.OpenFile(filepath.Join(m.root, "var/lib/sealant/images", c.Image), os.O_RDWR, 0)
		m.v.must(err)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, 4096*3)
		m.v.must(err)
		b[0] ^= 1
		_, err = f.WriteAt(b, 4096*3)
		m.v.must(err)
		m.v.must(f.Close())
		return
	}
	m.t.Fatalf("no image of %s", name)
}
