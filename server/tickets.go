package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/identity"
)

// Paths that devices sign.
const (
	enrolPath     = "/v1/enroll"
	challengePath = "/v1/enroll/challenge"
	ticketPath    = "/v1/tickets"
)

const noStore = "no-store"

// Proof is what authenticates a request: the three headers, or the certificate
// that the client showed in the TLS handshake. (Its name is exported because
// huma fills only exported members.)
type Proof struct {
	Device    string `header:"Sealant-Device" pattern:"^[0-9a-f]{64}$" doc:"The device's id in hexadecimal."`
	Date      string `header:"Sealant-Date" maxLength:"20" doc:"When the request was signed, UTC, in seconds: 2026-11-23T18:00:00Z."`
	Signature string `header:"Sealant-Signature" maxLength:"160" doc:"The device's signature over method, path, device, date and body (spec/identity.md), base64. A client that showed a certificate of the device's key in the TLS handshake may leave the three headers out."`

	peer *x509.Certificate
}

// Resolve implements huma.Resolver: it takes up the client's certificate.
func (p *Proof) Resolve(ctx huma.Context) []error {
	if state := ctx.TLS(); state != nil && len(state.PeerCertificates) > 0 {
		p.peer = state.PeerCertificates[0]
	}
	return nil
}

// signed tells whether any of the headers is there. They are believed alone
// then, so that a proxy with a certificate of its own can't lend its name.
func (p *Proof) signed() bool { return p.Device != "" || p.Date != "" || p.Signature != "" }

// device is who sends the request, as far as it says itself.
func (p *Proof) device() (identity.ID, error) {
	switch {
	case p.Device != "":
		id, err := identity.ParseID(p.Device)
		if err != nil {
			return id, problem(signing.BadRequest, "%v", err)
		}
		return id, nil
	case !p.signed() && p.peer != nil:
		return sha256.Sum256(p.peer.RawSubjectPublicKeyInfo), nil
	}
	return identity.ID{}, errNoProof
}

// name is the device's id for the log.
func (p *Proof) name() string {
	if id, err := p.device(); err == nil {
		return id.Hex()
	}
	return "unknown"
}

var errNoProof = problem(signing.BadSignature, "the request is not signed")

// Ticket is the answer to POST /v1/tickets.
type Ticket struct {
	Ticket []byte `json:"ticket" doc:"The ticket: an Image4 manifest (spec/ticket.md), DER, base64."`
}

type ticketInput struct {
	Proof
	RawBody []byte
	Body    TicketRequest
}

type ticketOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         Ticket
}

func (s *Server) ticket(ctx context.Context, in *ticketInput) (*ticketOutput, error) {
	begun := time.Now()
	answer, err := s.issue(ctx, in)
	s.metrics.tickets.WithLabelValues(result(err, resultIssued)).Inc()
	if err != nil {
		return nil, s.answer(ctx, "ticket", in.name(), err)
	}
	s.metrics.seconds.Observe(time.Since(begun).Seconds())
	if !answer.Landed.IsZero() && !answer.Repeated {
		s.metrics.propagation.Observe(s.now().Sub(answer.Landed).Seconds())
	}
	if answer.Diverged {
		s.metrics.diverged.Inc()
		s.log.Warn("a dead nonce came back: two devices may share one identity", "device", in.name(), "release", in.Body.Release)
	}
	return &ticketOutput{CacheControl: noStore, Body: Ticket{Ticket: answer.Ticket}}, nil
}

func (s *Server) issue(ctx context.Context, in *ticketInput) (signing.Answer, error) {
	id, err := in.device()
	if err != nil {
		return signing.Answer{}, err
	}
	d, remembered, err := s.known.recall(ctx, id, s.now())
	if err != nil {
		return signing.Answer{}, err
	}
	if err := s.authentic(d.key, &in.Proof, ticketPath, in.RawBody); err != nil {
		return signing.Answer{}, err
	}
	if wait := s.perDevice.wait(id, s.now()); wait > 0 {
		return signing.Answer{}, tooOften(wait)
	}
	r := signing.Request{Device: id, Product: in.Body.Product, Release: in.Body.Release, Domain: in.Body.Domain}
	if r.Baseline, err = release.ParseDigest(in.Body.Baseline); err != nil {
		return signing.Answer{}, problem(signing.BadRequest, "baseline: %v", err)
	}
	if in.Body.Nonce != "" {
		// A nonce is written like a digest: it is one.
		if r.Nonce, err = release.ParseDigest(in.Body.Nonce); err != nil {
			return signing.Answer{}, problem(signing.BadRequest, "nonce: %v", err)
		}
	}
	answer, err := s.authority.IssueTo(ctx, d.row, r)
	if err != nil && remembered {
		// By what was remembered nobody is refused.
		if d, err = s.known.read(ctx, id, s.now()); err == nil {
			answer, err = s.authority.IssueTo(ctx, d.row, r)
		}
	}
	if err == nil && d.row.Release != r.Release {
		d.row.Release = r.Release
		s.known.keep(d, s.now())
	}
	return answer, err
}

// authentic tells whether the holder of the key signed this request just now,
// and sent it for the first time; or, without a signature, whether the holder
// of the key is at the other end of the connection.
func (s *Server) authentic(public *ecdsa.PublicKey, p *Proof, path string, body []byte) error {
	if !p.signed() {
		// The handshake proved that the client has the certificate's key.
		if p.peer == nil || !public.Equal(p.peer.PublicKey) {
			return errNoProof
		}
		return nil
	}
	now := s.now()
	sig := identity.Signature{Device: p.Device, Date: p.Date, Signature: p.Signature}
	err := identity.VerifyRequest(public, sig, "POST", path, body, now, identity.Skew)
	switch {
	case errors.Is(err, identity.ErrClock):
		return problem(signing.Clock, "the device's clock says %s, the server's %s", p.Date, now.UTC().Format(time.RFC3339))
	case err != nil:
		return problem(signing.BadSignature, "%v", err)
	case s.replays.again(sig.Once(), now):
		return problem(signing.Replayed, "this request was received before; each must be signed anew")
	}
	return nil
}
