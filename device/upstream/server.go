// Package upstream is how a device talks to its server: documents signed with
// the device's key, files that mirrors may have too, and what the server's
// refusals mean to a person. Nothing that it returns is believed because it came
// from there; what is signed is verified by those who asked.
package upstream

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/identity"
)

// maxAnswer bounds the server's answers, in bytes.
const maxAnswer = 256 << 10

// Patience with a busy server.
const (
	maxAttempts   = 5
	maxRetryAfter = 20 * time.Second
)

// NewClient is the HTTP client for everything that goes to the server.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			IdleConnTimeout:       30 * time.Second,
		},
		// A server that sends signed requests elsewhere is not followed.
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.Method != http.MethodGet || len(via) > 3 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

// Server is one server as one device sees it.
type Server struct {
	Base    string   // its URL, without a slash at the end
	Mirrors []string // URLs that have the catalog's big files too, asked first
	Client  *http.Client
	Key     func() (crypto.Signer, error) // the device's key, which signs requests
	Now     func() time.Time              // the machine's clock

	// Patience is how long one whole answer may take; 0 means AnswerTime.
	Patience time.Duration
}

// AnswerTime is how long a server may take for an answer, the last byte of it
// included: who asks may hold the state's lock meanwhile.
const AnswerTime = 2 * time.Minute

// Fetcher asks mirrors for the catalog's big files before the server.
// Metadata always comes from the server: a mirror may lag behind.
func (s *Server) Fetcher() catalog.Fetcher {
	f := mirrors{server: &catalog.HTTP{Base: s.Base + "/tuf", Client: s.Client}}
	for _, m := range s.Mirrors {
		f.mirrors = append(f.mirrors, &catalog.HTTP{Base: m, Client: s.Client})
	}
	return f
}

type mirrors struct {
	server  catalog.Fetcher
	mirrors []catalog.Fetcher
}

// Fetch implements catalog.Fetcher.
func (m mirrors) Fetch(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	if strings.HasPrefix(path, "targets/") && ctx.Value(pastMirrors{}) == nil {
		for _, f := range m.mirrors {
			body, err := f.Fetch(ctx, path, offset)
			if err != nil {
				continue
			}
			r := bufio.NewReader(body)
			if _, err := r.Peek(1); err == nil {
				return struct {
					io.Reader
					io.Closer
				}{r, body}, nil
			}
			body.Close() // it has the file and brings nothing of it
		}
	}
	return m.server.Fetch(ctx, path, offset)
}

type pastMirrors struct{}

// PastMirrors is the context in which a Fetcher asks only the server: for who got
// wrong or too few bytes, perhaps from a mirror.
func PastMirrors(ctx context.Context) context.Context {
	return context.WithValue(ctx, pastMirrors{}, true)
}

// problem is the server's way to say no (RFC 9457), with our stable code.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// Post sends a JSON document to the server, signed by the device's key, and
// decodes the answer. A busy server is asked again, a few times, each time
// with a fresh signature.
func (s *Server) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		after, err := s.postOnce(ctx, path, body, out)
		if err == nil || fault.KindOf(err) != fault.Busy || attempt == maxAttempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(max(after, time.Second), maxRetryAfter)):
		}
	}
}

