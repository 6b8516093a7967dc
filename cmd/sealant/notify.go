package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device/notify"
)

func newNotifyChild() *cobra.Command {
	return &cobra.Command{
		Use: notify.ChildCommand, Hidden: true, Args: cobra.NoArgs,
		Short: "show a message in a session and tell what was chosen (for the agent)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notify.Child(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				os.Exit(notify.ExitCode(err))
			}
			return nil
		},
	}
}
