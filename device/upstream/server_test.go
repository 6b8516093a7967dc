package upstream

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release/catalog"
)

// TestRefusals: what a server says becomes the failure that it is; nothing of
// it can write on a terminal.
func TestRefusals(t *testing.T) {
	s := &Server{Now: func() time.Time { return time.Unix(1e9, 0) }}
	for _, tt := range []struct {
		status int
		body   string
		kind   fault.Kind
		text   string
	}{
		{503, `{"code":"busy","detail":"full"}`, fault.Busy, "busy"},
		{429, `{"code":"busy"}`, fault.Busy, "busy"},
		{429, ``, fault.Busy, "busy"},
		{409, `{"code":"replayed"}`, fault.Busy, "busy"},
		{403, `{"code":"refused","detail":"blocked"}`, fault.Refused, "blocked"},
		{403, `{"code":"not-in-ring"}`, fault.NotEligible, "ring"},
		{403, `{"code":"bad-token"}`, fault.Refused, "token"},
		{401, `{"code":"unknown-device"}`, fault.Refused, "does not know"},
		{401, `{"code":"clock"}`, fault.Refused, "clock"},
		{401, `{"code":"bad-signature"}`, fault.Refused, "refused"},
		{410, `{"code":"recalled"}`, fault.Recalled, "took"},
		{410, ``, fault.Recalled, "took"},
		{404, `{"code":"unknown-release"}`, fault.NotEligible, "does not have"},
		{422, `{"code":"bad-request"}`, fault.Failed, "did not understand"},
		{500, `<html>`, fault.Busy, "failed"},
		{502, ``, fault.Busy, "failed"},
		{418, `{"code":"teapot"}`, fault.Refused, "refused"},
		{302, ``, fault.Unreachable, "302"},
		{403, `{"code":"refused","detail":"\u001b[2J\u0007\nline two\u009b"}`, fault.Refused, "line two"},
	} {
		resp := &http.Response{StatusCode: tt.status, Status: http.StatusText(tt.status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
		if tt.status == 302 {
			resp.Status = "302 Found"
		}
		err := s.refusal(resp, []byte(tt.body))
		if fault.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%d %s: %v (kind %v), want %v", tt.status, tt.body, err, fault.KindOf(err), tt.kind)
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Errorf("%q can write on a terminal", err.Error())
		}
	}
}

func TestClean(t *testing.T) {
	if got := Clean(strings.Repeat("x", 1000)); len(got) != 300 {
		t.Errorf("%d", len(got))
	}
}

// TestStall: a server that never comes to the end of its answer is given up, and
// whoever gives up the question before is told so.
func TestStall(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-over
	}))
	defer slow.Close()
	defer close(over)
	s := &Server{Base: slow.URL, Client: NewClient(), Key: func() (crypto.Signer, error) { return key, nil }, Now: time.Now, Patience: 50 * time.Millisecond}
	if err := s.Post(t.Context(), "/v1/tickets", struct{}{}, &struct{}{}); fault.KindOf(err) != fault.Unreachable {
		t.Errorf("a server that stalls: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Patience = time.Hour
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := s.Post(ctx, "/v1/tickets", struct{}{}, &struct{}{}); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up himself: %v", err)
	}
}

// content is a server or mirror with one file.
type content string

func (c content) Fetch(_ context.Context, _ string, offset int64) (io.ReadCloser, error) {
	if c == "absent" {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(string(c)[offset:])), nil
}

// TestMirrors: mirrors are asked for big files only, one that has nothing or
// brings nothing is passed over, and so are all where that was asked for.
func TestMirrors(t *testing.T) {
	m := mirrors{server: content("server"), mirrors: []catalog.Fetcher{content("absent"), content(""), content("mirror")}}
	for _, tt := range []struct {
		ctx        context.Context
		path, want string
	}{
		{t.Context(), "targets/patches/x", "mirror"},
		{t.Context(), "metadata/timestamp.json", "server"},
		{PastMirrors(t.Context()), "targets/patches/x", "server"},
	} {
		r, err := m.Fetch(tt.ctx, tt.path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != tt.want {
			t.Errorf("%s comes from %q: %v", tt.path, b, err)
		}
		r.Close()
	}
}