// postOnce also returns how long a busy server asks to be left alone.
func (s *Server) postOnce(ctx context.Context, path string, body []byte, out any) (time.Duration, error) {
	key, err := s.Key()
	if err != nil {
		return 0, err
	}
	sig, err := identity.SignRequest(key, http.MethodPost, path, body, s.Now())
	if err != nil {
		return 0, fmt.Errorf("cannot sign the request: %w", err)
	}
	limited, stop := context.WithTimeout(ctx, cmp.Or(s.Patience, AnswerTime))
	defer stop()
	req, err := http.NewRequestWithContext(limited, http.MethodPost, s.Base+path, bytes.NewReader(body))
	if err != nil {
		return 0, fault.New(fault.Usage, "cannot ask %s: %w", s.Base, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sealant/1")
	req.Header.Set(identity.DeviceHeader, sig.Device)
	req.Header.Set(identity.DateHeader, sig.Date)
	req.Header.Set(identity.SignatureHeader, sig.Signature)
	resp, err := s.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, Explain(fault.New(fault.Unreachable, "cannot ask the server: %w", err))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil || len(data) > maxAnswer {
		return 0, fault.New(fault.Unreachable, "cannot read the server's answer: %d bytes of at most %d (%w)", len(data), maxAnswer, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return time.Duration(seconds) * time.Second, s.refusal(resp, data)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return 0, fault.New(fault.Unreachable, "cannot understand the server's answer: %w", err).
			Hint("is %s a Sealant server?", s.Base)
	}
	return 0, nil
}

// refusal turns the server's no into the failure it is. The words tell apart:
// busy, refused, not in the ring yet, unknown device, recalled, clock wrong.
func (s *Server) refusal(resp *http.Response, data []byte) error {
	var p problem
	if json.Unmarshal(data, &p) != nil {
		p = problem{}
	}
	if p.Code == "" {
		p.Code = map[int]string{
			http.StatusServiceUnavailable: "busy", http.StatusTooManyRequests: "busy", http.StatusForbidden: "refused",
			http.StatusUnauthorized: "bad-signature", http.StatusConflict: "replayed", http.StatusGone: "recalled",
			http.StatusNotFound: "unknown-release",
		}[resp.StatusCode]
	}
	detail := Clean(p.Detail)
	if detail == "" {
		detail = resp.Status
	}
	switch p.Code {
	case "busy", "replayed":
		return fault.New(fault.Busy, "the server is busy: %s", detail).Hint("nothing is wrong with this device; try again later")
	case "not-in-ring":
		return fault.New(fault.NotEligible, "not in your ring yet: %s", detail).Hint("it will be offered to this device later")
	case "unknown-device":
		return fault.New(fault.Refused, "the server does not know this device: %s", detail).Hint("enrol it again: sealant enroll --token TOKEN")
	case "recalled":
		return fault.New(fault.Recalled, "the vendor took this improvement back: %s", detail).Hint("a corrected one will follow")
	case "clock":
		hint := "set this machine's clock"
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			hint = fmt.Sprintf("set this machine's clock: it says %s, the server says %s",
				s.Now().UTC().Format("2006-01-02 15:04Z"), date.UTC().Format("2006-01-02 15:04Z"))
		}
		return fault.New(fault.Refused, "the clock is wrong: %s", detail).Hint("%s", hint)
	case "unknown-release":
		return fault.New(fault.NotEligible, "the server does not have this improvement: %s", detail)
	case "bad-token":
		return fault.New(fault.Refused, "the token is not valid: %s", detail).Hint("ask the operator for a new one: sealsrv enroll")
	case "bad-request":
		return fault.New(fault.Failed, "the server did not understand this device: %s", detail).Hint("is this device's sealant older than the server?")
	case "refused", "bad-signature":
		return fault.New(fault.Refused, "the signing service refused: %s", detail)
	}
	switch {
	case resp.StatusCode >= 500:
		return fault.New(fault.Busy, "the server failed: %s", detail).Hint("nothing is wrong with this device; try again later")
	case resp.StatusCode >= 400:
		return fault.New(fault.Refused, "the server refused: %s", detail)
	}
	return fault.New(fault.Unreachable, "the server answered %s", resp.Status).Hint("is server.url right?")
}

// Clean keeps what a server says from writing anything but one line of text
// on a terminal.
func Clean(text string) string {
	const most = 300
	out := make([]rune, 0, len(text))
	for _, r := range text {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = ' '
		}
		if out = append(out, r); len(out) == most {
			break
		}
	}
	return string(out)
}

// Explain tells "offline" from "the server is down".
func Explain(err error) error {
	if fault.KindOf(err) != fault.Unreachable {
		return err
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return fault.New(fault.Unreachable, "%w", err).Hint("this device seems to be offline, or the server's name is wrong")
	case errors.As(err, &op) && offline():
		return fault.New(fault.Unreachable, "%w", err).Hint("this device is offline")
	case errors.As(err, &op):
		return fault.New(fault.Unreachable, "%w", err).Hint("this device has a network, but the server does not answer; try again later")
	}
	return err
}

// offline says whether no network interface but the loopback has an address.
func offline() bool {
	ifs, err := net.Interfaces()
	if err != nil {
		return false
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		if addrs, err := i.Addrs(); err == nil && len(addrs) > 0 {
			return false
		}
	}
	return true
}
