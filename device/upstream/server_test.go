package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
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
