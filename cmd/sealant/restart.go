package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newRestart() *cobra.Command {
	var o device.RestartOptions
	cmd := &cobra.Command{
		Use:   "restart [--simulate]",
		Short: "restart this device, so that what is staged takes force everywhere",
		Long: `Restart has the login manager restart this device; where there is none systemctl reboot
does, or restart.command of agent.toml. Somebody who blocks a restart (systemd-inhibit) is
heard, and named.
With --simulate nothing is restarted: what the boot would verify is verified now.`,
		Example: "  sealant restart --simulate",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask[device.Restarted](cmd, "restart", o)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.restart/1", r)
			}
			for _, c := range r.Checks {
				printf(s, "%s %s\n", s.Good(), c)
			}
			if o.Simulate {
				if r.From == r.To {
					printf(s, "The next boot uses %s, as now. Nothing was restarted.\n", r.To)
				} else {
					printf(s, "The next boot uses %s (now: %s), tries left: %d. Nothing was restarted.\n", r.To, r.From, r.Tries)
				}
				return nil
			}
			printf(s, "Restarting into %s.\n", r.To)
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Simulate, "simulate", false, "verify what the boot would verify, and restart nothing")
	return cmd
}
