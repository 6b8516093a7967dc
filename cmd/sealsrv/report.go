package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/report"
	"github.com/sealant-os/sealant/server/store"
)

func newReport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report [ID]", Short: "the counts that people agreed to share", Args: cobra.MaximumNArgs(1),
		Long: `Report shows, per improvement and app, on how many device-days the app was at risk
and how often it crashed for the first time, on devices that were offered the
improvement and on devices that were not yet. Only opted-in devices count, and no
count of fewer than ten is shown. Where reports need no tokens (sealsrv report key)
forged ones are possible: the figures are a reason to look, not a proof.`,
		Example: "  sealsrv report\n  sealsrv report SI-2026-0007 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			id := ""
			if len(args) == 1 {
				id = args[0]
				if err := release.CheckID(id); err != nil {
					return fault.New(fault.Usage, "%w", err)
				}
			}
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				cells, err := db.Cells(ctx, id)
				if err != nil {
					return err
				}
				answers, err := db.Recommendations(ctx, id)
				if err != nil {
					return err
				}
				return showReport(cli.For(cmd), report.Lines(cells), report.Sum(answers))
			})
		},
	}
	cmd.AddCommand(newReportKey())
	return cmd
}

func showReport(screen *cli.Screen, lines []report.Line, outcomes []report.Outcomes) error {
	if screen.JSON {
		return screen.Document("sealant.report/1", map[string]any{"apps": lines, "recommendations": outcomes})
	}
	count := func(n *int64) string {
		if n == nil {
			return "<10"
		}
		return strconv.FormatInt(*n, 10)
	}
	w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMPROVEMENT\tAPP\tDAYS\tOFFERED: AT RISK\tCRASHED\tNOT OFFERED: AT RISK\tCRASHED\tCELLS LEFT OUT")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%d\n", l.Release, l.App, l.Days,
			count(l.OfferedAtRisk), count(l.OfferedCrashed), count(l.ControlAtRisk), count(l.ControlCrashed), l.Suppressed)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(outcomes) > 0 {
		screen.Printf("\n")
		fmt.Fprintln(w, "IMPROVEMENT\tAPP\tREMOVAL RECOMMENDED\tACCEPTED\tDISMISSED")
		for _, o := range outcomes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.Release, o.App, count(o.Shown), count(o.Accepted), count(o.Dismissed))
		}
	}
	return w.Flush()
}
