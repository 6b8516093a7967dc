package evidence

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/internal/eprocess"
)

const mail = `[{"stratum":"42.3.0 amd64","f1":3,"f0":10,"r1":100,"r0":9900},{"stratum":"42.3.0 arm64","day":"2026-11-24","f1":5,"f0":12,"r1":500,"r0":9500}]`

func TestJudge(t *testing.T) {
	for _, text := range []string{
		`{"mail":` + mail + `,"browser":[]}`,
		`{"apps":{"mail":` + mail + `,"browser":[]}}`,
		`{"schema":"sealant.strata/1","apps":{"browser":[],"mail":` + mail + `}}` + "\n",
	} {
		s, err := ParseStrata([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.Judge()
		if err != nil {
			t.Fatal(err)
		}
		if len(j.Apps) != 2 || j.Apps[0].App != "mail" || j.Apps[1].E.Value() != 1 {
			t.Fatalf("%+v", j)
		}
		m := j.Apps[0]
		if got := fmt.Sprintf("%.6f", m.E.Value()); got != "14558.196072" {
			t.Errorf("E = %s", got)
		}
		if m.Devices != 8 || m.Propose || m.Needed != 40 || math.Abs(m.Rise-11.0286) > 1e-4 {
			t.Errorf("%+v: 8 devices are too few to propose", m)
		}
		if !j.Pause || math.Abs(j.Mean.Value()-7279.598) > 0.001 {
			t.Errorf("mean %v, pause %v", j.Mean.Value(), j.Pause)
		}
	}
	if j, err := (Strata{}).Judge(); err != nil || j.Pause || j.Mean.Value() != 1 {
		t.Errorf("nothing watched: %+v, %v", j, err)
	}
	if s, err := ParseStrata([]byte(`{"mail":[{"stratum":7,"f1":0,"f0":0,"r1":1,"r0":1}]}`)); err != nil || s["mail"][0].Stratum != "7" {
		t.Errorf("a number as stratum: %v, %v", s, err)
	}
	// An app may be called "apps".
	if s, err := ParseStrata([]byte(`{"apps":` + mail + `}`)); err != nil || len(s["apps"]) != 2 {
		t.Errorf("%v, %v", s, err)
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           ``,
		"a list":          `[]`,
		"a number":        `{"mail":3}`,
		"unknown member":  `{"mail":[{"stratum":"a","f1":0,"f0":0,"r1":1,"r0":1,"x":1}]}`,
		"missing member":  `{"mail":[{"stratum":"a","f1":0,"f0":0,"r1":1}]}`,
		"missing stratum": `{"mail":[{"f1":0,"f0":0,"r1":1,"r0":1}]}`,
		"null":            `{"mail":[{"stratum":"a","f1":null,"f0":0,"r1":1,"r0":1}]}`,
		"fraction":        `{"mail":[{"stratum":"a","f1":0.5,"f0":0,"r1":1,"r0":1}]}`,
		"stratum list":    `{"mail":[{"stratum":[],"f1":0,"f0":0,"r1":1,"r0":1}]}`,
		"text":            `{"mail":[{"stratum":"a","f1":"1","f0":0,"r1":1,"r0":1}]}`,
		"beyond":          `{"mail":[{"stratum":"a","f1":1e30,"f0":0,"r1":1,"r0":1}]}`,
		"twice":           `{"mail":[],"mail":[]}`,
		"no name":         `{"":[]}`,
		"more":            `{"mail":[]}{}`,
		"wrong schema":    `{"schema":"sealant.strata/2","apps":{}}`,
		"other member":    `{"more":1,"apps":{}}`,
	} {
		if s, err := ParseStrata([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, s)
		}
	}
	for _, text := range []string{
		`{"mail":[{"stratum":"a","f1":2,"f0":0,"r1":1,"r0":1}]}`,
		`{"mail":[{"stratum":"a","f1":-1,"f0":0,"r1":1,"r0":1}]}`,
		`{"mail":[{"stratum":"a","f1":0,"f0":0,"r1":200000000,"r0":1}]}`,
	} {
		s, err := ParseStrata([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Judge(); !errors.Is(err, eprocess.ErrInput) || !strings.Contains(err.Error(), "mail") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseStrata(f *testing.F) {
	f.Add([]byte(`{"mail":` + mail + `}`))
	f.Add([]byte(`{"schema":"sealant.strata/1","apps":{"mail":` + mail + `}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStrata(data)
		if err != nil {
			return
		}
		j, err := s.Judge()
		if err != nil {
			return
		}
		for _, a := range j.Apps {
			if v := a.E.Value(); math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Fatalf("%s: %v", a.App, v)
			}
		}
	})
}
