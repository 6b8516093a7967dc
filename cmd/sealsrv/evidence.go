package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/evidence"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/store"
)

func newEvidence() *cobra.Command {
	cmd := &cobra.Command{
		Use: "evidence", Short: "does an improvement make apps crash, over the fleet",
		Long: `The fleet's test compares devices that were offered an improvement with devices
that were not yet, by day and stratum. It can pause a rollout by itself and propose
an app for the advice list; a person signs, or not. No count ever removes a fix.`,
	}
	cmd.AddCommand(newEvidenceShow(), newEvidenceEval(), newEvidenceSimulate())
	return cmd
}

// appJSON is one app in the document of eval.
type appJSON struct {
	E       float64  `json:"e"`
	LogE    float64  `json:"log_e"`
	Rise    *float64 `json:"rate_ratio"` // null where only offered devices crash
	Devices int64    `json:"offered_devices_crashed"`
	Needed  float64  `json:"needed"`
	Propose bool     `json:"propose"`
}

func newEvidenceShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "what the shared counts say of an improvement", Args: cobra.ExactArgs(1),
		Long: `Show computes the fleet's test from the counts that people agreed to share (sealsrv
report): for each app the evidence that it crashes more often where the improvement is
offered, whether it should be proposed for the advice list (sealsrv recommend add), and
whether the rollout should pause. The server looks every ten minutes and pauses by itself.`,
		Example: "  sealsrv evidence show SI-2026-0007",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := release.CheckID(args[0]); err != nil {
				return fault.New(fault.Usage, "%w", err)
			}
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				cells, err := db.Cells(ctx, args[0])
				if err != nil {
					return err
				}
				j, err := rollout.Strata(cells).Judge()
				if err != nil {
					return err
				}
				return showJudgement(cli.For(cmd), j)
			})
		},
	}
}

func newEvidenceEval() *cobra.Command {
	return &cobra.Command{
		Use: "eval < STRATA.json", Short: "compute the fleet's test from counts on standard input", Args: cobra.NoArgs,
		Long: `Eval reads a JSON object of apps, each with the list of its days:

  {"mail": [{"stratum": "42.3.0 amd64", "f1": 3, "f0": 10, "r1": 100, "r0": 9900}], …}

f1 and f0 are first crashes on that day and r1 and r0 devices still at risk that
morning, offered and not offered. It needs no server and no database. E is the
evidence that the app crashes more often where the improvement was offered; the
action "pause" is due when the mean over all apps reaches 10, "propose" for an app
at E ≥ K/0.05 for K apps, from at least 10 devices and a rate ratio of 1.5.`,
		Example: "  sealsrv evidence eval --json < strata.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), evidence.MaxBytes+1))
			if err != nil {
				return fmt.Errorf("cannot read the strata: %w", err)
			}
			strata, err := evidence.ParseStrata(data)
			if err != nil {
				return fault.New(fault.Usage, "%w", err)
			}
			j, err := strata.Judge()
			if err != nil {
				return fault.New(fault.Usage, "%w", err)
			}
			return showJudgement(cli.For(cmd), j)
		},
	}
}

func showJudgement(screen *cli.Screen, j evidence.Judgement) error {
	if screen.JSON {
		apps := make(map[string]appJSON, len(j.Apps))
		for _, a := range j.Apps {
			line := appJSON{E: a.E.Value(), LogE: a.E.Log(), Devices: a.Devices, Needed: a.Needed, Propose: a.Propose}
			if !math.IsInf(a.Rise, 0) {
				line.Rise = &a.Rise
			}
			apps[a.App] = line
		}
		return screen.Document("sealant.evidence-eval/1", map[string]any{
			"apps": apps, "mean": j.Mean.Value(), "log_mean": j.Mean.Log(), "pause": j.Pause,
		})
	}
	w := tabwriter.NewWriter(screen.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tE\tRATE RATIO\tDEVICES\t")
	for _, a := range j.Apps {
		what := ""
		if a.Propose {
			what = screen.Warn() + " propose for the advice list"
		}
		fmt.Fprintf(w, "%s\t%.4g\t%.2f\t%d\t%s\n", a.App, a.E.Value(), a.Rise, a.Devices, what)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	action := screen.Good() + " go on"
	if j.Pause {
		action = screen.Bad() + " pause the rollout"
	}
	screen.Printf("mean %.4g: %s\n", j.Mean.Value(), action)
	return nil
}
