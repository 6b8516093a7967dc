package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newVerify() *cobra.Command {
	var file string
	var w wanted
	cmd := &cobra.Command{
		Use:   "verify [--ticket FILE]",
		Short: "verify everything that this device relies on, offline",
		Long: `Verify checks the pinned roots, the catalog, the head of the public log that was seen
last, the ticket of each set in force, every byte of every image, the mounts and the
history. It needs no network. Everything is
checked, whatever is wrong before; the exit code is that of the first failure.

With --ticket it decodes one ticket, field by field, and compares it with this device:
its id, product, baseline and nonces, and the root that its system pins.

With --ticket and any of --ticket-root, --device, --product, --baseline, --nonce,
--release, --cryptex, --revoked and --since it compares the ticket with what these
say instead, on any machine, and looks at no device. What is not given is not
compared and marked so; the signature is always verified, under the root of
--ticket-root, else under ROOT/usr/lib/sealant/ticket-root.pem.

Exit code 0: the ticket is good in all that was compared; 31: it is not, or it is no
ticket; 2: the command line makes no sense.`,
		Example: `  sealant verify
  sealant verify --ticket other.im4m
  sealant verify --ticket t.im4m --ticket-root root.pem --device 7c1e…90af \
    --product ExampleOS --baseline base.json --nonce 10e5…010a --release SI-2026-0007
  sealant verify --ticket baseline.im4m --ticket-root root.pem --nonce none --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o device.VerifyOptions
			if file != "" {
				data, err := readTicket(cmd, file)
				if err != nil {
					return err
				}
				if w.given(cmd) {
					v, err := w.judge(cmd, data)
					if err != nil {
						return err
					}
					return exitVerified(cmd, v)
				}
				o.Ticket = data
			} else if w.given(cmd) {
				return fault.New(fault.Usage, "cannot compare: --ticket FILE says what with")
			}
			v, err := ask[device.Verified](cmd, "verify", o)
			if err != nil {
				return err
			}
			return exitVerified(cmd, v)
		},
	}
	cmd.Flags().StringVar(&file, "ticket", "", "decode and check this ticket; - reads standard input")
	w.flags(cmd)
	return cmd
}

func printVerified(s *cli.Screen, v device.Verified) {
	for _, f := range v.Ticket {
		printf(s, "  %-12s %-14s %s\n", f.Name, f.Label, f.Value)
	}
	for _, c := range v.Checks {
		mark := s.Good()
		switch c.Level {
		case "warn":
			mark = s.Warn()
		case "bad":
			mark = s.Bad()
		}
		printf(s, "%s %-10s %s\n", mark, c.What, c.Text)
	}
}
