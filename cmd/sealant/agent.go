package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newAgent() *cobra.Command {
	var o device.AgentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "run the agent: confirm boots, ask for news, serve the local API",
		Long: `Agent runs until it is ended. It confirms that the system has come up with what was
staged, answers other commands on /run/sealant/agent.sock and org.sealant.Agent1 on the
system's bus, starts programs for people (sealant run), asks the vendor for news now and
then, takes back what was recalled, and installs what policy lets it.

Under systemd it is sealant.service. With --service it leaves the starting of programs
to sealant-launch.service and the confirmation to sealant-confirm.service, which waits
for boot-complete.target.`,
		Example: "  systemctl enable --now sealant.service",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return device.Agent(cmd.Context(), rootOf(cmd), o, log)
		},
	}
	cmd.Flags().BoolVar(&o.Service, "service", false, "leave launches and the confirmation of boots to their own units")
	return cmd
}

func newLauncher() *cobra.Command {
	return &cobra.Command{
		Use:    "launcher",
		Short:  "start programs for people, on the socket that systemd hands over",
		Long:   "Launcher is sealant-launch.service: the part of the agent that starts programs.",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return device.Launcher(cmd.Context(), rootOf(cmd))
		},
	}
}

func newConfirm() *cobra.Command {
	return &cobra.Command{
		Use:    "confirm",
		Short:  "confirm that the system has come up with what was staged",
		Long:   "Confirm does what the agent does at its start, for machines that run no agent.",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ask[device.Confirmed](cmd, "confirm", none{})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.confirmed/1", c)
			}
			printf(s, "%s %s\n", c.State, c.Text)
			return nil
		},
	}
}
