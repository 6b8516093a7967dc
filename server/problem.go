package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sealant-os/sealant/server/signing"
)

// Problem is the body of every answer that is not a success: RFC 9457 problem
// details with a stable code.
type Problem struct {
	Title  string              `json:"title" doc:"The status in words."`
	Status int                 `json:"status" doc:"The HTTP status."`
	Code   string              `json:"code" enum:"busy,refused,not-in-ring,unknown-device,recalled,clock,unknown-release,bad-request,bad-token,bad-signature,replayed,not-found,internal" doc:"The stable reason; devices act on it."`
	Detail string              `json:"detail" doc:"The reason for people."`
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"With bad-request: which parts of the body are wrong."`

	retry time.Duration
}

// Codes that are not about signing.
const (
	codeNotFound = "not-found"
	codeInternal = "internal"
)

// Error implements error.
func (p *Problem) Error() string { return fmt.Sprintf("%s: %s", p.Code, p.Detail) }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{"Cache-Control": {"no-store"}}
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.retry+time.Second-1)/time.Second)))
	}
	return h
}

// statuses of the codes. Busy has a second one, 429, where one device asks too
// often.
var statuses = map[signing.Code]int{
	signing.Busy:           http.StatusServiceUnavailable,
	signing.Refused:        http.StatusForbidden,
	signing.NotInRing:      http.StatusForbidden,
	signing.UnknownDevice:  http.StatusUnauthorized,
	signing.Recalled:       http.StatusGone,
	signing.Clock:          http.StatusUnauthorized,
	signing.UnknownRelease: http.StatusNotFound,
	signing.BadRequest:     http.StatusBadRequest,
	signing.BadToken:       http.StatusForbidden,
	signing.BadSignature:   http.StatusUnauthorized,
	signing.Replayed:       http.StatusConflict,
}

// problem makes the answer for a code.
func problem(code signing.Code, format string, args ...any) *Problem {
	status := statuses[code]
	return &Problem{Title: http.StatusText(status), Status: status, Code: string(code), Detail: fmt.Sprintf(format, args...)}
}

// tooOften is busy for one device alone.
func tooOften(retry time.Duration) *Problem {
	p := problem(signing.Busy, "this device asks too often")
	p.Status, p.Title, p.retry = http.StatusTooManyRequests, http.StatusText(http.StatusTooManyRequests), retry
	return p
}

var problems sync.Once

// useProblems makes huma answer its own refusals (a body that does not fit the
// schema, a wrong content type) in the same form as ours. It is a setting of
// that package, not of one API, so it is made once.
func useProblems() {
	problems.Do(func() {
		huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
			p := &Problem{Title: http.StatusText(status), Status: status, Code: string(signing.BadRequest), Detail: message}
			if status >= 500 {
				p.Code, p.Detail = codeInternal, "the server failed; its log says why"
				return p
			}
			for _, err := range errs {
				if d, ok := err.(huma.ErrorDetailer); ok {
					detail := *d.ErrorDetail()
					detail.Value = nil // it may be a token
					p.Errors = append(p.Errors, &detail)
				} else if err != nil {
					p.Errors = append(p.Errors, &huma.ErrorDetail{Message: err.Error()})
				}
			}
			return p
		}
	})
}

// write answers outside huma.
func (s *Server) write(w http.ResponseWriter, p *Problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.log.Debug("answer not sent", "error", err)
	}
}
