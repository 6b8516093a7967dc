package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Short:   "how strong this device's protection is, in plain words",
		Long:    "Doctor looks at what the protection rests on: identity, enforcement, clock, feed,\nthe public log, space, boot. Exit code 1 if something is bad.",
		Example: "  sealant doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := ask[device.Diagnosis](cmd, "doctor", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				if err := s.Document("sealant.doctor/1", g); err != nil {
					return err
				}
			}
			bad := false
			for _, f := range g.Findings {
				mark := s.Good()
				switch f.Level {
				case "warn":
					mark = s.Warn()
				case "bad":
					mark, bad = s.Bad(), true
				}
				printf(s, "%s %s  %s\n", mark, f.Code, f.Text)
				if f.Remedy != "" && f.Level != "ok" {
					printf(s, "      %s\n", f.Remedy)
				}
			}
			if bad {
				return cli.Exit(fault.Failed)
			}
			return nil
		},
	}
}
