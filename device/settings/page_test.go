package settings

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/wording"
)

// fake is a device behind a page.
type fake struct {
	mu   sync.Mutex
	view View
	did  []string
	fail error
}

func (f *fake) set(change func(*View)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.view)
}

func (f *fake) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.did...)
}

// full is a device with an improvement that one app uses and another doesn't yet.
func full() View {
	return View{
		Device: "kiosk-0417", Back: "ExampleOS 42.3", Vendor: "ExampleOS", Heard: time.Now().Add(-4 * time.Minute),
		Automatic: Switch{On: true}, State: Installed, Name: "42.3 (b)", Label: "(b)", Installed: time.Now().Add(-time.Minute),
		Apps:    []App{{ID: "browser", Name: "Browser", Active: true}, {ID: "mail", Name: "Mail"}},
		Restart: true, Removable: true, Fixes: 3, Exploited: 1,
	}
}

func question() *evidence.Notice {
	return &evidence.Notice{
		App: "mail", Name: "Mail", Release: "SI-2026-0008", Label: "(b)", Back: "ExampleOS 42.3", Crashes: 6, Before: 1, Days: 14,
		Opens: []string{"CVE-2026-1101" + evidence.Exploited, "CVE-2026-1142", "CVE-2026-1090"},
	}
}

// serve serves a page of a fake device and returns its address.
func serve(t *testing.T, f *fake) (p *Page, address string) {
	t.Helper()
	p = &Page{
		UID: uint32(os.Getuid()), Language: wording.English(),
		View: func(context.Context) (View, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.view, nil
		},
		Flaws: func(context.Context) (string, []Flaw, error) {
			return "42.3 (b)", []Flaw{
				{ID: "CVE-2026-1101", Text: "A web page could run code of its choice.", Credit: "Ada of Example Labs", Exploited: true, Active: []string{"Browser"}},
				{ID: "CVE-2026-1142", Text: "A message could make Mail <close>."},
				{ID: "CVE-2026-1090", Text: "An app could read files of another app.", Everywhere: true},
			}, nil
		},
		Preview: func(context.Context) (Preview, error) {
			return Preview{Today: []string{`{"schema":"sealant.daily/1","name":"5f1d…","improvement":"SI-2026-0008","os_build":"42.3.0","arch":"amd64","arm":"offered","day":"2026-11-23","apps":[{"app":"mail","at_risk":true,"first_crash":false}]}`}}, nil
		},
		Do: func(_ context.Context, a Action, value string, l *wording.Language) (string, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.did = append(f.did, strings.TrimSpace(string(a)+" "+value))
			if f.fail != nil {
				return "", f.fail
			}
			switch a {
			case Automatic:
				f.view.Automatic.On = value == "on"
				return l.Say("switched-on", "what", l.Say("automatic")), nil
			case Share:
				f.view.Share.On = value == "on"
			case Keep:
				f.view.Question = nil
				return l.Say("kept"), nil
			case Relaunch:
				f.view.Apps[1].Active = true
				return l.Say("relaunched", "app", "Mail"), nil
			case Remove:
				f.view.State, f.view.Removable = Removing, false
			}
			return "", nil
		},
	}
	address, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p, address
}

