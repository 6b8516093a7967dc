package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/sealant-os/sealant/device/analytics"
	"github.com/sealant-os/sealant/device/evidence"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/token"
)

// Analytics is what this device may tell the vendor, and what it would tell.
type Analytics struct {
	Device  Switch   `json:"device"`
	Paired  Switch   `json:"paired"`
	Policy  string   `json:"policy"`  // user, or never: policy forbids sharing
	Owner   string   `json:"owner"`   // who set the policy, "" for nobody
	To      string   `json:"to"`      // where reports go, "" without a server
	Waiting []string `json:"waiting"` // the exact bytes of what waits to be sent, each one request's body
	Today   []string `json:"today"`   // what would be made of today until now; the name is random, each time another
}

// Switch is one of the two consents.
type Switch struct {
	On    bool   `json:"on"`
	Since string `json:"since"` // the first UTC day that is told, "" while off
}

func (d *Device) desk() *analytics.Desk { return analytics.Open(d.Store.AnalyticsDir()) }

// Analytics shows the two switches and the exact bytes that would be sent.
func (d *Device) Analytics(ctx context.Context) (Analytics, error) {
	a := Analytics{Policy: d.Config.Policy.AnalyticsShare, Waiting: []string{}, Today: []string{}}
	a.Owner, _ = d.Config.Managed("analytics.share")
	if s := d.server(); s != "" {
		a.To = s + reportsPath
	}
	desk := d.desk()
	for origin, to := range map[analytics.Origin]*Switch{analytics.Own: &a.Device, analytics.Paired: &a.Paired} {
		since, on, err := desk.On(origin)
		if errors.Is(err, os.ErrPermission) {
			return a, fault.New(fault.Failed, "cannot read what was agreed to share: it needs root where no agent answers").Hint("run it with sudo")
		}
		if err != nil {
			return a, err
		}
		*to = Switch{on, since}
		waiting, err := desk.Waiting(origin)
		if err != nil {
			return a, err
		}
		for _, body := range waiting {
			a.Waiting = append(a.Waiting, string(body))
		}
	}
	recorder, err := d.recorder()
	if err != nil {
		return a, err
	}
	today := d.Now().UTC().Format(time.DateOnly)
	for _, i := range d.rollouts(ctx) {
		body, err := desk.Daily(today, runtime.GOARCH, i.Offered, i, d.watched(), useOf(recorder))
		if err != nil {
			return a, err
		}
		if body != nil {
			a.Today = append(a.Today, string(body))
		}
	}
	return a, nil
}

// ShareOptions turn a switch.
type ShareOptions struct {
	Paired bool `json:"paired"` // the switch of devices that report through this one
	On     bool `json:"on"`
}

// Share turns one of the two switches. Off throws away what waits; on counts from
// the next day.
func (d *Device) Share(ctx context.Context, o ShareOptions, actor Actor, events Report) (Analytics, error) {
	if o.On && d.Config.Policy.AnalyticsShare == "never" {
		owner, _ := d.Config.Managed("analytics.share")
		if owner == "" {
			owner = "policy"
		}
		return Analytics{}, fault.New(fault.Policy, "cannot share analytics: %s forbids it", owner).Hint("sealant policy --effective names the file")
	}
	origin, what := analytics.Own, "this device"
	if o.Paired {
		origin, what = analytics.Paired, "paired devices"
	}
	desk := d.desk()
	if _, was, err := desk.On(origin); err == nil && was == o.On {
		return d.Analytics(ctx)
	}
	if err := desk.Switch(origin, o.On, d.Now()); err != nil {
		return Analytics{}, err
	}
	event := "analytics-off"
	if o.On {
		event = "analytics-on"
	}
	d.note(ctx, store.Record{Event: event, Reason: "asked", Actor: string(actor), Text: what}, events)
	return d.Analytics(ctx)
}

// RelayOptions are a report of a paired device.
type RelayOptions struct {
	Body string `json:"body"` // its exact bytes
}

// Relayed says what became of it.
type Relayed struct {
	Kept bool `json:"kept"` // false where the person did not agree to pass such reports on
}

// Relay takes a report of a device that reports through this one. It is passed on
// only with the second switch.
func (d *Device) Relay(_ context.Context, o RelayOptions, _ Report) (Relayed, error) {
	if d.Config.Policy.AnalyticsShare == "never" {
		return Relayed{}, nil
	}
	kept, err := d.desk().Add(analytics.Paired, []byte(o.Body), d.Now())
	if err != nil {
		return Relayed{}, fault.New(fault.Usage, "%w", err)
	}
	return Relayed{kept}, nil
}

