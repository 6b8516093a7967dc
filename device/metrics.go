package device

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// Metrics is what a monitoring system wants of this device, in Prometheus' text
// format, as node_exporter's textfile collector reads it.
type Metrics struct {
	Text string `json:"text"`
}

// Metrics counts what holds now. It needs no network.
func (d *Device) Metrics(ctx context.Context) (Metrics, error) {
	s, err := d.Status(ctx)
	if err != nil {
		return Metrics{}, err
	}
	var m metrics
	m.help("sealant_level", "gauge", "Level of the improvement that is installed for a cryptex, 0 for the baseline.")
	for _, c := range s.Cryptexes {
		m.value("sealant_level", float64(c.Level), "cryptex", c.Name)
	}
	m.help("sealant_processes", "gauge", "Processes that use a cryptex, by whether they use the installed content.")
	for _, c := range s.Cryptexes {
		m.value("sealant_processes", float64(c.Active), "cryptex", c.Name, "state", "active")
		m.value("sealant_processes", float64(c.Users-c.Active), "cryptex", c.Name, "state", "old")
	}
	if s.FeedAge >= 0 {
		m.help("sealant_feed_age_seconds", "gauge", "How long ago the vendor was last heard.")
		m.value("sealant_feed_age_seconds", float64(s.FeedAge))
	}
	failures, err := d.damages()
	if err != nil {
		return Metrics{}, err
	}
	m.help("sealant_verify_failures_total", "counter", "How often content did not have its seal.")
	m.value("sealant_verify_failures_total", float64(failures))
	if release, since, ok := d.exposed(ctx, s); ok {
		m.help("sealant_exposure_seconds", "gauge", "How long the newest improvement has been published without being active everywhere here.")
		m.value("sealant_exposure_seconds", since.Seconds(), "release", release)
	}
	return Metrics{m.String()}, nil
}

// damages counts what the history tells of content without its seal.
func (d *Device) damages() (n int, err error) {
	records, err := d.Store.History()
	if err != nil && fault.KindOf(err) != fault.Seal {
		return 0, err
	}
	for _, r := range records {
		if r.Event == "damaged" || r.Reason == fault.Seal.String() && r.Event != "repaired" {
			n++
		}
	}
	return n, nil
}

// exposed says for how long the newest improvement has waited: 0 once it is active
// everywhere. A device that knows of none is not exposed.
func (d *Device) exposed(ctx context.Context, s Status) (release string, since time.Duration, ok bool) {
	cat, err := d.catalog()
	if err != nil {
		return "", 0, false
	}
	b, err := d.baseline()
	if err != nil {
		return "", 0, false
	}
	m, ok, err := newest(ctx, cat, b.Digest())
	if err != nil || !ok {
		return "", 0, false
	}
	if s.Release == m.ID && s.State == StateActive {
		return m.ID, 0, true
	}
	return m.ID, max(0, d.Now().Sub(m.Published)), true
}

// metrics writes Prometheus' text format.
type metrics struct{ strings.Builder }

func (m *metrics) help(name, kind, text string) {
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, text, name, kind)
}

var labelValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (m *metrics) value(name string, v float64, labels ...string) {
	m.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		open := ","
		if i == 0 {
			open = "{"
		}
		fmt.Fprintf(m, `%s%s="%s"`, open, labels[i], labelValue.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		m.WriteByte('}')
	}
	fmt.Fprintf(m, " %g\n", v)
}
