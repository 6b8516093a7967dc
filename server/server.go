// Package server is the HTTP side of Sealant: devices enrol and ask for tickets
// here, fetch the catalog's files, read the public pages and, where people
// agreed to it, leave a few counts.
//
//	POST /v1/enroll/challenge a secret that only a known TPM can read
//	POST /v1/enroll           a token, or that secret, admits a device
//	POST /v1/tickets          a ticket for one device and one set
//	POST /v1/reports          counts that a person agreed to share
//	POST /v1/reports/tokens   blinded tokens, one of which each such report spends
//	GET  /tuf/…               the catalog's files, for devices and mirrors
//	GET  /log/…               the public log of every set that was authorised
//	GET  /security/…          the public pages about security releases
//	GET  /openapi.json        this list in the form of OpenAPI 3.1
//	GET  /healthz  /metrics   for whoever runs the server
//
// spec/api.md specifies it. The package decides nothing about tickets (package
// signing does) and holds no state but what it can lose: signatures seen in the
// last minutes and who asked how often. So several servers can stand side by
// side on one database.
//
// # Whom a request is believed to come from
//
// Devices sign every request with their key (spec/identity.md). The order of
// checks is: size and form, then the signature with the enrolled key, then the
// clock, then whether the very same request came before, then how often the
// device asks; only then what it asks for. Nobody can use up another's share.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/report"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/token"
	"github.com/sealant-os/sealant/trust/tpm"
)

// Limits of what a client may send, in bytes, and how long an answer may take.
const (
	maxRequest  = 16 << 10 // enrolments and requests for tickets
	readRequest = 10 * time.Second
	answerTime  = 20 * time.Second
)

// How long busy devices wait; the server adds up to as much again by chance, so
// that a crowd that was sent away doesn't come back at one moment.
const (
	retryCatalog = 30 * time.Second
	retryCrowd   = 5 * time.Second
)

// Config is what a Server is made of. Zero values of the limits mean the
// defaults.
type Config struct {
	DB        *store.DB
	Source    *catalog.Source
	Files     *catalog.Files
	Leaf      *signing.LeafFile
	SetLog    *setlog.Log // the public log of sets; nil for none
	Makers    *tpm.Makers // makers of TPMs whose certificates admit devices; nil for none
	Tokens    *token.Key  // of the tokens that reports must spend; nil for none
	Security  string      // folder of the public pages; "" for none
	Log       *slog.Logger
	Now       func() time.Time // time.Now where nil
	MaxAtOnce int              // requests that are worked on at the same time; 1024
	PerHour   int              // tickets per hour and device; 360
	Burst     int              // tickets a device may ask for at once; 60
}

// Server answers requests. It is an http.Handler.
type Server struct {
	db        *store.DB
	source    *catalog.Source
	leaf      *signing.LeafFile
	authority *signing.Authority
	makers    *tpm.Makers
	tokens    *token.Key
	log       *slog.Logger
	now       func() time.Time

	known      *known
	replays    *seen
	perDevice  *limits[identity.ID]
	reports    *report.Desk
	allReports *limits[struct{}]
	metrics    *metrics
	slots      chan struct{}
	mux        *http.ServeMux
	api        huma.API
}

// New makes a Server.
func New(c Config) (*Server, error) {
	useProblems()
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{
		db: c.DB, source: c.Source, leaf: c.Leaf, log: c.Log, now: c.Now,
		authority:  &signing.Authority{DB: c.DB, Catalog: c.Source, Leaf: c.Leaf, Log: c.SetLog, Now: c.Now},
		makers:     c.Makers,
		tokens:     c.Tokens,
		known:      newKnown(c.DB),
		replays:    newSeen(2 * identity.Skew),
		perDevice:  newLimits[identity.ID](time.Hour/time.Duration(or(c.PerHour, 360)), or(c.Burst, 60)),
		reports:    &report.Desk{DB: c.DB, Source: c.Source, Now: c.Now},
		allReports: newLimits[struct{}](reportsEvery, reportsBurst),
		slots:      make(chan struct{}, or(c.MaxAtOnce, 1024)),
		mux:        http.NewServeMux(),
	}
	s.metrics = newMetrics(s)
	s.api = s.describe(s.mux)
	s.mux.Handle("GET /tuf/", http.StripPrefix("/tuf", c.Files))
	if c.SetLog != nil {
		s.mux.Handle("GET /log/", http.StripPrefix("/log", c.SetLog))
	}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/security/", http.StatusFound)
	})
	if c.Security != "" {
		s.mux.Handle("GET /security/", http.StripPrefix("/security", pages(c.Security)))
		s.mux.Handle("GET /.well-known/security.txt", pages(c.Security))
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.write(w, &Problem{Title: http.StatusText(http.StatusNotFound), Status: http.StatusNotFound, Code: codeNotFound, Detail: "there is nothing at " + r.URL.Path})
	})
	return s, nil
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// OpenAPI is the description of the JSON parts, as it stands in
// spec/openapi.json.
func (s *Server) OpenAPI() ([]byte, error) { return s.api.OpenAPI().MarshalJSON() }

