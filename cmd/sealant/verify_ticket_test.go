package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

const ticketVectors = "../../spec/vectors/ticket"

// verifyTicket runs sealant verify --ticket.
func verifyTicket(t *testing.T, ticket []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ticket.im4m")
	if err := os.WriteFile(file, ticket, 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = cli.Run(program(), append([]string{"verify", "--ticket", file}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// readVector turns a vector into what the command line is told.
func readVector(t *testing.T, name string) (expect string, ticket []byte, args []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(text), "\n\n")
	for line := range strings.Lines(head) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "expect":
			expect = value
		case "root":
			args = append(args, "--ticket-root", filepath.Join(ticketVectors, value))
		case "device", "product", "baseline", "nonce", "release", "cryptex":
			args = append(args, "--"+key, value)
		}
	}
	if ticket, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\n", "")); err != nil {
		t.Fatal(err)
	}
	return expect, ticket, args
}

// TestVerifyTicketVectors has the command judge every vector of spec/ticket.md,
// those of another implementation among them.
func TestVerifyTicketVectors(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(ticketVectors, "*.txt"))
	if err != nil || len(names) < 50 {
		t.Fatalf("%d vectors: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			expect, ticket, args := readVector(t, name)
			want := 31
			if expect == "ok" {
				want = 0
			}
			code, stdout, stderr := verifyTicket(t, ticket, args...)
			if code != want {
				t.Errorf("exit code %d, want %d (%s)\n%s%s", code, want, expect, stdout, stderr)
			}
			code, stdout, _ = verifyTicket(t, ticket, append(args, "--json")...)
			var v device.Verified
			if code != want || code == 0 && (json.Unmarshal([]byte(stdout), &v) != nil || !v.OK || len(v.Ticket) == 0) {
				t.Errorf("with --json: exit code %d, %s", code, stdout)
			}
		})
	}
}

// TestVerifyTicketByParts gives less than everything: what is not given is not
// compared, and every single thing that is given counts.
func TestVerifyTicketByParts(t *testing.T) {
	_, ticket, args := readVector(t, filepath.Join(ticketVectors, "ok.txt"))
	root := args[:2]
	if code, out, errs := verifyTicket(t, ticket, root...); code != 0 || !strings.Contains(out, "not compared") {
		t.Errorf("root alone: %d\n%s%s", code, out, errs)
	}
	for i := 2; i < len(args); i += 2 {
		if args[i] == "--cryptex" {
			continue // the set is one thing
		}
		if code, out, errs := verifyTicket(t, ticket, append(root, args[i:i+2]...)...); code != 0 {
			t.Errorf("%s: %d\n%s%s", args[i], code, out, errs)
		}
		wrong := strings.NewReplacer("1", "2", "E", "F", "7", "8").Replace(args[i+1])
		if code, out, _ := verifyTicket(t, ticket, append(root, args[i], wrong)...); code != 31 {
			t.Errorf("%s %s: %d\n%s", args[i], wrong, code, out)
		}
	}
	for _, bad := range [][]string{
		{"--device", "12"},
		{"--nonce", "zz"},
		{"--cryptex", "web 2"},
		{"--since", "today"},
		{"--baseline", "ab"},
		{"--nonce", "none", "--release", "SI-2026-0007"},
		{"--revoked", "00"},
	} {
		if code, _, errs := verifyTicket(t, ticket, append(root, bad...)...); code != 2 {
			t.Errorf("%v: exit code %d\n%s", bad, code, errs)
		}
	}
	if code, _, _ := verifyTicket(t, ticket, "--ticket-root", "/nonexistent"); code != 2 {
		t.Errorf("no root: exit code %d", code)
	}
	if code, out, _ := verifyTicket(t, ticket, append(root, "--since", "2031-01-01T00:00:00Z")...); code != 31 {
		t.Errorf("a leaf that ended: exit code %d\n%s", code, out)
	}
	for _, none := range [][]byte{nil, []byte("hello"), bytes.Repeat([]byte{0x30}, 1<<20)} {
		if code, _, errs := verifyTicket(t, none, root...); code != 31 {
			t.Errorf("%d bytes that are no ticket: exit code %d\n%s", len(none), code, errs)
		}
	}
}
