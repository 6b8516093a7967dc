package publish

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestFindings makes one change after the other that a fix should not make.
func TestFindings(t *testing.T) {
	d := newDesk(t)
	lib := func(id, text string, exports ...string) tree {
		return fixed.with(tree{"usr/lib/libweb.so.1": {content: elfFile(id, text, exports...), mode: 0o644}})
	}
	same := strings.Repeat("same machine code ", 900)
	for what, tt := range map[string]struct {
		tree tree
		code string
		says string
	}{
		"added":          {fixed.with(tree{"usr/lib/new.so": {content: "x", mode: 0o644}}), FileAdded, "not in the baseline"},
		"removed":        {fixed.with(tree{"usr/share/web/index": {}}), FileRemoved, "missing"},
		"mode":           {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o4755}}), ModeChanged, "mode was 0755, is 4755"},
		"owner":          {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o755, uid: 7}}), ModeChanged, "owner was 0:0, is 7:0"},
		"attributes":     {fixed.with(tree{"usr/bin/browser": {content: base["usr/bin/browser"].content, mode: 0o755, xattr: "y"}}), ModeChanged, "extended attributes"},
		"type":           {fixed.with(tree{"usr/bin/browser": {target: "../lib/x"}}), ModeChanged, "was a file, is a symbolic link"},
		"symbol":         {lib("\x41\xfa", same+"\x00libweb/4.1 (x86)\x00", "web_open"), SymbolRemoved, "web_close"},
		"version":        {lib("\x41\xfa", same+"\x00libweb/4.1.1 (x86)\x00", "web_open", "web_close"), VersionChanged, `"libweb/4.1" became "libweb/4.1.1"`},
		"version id":     {fixed.with(tree{"usr/bin/browser": {content: "VERSION=\"1.2.3\"\n", mode: 0o755}}), "", ""},
		"label":          {lib("\x41\xfa", same+"\x00libweb/4.1 (x86) 42.3 (a)\x00", "web_open", "web_close"), LabelLeaked, "42.3 (a)"},
		"id":             {fixed.with(tree{"usr/bin/browser": {content: "# SI-2026-0001\n", mode: 0o755}}), LabelLeaked, "SI-2026-0001"},
		"symbol added":   {lib("\x41\xfa", same+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close", "web_new"), "", ""},
		"link's target":  {fixed.with(tree{"usr/lib/libweb.so": {target: "libweb.so.2"}}), "", ""},
		"build-id alone": {lib("\x00\x01", strings.Repeat("some machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), "", ""},
	} {
		o := d.order("SI-2026-0001", tt.tree.build(t, "web"))
		account, _, err := d.Prepare(context.Background(), o, nil)
		if tt.code == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			d.must(d.Withdraw(o.ID))
			continue
		}
		if !errors.Is(err, ErrFindings) || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		all, open := account.Findings(nil)
		if len(all) != len(open) || !slices.ContainsFunc(all, func(f Finding) bool { return f.Code == tt.code && strings.Contains(f.Text, tt.says) }) {
			t.Errorf("%s: %+v", what, all)
		}
		o.Acknowledge = []string{tt.code}
		if _, _, err := d.Prepare(context.Background(), o, nil); err != nil {
			t.Errorf("%s: acknowledged, and yet: %v", what, err)
		}
		d.must(d.Withdraw(o.ID))
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		before, after string
		found         bool
	}{
		{"OpenSSL 3.0.17 1 Jul 2025", "OpenSSL 3.0.20 7 Apr 2026", true},
		{"VERSION_ID=42.3", "VERSION_ID=42.4", true},
		{`{"version": "42.3"}`, `{"version": "42.4"}`, true},
		{"Mozilla/5.0 Browser/42.3", "Mozilla/5.0 Browser/42.3.1", true},
		{"tool v1.2.3", "tool v1.2.4", true},
		{"needs GLIBC_2.34 only", "needs GLIBC_2.38 only", false},
		{"width: 1.5em", "width: 1.6em", false},
		{"it took 0.25 s", "it took 0.50 s", false},
		{"OpenSSL 3.0.17", "OpenSSL 3.0.17 fixed", false},
		{"nothing here", "tool v1.2.4", false},
	} {
		c := &comparer{result: &Comparison{}}
		section := func(s string) *io.SectionReader { return io.NewSectionReader(strings.NewReader(s), 0, int64(len(s))) }
		if err := c.versions("x", section("\x01"+tt.before+"\x00"), section("\x02"+tt.after+"\x00")); err != nil {
			t.Fatal(err)
		}
		if (len(c.result.Findings) > 0) != tt.found {
			t.Errorf("%q to %q: %+v", tt.before, tt.after, c.result.Findings)
		}
	}
}

func TestReadELFIsBounded(t *testing.T) {
	whole := elfFile("\x8d\x1e", "text", "a", "b")
	facts, ok := readELF(io.NewSectionReader(strings.NewReader(whole), 0, int64(len(whole))))
	if !ok || facts.buildID != "8d1e" || len(facts.exports) != 2 {
		t.Fatalf("%+v, %v", facts, ok)
	}
	for i := range whole {
		for _, x := range []byte{0xff, 0x80, 1} {
			b := []byte(whole)
			b[i] ^= x
			readELF(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
		}
		readELF(io.NewSectionReader(strings.NewReader(whole[:i]), 0, int64(i)))
	}
}
