package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/internal/journal"
)

// TestJournal: what happens is told to the journal of the device's own system, with
// what it is about.
func TestJournal(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	path := filepath.Join(m.root, "run/systemd/journal/socket")
	v.must(os.MkdirAll(filepath.Dir(path), 0o755))
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	v.must(err)
	defer l.Close()
	v.must(l.SetReadBuffer(1 << 20))
	entry := func(args ...string) map[string][]string {
		t.Helper()
		if out, code := m.as(0, args...); code != 0 && code != 41 {
			t.Fatalf("%s: exit %d: %s", args, code, out)
		}
		b := make([]byte, 64<<10)
		n, err := l.Read(b)
		v.must(err)
		fields := map[string][]string{}
		for line := range strings.Lines(string(b[:n])) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				fields[name] = append(fields[name], value)
			}
		}
		return fields
	}
	is := func(fields map[string][]string, want map[string]string) {
		t.Helper()
		for name, value := range want {
			if got := strings.Join(fields[name], ","); got != value && (value != "*" || got == "") {
				t.Errorf("%s is %q, want %q; all: %v", name, got, value, fields)
			}
		}
	}
	is(entry("install"), map[string]string{
		"MESSAGE_ID": journal.Staged.ID(), "SEALANT_EVENT": "staged", "SEALANT_RELEASE": "SI-2026-0001", "SEALANT_CRYPTEX": "os,web", "SEALANT_FROM": "42.3 base",
		"SEALANT_TO": "42.3 (a)", "SEALANT_SEAL": "*", "SEALANT_TICKET": "*", "SEALANT_REASON": "asked", "SEALANT_ACTOR": "user:0", "SEALANT_DURATION_MS": "*", "PRIORITY": "5",
	})
	is(entry("remove", "--yes"), map[string]string{"MESSAGE_ID": journal.Removed.ID(), "SEALANT_EVENT": "removed", "SEALANT_RELEASE": "SI-2026-0001", "PRIORITY": "4"})
	is(entry("reapply"), map[string]string{"MESSAGE_ID": journal.Reapplied.ID(), "SEALANT_EVENT": "reapplied"})
	v.recall(1)
	is(entry("check"), map[string]string{"MESSAGE_ID": journal.Recalled.ID(), "SEALANT_EVENT": "recalled", "SEALANT_ACTOR": "recall"})
	is(entry("settings", "automatic", "off"), map[string]string{"MESSAGE_ID": journal.AutomaticOff.ID(), "SEALANT_ACTOR": "user:0"})
	is(entry("analytics", "on"), map[string]string{"MESSAGE_ID": journal.AnalyticsOn.ID(), "MESSAGE": "this device"})
}
