package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealant-os/sealant/server/signing"
)

// metrics are what the server tells Prometheus. docs/server.md explains them.
type metrics struct {
	registry    *prometheus.Registry
	tickets     *prometheus.CounterVec
	seconds     prometheus.Histogram
	propagation prometheus.Histogram
	enrolments  *prometheus.CounterVec
	reports     *prometheus.CounterVec
	diverged    prometheus.Counter
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		tickets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealsrv_tickets_total", Help: "Requests for tickets, by what became of them.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sealsrv_ticket_seconds", Help: "From a request for a ticket to the answer, for tickets that were issued.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sealsrv_recall_propagation_seconds", Help: "From the publication of a recall to a device's request for the set it lands on.",
			Buckets: []float64{60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400},
		}),
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealsrv_enrolments_total", Help: "Requests to enrol, by what became of them.",
		}, []string{"result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sealsrv_reports_total", Help: "Reports that people agreed to send, by what became of them.",
		}, []string{"result"}),
		diverged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sealsrv_diverged_nonces_total", Help: "Tickets asked for with a nonce that was dead already: signs of a cloned identity.",
		}),
	}
	for _, code := range signing.Codes() {
		m.tickets.WithLabelValues(string(code))
	}
	m.tickets.WithLabelValues(resultIssued)
	m.registry.MustRegister(m.tickets, m.seconds, m.propagation, m.enrolments, m.reports, m.diverged, &fleet{server: s})
	return m
}

// Results beside the codes of refusals.
const (
	resultIssued = "issued"
	resultOK     = "ok"
)

// fleet collects what is read from the database and the keys when Prometheus
// asks, at most once in fleetAge.
type fleet struct {
	server *Server

	mu   sync.Mutex
	at   time.Time
	kept []prometheus.Metric
}

const fleetAge = 30 * time.Second

var (
	devicesDesc = prometheus.NewDesc("sealsrv_devices", "Devices by latest release, ring and state: enrolled, blocked, authorised.", []string{"release", "ring", "state"}, nil)
	expiryDesc  = prometheus.NewDesc("sealsrv_key_expiry_seconds", "Seconds until what a key signed, or its certificate, ends.", []string{"key"}, nil)
)

// Describe implements prometheus.Collector.
func (f *fleet) Describe(ch chan<- *prometheus.Desc) {
	ch <- devicesDesc
	ch <- expiryDesc
}

// Collect implements prometheus.Collector.
func (f *fleet) Collect(ch chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.server.now()
	if f.kept == nil || now.Sub(f.at) >= fleetAge {
		f.kept, f.at = f.collect(now), now
	}
	for _, m := range f.kept {
		ch <- m
	}
}

func (f *fleet) collect(now time.Time) []prometheus.Metric {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := f.server
	gauge := func(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
		return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	list := []prometheus.Metric{gauge(expiryDesc, s.leaf.Expires().Sub(now).Seconds(), "leaf")}
	if all, blocked, err := s.db.Counts(ctx); err == nil {
		list = append(list, gauge(devicesDesc, float64(all), "", "", "enrolled"), gauge(devicesDesc, float64(blocked), "", "", "blocked"))
	}
	view, err := s.source.View(ctx)
	if err != nil {
		return list
	}
	list = append(list, gauge(expiryDesc, view.Expires.Sub(now).Seconds(), "catalog"))
	latest, err := s.db.Latest(ctx)
	if err != nil {
		return list
	}
	for _, m := range view.Releases() {
		list = append(list, gauge(devicesDesc, float64(latest[m.ID]), m.ID, ringName(view.Rollout.Find(m.ID)), "authorised"))
	}
	return list
}
