package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestMetrics: Prometheus' own parser reads what a device says, and it is true.
func TestMetrics(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	read := func() map[string]float64 {
		t.Helper()
		file := filepath.Join(t.TempDir(), "sealant.prom")
		if out, code := m.as(0, "metrics", "--out", file); code != 0 {
			t.Fatal(out)
		}
		text, err := os.Open(file)
		v.must(err)
		defer text.Close()
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(text)
		v.must(err)
		all := map[string]float64{}
		for name, family := range families {
			for _, metric := range family.Metric {
				key := name
				for _, l := range metric.Label {
					key += " " + l.GetValue()
				}
				all[key] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
		return all
	}
	if out, code := m.as(0, "check"); code != 10 {
		t.Fatal(out)
	}
	before := read()
	if before["sealant_level web"] != 0 || before["sealant_exposure_seconds SI-2026-0001"] <= 0 || before["sealant_verify_failures_total"] != 0 {
		t.Errorf("%v", before)
	}
	if out, code := m.as(0, "install"); code != 0 {
		t.Fatal(out)
	}
	m.boot()
	after := read()
	if after["sealant_level web"] != 1 || after["sealant_exposure_seconds SI-2026-0001"] != 0 || after["sealant_feed_age_seconds"] > 3600 {
		t.Errorf("%v", after)
	}
	if _, ok := after["sealant_processes web active"]; !ok {
		t.Errorf("%v", after)
	}
	if out, code := m.as(0, "metrics"); code != 0 || !strings.Contains(out, "# TYPE sealant_level gauge") {
		t.Errorf("exit %d: %s", code, out)
	}
}
