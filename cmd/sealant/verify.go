package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

// maxTicketFile bounds what --ticket reads, in bytes.
const maxTicketFile = 64 << 10

func newVerify() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify [--ticket FILE]",
		Short: "verify everything that this device relies on, offline",
		Long: `Verify checks the pinned roots, the catalog, the head of the public log that was seen
last, the ticket of each set in force, every byte of every image, the mounts and the
history. It needs no network. Everything is
checked, whatever is wrong before; the exit code is that of the first failure.

With --ticket it decodes one ticket, field by field, and checks what it can of it.`,
		Example: "  sealant verify\n  sealant verify --ticket /tmp/other.im4m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o device.VerifyOptions
			if file != "" {
				data, err := readTicket(file)
				if err != nil {
					return err
				}
				o.Ticket = data
			}
			v, err := ask[device.Verified](cmd, "verify", o)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				if err := s.Document("sealant.verify/1", v); err != nil {
					return err
				}
			} else {
				printVerified(s, v)
			}
			if kind, bad := v.Kind(); bad {
				return cli.Exit(kind)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "ticket", "", "decode and check this ticket")
	return cmd
}

func readTicket(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ticket: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 || fi.Size() > maxTicketFile {
		return nil, fault.New(fault.Ticket, "cannot read the ticket: %s has %d bytes, at most %d are possible", file, fi.Size(), maxTicketFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ticket: %w", err)
	}
	return data, nil
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
