package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
)

// explained is the document of `sealant evidence explain`.
type explained struct {
	X0      int64            `json:"x0"`
	T0      float64          `json:"t0_hours"`
	X1      int64            `json:"x1"`
	T1      float64          `json:"t1_hours"`
	E       float64          `json:"e"`
	LogE    float64          `json:"log_e"`
	Needed  float64          `json:"needed"`
	Verdict eprocess.Verdict `json:"verdict"`
	Text    string           `json:"text"`
}

func newExplain() *cobra.Command {
	var c eprocess.Counts
	var listed, minimum int
	cmd := &cobra.Command{
		Use:   "explain --x0 N --t0 HOURS --x1 N --t1 HOURS",
		Short: "what this device would conclude from any numbers",
		Long: `Explain computes the test that a device applies to its own counts: x0 crashes in t0
hours of use without an improvement, x1 crashes in t1 hours with it. It needs no
root, no agent and no device, so that anybody can check the judgement.

E is the evidence that the app crashes more often with the improvement. A device
recommends removal at E of 20 or more (20 for each app that the vendor lists), from
at least 5 hours without and 2 crashes with the improvement. While an improvement
is harmless, E ever reaches 20 on at most one device in twenty, however often one
looks.

The verdict is recommend-removal, not-significant or not-enough-data; the exit code
is 0 for each of them. log_e is the natural logarithm of E; e stops at the largest
number that a program can be expected to read, about 1.8e308.`,
		Example: "  sealant evidence explain --x0 0 --t0 60 --x1 2 --t1 5\n  sealant evidence explain --x0 5 --t0 60 --x1 6 --t1 5 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if listed < 1 || listed > 1000 || minimum < 0 || minimum > 1_000_000 {
				return fault.New(fault.Usage, "cannot judge: --listed is 1 to 1000, --min-evidence 0 to 1000000")
			}
			verdict, e, err := c.Judge(listed, float64(minimum))
			if err != nil {
				return fault.New(fault.Usage, "cannot judge: %w", err)
			}
			x := explained{
				X0: c.X0, T0: c.T0, X1: c.X1, T1: c.T1, E: e.Value(), LogE: e.Log(),
				Needed: eprocess.Needed(listed, float64(minimum)), Verdict: verdict,
			}
			x.Text = explanation(x)
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.evidence-explain/1", x)
			}
			printf(s, "without  %d crashes in %s hours\nwith     %d crashes in %s hours\n", x.X0, hours(x.T0), x.X1, hours(x.T1))
			printf(s, "E        %s (ln E %.4f), needed %s\nverdict  %s: %s\n", evidenceValue(e), x.LogE, hours(x.Needed), x.Verdict, x.Text)
			return nil
		},
	}
	f := cmd.Flags()
	f.Int64Var(&c.X0, "x0", 0, "crashes without the improvement")
	f.Float64Var(&c.T0, "t0", 0, "hours of use without it")
	f.Int64Var(&c.X1, "x1", 0, "crashes with it")
	f.Float64Var(&c.T1, "t1", 0, "hours of use with it")
	f.IntVar(&listed, "listed", 1, "how many apps on the device the vendor lists")
	f.IntVar(&minimum, "min-evidence", eprocess.Threshold, "the evidence that the list's entry asks for")
	for _, name := range []string{"x0", "t0", "x1", "t1"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

// explanation says a verdict in words, with the reason.
func explanation(x explained) string {
	switch {
	case x.Verdict == eprocess.RecommendRemoval:
		return "the app crashes clearly more often with the improvement"
	case x.Verdict == eprocess.NotSignificant:
		return "no clear sign that the improvement makes the app crash"
	case x.T0 < eprocess.MinHours && x.X1 < eprocess.MinCrashes:
		return sprintf("too little to judge: less than %d hours without the improvement, and less than %d crashes with it", eprocess.MinHours, eprocess.MinCrashes)
	case x.T0 < eprocess.MinHours:
		return sprintf("too little to judge: less than %d hours without the improvement", eprocess.MinHours)
	}
	return sprintf("too little to judge: less than %d crashes with the improvement", eprocess.MinCrashes)
}

// evidenceValue writes an E for people.
func evidenceValue(e eprocess.E) string {
	switch v := e.Value(); {
	case e.Log() > 300:
		return sprintf("more than 1e130")
	case v >= 1e6 || v < 1e-3:
		return sprintf("%.3g", v)
	default:
		return sprintf("%.6f", v)
	}
}

// hours writes a number without a tail of zeros.
func hours(h float64) string { return sprintf("%g", h) }
