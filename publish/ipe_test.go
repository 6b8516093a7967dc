package publish

import (
	"strings"
	"testing"

	"github.com/sealant-os/sealant/release"
)

func TestIPEPolicy(t *testing.T) {
	hash := func(b byte) release.Hash { return release.Hash{b} }
	base := release.Baseline{Schema: release.BaselineSchema, Product: "p", OSVersion: "42.3", Cryptexes: []release.Image{
		{Name: "os", Subtype: 1, Seal: release.Seal{Root: hash(1)}}, {Name: "web", Subtype: 2, Seal: release.Seal{Root: hash(2)}},
	}}
	other := release.Baseline{Schema: release.BaselineSchema, Product: "p", OSVersion: "42.4", Cryptexes: []release.Image{{Name: "web", Subtype: 2, Seal: release.Seal{Root: hash(3)}}}}
	improve := func(id string, level int, b byte) release.Manifest {
		return release.Manifest{ID: id, Level: level, Baseline: base.Digest(), Cryptexes: []release.Change{{Name: "web", To: release.State{Seal: release.Seal{Root: hash(b)}}}}}
	}
	manifests := []release.Manifest{improve("SI-2026-0001", 1, 4), improve("SI-2026-0002", 2, 5)}
	roots := func(o IPEOrder) string {
		t.Helper()
		o.Version = "0.0.7"
		text, err := ipePolicy(o, []release.Baseline{other, base}, manifests, map[string]bool{"SI-2026-0002": true})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(text, "policy_name=sealant policy_version=0.0.7\nDEFAULT action=ALLOW\n\nDEFAULT op=EXECUTE action=DENY\nop=EXECUTE boot_verified=TRUE action=ALLOW\n") {
			t.Errorf("%s", text)
		}
		var found []string
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, "op=EXECUTE dmverity_roothash=sha256:"); ok {
				found = append(found, rest[:2])
			}
		}
		return strings.Join(found, " ")
	}
	for _, c := range []struct {
		order IPEOrder
		want  string
	}{
		{IPEOrder{}, "01 02 04 03"},
		{IPEOrder{Recalled: true}, "01 02 04 05 03"},
		{IPEOrder{Baseline: other.Digest().String()}, "03"},
		{IPEOrder{Roots: []string{"09" + strings.Repeat("0", 62) + "=usr"}}, "09 01 02 04 03"},
	} {
		if got := roots(c.order); got != c.want {
			t.Errorf("%+v: %s, want %s", c.order, got, c.want)
		}
	}
	for _, o := range []IPEOrder{
		{},
		{Version: "1"},
		{Version: "0.0.65536"},
		{Version: "0.0.07"},
		{Version: "0.0.-1"},
		{Version: "0.0.1", Name: "a b"},
		{Version: "0.0.1", Name: "a\nop=EXECUTE"},
		{Version: "0.0.1", Roots: []string{"12"}},
		{Version: "0.0.1", Roots: []string{strings.Repeat("0", 64) + "=x\nop=EXECUTE action=ALLOW"}},
		{Version: "0.0.1", Baseline: "00"},
	} {
		if text, err := ipePolicy(o, []release.Baseline{base}, nil, nil); err == nil {
			t.Errorf("%+v: %s", o, text)
		}
	}
}
