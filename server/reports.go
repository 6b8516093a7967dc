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
)

const reportPath = "/v1/reports"

// Reports come once a day from each device whose person agreed, spread over the
// day. What is beyond this rate is not a fleet.
const (
	reportsEvery = time.Second / 500
	reportsBurst = 2000
)

type reportInput struct {
	RawBody []byte `contentType:"application/json"`
}

// take counts a report. Nothing about the sender is looked at, kept or logged.
func (s *Server) take(ctx context.Context, in *reportInput) (*struct{}, error) {
	fresh, err := s.takeOne(ctx, in.RawBody)
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

func (s *Server) takeOne(ctx context.Context, body []byte) (bool, error) {
	if d := s.allReports.wait(struct{}{}, s.now()); d > 0 {
		p := problem(signing.Busy, "too many reports at the same time")
		p.retry = spread(retryCrowd)
		return false, p
	}
	fresh, err := s.reports.Take(ctx, body)
	switch {
	case err == nil:
		return fresh, nil
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
			"one that was sent twice is counted once.",
		MaxBodyBytes: format.MaxBytes, BodyReadTimeout: readRequest, DefaultStatus: http.StatusNoContent, SkipValidateBody: true,
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: either}}},
		Errors:      []int{400, 413, 415, 422, 503},
	}, s.take)
}
