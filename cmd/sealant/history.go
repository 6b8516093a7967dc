package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newHistory() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "what happened on this device, why, and by whom",
		Long:    "History prints the device's log. Its lines are chained by their digests: a missing or\nchanged line is seen and reported.",
		Example: "  sealant history",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := ask[device.Told](cmd, "history", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				if err := s.Document("sealant.history/1", h); err != nil {
					return err
				}
			}
			for _, r := range h.Records {
				printf(s, "%s  %-16s %-13s %-12s %s", r.Time.Local().Format("2006-01-02 15:04"), r.Event, r.Release, r.Actor, r.Reason)
				if r.Text != "" {
					printf(s, "  %s", r.Text)
				}
				printf(s, "\n")
			}
			if !h.Whole {
				return fault.New(fault.Seal, "%s", h.Broken).Hint("somebody changed the history file; what stands before is unchanged")
			}
			return nil
		},
	}
}