// describe registers the JSON operations.
func (s *Server) describe(mux *http.ServeMux) huma.API {
	format := map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Sealant server", Version: "1",
				Description: "What a device asks a Sealant server for. See spec/api.md.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)},
		},
		OpenAPIPath: "/openapi", Formats: format, DefaultFormat: "application/json",
		RejectUnknownQueryParameters: true,
	}
	api := humago.New(mux, config)
	api.UseMiddleware(s.crowd)
	huma.Register(api, huma.Operation{
		OperationID: "enrol", Method: http.MethodPost, Path: enrolPath, Summary: "Enrol a device by a token or by its TPM",
		Description:  "The request is signed with the key that it brings. Asking again with the same token and key gives the same answer and uses nothing up.",
		MaxBodyBytes: maxRequest, BodyReadTimeout: readRequest, DefaultStatus: http.StatusOK,
		Errors: []int{400, 401, 403, 404, 409, 413, 415, 422, 429, 503},
	}, s.enrol)
	huma.Register(api, huma.Operation{
		OperationID: "challenge", Method: http.MethodPost, Path: challengePath, Summary: "Ask for a challenge to a TPM",
		Description:  "For devices without a token: the answer is a secret that only the TPM with this endorsement key can read, and only while it holds the device's key. The TPM must be on the server's list, or certified by a maker whom the server's operator believes. It is good for one enrolment, for a short time.",
		MaxBodyBytes: maxRequest, BodyReadTimeout: readRequest, DefaultStatus: http.StatusOK,
		Errors: []int{400, 401, 403, 409, 413, 415, 422, 429, 503},
	}, s.challenge)
	huma.Register(api, huma.Operation{
		OperationID: "ticket", Method: http.MethodPost, Path: ticketPath, Summary: "Ask for a ticket",
		Description:  "A ticket authorises one set on one device, once. Asking again for the same is harmless.",
		MaxBodyBytes: maxRequest, BodyReadTimeout: readRequest, DefaultStatus: http.StatusOK,
		SkipValidateBody: true, // TicketRequest.UnmarshalJSON does it
		Errors:           []int{400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503},
	}, s.ticket)
	s.describeReports(api)
	huma.Register(api, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/healthz", Summary: "Whether the server can sign",
		Errors: []int{503},
	}, s.health)
	return api
}

// crowd lets a bounded number of requests in and sends the others away at once,
// while an answer to them still costs nothing.
func (s *Server) crowd(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().Path == "/healthz" {
		next(ctx)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.metrics.tickets.WithLabelValues(string(signing.Busy)).Inc()
		_, w := humago.Unwrap(ctx)
		p := problem(signing.Busy, "too many devices ask at the same time")
		p.retry = spread(retryCrowd)
		s.write(w, p)
		return
	}
	limited, cancel := context.WithTimeout(ctx.Context(), answerTime)
	defer cancel()
	next(huma.WithContext(ctx, limited))
}

// spread adds up to d to d, by chance.
func spread(d time.Duration) time.Duration { return d + rand.N(d) }

// Health is the answer to GET /healthz.
type Health struct {
	Status  string `json:"status" enum:"ok"`
	Catalog int64  `json:"catalog" doc:"Version of the catalog."`
}

type healthOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Health
}

func (s *Server) health(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	ill := func(what string, err error) error {
		s.log.Error("unhealthy", "part", what, "error", err)
		return problem(signing.Busy, "the %s is not usable", what)
	}
	if err := s.db.Ping(ctx); err != nil {
		return nil, ill("database", err)
	}
	view, err := s.source.View(ctx)
	if err != nil {
		return nil, ill("catalog", err)
	}
	if _, err := s.leaf.Leaf(s.now()); err != nil {
		return nil, ill("signing key", err)
	}
	return &healthOutput{CacheControl: noStore, Body: Health{Status: "ok", Catalog: view.Version}}, nil
}

// answer turns any error into what the client is told, and logs what it isn't.
func (s *Server) answer(ctx context.Context, what, device string, err error) error {
	var p *Problem
	var r *signing.Refusal
	switch {
	case errors.As(err, &p):
	case errors.As(err, &r):
		p = problem(r.Code, "%s", r.Detail)
		if r.RetryAfter > 0 {
			p.retry = spread(r.RetryAfter)
		}
		if cause := r.Unwrap(); cause != nil {
			s.log.Error(what+" not answered", "device", device, "code", r.Code, "error", cause)
		}
	case ctx.Err() != nil: // out of time, or the client left
		p = problem(signing.Busy, "the server takes too long at the moment")
		p.retry = spread(retryCrowd)
	default:
		s.log.Error(what+" failed", "device", device, "error", err)
		p = &Problem{Title: http.StatusText(500), Status: 500, Code: codeInternal, Detail: "the server failed; its log says why"}
	}
	s.log.Debug(what, "device", device, "code", p.Code, "detail", p.Detail)
	return huma.ErrorWithHeaders(p, p.GetHeaders())
}

// result is an error as a metric's label.
func result(err error, otherwise string) string {
	var p *Problem
	var r *signing.Refusal
	switch {
	case err == nil:
		return otherwise
	case errors.As(err, &p):
		return p.Code
	case errors.As(err, &r):
		return string(r.Code)
	}
	return codeInternal
}

// ringName is a ring as metrics and screens name it.
func ringName(ring release.Ring, ok bool) string {
	switch {
	case !ok:
		return "closed"
	case ring.Halted:
		return "halted"
	case ring.Percent == 100:
		return "all"
	}
	return fmt.Sprintf("%d%%", ring.Percent)
}
