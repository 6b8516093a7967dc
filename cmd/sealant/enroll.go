package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func newEnroll() *cobra.Command {
	var o device.EnrollOptions
	cmd := &cobra.Command{
		Use:   "enroll [--token TOKEN] [--server URL]",
		Short: "make this device known to its server",
		Long: `Enroll gives this device an identity of its own, makes it known to the server,
and receives the ticket of the baseline, which stays valid for ever and offline.
The operator makes the token; it is good for one device. Without a token the
key is made in the TPM, which proves itself to a server that has this machine's
endorsement key on its list; --dry-run says which one that is.`,
		Example: `  sealant enroll --token 7Q4M-… --server https://improvements.example.com
  sealant enroll --identity tpm --dry-run
  sealant enroll --identity tpm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask[device.Enrolled](cmd, "enroll", o)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.enrolled/1", r)
			}
			if o.DryRun {
				printf(s, "Would enrol as %s %s at %s.\n", r.Product, device.VersionText(r.OSVersion), r.Server)
				if r.Endorsement != "" {
					printf(s, "Key in the TPM; its endorsement key is %s\n", r.Endorsement)
				}
				return nil
			}
			kept := "Key in a file (sealant doctor)."
			if r.Identity == device.IdentityTPM {
				kept = "Key in the TPM."
			}
			printf(s, "%s Enrolled: device %s at %s.  %s\n", s.Good(), r.Short, r.Server, kept)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Token, "token", "", "the operator's token; not needed where the server knows this machine's TPM")
	cmd.Flags().StringVar(&o.Server, "server", "", "the server's base URL (default: server.url of agent.toml)")
	cmd.Flags().StringVar(&o.Identity, "identity", device.IdentityAuto, "where the device's key shall be: tpm, file, or auto for the TPM if there is one")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "check everything that can be checked here, and change nothing")
	return cmd
}
