package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/rollout"
)

func newRecommend() *cobra.Command {
	cmd := &cobra.Command{
		Use: "recommend", Short: "apps for which devices may recommend removal",
		Long: `The advice list names apps that an improvement may harm. It removes nothing: a
device that sees a listed app crash far more often than before asks its person,
who decides. The list is signed with the advice key.`,
	}
	cmd.AddCommand(newRecommendAdd(), newRecommendDrop(), newListSign(needAdvice))
	return cmd
}

// textKey is the text that devices show unless the operator names another.
const textKey = "closes-unexpectedly"

func newRecommendAdd() *cobra.Command {
	a := release.Advice{OSVersions: []string{}, AppVersions: []string{}}
	cmd := &cobra.Command{
		Use: "add ID APP", Short: "put an app on the list", Args: cobra.ExactArgs(2),
		Example: "  sealsrv recommend add SI-2026-0007 org.example.Mail --min-evidence 20",
		RunE: func(cmd *cobra.Command, args []string) error {
			a.Release, a.App = args[0], args[1]
			return atDesk(cmd, needAdvice, func(ctx context.Context, d *rollout.Desk) error {
				list, err := d.Recommend(ctx, a)
				if err != nil {
					return err
				}
				return adviceDocument(cmd, list, args[0], args[1], "devices may recommend to remove %s if %s crashes\n")
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&a.OSVersions, "os-version", []string{}, "only on this OS version; can be repeated, sorted")
	f.StringSliceVar(&a.AppVersions, "app-version", []string{}, "only for this version of the app; can be repeated, sorted")
	f.StringVar(&a.Scope, "scope", release.ScopeMain, "whose crashes count: main (the main process) or any")
	f.IntVar(&a.MinEvidence, "min-evidence", 20, "evidence that a device needs; 10 at least")
	f.StringVar(&a.TextKey, "text", textKey, "which of the device's texts to show")
	signingFlags(cmd)
	return cmd
}

func newRecommendDrop() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drop ID APP", Short: "take an app off the list", Args: cobra.ExactArgs(2),
		Example: "  sealsrv recommend drop SI-2026-0007 org.example.Mail",
		RunE: func(cmd *cobra.Command, args []string) error {
			return atDesk(cmd, needAdvice, func(ctx context.Context, d *rollout.Desk) error {
				list, err := d.Drop(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return adviceDocument(cmd, list, args[0], args[1], "devices no longer recommend to remove %s because of %s\n")
			})
		},
	}
	signingFlags(cmd)
	return cmd
}

func adviceDocument(cmd *cobra.Command, list release.AdviceList, id, app, text string) error {
	screen := cli.For(cmd)
	if screen.JSON {
		return screen.Document("sealant.recommend/1", map[string]any{"version": list.Version, "entries": list.For(id)})
	}
	screen.Notef("%s advice list version %d is signed: "+text, screen.Good(), list.Version, id, app)
	return nil
}
