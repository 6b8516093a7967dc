package main

import (
	"context"
	"encoding/hex"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/rollout"
)

func newLeafRevoke() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "take back a leaf whose key got into the wrong hands", Args: cobra.ExactArgs(1),
		Long: `Revoke puts a leaf on the signed recall list. Servers stop signing with it, and
devices stage nothing that it signed, from the next time they see the catalog.
What devices have already stays: no leaf can change what a release is.

The id is what sealsrv leaf show --json and sealpub ticket inspect print, the
SHA-256 of the leaf's public key. It can't be undone; issue a new leaf.`,
		Example: `  sealsrv leaf revoke 3f1c… --reason "the server was stolen"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var id release.Hash
			if err := id.UnmarshalText([]byte(args[0])); err != nil {
				return fault.New(fault.Usage, "%q is no leaf's id, 64 hexadecimal digits", args[0])
			}
			screen := cli.For(cmd)
			if err := screen.Confirm(args[0][:8], yes); err != nil {
				return err
			}
			return atDesk(cmd, needRecall, func(ctx context.Context, d *rollout.Desk) error {
				again, err := d.RevokeLeaf(ctx, id, reason)
				if err != nil {
					return err
				}
				if screen.JSON {
					return screen.Document("sealant.leaf-revoked/1", map[string]any{"id": hex.EncodeToString(id[:]), "again": again})
				}
				if again {
					screen.Notef("%s the leaf was revoked before; nothing more to do\n", screen.Good())
					return nil
				}
				screen.Notef("%s the leaf %.8s… is revoked. If a server still has it: sealsrv leaf new\n", screen.Good(), id)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "one line, for the list (required)")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask to type the id's first eight digits")
	signingFlags(cmd)
	cobra.CheckErr(cmd.MarkFlagRequired("reason"))
	return cmd
}
