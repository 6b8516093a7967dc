package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/rollout"
)

func newRollout() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollout", Short: "who is offered an improvement",
		Long: `A published improvement is offered to nobody until its rollout starts. A rollout
offers it to a percentage of the devices, chosen by a hash: who is in at 5 % is in
at 50 %. Device and signing service compute the same.

  pause    keeps it as wide as it is
  halt     stops offering it; who has it keeps it
  resume   ends either
To take an improvement back, recall it: sealsrv recall.`,
	}
	cmd.AddCommand(newRolloutStart(), newRolloutStatus(), newRolloutPause(), newRolloutHalt(), newRolloutResume())
	return cmd
}

// ringAct runs one act on a ring and shows what became of it.
func ringAct(cmd *cobra.Command, act func(context.Context, *rollout.Desk) (release.Ring, error)) error {
	return atDesk(cmd, needNone, func(ctx context.Context, d *rollout.Desk) error {
		ring, err := act(ctx, d)
		if err != nil {
			return err
		}
		paused, err := d.DB.Paused(ctx, ring.Release)
		if err != nil {
			return err
		}
		screen := cli.For(cmd)
		if screen.JSON {
			return screen.Document("sealant.rollout/1", map[string]any{
				"release": ring.Release, "percent": ring.Percent, "halted": ring.Halted, "paused": !paused.IsZero(),
			})
		}
		screen.Notef("%s %s %s\n", screen.Good(), ring.Release, describeRing(ring, true, paused))
		return nil
	})
}

func describeRing(ring release.Ring, begun bool, paused time.Time) string {
	switch {
	case !begun:
		return "is offered to nobody: the rollout has not begun"
	case ring.Halted:
		return fmt.Sprintf("is halted at %d %%: who has it keeps it", ring.Percent)
	case !paused.IsZero():
		return fmt.Sprintf("is paused at %d %%", ring.Percent)
	}
	return fmt.Sprintf("is offered to %d %% of the devices", ring.Percent)
}

func newRolloutStart() *cobra.Command {
	var percent int
	cmd := &cobra.Command{
		Use: "start ID", Short: "offer an improvement, or widen its ring", Args: cobra.ExactArgs(1),
		Long: `Start offers an improvement to a percentage of the devices. Repeating it with a
larger one widens the ring. Without --percent it goes to all devices, if there
are no more than 100 of them.`,
		Example: `  sealsrv rollout start SI-2026-0007 --percent 1
  sealsrv rollout start SI-2026-0007 --percent 50`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("percent") && percent < 0 {
				return fault.New(fault.Usage, "%d is not a percentage from 0 to 100", percent)
			}
			return ringAct(cmd, func(ctx context.Context, d *rollout.Desk) (release.Ring, error) {
				return d.Start(ctx, args[0], percent)
			})
		},
	}
	cmd.Flags().IntVar(&percent, "percent", -1, "share of the devices, 0 to 100")
	cmd.Flags().Lookup("percent").DefValue = ""
	return cmd
}

func newRolloutPause() *cobra.Command {
	return &cobra.Command{
		Use: "pause ID", Short: "keep a rollout as wide as it is", Args: cobra.ExactArgs(1),
		Long:    "Pause lets nobody widen the rollout until it is resumed. Devices in the ring go on\nbeing offered the improvement.",
		Example: "  sealsrv rollout pause SI-2026-0007",
		RunE: func(cmd *cobra.Command, args []string) error {
			return ringAct(cmd, func(ctx context.Context, d *rollout.Desk) (release.Ring, error) { return d.Pause(ctx, args[0]) })
		},
	}
}

func newRolloutHalt() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "halt ID", Short: "stop offering an improvement", Args: cobra.ExactArgs(1),
		Long:    "Halt stops offering an improvement to devices that don't have it. Nobody loses it;\nto take it back, recall it.",
		Example: `  sealsrv rollout halt SI-2026-0007 --reason "mail crashes"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return ringAct(cmd, func(ctx context.Context, d *rollout.Desk) (release.Ring, error) { return d.Halt(ctx, args[0], reason) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the operators' log")
	return cmd
}

func newRolloutResume() *cobra.Command {
	var percent int
	cmd := &cobra.Command{
		Use: "resume ID", Short: "end a pause or a halt", Args: cobra.ExactArgs(1),
		Example: "  sealsrv rollout resume SI-2026-0007\n  sealsrv rollout resume SI-2026-0007 --percent 20",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("percent") && percent < 0 {
				return fault.New(fault.Usage, "%d is not a percentage from 0 to 100", percent)
			}
			return ringAct(cmd, func(ctx context.Context, d *rollout.Desk) (release.Ring, error) {
				return d.Resume(ctx, args[0], percent)
			})
		},
	}
	cmd.Flags().IntVar(&percent, "percent", -1, "share of the devices from now on, 0 to 100 (default: as before)")
	cmd.Flags().Lookup("percent").DefValue = ""
	return cmd
}

func newRolloutStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status ID", Short: "how far an improvement has come", Args: cobra.ExactArgs(1),
		Long: `Status counts what the server knows: devices that could have the improvement, that
are offered it, and that asked for it to be authorised. Devices tell the server no
more about themselves.`,
		Example: "  sealsrv rollout status SI-2026-0007",
		RunE: func(cmd *cobra.Command, args []string) error {
			return atDesk(cmd, needNone, func(ctx context.Context, d *rollout.Desk) error {
				s, err := d.Status(ctx, args[0])
				if err != nil {
					return err
				}
				return showStatus(cli.For(cmd), s)
			})
		},
	}
}

func showStatus(screen *cli.Screen, s rollout.Status) error {
	id := s.Release.ID
	if screen.JSON {
		doc := map[string]any{
			"release": id, "name": s.Release.Name(), "begun": s.Begun, "percent": s.Ring.Percent, "halted": s.Ring.Halted, "paused": !s.Paused.IsZero(),
			"devices": s.Devices, "offered": s.Offered, "authorised": s.Now, "ever": s.Ever, "left": s.TakenBack, "silent": s.Silent,
		}
		if s.Recalled != nil {
			doc["recalled"] = s.Recalled
		}
		return screen.Document("sealant.rollout-status/1", doc)
	}
	screen.Printf("%s %s\n", id, screen.Strong(s.Release.Name()))
	w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "DEVICES\tOFFERED\tAUTHORISED\tLEFT IT\tSILENT\t")
	fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t\n", s.Devices, s.Offered, s.Now, s.TakenBack, s.Silent)
	if err := w.Flush(); err != nil {
		return err
	}
	if s.Recalled != nil {
		screen.Printf("%s recalled %s: %s\n", screen.Bad(), stamp(screen, s.Recalled.Date), s.Recalled.Reason)
		screen.Printf("taken back %d %s still with it %d %s silent for a week %d\n", s.TakenBack, screen.Dot(), s.Now, screen.Dot(), s.Silent)
		return nil
	}
	mark := screen.Good()
	if !s.Begun || s.Ring.Halted || !s.Paused.IsZero() {
		mark = screen.Warn()
	}
	screen.Printf("%s %s\n", mark, describeRing(s.Ring, s.Begun, s.Paused))
	return nil
}
