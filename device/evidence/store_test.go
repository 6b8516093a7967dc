package evidence

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// files is a copy of a folder: name → bytes.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever a torn write leaves of one app's file, the store opens, the other apps
// keep their counts, and the app counts on from nothing or from what it had.
func TestTornWrites(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, 6*time.Hour)
	l.use("browser", baseline, 6*time.Hour)
	l.crash("mail", fixA, time.Hour)
	l.use("browser", fixA, time.Hour)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	mail := l.store.appFile("mail")
	whole, err := os.ReadFile(mail)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, told bool) {
		t.Helper()
		store, err := Open(l.dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRecorder(store)
		if (err != nil) != told {
			t.Errorf("%s: told %v", what, err)
		}
		again := &life{T: t, Recorder: r, dir: l.dir, at: l.at.Add(5 * time.Hour), pid: 7000}
		again.want("browser", fixA, 0, 6*time.Hour, 0, time.Hour)
		if !told {
			again.want("mail", fixA, 0, 6*time.Hour, 1, time.Hour)
			return
		}
		if _, err := os.Stat(filepath.Join(l.dir, aside)); err != nil {
			t.Errorf("%s: not put aside: %v", what, err)
		}
		again.crash("mail", fixA, 0)
		if c := again.Judge(Question{App: "mail", Arm: fixA, Scope: ScopeMain}).Counts; c.X1 != 1 {
			t.Errorf("%s: counts on with %+v", what, c)
		}
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for cut := 0; cut < len(whole)-1; cut += 1 + len(whole)/23 {
		write(mail, whole[:cut])
		check(fmt.Sprintf("cut at %d", cut), true)
	}
	zeros := bytes.Clone(whole)
	clear(zeros[len(zeros)/2:])
	write(mail, zeros)
	check("zeros at the end", true)
	write(mail, append(bytes.Clone(whole), whole...))
	check("twice", true)
	write(mail, bytes.Repeat([]byte(" "), maxDocument+1))
	check("oversize", true)
	write(mail, whole)
	write(filepath.Join(l.dir, appsDir, temporary+"0123"), whole[:40])
	check("interrupted", false)
	if _, err := os.Stat(filepath.Join(l.dir, appsDir, temporary+"0123")); err == nil {
		t.Error("an interrupted write is still there")
	}

	// A file that is about another app than its name says.
	write(l.store.appFile("browser2"), whole)
	if _, err := NewRecorder(l.store); err == nil || !strings.Contains(err.Error(), "wrong file") {
		t.Errorf("in the wrong file: %v", err)
	}
	check("after that", false)
}

// A flipped bit is refused or changes a count, but never breaks the store.
func TestFlippedBits(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, 6*time.Hour)
	l.crash("mail", fixA, time.Hour)
	whole, err := os.ReadFile(l.store.appFile("mail"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bent := bytes.Clone(whole)
		bent[i] ^= 1 << (i % 8)
		if d, err := parseDocument(bent); err == nil {
			if _, err := d.encode(); err != nil {
				t.Fatalf("bit of byte %d: read but can't be written: %v", i, err)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	l := begin(t)
	// One app, two years, a new version every week, three arms.
	for day := range 730 {
		arm := []Arm{baseline, fixA, fixB}[day%3]
		l.pid++
		launch := Launch{PID: l.pid, App: "mail", Version: fmt.Sprintf("%s%d", strings.Repeat("v", 200), day/7), Arm: arm}
		if err := l.Launch(launch, l.at); err != nil {
			t.Fatal(err)
		}
		l.at = l.at.Add(time.Hour)
		l.Tick(l.at, nil)
		l.end(l.pid, segv)
		l.skip(23 * time.Hour)
	}
	// More apps than fit; those that run are kept.
	first := l.start("app-0000", fixA)
	for i := 1; i < 2*maxApps; i++ {
		l.use(fmt.Sprintf("app-%04d", i), fixA, time.Minute)
		l.skip(24 * time.Hour)
	}
	l.end(first, segv)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	var total int
	all := files(t, l.dir)
	for name, data := range all {
		total += len(data)
		if len(data) > maxDocument {
			t.Errorf("%s: %d bytes", name, len(data))
		}
	}
	if total > 10_000_000 || len(all) > maxApps {
		t.Errorf("%d files, %d bytes", len(all), total)
	}
	if maxApps*maxDocument+maxDocument+maxPrompts > 10_000_000 {
		t.Error("the store can grow beyond 10 MB")
	}
	again := reopen(t, l.dir, l.at)
	if apps := again.Apps(); len(apps) != maxApps || apps[0] != "app-0000" {
		t.Errorf("%d apps, first %v", len(apps), apps[:1])
	}
}

func TestStrangeNames(t *testing.T) {
	l := begin(t)
	for _, app := range []string{"org.mozilla.firefox", "/usr/bin/../bin/x y", "app-ü.scope", "..", "con"} {
		l.use(app, baseline, time.Hour)
	}
	for _, app := range []string{"", "a\nb", "a\x00b", strings.Repeat("x", 256), "\xff"} {
		if err := l.Launch(Launch{PID: 9999, App: app, Arm: baseline}, l.at); err == nil {
			t.Errorf("%q counts", app)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if apps := reopen(t, l.dir, l.at).Apps(); len(apps) != 5 {
		t.Errorf("%q", apps)
	}
	for name := range files(t, l.dir) {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
}

// A full disk costs durability, is told, and is made good at the next flush.
func TestNoSpace(t *testing.T) {
	l := begin(t)
	l.use("mail", baseline, 6*time.Hour)
	apps := filepath.Join(l.dir, appsDir)
	if err := os.Rename(apps, apps+".away"); err != nil {
		t.Fatal(err)
	}
	pid := l.start("mail", fixA)
	l.pass(time.Hour)
	c, ok, err := l.Exit(Exit{PID: pid, Signal: segv}, l.at)
	if !ok || !c.Main || err == nil {
		t.Fatalf("%+v, %v, %v", c, ok, err)
	}
	if err := os.Rename(apps+".away", apps); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	reopen(t, l.dir, l.at).want("mail", fixA, 0, 6*time.Hour, 1, time.Hour)
}

func TestPromptsFile(t *testing.T) {
	l := begin(t)
	path := filepath.Join(l.dir, promptsAt)
	for _, bad := range []string{"", "{}", `{"schema":"sealant.prompts/1","asked":[],"more":1}`, `{"schema":"sealant.prompts/2","asked":[]}`, strings.Repeat(" ", maxPrompts+1)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := l.store.Prompts()
		if err == nil || !p.Due("SI-2026-0001", l.at.Wall) {
			t.Errorf("%.20q: error %v", bad, err)
		}
		if err := p.Ask(Notice{App: "mail", Release: "SI-2026-0001", Time: l.at.Wall}); err != nil {
			t.Fatal(err)
		}
		if p, err = l.store.Prompts(); err != nil || p.Due("SI-2026-0001", l.at.Wall) {
			t.Errorf("after a bad file: %v", err)
		}
		if err := p.Withdraw(); err != nil {
			t.Fatal(err)
		}
		os.Remove(path)
	}
	p, _ := l.store.Prompts()
	for i := range 100 {
		if err := p.Ask(Notice{App: "mail", Release: fmt.Sprintf("SI-2026-%04d", i+1), Time: l.at.Wall, Opens: []string{}}); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := l.store.Prompts(); err != nil || len(p.doc.Asked) != maxAsked {
		t.Errorf("%v", err)
	}
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"schema":"sealant.observations/1","app":"mail","series":[]}`))
	f.Add([]byte(`{"schema":"sealant.observations/1","app":"mail","series":[{"base":"ab","release":"","level":0,"version":"","scope":"any","last":{"wall":"2026-11-01T12:00:00Z","mono_ms":1,"boot":"one"},"days":[{"day":"2026-11-01","crashes":1,"seen":2,"ms":3}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDocument(data)
		if err != nil {
			return
		}
		d.trim()
		out, err := d.encode()
		if err != nil {
			t.Fatalf("can't write what was read: %v", err)
		}
		again, err := parseDocument(out)
		if err != nil {
			t.Fatalf("can't read what was written: %v", err)
		}
		if second, _ := again.encode(); !bytes.Equal(out, second) {
			t.Fatal("not stable")
		}
	})
}