// rollouts are the improvements whose days are told: the newest one for the
// installed system.
func (d *Device) rollouts(ctx context.Context) []analytics.Improvement {
	cat, err := d.catalog()
	if err != nil {
		return nil
	}
	b, err := d.baseline()
	if err != nil {
		return nil
	}
	id, err := d.id()
	if err != nil {
		return nil
	}
	rings, err := cat.Rollout(ctx)
	if err != nil {
		return nil
	}
	m, ok, err := newest(ctx, cat, b.Digest())
	if err != nil || !ok {
		return nil
	}
	i := analytics.Improvement{Release: m.ID, OSBuild: m.OSVersion, Began: m.Published.UTC().Format(time.DateOnly)}
	// What was offered once stays offered, also when the rollout is halted.
	if ring, ok := rings.Find(m.ID); ok {
		i.Offered = release.InRollout(id, m.ID, ring.Salt, ring.Percent)
	}
	return []analytics.Improvement{i}
}

// watched are the apps that days tell of.
func (d *Device) watched() []string {
	var apps []string
	for _, a := range d.Config.Apps {
		apps = append(apps, a.ID)
	}
	return apps
}

func useOf(r *evidence.Recorder) func(app, day, began string) analytics.Use {
	return func(app, day, began string) analytics.Use {
		used, crashed, before := r.Day(app, day, began)
		return analytics.Use{Used: used, Crashed: crashed, Before: before}
	}
}

// tellRecommended makes a report of a moment of a question, if that may be told.
func (d *Device) tellRecommended(n evidence.Notice, outcome string, events Report) {
	if d.Config.Policy.AnalyticsShare == "never" {
		return
	}
	if err := d.desk().Recommended(d.Now(), n.Release, n.App, outcome); err != nil {
		events.warn("analytics", "%v", err)
	}
}

const (
	reportsPath = "/v1/reports"
	shareEvery  = time.Minute
)

// share tells what may be told, until ctx ends. Nothing depends on it.
func share(ctx context.Context, open Opener, log *slog.Logger) error {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		if err := shareOnce(ctx, open); err != nil && ctx.Err() == nil {
			log.Info("nothing is shared now", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func shareOnce(ctx context.Context, open Opener) error {
	d, err := open()
	if err != nil {
		return err
	}
	if _, err := d.Store.Enrolment(); err != nil || d.Recorder == nil {
		return nil
	}
	desk := d.desk()
	if err := desk.Days(d.Now(), runtime.GOARCH, d.rollouts(ctx), d.watched(), useOf(d.Recorder)); err != nil {
		return err
	}
	forbidden := d.Config.Policy.AnalyticsShare == "never"
	key, err := d.reportKey()
	if err != nil {
		return err
	}
	var stocked error
	if key != nil {
		stocked = desk.Stock(d.Now(), forbidden, key, func(day string, blinded [][]byte) (token.Answer, error) {
			return d.askTokens(ctx, day, blinded)
		})
	}
	return errors.Join(stocked, desk.Send(d.Now(), forbidden, key != nil, func(body []byte, token string) bool {
		return d.sendReport(ctx, body, token)
	}))
}

// reportKey is the key of the tokens that reports spend; nil if the operating
// system pins none, and reports need none.
func (d *Device) reportKey() (*token.Public, error) {
	text, err := store.ReadFile(d.Store.ReportKeyPath(), token.MaxToken)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return token.ParsePublic(string(text))
}

type tokenRequest struct {
	Day     string   `json:"day"`
	Blinded [][]byte `json:"blinded"`
}

type tokenAnswer struct {
	Points [][]byte `json:"points"`
	Proof  []byte   `json:"proof"`
}

// askTokens asks the server for tokens in this device's name. They are blinded.
func (d *Device) askTokens(ctx context.Context, day string, blinded [][]byte) (token.Answer, error) {
	server, err := d.upstream()
	if err != nil {
		return token.Answer{}, err
	}
	var a tokenAnswer
	err = server.Post(ctx, reportsPath+"/tokens", tokenRequest{day, blinded}, &a)
	if fault.KindOf(err) == fault.Refused {
		err = fmt.Errorf("%w: %w", analytics.ErrRefused, err)
	}
	return token.Answer{Points: a.Points, Proof: a.Proof}, err
}

// sendReport sends one report. It has a connection of its own, no signature and
// nothing else that names this device. done is false where trying again helps.
func (d *Device) sendReport(ctx context.Context, body []byte, token string) (done bool) {
	if d.server() == "" {
		return false
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.server()+reportsPath, bytes.NewReader(body))
	if err != nil {
		return true
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sealant")
	if token != "" {
		req.Header.Set("Sealant-Token", token)
	}
	client := &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, report.MaxBytes))
	// A server that is busy or broken is asked again; one that refuses is not.
	return resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
}
