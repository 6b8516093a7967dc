package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/rollout"
)

func newRecall() *cobra.Command {
	var reason, text string
	var yes, dry bool
	cmd := &cobra.Command{
		Use: "recall ID", Short: "take the most recent improvement back from every device", Args: cobra.ExactArgs(1),
		Long: `Recall takes an improvement back: signing stops at once in every server on the
database, and devices that have it return to the one before it, at their next
check, unasked; their people are told the reason. It can't be undone; publish a
newer improvement instead.

Only the most recent improvement can be recalled, since later ones contain it.
A recall is signed with the recall key. Where several people must sign, signing of
the improvement stops at once nonetheless, and the signed list waits in a file for
sealsrv recall sign, or sealpub sign on any machine. If it fails half way, repeat it.`,
		Example: `  sealsrv recall SI-2026-0007 --reason "Mail closes on attachments"
  sealsrv recall SI-2026-0007 --reason "…" --dry-run
  sealsrv recall SI-2026-0007 --reason "…" --key recall-1.key --out recall.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if strings.TrimSpace(reason) == "" {
				return fault.New(fault.Usage, "--reason is missing: devices show their people why")
			}
			need := needRecall
			if dry {
				need = needNone
			}
			return atDesk(cmd, need, func(ctx context.Context, d *rollout.Desk) error {
				plan, err := d.PlanRecall(ctx, id)
				if err != nil {
					return err
				}
				screen := cli.For(cmd)
				if dry {
					return recallDocument(screen, plan, reason, false)
				}
				if !plan.Done && !yes {
					describeRecall(screen, plan)
				}
				if err := screen.Confirm(id, yes || plan.Done); err != nil {
					return err
				}
				if plan, err = d.Recall(ctx, id, reason, text); err != nil {
					return err
				}
				return recallDocument(screen, plan, reason, true)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "one line that devices show their people")
	f.StringVar(&text, "text", "", "more about it, for the public page")
	f.BoolVar(&yes, "yes", false, "don't ask to type the id")
	f.BoolVar(&dry, "dry-run", false, "only say what would happen")
	signingFlags(cmd)
	cmd.AddCommand(newListSign(needRecall))
	return cmd
}

func landing(p rollout.Plan) string {
	if p.To == "" {
		return "the baseline"
	}
	return p.To
}

func names(cves []release.CVE) string {
	var list []string
	for _, c := range cves {
		list = append(list, c.ID)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// describeRecall tells on stderr what will happen, before the question.
func describeRecall(screen *cli.Screen, p rollout.Plan) {
	screen.Notef("%d devices %s %s %s. Signing of %s stops now. Opens: %s. Stays fixed: %s.\n", p.Devices, p.Release.Label(),
		screen.Arrow(), landing(p), p.Release.Label(), names(p.Opens), names(p.Stays))
}

func recallDocument(screen *cli.Screen, p rollout.Plan, reason string, done bool) error {
	if screen.JSON {
		ids := func(cves []release.CVE) []string {
			list := []string{}
			for _, c := range cves {
				list = append(list, c.ID)
			}
			return list
		}
		return screen.Document("sealant.recall/1", map[string]any{
			"release": p.Release.ID, "to": p.To, "reason": reason, "devices": p.Devices, "published": done,
			"opens": ids(p.Opens), "stays_fixed": ids(p.Stays), "again": p.Done,
		})
	}
	switch {
	case !done:
		describeRecall(screen, p)
		screen.Notef("nothing was changed\n")
	case p.Done:
		screen.Notef("%s %s was recalled before; nothing more to do\n", screen.Good(), p.Release.ID)
	default:
		screen.Notef("%s %s is recalled: signing has stopped, the recall is signed and shown. %d devices go back to %s.\n",
			screen.Good(), p.Release.ID, p.Devices, landing(p))
	}
	return nil
}
