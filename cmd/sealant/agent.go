package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newAgent() *cobra.Command {
	return &cobra.Command{
		Use:   "agent",
		Short: "run the agent: confirm boots, ask for news, serve the local API",
		Long: `Agent runs until it is ended. It confirms that the system has come up with what was
staged, answers other commands on /run/sealant/agent.sock, asks the vendor for news
now and then, takes back what was recalled, and installs what policy lets it.`,
		Example: "  systemctl enable --now sealant-agent.service",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return device.Agent(cmd.Context(), rootOf(cmd), log)
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
