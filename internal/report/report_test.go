package report

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../../spec/vectors/analytics/reports.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		body, want, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " expect: ")
		if !ok {
			t.Fatalf("no expect: in %q", line)
		}
		n++
		daily, recommendation, err := Parse([]byte(body))
		got := "refused"
		var again []byte
		switch {
		case err != nil:
		case daily != nil:
			got = "daily"
			again, err = daily.Encode()
		default:
			got = "recommendation"
			again, err = recommendation.Encode()
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", body, got, want, err)
		}
		if got != "refused" && (err != nil || !bytes.Equal(again, []byte(body))) {
			t.Errorf("%s: encodes as %s, %v", body, again, err)
		}
	}
	if n < 20 {
		t.Errorf("only %d vectors", n)
	}
}

func TestLimits(t *testing.T) {
	d := Daily{Schema: DailySchema, Name: strings.Repeat("0", 32), Improvement: "SI-2026-0007", OSBuild: "42.3.0", Arch: "amd64", Arm: Offered, Day: "2026-11-23"}
	for i := range MaxApps {
		d.Apps = append(d.Apps, App{App: fmt.Sprintf("%s%03d", strings.Repeat("x", 125), i), AtRisk: true})
	}
	data, err := d.Encode()
	if err != nil {
		t.Fatalf("the largest report can't be written: %v", err)
	}
	if _, _, err := Parse(data); err != nil {
		t.Fatal(err)
	}
	d.Apps = append(d.Apps, App{App: "z"})
	if _, err := d.Encode(); err == nil {
		t.Error("too many apps")
	}
	if _, _, err := Parse(append(data, bytes.Repeat([]byte(" "), MaxBytes)...)); err == nil {
		t.Error("oversize")
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("../../spec/vectors/analytics/reports.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		body, _, _ := strings.Cut(line, " expect: ")
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		daily, recommendation, err := Parse(data)
		if err != nil {
			return
		}
		var again []byte
		if daily != nil {
			again, err = daily.Encode()
		} else {
			again, err = recommendation.Encode()
		}
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q encodes as %q, %v", data, again, err)
		}
	})
}
