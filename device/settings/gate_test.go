package settings

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// visitor is a client that keeps cookies and is not led elsewhere.
func visitor(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 10 * time.Second}
}

func fetch(t *testing.T, c *http.Client, method, address, body string, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", address[:strings.Index(address[7:], "/")+7])
	}
	if change != nil {
		change(req)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// Whoever has no business here is kept out, whichever way they come.
func TestStrangers(t *testing.T) {
	f := &fake{view: full()}
	p, address := serve(t, f)
	base := "http://" + p.gate.host
	c := visitor(t)
	if code, _, _ := fetch(t, c, "GET", base+"/", "", nil); code != http.StatusForbidden {
		t.Errorf("without a cookie: %d", code)
	}
	if code, _, _ := fetch(t, c, "GET", base+"/enter/"+strings.Repeat("0", 64), "", nil); code != http.StatusForbidden {
		t.Errorf("with a guessed address: %d", code)
	}
	code, _, h := fetch(t, c, "GET", address, "", nil)
	set := h.Get("Set-Cookie")
	if code != 200 || !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite=Strict") {
		t.Fatalf("the address: %d, %s", code, set)
	}
	if code, _, _ := fetch(t, visitor(t), "GET", address, "", nil); code != http.StatusForbidden {
		t.Errorf("the address a second time: %d", code)
	}
	if code, _, _ := fetch(t, c, "GET", address, "", nil); code != 200 {
		t.Errorf("the address a second time, by the same browser: %d", code)
	}
	code, text, h := fetch(t, c, "GET", base+"/", "", nil)
	if code != 200 || !strings.Contains(text, "Automatically Install") {
		t.Fatalf("with the cookie: %d %s", code, text)
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := h.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if strings.Contains(text, "style=") || strings.Contains(text, "onclick") || strings.Contains(text, "<script>") {
		t.Error("the page has what its policy forbids")
	}
	stamp := text[strings.Index(text, `name="stamp" value="`)+20:]
	stamp = stamp[:strings.IndexByte(stamp, '"')]
	form := url.Values{"stamp": {stamp}, "action": {"automatic"}, "value": {"off"}}.Encode()
	for name, attempt := range map[string]struct {
		body   string
		change func(*http.Request)
	}{
		"another site's form":      {form, func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }},
		"a sandboxed form":         {form, func(r *http.Request) { r.Header.Set("Origin", "null") }},
		"no origin":                {form, func(r *http.Request) { r.Header.Del("Origin") }},
		"another port's form":      {form, func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") }},
		"a site beside":            {form, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		"a rebound name":           {form, func(r *http.Request) { r.Host = "evil.example:" + strings.Split(p.gate.host, ":")[1] }},
		"localhost":                {form, func(r *http.Request) { r.Host = "localhost:" + strings.Split(p.gate.host, ":")[1] }},
		"no stamp":                 {"action=automatic&value=off", nil},
		"another stamp":            {strings.Replace(form, stamp, strings.Repeat("0", len(stamp)), 1), nil},
		"the stamp in the address": {"action=automatic&value=off", func(r *http.Request) { r.URL.RawQuery = "stamp=" + stamp }},
		"no such action":           {strings.Replace(form, "automatic", "format-disk", 1), nil},
		"a form that is too long":  {form + "&x=" + strings.Repeat("x", maxForm), nil},
		"a form of another kind":   {form, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
		"another person's cookie":  {form, func(r *http.Request) { r.Header.Set("Cookie", cookie+"="+secret()); c.Jar = nil }},
	} {
		jar := c.Jar
		if code, _, _ := fetch(t, c, "POST", base+"/do", attempt.body, attempt.change); code < 400 {
			t.Errorf("%s: %d", name, code)
		}
		c.Jar = jar
	}
	if code, _, _ := fetch(t, c, "GET", base+"/do?"+form, "", nil); code < 400 {
		t.Errorf("a link that does something: %d", code)
	}
	if got := f.done(); len(got) != 0 {
		t.Fatalf("done: %q", got)
	}
	if code, _, _ := fetch(t, c, "POST", base+"/do", form, nil); code != http.StatusSeeOther || len(f.done()) != 1 {
		t.Errorf("the page's own form: %d, done %q", code, f.done())
	}
}

// Another user of the machine is kept out even with the address and the cookie, and
// hung up on.
func TestOtherUser(t *testing.T) {
	p, address := serve(t, &fake{view: full()})
	path := strings.TrimPrefix(address, "http://"+p.gate.host)
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, p.gate.host)
	port := strings.Split(p.gate.host, ":")[1]
	cmd := exec.Command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/$0; printf '%s' "$1" >&3; cat <&3`, port, request)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s (the test needs root)", err, out)
	}
	if !strings.HasPrefix(string(out), "HTTP/1.1 403") || strings.Contains(string(out), "Set-Cookie") {
		t.Errorf("another user is told %s", out)
	}
	// The address still works for whom it is: nothing was used up.
	if code, _, _ := fetch(t, visitor(t), "GET", address, "", nil); code != 200 {
		t.Errorf("the address: %d", code)
	}
}

// The port is on the loopback interface alone.
func TestLoopback(t *testing.T) {
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		t.Errorf("listens at %s", ip)
	}
}

// The kernel's word on who is at the other end.
func TestOwner(t *testing.T) {
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if uid, err := ownerOf(s); err != nil || uid != uint32(os.Getuid()) {
		t.Errorf("the owner is %d, %v", uid, err)
	}
}

// An address that nobody opens is worth nothing after a while.
func TestTokens(t *testing.T) {
	g := gate{host: "127.0.0.1:1", tokens: make(map[string]time.Time)}
	now := time.Now()
	token := strings.TrimPrefix(g.address(now), "http://127.0.0.1:1/enter/")
	if _, ok := g.enter(token, now.Add(tokenFor+time.Second)); ok {
		t.Error("an old address was let in")
	}
	token = strings.TrimPrefix(g.address(now), "http://127.0.0.1:1/enter/")
	if _, ok := g.enter(token, now); !ok {
		t.Error("a fresh address was not")
	}
	if _, ok := g.enter(token, now); ok {
		t.Error("it was let in twice")
	}
}

// A page may open with its question.
func TestOpensWithQuestion(t *testing.T) {
	p, address := serve(t, &fake{view: full()})
	p.Ask = Remove
	_, text, _ := fetch(t, visitor(t), "GET", address, "", nil)
	if !strings.Contains(text, `content="0;url=/?ask=remove"`) {
		t.Errorf("opens with %s", text)
	}
}

// Whatever fails, the page says so.
func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"cannot do it": "Cannot do it.", "": "It did not work, and nothing said why."} {
		if got := sentence(errors.New(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
