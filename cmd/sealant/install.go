package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newInstall() *cobra.Command {
	var o device.InstallOptions
	cmd := &cobra.Command{
		Use:   "install [ID]",
		Short: "install the newest improvement, or the named one",
		Long: `Install downloads an improvement, makes the improved images, tries the way back,
has the result authorised for this device, and stages it. Nothing that runs is
changed: an app gets it when it is relaunched, everything else at the next restart.

An interrupted download goes on where it stopped. If a patch can't be used, the
whole image is downloaded instead.`,
		Example: "  sealant install\n  sealant install SI-2026-0007 --dry-run",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.Release = args[0]
			}
			r, err := ask[device.Installed](cmd, "install", o)
			if err != nil {
				return err
			}
			return printInstalled(cmd, r, o.DryRun)
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "ask every gate, and change nothing")
	return cmd
}

func newReapply() *cobra.Command {
	var o device.ReapplyOptions
	cmd := &cobra.Command{
		Use:   "reapply [ID]",
		Short: "put a removed improvement back, without a download",
		Long: `Reapply puts back what was removed last, or the named improvement. Its patches
were kept on this device, so nothing is downloaded; it needs a fresh ticket, since
the old one ended with the removal.`,
		Example: "  sealant reapply",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.Release = args[0]
			}
			r, err := ask[device.Installed](cmd, "reapply", o)
			if err != nil {
				return err
			}
			return printInstalled(cmd, r, o.DryRun)
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "ask every gate, and change nothing")
	return cmd
}

func printInstalled(cmd *cobra.Command, r device.Installed, dry bool) error {
	s := cli.For(cmd)
	if s.JSON {
		return s.Document("sealant.installed/1", r)
	}
	switch {
	case dry:
		printf(s, "Would install %s (%s): %s to download. Nothing was changed.\n", r.Name, r.Release, cli.Bytes(r.Download))
		return nil
	case len(r.Repaired) > 0:
		printf(s, "%s (%s) is installed; repaired: %s.\n", r.Name, r.Release, strings.Join(r.Repaired, ", "))
	case r.State == device.StateActive:
		printf(s, "%s (%s) is active everywhere. Nothing to do.\n", r.Name, r.Release)
		return nil
	case r.Seconds == 0:
		printf(s, "%s (%s) is staged already.\n", r.Name, r.Release)
	default:
		printf(s, "Done in %.1f s. Nothing running was changed.\n", r.Seconds)
	}
	if len(r.Relaunch) > 0 {
		printf(s, "Relaunch: %s.   Everything else: after restart.\n", strings.Join(r.Relaunch, ", "))
	} else if r.Restart {
		printf(s, "Active after restart.\n")
	}
	return nil
}
