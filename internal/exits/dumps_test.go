package exits

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/linux"
)

func realRecord(t testing.TB) []byte {
	t.Helper()
	line, err := os.ReadFile("testdata/coredump.json") // of Debian's systemd 257
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// A record as systemd-coredump writes it.
func TestRealRecord(t *testing.T) {
	wall, mono := time.UnixMicro(1795472422190336), 100*time.Second
	e, err := parseDump(realRecord(t), wall, mono)
	if err != nil {
		t.Fatal(err)
	}
	if e.PID != 246 || e.Signal != syscall.SIGSEGV || !e.Crash() || e.Command != "sh" || e.Dump.Executable != "/usr/bin/dash" || e.Dump.Unit != "sealant-vm.service" {
		t.Errorf("%+v %+v", e, e.Dump)
	}
	if want := mono - 2190336*time.Microsecond; e.At != want {
		t.Errorf("at %s, want %s", e.At, want)
	}
	mounts, err := linux.ReadMounts(strings.NewReader(e.Dump.Mounts), func(m *linux.MountPoint) bool { return m.Path == "/tmp/seen" })
	if err != nil || len(mounts) != 1 || mounts[0].Source != "here" {
		t.Errorf("%+v, %v", mounts, err)
	}
}

// Records that others wrote, and broken ones.
func TestHostileRecords(t *testing.T) {
	good := string(realRecord(t))
	for name, tt := range map[string]struct {
		line    string
		foreign bool
	}{
		"somebody else's":      {strings.Replace(good, "systemd-coredump@0-249-0.service", "user@1000.service", 1), true},
		"nobody's":             {`{"COREDUMP_PID": "1", "COREDUMP_SIGNAL": "11", "COREDUMP_TIMESTAMP": "1"}`, true},
		"a process of zero":    {strings.Replace(good, `"COREDUMP_PID": "246"`, `"COREDUMP_PID": "0"`, 1), false},
		"a negative process":   {strings.Replace(good, `"COREDUMP_PID": "246"`, `"COREDUMP_PID": "-1"`, 1), false},
		"no process":           {strings.Replace(good, `"COREDUMP_PID"`, `"X"`, 1), false},
		"a signal of 99":       {strings.Replace(good, `"COREDUMP_SIGNAL": "11"`, `"COREDUMP_SIGNAL": "99"`, 1), false},
		"a time that is words": {strings.Replace(good, `"1795472420000000"`, `"yesterday"`, 1), false},
		"a null":               {strings.Replace(good, `"COREDUMP_PID": "246"`, `"COREDUMP_PID": null`, 1), false},
		"half of it":           {good[:len(good)/2], false},
		"nothing":              {"", false},
		"a number":             {"7", false},
	} {
		if _, err := parseDump([]byte(tt.line), time.Now(), time.Hour); err == nil || errors.Is(err, errForeign) != tt.foreign {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A clock that was set since moves nothing before the boot or into the future.
	for _, wall := range []time.Time{time.Unix(0, 0), time.Unix(1<<40, 0)} {
		if e, err := parseDump([]byte(good), wall, time.Hour); err != nil || e.At < 0 || e.At > time.Hour {
			t.Errorf("at %s: %+v, %v", wall, e, err)
		}
	}
	// Bytes that are no text come as numbers.
	if e, err := parseDump([]byte(strings.Replace(good, `"/usr/bin/dash"`, `[47,98,255]`, 1)), time.Now(), time.Hour); err != nil || e.Dump.Executable != "/b\xff" {
		t.Errorf("%+v, %v", e.Dump, err)
	}
}

func FuzzDump(f *testing.F) {
	f.Add(realRecord(f))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := parseDump(line, time.Now(), time.Hour)
		if err == nil && (e.PID <= 0 || e.Dump == nil || e.At < 0 || e.At > time.Hour) {
			t.Errorf("%+v", e)
		}
	})
}

// Lines beyond the limit are left out, those around them are read.
func TestLongLines(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("one\n"+strings.Repeat("x", 10_000)+"\ntwo\nhalf"), 16)
	var got []string
	for {
		line, err := readLine(r, 100)
		if err != nil && !errors.Is(err, errLong) {
			break
		}
		got = append(got, string(bytes.TrimSpace(line)))
	}
	if strings.Join(got, ",") != "one,,two" {
		t.Errorf("%q", got)
	}
}

// Two sources as one: both are heard, and the end of the second ends nothing.
func TestBoth(t *testing.T) {
	first, err := OpenConnector()
	if err != nil {
		t.Fatal(err)
	}
	second := &said{ends: []Exit{{PID: 7}}}
	s := Both(first, second)
	if e, err := s.Read(); err != nil || e.PID != 7 {
		t.Errorf("%+v, %v", e, err)
	}
	if s.Name() != "connector+said" {
		t.Error(s.Name())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

type said struct{ ends []Exit }

func (*said) Name() string          { return "said" }
func (*said) Track(int, int) error  { return nil }
func (*said) Watch([]Program) error { return nil }
func (*said) Lost() uint64          { return 0 }
func (*said) Close() error          { return nil }
func (s *said) Read() (Exit, error) {
	if len(s.ends) == 0 {
		return Exit{}, os.ErrClosed
	}
	e := s.ends[0]
	s.ends = s.ends[1:]
	return e, nil
}
