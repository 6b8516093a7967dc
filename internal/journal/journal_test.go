package journal_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/journal"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

// mount covers a folder for the rest of this test binary's namespace.
func mount(t *testing.T, at string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", at).CombinedOutput(); err != nil {
		t.Fatalf("mount %s: %v %s", at, err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", at).Run() })
}

// journald starts the real one, and returns what reads from it.
func journald(t *testing.T) func(args ...string) string {
	t.Helper()
	mount(t, "/run")
	mount(t, "/var/log")
	for _, dir := range []string{"/run/systemd/journal", "/run/log/journal"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	daemon := exec.Command("/lib/systemd/systemd-journald")
	if err := daemon.Start(); err != nil {
		t.Fatalf("%v (Debian package systemd)", err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	return func(args ...string) string {
		t.Helper()
		exec.Command("journalctl", "--sync").Run()
		out, err := exec.Command("journalctl", append([]string{"--no-pager"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("journalctl %q: %v %s", args, err, out)
		}
		return string(out)
	}
}

// send retries until the daemon listens.
func send(t *testing.T, e journal.Entry) {
	t.Helper()
	err := journal.At("/").Send(e)
	for n := 0; errors.Is(err, journal.ErrNone) && n < 500; n++ {
		time.Sleep(10 * time.Millisecond)
		err = journal.At("/").Send(e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An entry arrives in the real journald with all its fields, and journalctl -x
// explains it.
func TestJournald(t *testing.T) {
	read := journald(t)
	mount(t, "/usr/lib/systemd/catalog")
	mount(t, "/var/lib/systemd")
	if err := os.WriteFile("/usr/lib/systemd/catalog/sealant.catalog", []byte(journal.Catalog()), 0o644); err != nil {
		t.Fatal(err)
	}
	read("--update-catalog")

	send(t, journal.Entry{
		Event: journal.Staged, Text: "two\nlines = 1", Release: "SI-2026-0007", Cryptex: []string{"os", "web"}, From: "42.3 (a)", To: "42.3 (b)",
		Seal: []string{"3fa1", "91b0"}, Ticket: "5d0c", Reason: "asked", Actor: "user:1000", App: "mail", Duration: 3400 * time.Millisecond,
	})
	send(t, journal.Entry{Event: "install-failed", Reason: "unreachable"})

	out := read("-o", "json", "SYSLOG_IDENTIFIER=sealant", "SEALANT_RELEASE=SI-2026-0007", "MESSAGE_ID="+journal.Staged.ID())
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	want := map[string]any{
		"MESSAGE": "two\nlines = 1", "PRIORITY": "5", "SEALANT_EVENT": "staged", "SEALANT_RELEASE": "SI-2026-0007",
		"SEALANT_CRYPTEX": []any{"os", "web"}, "SEALANT_FROM": "42.3 (a)", "SEALANT_TO": "42.3 (b)", "SEALANT_SEAL": []any{"3fa1", "91b0"},
		"SEALANT_TICKET": "5d0c", "SEALANT_REASON": "asked", "SEALANT_ACTOR": "user:1000", "SEALANT_APP": "mail", "SEALANT_DURATION_MS": "3400",
	}
	for k, v := range want {
		if !reflect.DeepEqual(got[k], v) {
			t.Errorf("%s is %#v, want %#v", k, got[k], v)
		}
	}
	for _, text := range []string{"Improvement SI-2026-0007 is staged", "Nothing that runs was changed"} {
		if out := read("-x", "SEALANT_EVENT=staged"); !strings.Contains(out, text) {
			t.Errorf("journalctl -x does not say %q:\n%s", text, out)
		}
	}
	if out := read("-x", "SEALANT_EVENT=install-failed"); !strings.Contains(out, "Reason: unreachable") || !strings.Contains(out, "It did not work: install-failed") {
		t.Errorf("journalctl -x says\n%s", out)
	}
}

// Where there is no journal, nobody is held up, and a device in a folder does not
// write into the machine's.
func TestNoJournal(t *testing.T) {
	if err := journal.At(t.TempDir()).Send(journal.Entry{Event: journal.Staged}); !errors.Is(err, journal.ErrNone) {
		t.Errorf("without a journal: %v", err)
	}
}

// Values from outside can't forge fields, and huge ones don't lose the message.
func TestHostile(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "run/systemd/journal/socket")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := journal.Entry{Event: journal.Distrusted, Text: "x\nPRIORITY=0", Reason: strings.Repeat("r", 1<<20), Cryptex: make([]string, 1000)}
	if err := journal.At(root).Send(e); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b[:n], []byte("\nx\nPRIORITY=0\nMESSAGE_ID")) {
		t.Error("a value with a line feed was written as lines")
	}
	if want := "MESSAGE\n\x0c\x00\x00\x00\x00\x00\x00\x00x\nPRIORITY=0\nMESSAGE_ID="; !strings.HasPrefix(string(b[:n]), want) {
		t.Errorf("begins %q, want %q", b[:60], want)
	}
	if n > 64<<10 {
		t.Errorf("%d bytes", n)
	}
}

// Every event has an id of its own; spec and catalogue tell of the same.
func TestTable(t *testing.T) {
	file, err := os.ReadFile("sealant.catalog")
	if err != nil || string(file) != journal.Catalog() {
		t.Errorf("sealant.catalog is not what Catalog gives: %v", err)
		if os.Getenv("UPDATE") != "" {
			os.WriteFile("sealant.catalog", []byte(journal.Catalog()), 0o644)
		}
	}
	spec, err := os.ReadFile("../../spec/journal.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	sc := bufio.NewScanner(bytes.NewReader(file))
	for sc.Scan() {
		id, ok := strings.CutPrefix(sc.Text(), "-- ")
		if !ok {
			continue
		}
		if seen[id] || !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
			t.Errorf("id %s", id)
		}
		seen[id] = true
		if !bytes.Contains(spec, []byte("`"+id+"`")) {
			t.Errorf("spec/journal.md lacks %s", id)
		}
	}
	if len(seen) < 30 {
		t.Errorf("%d events", len(seen))
	}
	for _, e := range []journal.Event{journal.Staged, journal.Damaged, journal.Denied} {
		if !bytes.Contains(spec, fmt.Appendf(nil, "| `%s` | `%s` |", e, e.ID())) {
			t.Errorf("spec/journal.md lacks the line of %s", e)
		}
	}
}
