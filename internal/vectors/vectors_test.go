package vectors

import (
	"bytes"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	v := Vector{Expect: "ok", Header: map[string]string{"root": "00ff", "comment": "a: b"}, Body: bytes.Repeat([]byte{1, 2, 3}, 5000)}
	got, err := Parse(v.Format())
	if err != nil {
		t.Fatal(err)
	}
	if got.Expect != "ok" || got.Header["comment"] != "a: b" || got.Header["root"] != "00ff" || !bytes.Equal(got.Body, v.Body) {
		t.Errorf("got %+v", got)
	}
	for _, damaged := range []string{"", "expect: ok\n", strings.Replace(v.Format(), "expect", "exp", 1), strings.Replace(v.Format(), "root: ", "root", 1), v.Format()[:80]} {
		if _, err := Parse(damaged); err == nil {
			t.Errorf("%.40q was accepted", damaged)
		}
	}
}

func TestAnEmptyFolderIsAnError(t *testing.T) {
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("no vectors, no error")
	}
}
