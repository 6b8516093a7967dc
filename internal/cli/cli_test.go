package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/fault"
)

// program is a small root command with one of each behaviour.
func program() *cobra.Command {
	root := New("prog", "a program", "Prog is a program.")
	group := &cobra.Command{Use: "group", Short: "groups"}
	group.AddCommand(&cobra.Command{Use: "leaf", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return For(cmd).Document("sealant.leaf/1", map[string]int{"n": 1})
	}})
	root.AddCommand(group,
		&cobra.Command{Use: "refuse", RunE: func(*cobra.Command, []string) error {
			return fault.New(fault.Seal, "cannot attach web: root hash differs").Hint("sealant verify")
		}},
		&cobra.Command{Use: "answer", RunE: func(*cobra.Command, []string) error { return Exit(fault.Available) }},
		&cobra.Command{Use: "one ARG", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return nil }},
		&cobra.Command{Use: "ask", RunE: func(cmd *cobra.Command, _ []string) error { return For(cmd).Confirm("REMOVE", false) }},
	)
	return root
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Run(program(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args string
		want int
	}{
		{"group leaf", 0},
		{"group", 0},
		{"group nothing", 2},
		{"nothing", 2},
		{"one", 2},
		{"one a b", 2},
		{"refuse --nonsense", 2},
		{"refuse", 32},
		{"answer", 10},
		{"ask", 2},
	} {
		code, _, stderr := run(t, strings.Fields(tt.args)...)
		if code != tt.want {
			t.Errorf("%s: exit %d, want %d (%s)", tt.args, code, tt.want, stderr)
		}
	}
}

func TestFailuresAreTold(t *testing.T) {
	_, stdout, stderr := run(t, "refuse")
	if stdout != "" || !strings.Contains(stderr, "root hash differs") || !strings.Contains(stderr, "hint: sealant verify") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	_, stdout, stderr = run(t, "refuse", "--json")
	var doc map[string]any
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc["schema"] != "sealant.error/1" || doc["reason"] != "seal-mismatch" || doc["exit_code"] != 32.0 {
		t.Errorf("stdout %q: %v", stdout, err)
	}
	if stderr != "" {
		t.Errorf("stderr %q", stderr)
	}
	if code, stdout, stderr := run(t, "answer"); code != 10 || stdout+stderr != "" {
		t.Errorf("an answer prints nothing: %q %q", stdout, stderr)
	}
}

func TestHelpListsEveryExitCode(t *testing.T) {
	_, stdout, _ := run(t, "--help")
	for _, k := range fault.Kinds() {
		if !strings.Contains(stdout, k.Text()) {
			t.Errorf("--help lacks %q", k.Text())
		}
	}
}

func TestDocumentBeginsWithItsSchema(t *testing.T) {
	_, stdout, _ := run(t, "group", "leaf")
	if stdout != "{\n  \"schema\": \"sealant.leaf/1\",\n  \"n\": 1\n}\n" {
		t.Errorf("%q", stdout)
	}
}

func TestConfirm(t *testing.T) {
	for answer, ok := range map[string]bool{"REMOVE\n": true, "REMOVE": true, "remove\n": false, "yes\n": false, "\n": false, "": false} {
		s := &Screen{Err: &bytes.Buffer{}, In: strings.NewReader(answer)}
		if err := s.Confirm("REMOVE", false); (err == nil) != ok {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

func TestProgressOffATerminal(t *testing.T) {
	var err bytes.Buffer
	p := (&Screen{Err: &err, Width: 80}).Progress("download", 1000)
	p.Set(900, 1000)
	if err.Len() > 0 {
		t.Errorf("a short step is not worth lines: %q", err.String())
	}
	p.begun = p.begun.Add(-2 * patience)
	for n := int64(0); n <= 1000; n += 5 {
		p.Set(n, 1000)
	}
	p.End()
	if got := strings.Count(err.String(), "\n"); got != 9 {
		t.Errorf("%d lines, want one for each 10 %% before the end:\n%s", got, err.String())
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 29025: "29 025 bytes", 112448: "112 kB", 4_100_000: "4.1 MB", 1 << 31: "2.1 GB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
