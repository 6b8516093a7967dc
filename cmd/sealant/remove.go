package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newRemove() *cobra.Command {
	var o device.RemoveOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove [--cancel]",
		Short: "remove all improvements; a restart completes it",
		Long: `Remove takes ALL improvements off this device, back to what the last OS update
installed. It needs no network and no free space. A restart completes it; until
then --cancel takes it back. The patches stay: sealant reapply puts the improvement
back without a download.`,
		Example: "  sudo sealant remove\n  sudo sealant remove --cancel",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return remove(cmd, o, yes, func() error { return nil })
		},
	}
	cmd.Flags().BoolVar(&o.Cancel, "cancel", false, "take a removal back that waits for its restart")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be removed, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "skip the question (never a check)")
	return cmd
}

// remove says what goes, asks, removes, and then does what is to be done after.
func remove(cmd *cobra.Command, o device.RemoveOptions, yes bool, after func() error) error {
	s := cli.For(cmd)
	if !o.Cancel {
		planned, err := ask[device.Removed](cmd, "remove", device.RemoveOptions{DryRun: true})
		if err != nil {
			return err
		}
		if o.DryRun && s.JSON {
			return s.Document("sealant.removed/1", planned)
		}
		announce(s, planned)
		if o.DryRun {
			return nil
		}
		if err := s.Confirm("REMOVE", yes); err != nil {
			return err
		}
	}
	r, err := ask[device.Removed](cmd, "remove", o)
	if err != nil {
		return err
	}
	if err := after(); err != nil {
		return err
	}
	if s.JSON {
		return s.Document("sealant.removed/1", r)
	}
	printRemoved(s, r)
	return nil
}

// announce says what a removal means before it is asked about.
func announce(s *cli.Screen, r device.Removed) {
	w := *s
	w.Out = s.Err // the question's text is for people, whatever stdout is
	if s.Quiet {
		return
	}
	printf(&w, "Removes ALL improvements %s %s %s\n", r.Labels, s.Arrow(), r.To)
	if len(r.Reopened) == 0 {
		return
	}
	exploited := map[string]bool{}
	for _, id := range r.Exploited {
		exploited[id] = true
	}
	var ids []string
	for _, id := range r.Reopened {
		if exploited[id] {
			id += " (exploited)"
		}
		ids = append(ids, id)
	}
	printf(&w, "Opens again: %s.  Back again: sealant reapply\n", strings.Join(ids, ", "))
}

func printRemoved(s *cli.Screen, r device.Removed) {
	switch r.State {
	case "cancelled":
		printf(s, "%s The removal was cancelled: %s stays.\n", s.Good(), r.From)
	case "removed":
		printf(s, "%s Removed: %s. Nothing had booted it; no restart is needed.\n", s.Good(), r.From)
		if len(r.Relaunch) > 0 {
			printf(s, "Relaunch apps that use it: %s.\n", strings.Join(r.Relaunch, ", "))
		}
	default:
		printf(s, "Restart to complete; cancel: sealant remove --cancel\n")
	}
}
