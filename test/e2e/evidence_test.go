package e2e

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/servertest"
)

// app describes an app that is a shell of its own, in the web cryptex's care, and
// returns its program. All apps are of one version.
func (m *machine) app(id string) (program string) {
	m.t.Helper()
	dir := filepath.Join(m.root, "etc/sealant/apps.d")
	m.v.must(os.MkdirAll(dir, 0o755))
	shell, err := os.ReadFile("/bin/sh")
	m.v.must(err)
	program = filepath.Join(m.root, "usr/bin", id)
	m.v.must(os.MkdirAll(filepath.Dir(program), 0o755))
	m.v.must(os.WriteFile(program, shell, 0o755))
	m.v.must(os.Chtimes(program, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	text := fmt.Sprintf("name = %q\ncryptexes = [\"web\"]\ncommand = [%q, \"-c\", \"true\"]\n", strings.ToUpper(id[:1])+id[1:], program)
	m.v.must(os.WriteFile(filepath.Join(dir, id+".toml"), []byte(text), 0o644))
	return program
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

// version is how this machine stamps the version of all apps here: the one of a
// first launch.
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
	plain := m.app("plain")
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

	// An app that somebody starts by its program, without a launch, counts too.
	m.wait("the app is known", func() bool {
		exec.Command(plain, "-c", "ulimit -c 0; kill -SEGV $$").Run()
		return m.evidence("plain").Seen1 > 0
	})
	if got := m.evidence("plain"); got.X1 != 1 {
		t.Errorf("%+v", got)
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

// Sharing: nothing leaves before it was agreed, what leaves is what was shown, and
// nothing in it or around it says which device it was.
func TestAnalytics(t *testing.T) {
	v := newVendor(t)
	m0 := v.release(1, 100)
	m := v.enrolled("")
	m.app("mail")
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	m.boot()
	m.openToAll()
	stop, _ := m.agent()
	m.crash("mail")
	preview := func() (a device.Analytics) {
		t.Helper()
		out, code := m.as(0, "analytics", "preview", "--json")
		if err := json.Unmarshal([]byte(out), &a); err != nil || code != 0 {
			t.Fatalf("exit %d: %v\n%s", code, err, out)
		}
		return a
	}
	a := preview()
	if a.Device.On || a.Paired.On || len(a.Waiting) != 0 || len(a.Today) != 1 {
		t.Fatalf("%+v", a)
	}
	daily, _, err := report.Parse([]byte(a.Today[0]))
	v.must(err)
	if daily.Improvement != m0.ID || daily.Arm != report.Offered || len(daily.Apps) != 1 || daily.Apps[0].App != "mail" || !daily.Apps[0].FirstCrash {
		t.Errorf("%s", a.Today[0])
	}
	var enrolment struct{ Device string }
	data, err := os.ReadFile(filepath.Join(m.root, "var/lib/sealant/enrolment.json"))
	v.must(err)
	v.must(json.Unmarshal(data, &enrolment))
	if len(enrolment.Device) != 64 || strings.Contains(a.Today[0], enrolment.Device[:8]) {
		t.Errorf("the device %q is named in %s", enrolment.Device, a.Today[0])
	}
	if out, code := m.as(65534, "analytics", "on"); code != 1 {
		t.Errorf("anybody may share: exit %d\n%s", code, out)
	}
	if out, code := m.as(0, "analytics", "on"); code != 0 || !strings.Contains(out, "Share Device Analytics         on, days from") || !strings.Contains(out, "Share Paired Device Analytics  off") {
		t.Errorf("exit %d\n%s", code, out)
	}
	stop()

	// Two days go by: what was agreed counts, and a report is due.
	body := strings.Replace(a.Today[0], daily.Name, strings.Repeat("5", 32), 1)
	m.edit("analytics/state.json", func(s map[string]any) {
		s["since"] = map[string]string{"device": daily.Day}
		s["waiting"] = []map[string]any{{"origin": "device", "made": time.Now().Add(-time.Hour), "due": time.Now().Add(-time.Minute), "body": body}}
	})
	if got := preview().Waiting; len(got) != 1 || got[0] != body {
		t.Errorf("%q is shown, %q waits", got, body)
	}
	if n := len(v.requests("/v1/reports")); n != 0 {
		t.Fatalf("%d reports were sent before", n)
	}
	type sent struct {
		header http.Header
		body   string
	}
	reports := make(chan sent, 10)
	v.hostile(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/reports" {
			data, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(data))
			reports <- sent{r.Header.Clone(), string(data)}
		}
		return false
	})
	stop, _ = m.agent()
	select {
	case s := <-reports:
		if s.body != body {
			t.Errorf("sent %q, shown %q", s.body, body)
		}
		for name, values := range s.header {
			switch name {
			case "Content-Type", "Content-Length", "User-Agent", "Connection":
			default:
				t.Errorf("the header %s: %q goes with it", name, values)
			}
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing was sent")
	}
	m.wait("it is counted", func() bool {
		cells, err := v.node.DB.Cells(t.Context(), m0.ID)
		return err == nil && len(cells) == 1 && cells[0].App == "mail" && cells[0].Crashed == 1
	})
	m.wait("it no longer waits", func() bool { return len(preview().Waiting) == 0 })
	if out, code := m.as(0, "analytics", "off"); code != 0 || !strings.Contains(out, "Share Device Analytics         off") {
		t.Errorf("exit %d\n%s", code, out)
	}
	stop()

	// Policy can only forbid.
	m.configure("[analytics]\nshare = \"never\"\n")
	if out, code := m.as(0, "analytics", "on"); code != fault.Policy.ExitCode() {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// With everything that can be told, but without consent, not one byte leaves.
func TestAnalyticsOff(t *testing.T) {
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
	// A listener that sees every connection, in the server's place.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	v.must(err)
	defer l.Close()
	connections := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	config := fmt.Sprintf("[server]\nurl = \"http://%s\"\npoll = \"24h\"\n", l.Addr())
	v.must(os.WriteFile(filepath.Join(m.root, "etc/sealant/agent.toml"), []byte(config), 0o644))
	// In a network of its own, whose every packet is counted, with everything switched
	// on and off again: what waits then is thrown away.
	packets := filepath.Join(t.TempDir(), "packets")
	stop, _ := m.agentBy("unshare", "--net", "sh", "-c", `ip link set lo up; "$@" & trap "kill $!" TERM; wait $!; wait $!; cat /proc/net/dev /proc/net/snmp >`+packets, "agent")
	m.crash("mail")
	m.wait("the question", func() bool { return m.allEvidence().Pending != nil })
	for _, args := range [][]string{{"analytics", "on"}, {"analytics", "on", "--paired"}, {"evidence", "keep"}, {"analytics", "off"}, {"analytics", "off", "--paired"}, {"analytics", "preview"}} {
		if out, code := m.as(0, args...); code != 0 {
			t.Errorf("%s: %s", args, out)
		}
	}
	stop()
	data, err := os.ReadFile(packets)
	v.must(err)
	for _, line := range strings.Split(string(data), "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) > 10 && words[0] == "lo:" && (words[2] != "0" || words[10] != "0"):
			t.Errorf("packets: %s", line)
		case len(words) > 11 && words[0] == "Ip:" && words[1] != "Forwarding" && (words[10] != "0" || words[12] != "0"):
			t.Errorf("requests to send, or without a route: %s", line)
		}
	}
	if !strings.Contains(string(data), "lo:") || !strings.Contains(string(data), "OutNoRoutes") {
		t.Errorf("nothing was counted: %s", data)
	}
	var kept struct{ Waiting []any }
	if state, err := os.ReadFile(filepath.Join(m.root, "var/lib/sealant/analytics/state.json")); err != nil || json.Unmarshal(state, &kept) != nil || len(kept.Waiting) != 0 {
		t.Errorf("waits after it was switched off: %s, %v", state, err)
	}
	select {
	case from := <-connections:
		t.Errorf("a connection from %s", from)
	default:
	}
}

// edit changes a JSON file of the device's state.
func (m *machine) edit(name string, change func(map[string]any)) {
	m.t.Helper()
	file := filepath.Join(m.root, "var/lib/sealant", name)
	data, err := os.ReadFile(file)
	m.v.must(err)
	var doc map[string]any
	m.v.must(json.Unmarshal(data, &doc))
	change(doc)
	data, err = json.Marshal(doc)
	m.v.must(err)
	m.v.must(os.WriteFile(file, data, 0o600))
}
