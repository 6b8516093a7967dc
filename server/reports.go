package server

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	format "github.com/sealant-os/sealant/internal/report"
	"github.com/sealant-os/sealant/server/report"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
)

const reportPath = "/v1/reports"

// Reports come once a day from each device whose person agreed, spread over the
// day. What is beyond this rate is not a fleet.
const (
	reportsEvery = time.Second / 500
	reportsBurst = 2000
)

type reportInput struct {
	Token   string `header:"Sealant-Token" maxLength:"128" doc:"A token (spec/token.md), where the server asks for one."`
	RawBody []byte `contentType:"application/json"`
}

// take counts a report. Nothing about the sender is looked at, kept or logged.
func (s *Server) take(ctx context.Context, in *reportInput) (*struct{}, error) {
	fresh, err := s.takeOne(ctx, in.RawBody, in.Token)
	name := result(err, resultOK)
	if err == nil && !fresh {
		name = string(signing.Replayed)
	}
	s.metrics.reports.WithLabelValues(name).Inc()
	if err != nil {
		return nil, s.answer(ctx, "report", "", err)
	}
	return nil, nil
}

func (s *Server) takeOne(ctx context.Context, body []byte, text string) (bool, error) {
	if d := s.allReports.wait(struct{}{}, s.now()); d > 0 {
		p := problem(signing.Busy, "too many reports at the same time")
		p.retry = spread(retryCrowd)
		return false, p
	}
	spent, err := s.spends(text)
	if err != nil {
		return false, err
	}
	fresh, err := s.reports.Take(ctx, body, spent)
	switch {
	case err == nil:
		return fresh, nil
	case errors.Is(err, store.ErrSpent):
		return false, problem(signing.Refused, "%v", err)
	case errors.Is(err, report.ErrMeaningless):
		p := problem(signing.BadRequest, "%v", err)
		p.Status, p.Title = http.StatusUnprocessableEntity, http.StatusText(http.StatusUnprocessableEntity)
		return false, p
	case errors.Is(err, report.ErrFull):
		p := problem(signing.Busy, "%v", err)
		p.retry = spread(time.Hour)
		return false, p
	}
	if _, _, bad := format.Parse(body); bad != nil {
		return false, problem(signing.BadRequest, "%v", bad)
	}
	return false, err
}

// describeReports registers the operation. Its body is parsed by the codec that
// device and server share, which is stricter than a schema can be: the schemas
// are there to be read.
func (s *Server) describeReports(api huma.API) {
	schemas := api.OpenAPI().Components.Schemas
	either := &huma.Schema{OneOf: []*huma.Schema{
		schemas.Schema(reflect.TypeFor[format.Daily](), true, "Daily"),
		schemas.Schema(reflect.TypeFor[format.Recommendation](), true, "Recommendation"),
	}}
	huma.Register(api, huma.Operation{
		OperationID: "report", Method: http.MethodPost, Path: reportPath, Summary: "Leave counts that a person agreed to share",
		Description: "One of two documents in canonical form (spec/analytics.md). It is not signed and names no device; " +
			"one that was sent twice is counted once. Where the server asks for tokens each report spends one.",
		MaxBodyBytes: format.MaxBytes, BodyReadTimeout: readRequest, DefaultStatus: http.StatusNoContent, SkipValidateBody: true,
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: either}}},
		Errors:      []int{400, 403, 413, 415, 422, 503},
	}, s.take)
	huma.Register(api, huma.Operation{
		OperationID: "tokens", Method: http.MethodPost, Path: tokensPath, Summary: "Ask for tokens for anonymous reports",
		Description:  "Signed by the device, once a day. The server sees who asks and can't tell the tokens: they are blinded (spec/token.md).",
		MaxBodyBytes: maxRequest, BodyReadTimeout: readRequest, DefaultStatus: http.StatusOK,
		Errors: []int{400, 401, 403, 404, 409, 413, 415, 422, 429, 503},
	}, s.giveTokens)
}
