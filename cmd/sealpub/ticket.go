package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/trust/ticket"
)

func newTicket() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ticket",
		Short: "look into tickets",
		Long: `A ticket authorises one set of images on one device. The signing service issues
it, the device verifies it (sealant verify --ticket).

  sealpub ticket inspect FILE`,
	}
	cmd.AddCommand(newTicketInspect())
	return cmd
}

// ticketDocument is the document of ticket inspect.
type ticketDocument struct {
	Ticket string         `json:"ticket"` // its id
	Bytes  int            `json:"bytes"`
	Fields []ticket.Field `json:"fields"`
}

func newTicketInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "decode every field of a ticket",
		Long: `Decodes a ticket (an Image4 manifest, DER) field by field. It shows what the
ticket says and refuses what is malformed; it verifies no signature, for that
needs a device and its root: sealant verify --ticket FILE.

  sealpub ticket inspect ticket.im4m
  sealpub ticket inspect ticket.im4m --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			der, err := readBegin(args[0], ticket.MaxSize)
			if err != nil {
				return fmt.Errorf("cannot read ticket: %w", err)
			}
			t, err := ticket.Parse(der)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			id := t.ID()
			if s.JSON {
				return s.Document("sealant.ticket/1", ticketDocument{fmt.Sprintf("%x", id), len(der), t.Describe()})
			}
			for _, f := range t.Describe() {
				s.Printf("%-11s %-13s %s\n%-25s %s\n", f.Name, f.Label, s.Strong(f.Value), "", s.Faint(f.Meaning))
			}
			s.Notef("%s only decoded: no signature was verified\n", s.Warn())
			return nil
		},
	}
}