// browser starts Chromium.
func browser(t *testing.T) context.Context {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Fatal("no chromium here (Debian package chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("lang", "en"),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	return ctx
}

type step = chromedp.Action[chromedp.Void]

func run(t *testing.T, ctx context.Context, steps ...step) {
	t.Helper()
	get(t, ctx, chromedp.Steps(steps...))
}

func get[T any](t *testing.T, ctx context.Context, a chromedp.Action[T]) T {
	t.Helper()
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func call[P, R any](t *testing.T, ctx context.Context, cmd cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(ctx, cmd, params); err != nil {
		t.Fatal(err)
	}
}

// shot keeps a picture of the page, if somebody wants to look at it.
func shot(t *testing.T, ctx context.Context, name string) {
	dir := os.Getenv("SEALANT_SCREENSHOTS")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), get(t, ctx, chromedp.FullScreenshot(100)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// axeVersion of axe-core, the accessibility checker (npm).
const axeVersion = "4.14.1"

// axe returns its script, fetched once per machine.
func axe(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "sealant-test", "axe-core-"+axeVersion)
	if script, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js")); err == nil {
		return string(script)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "axe-core@"+axeVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot fetch axe-core: %v\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(script)
}

// audit has axe look at the page as it is.
func audit(t *testing.T, ctx context.Context, script, name string) {
	t.Helper()
	get(t, ctx, chromedp.Evaluate[int](script+";0"))
	found := get(t, ctx, chromedp.Evaluate[string](`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(
		r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.map(n => n.html + " " + n.failureSummary)}))))`, chromedp.EvalAwaitPromise))
	var violations []map[string]any
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		text, _ := json.MarshalIndent(v, "", "  ")
		t.Errorf("%s: %s", name, text)
	}
}

// Every page as it may look, without anything that axe finds wrong, in light and
// dark and in a narrow window, with nothing wider than the window.
func TestLooks(t *testing.T) {
	script := axe(t)
	f := &fake{view: full()}
	_, address := serve(t, f)
	ctx := browser(t)
	base := address[:strings.Index(address, "/enter")]
	run(t, ctx, chromedp.Navigate(address), chromedp.WaitVisible("#now"))
	managed := func(v *View) {
		v.Automatic = Switch{On: true, Locked: true, Owner: "Example Corp"}
		v.Share = Switch{Locked: true, Owner: "Example Corp"}
		v.Paired = Switch{Locked: true}
		v.Removal = Switch{Locked: true, Owner: "Example Corp"}
	}
	for n, look := range []struct {
		name, path string
		change     func(*View)
	}{
		{"home", "/", nil},
		{"remove", "/?ask=remove", nil},
		{"restart", "/?ask=restart", nil},
		{"question", "/", func(v *View) { v.Question, v.Share.On = question(), true }},
		{"damage", "/", func(v *View) { v.Damaged = "Mail" }},
		{"managed", "/", managed},
		{"everywhere", "/", func(v *View) { v.Restart, v.Apps = false, v.Apps[:1] }},
		{"nothing", "/", func(v *View) {
			*v = View{Device: v.Device, Back: v.Back, Vendor: v.Vendor, State: None, Stale: true, Heard: time.Now().Add(-9 * 24 * time.Hour)}
		}},
		{"removed", "/", func(v *View) { v.State, v.Removable, v.Held = None, false, "42.3 (b)" }},
		{"removing", "/", func(v *View) { v.State, v.Removable = Removing, false }},
		{"reverting", "/", func(v *View) { v.State = Reverting }},
		{"refused", "/", func(v *View) { v.State, v.Restart = Refused, false }},
		{"unenrolled", "/", func(v *View) { *v = View{Device: v.Device, Back: v.Back, State: Unenrolled} }},
		{"fixed", "/fixed", nil},
		{"preview", "/preview", nil},
	} {
		f.set(func(v *View) {
			*v = full()
			if look.change != nil {
				look.change(v)
			}
		})
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{900, 320} {
				for _, language := range []string{"en", "de"} {
					if scheme == "dark" && (language == "de" || width != 900) {
						continue // the same shapes as light, the same colours as wide
					}
					name := look.name + "-" + scheme + "-" + map[int64]string{900: "wide", 320: "narrow"}[width] + "-" + language
					call(t, ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
					call(t, ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}})
					run(t, ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate(base+look.path), chromedp.WaitReady("main"))
					if over := get(t, ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`)); over > 0 {
						t.Errorf("%s: %d pixels wider than the window", name, over)
					}
					if width == 900 && language == "en" || n == 0 {
						audit(t, ctx, script, name)
					}
					shot(t, ctx, name)
				}
			}
		}
	}
}

// The page is used with the keyboard alone, and says what happened.
func TestKeyboard(t *testing.T) {
	f := &fake{view: full()}
	f.view.Question = question()
	_, address := serve(t, f)
	ctx := browser(t)
	run(t, ctx, chromedp.Navigate(address), chromedp.WaitVisible("#now"))
	focused := func() string {
		t.Helper()
		return get(t, ctx, chromedp.Evaluate[string](`(e => e.id || e.getAttribute("aria-label") || e.textContent.trim())(document.activeElement)`))
	}
	tab := func() string {
		t.Helper()
		run(t, ctx, chromedp.KeyEvent("\t"))
		return focused()
	}
	var order []string
	for range 10 {
		order = append(order, tab())
	}
	want := "Keep|Remove & Restart…|Relaunch Mail|restart|What was fixed|automatic|remove|share|paired|See exactly what would be sent"
	if got := strings.Join(order, "|"); got != want {
		t.Errorf("the tab key goes\n%s, want\n%s", got, want)
	}
	// Space turns the switch; the focus stays there, and the title tells.
	run(t, ctx, chromedp.Focus("#automatic"), chromedp.KeyEvent(" "), chromedp.WaitVisible(`#automatic[aria-checked="false"]`))
	if got := focused(); got != "automatic" {
		t.Errorf("after the switch the focus is at %q", got)
	}
	if title := get(t, ctx, chromedp.Title()); !strings.HasPrefix(title, "Automatically Install: o") {
		t.Errorf("the title is %q", title)
	}
	// A question takes the focus, on what changes nothing; nothing behind it can be
	// reached; Escape leaves it.
	run(t, ctx, chromedp.Focus("#remove"), chromedp.KeyEvent("\r"), chromedp.WaitVisible("dialog"))
	if got := focused(); got != "cancel" {
		t.Errorf("in the question the focus is at %q", got)
	}
	seen := map[string]bool{}
	for range 5 {
		seen[tab()] = true
	}
	if seen["automatic"] || !seen["Remove & Restart"] {
		t.Errorf("the tab key reaches %v", seen)
	}
	run(t, ctx, chromedp.Focus("#cancel"), chromedp.KeyEvent("\x1b"), chromedp.WaitNotPresent("dialog"), chromedp.WaitVisible("#remove"))
	if got := focused(); got != "remove" {
		t.Errorf("after the question the focus is at %q", got)
	}
	run(t, ctx, chromedp.Focus("#remove"), chromedp.KeyEvent("\r"), chromedp.WaitVisible("dialog"))
	run(t, ctx, chromedp.Focus("dialog button"), chromedp.KeyEvent("\r"), chromedp.WaitVisible(`//h2[contains(., "A restart finishes the removal")]`))
	if got := strings.Join(f.done(), ","); got != "automatic off,remove" {
		t.Errorf("done: %s", got)
	}
}

// What changes is shown without anybody asking, and without the script nothing is
// lost but that.
func TestNews(t *testing.T) {
	f := &fake{view: full()}
	_, address := serve(t, f)
	ctx := browser(t)
	run(t, ctx, chromedp.Navigate(address), chromedp.WaitVisible("#now"))
	f.set(func(v *View) { v.Question = question() })
	run(t, ctx, chromedp.WaitVisible("#advice-title"))
	call(t, ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	run(t, ctx, chromedp.Reload(), chromedp.WaitVisible("#advice-title"),
		chromedp.Click(`//button[.="Keep"]`), chromedp.WaitNotPresent("#advice-title"), chromedp.WaitVisible(`//p[contains(., "The improvements stay")]`))
	f.mu.Lock()
	f.fail = errors.New("cannot relaunch: it did not end")
	f.mu.Unlock()
	run(t, ctx, chromedp.Click(`button[aria-label="Relaunch Mail"]`), chromedp.WaitVisible(`//div[@role="alert"][contains(., "Cannot relaunch: it did not end.")]`))
}
