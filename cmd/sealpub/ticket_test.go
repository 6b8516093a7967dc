package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/trust/ticket"
)

// TestTicketInspect decodes a vector of the specification.
func TestTicketInspect(t *testing.T) {
	text, err := os.ReadFile("../../spec/vectors/ticket/ok.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n\n")
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	write := func(name string, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ticket", der)
	code, out, stderr := keysRun(nil, "ticket", "inspect", "ticket")
	if code != 0 || !strings.Contains(stderr, "no signature was verified") {
		t.Errorf("%d, %s", code, stderr)
	}
	for _, want := range []string{"UDID", "d2f70e23ca4fab9e7c69373276a1a7b37af241e97b15af7af61584c9e5b05387", "SI-2026-0007", "cx01.name", "web", "tc00.DGST", "vectors ticket root"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	var doc struct {
		Schema string
		ticketDocument
	}
	if err := json.Unmarshal([]byte(keysMust(t, "ticket", "inspect", "ticket", "--json")), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Schema != "sealant.ticket/1" || len(doc.Ticket) != 96 || doc.Bytes != len(der) || len(doc.Fields) < 20 {
		t.Errorf("--json: %+v", doc)
	}
	write("truncated", der[:100])
	write("empty", nil)
	write("large", bytes.Repeat([]byte{0x30}, ticket.MaxSize+100))
	for name, want := range map[string]int{"truncated": 31, "empty": 31, "large": 31, "/dev/zero": 31, "nothing": 1} {
		if code, out, stderr := keysRun(nil, "ticket", "inspect", name); code != want || out != "" || stderr == "" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, out, stderr)
		}
	}
}

func TestTicketRoot(t *testing.T) {
	t.Chdir(t.TempDir())
	keysMust(t, "keys", "new", "root", "--for", "ticket-root", "--insecure-unencrypted")
	keysMust(t, "keys", "new", "targets", "--for", "targets", "--insecure-unencrypted")
	if out := keysMust(t, "ticket", "root", "--key", "root.key", "--name", "Example ticket root"); out != "ticket-root.pem\n" {
		t.Errorf("printed %q", out)
	}
	text, err := os.ReadFile("ticket-root.pem")
	if err != nil {
		t.Fatal(err)
	}
	root, err := ticket.ParseRoot(text)
	if err != nil || root.Subject.CommonName != "Example ticket root" {
		t.Errorf("%v, %v", root, err)
	}
	for name, args := range map[string][]string{
		"1 exists":      {"--key", "root.key", "--name", "x"},
		"1 an Ed25519":  {"--key", "targets.key", "--name", "x", "-o", "other.pem"},
		"1 no key file": {"--key", "nothing.key", "--name", "x", "-o", "other.pem"},
		"2 no name":     {"--key", "root.key", "-o", "other.pem"},
		"2 empty name":  {"--key", "root.key", "--name", "", "-o", "other.pem"},
		"2 no key":      {"--name", "x", "-o", "other.pem"},
		"2 years":       {"--key", "root.key", "--name", "x", "--years", "0", "-o", "other.pem"},
	} {
		if code, out, stderr := keysRun(nil, append([]string{"ticket", "root"}, args...)...); code != int(name[0]-'0') || out != "" || stderr == "" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, out, stderr)
		}
	}
	if _, err := os.Stat("other.pem"); err == nil {
		t.Error("a refused command left a file")
	}
}
