package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device/settings"
)

// visitor is a browser on a settings page.
type visitor struct {
	m    *machine
	http *http.Client
	base string
}

// settings opens the page as a user.
func (m *machine) settings(uid uint32) *visitor {
	m.t.Helper()
	cmd := exec.Command(command(m.t), "--root", m.root, "settings", "--address")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	m.v.must(err)
	m.v.must(cmd.Start())
	m.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	m.v.must(err)
	address := strings.TrimSpace(line)
	jar, err := cookiejar.New(nil)
	m.v.must(err)
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DialContext: dialAs(uid)}}
	v := &visitor{m, browser, address[:strings.Index(address, "/enter/")]}
	v.get(strings.TrimPrefix(address, v.base))
	return v
}

// dialAs connects with sockets that belong to a user, as that user's browser does.
func dialAs(uid uint32) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
		defer syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

func (v *visitor) get(path string) (page string) {
	v.m.t.Helper()
	resp, err := v.http.Get(v.base + path)
	v.m.v.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	v.m.v.must(err)
	return string(body)
}

var stampField = regexp.MustCompile(`name="stamp" value="([0-9a-f]+)"`)

// do presses a button and returns the page that comes then.
func (v *visitor) do(action, value string) (page string) {
	v.m.t.Helper()
	stamp := stampField.FindStringSubmatch(v.get("/"))
	form := url.Values{"stamp": {stamp[1]}, "action": {action}, "value": {value}}
	req, err := http.NewRequest(http.MethodPost, v.base+"/do", strings.NewReader(form.Encode()))
	v.m.v.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", v.base)
	resp, err := v.http.Do(req)
	v.m.v.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	v.m.v.must(err)
	return string(body)
}

// TestSettings: the page says what holds and does what its user may do, by the real
// agent.
func TestSettings(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("[restart]\ncommand = [\"true\"]\n")
	m.openToAll()
	stop, _ := m.agent()
	boot := func() {
		t.Helper()
		stop()
		m.boot()
		stop, _ = m.agent()
	}
	says := func(page string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(page, text) {
				t.Errorf("the page lacks %q:\n%s", text, page)
			}
		}
	}
	admin, user := m.settings(0), m.settings(person)
	says(user.get("/"), "No improvement is installed", "ExampleOS 42.3 has every improvement", `id="automatic" class="switch" role="switch" aria-checked="true"`)
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	says(user.get("/"), "<h2 id=\"state-title\">42.3 (a)</h2>", "Installed today", "Uses it after a restart")
	says(user.get("/fixed"), "What was fixed in 42.3 (a)", "CVE-2026-1101", "Known attack", "not active everywhere yet")
	says(user.get("/preview"), "Sharing is off: nothing is sent")

	// Whoever may not do it on a terminal may not do it here, and is told why.
	says(user.do("remove", ""), "That did not work", "needs root")
	says(user.get("/"), "42.3 (a)")
	if out, _ := m.as(0, "history"); strings.Contains(out, "removed") {
		t.Error(out)
	}

	says(admin.do("automatic", "off"), "Automatically Install: off", `aria-checked="false"`)
	says(admin.do("share", "on"), "Share Device Analytics: on")
	says(admin.get("/preview"), "Sharing is on")
	says(admin.do("restart", ""), "This device is restarting.")
	boot()
	says(user.get("/"), "42.3 (a)")
	says(user.get("/fixed"), "Active everywhere")
	says(user.get("/?ask=remove"), "This device returns to ExampleOS 42.3. 1 fix stops protecting it, one against a known attack. You can install them again.")
	says(admin.do("remove", ""), "This device is restarting.", "A restart finishes the removal")
	says(admin.do("cancel", ""), "The improvements stay.", "42.3 (a)")
	says(admin.do("remove", ""), "A restart finishes the removal")
	boot()
	says(user.get("/"), "You removed the improvements", "Install Again")
	says(admin.do("reapply", ""), "42.3 (a) is installed again")

	out, code := m.as(person, "settings", "--json")
	var view settings.View
	if err := json.Unmarshal([]byte(out), &view); err != nil || code != 0 || view.Automatic.On || !view.Share.On || view.Name != "42.3 (a)" {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	if out, code := m.as(0, "settings", "automatic", "on"); code != 0 {
		t.Error(out)
	}
	m.configure("[install]\nautomatic = \"always\"\n")
	says(user.get("/"), "Set by policy", `aria-disabled="true"`)
	says(admin.do("automatic", "off"), "That did not work")
}
