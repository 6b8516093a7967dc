package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/ticket"
)

func newTicket() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ticket",
		Short: "look into tickets, make their root",
		Long: `A ticket authorises one set of images on one device. The signing service issues
it, the device verifies it (sealant verify --ticket) under a root that is part of
its operating system.

  sealpub ticket inspect FILE
  sealpub ticket root --key ticket-root.key --name "Example ticket root"`,
	}
	cmd.AddCommand(newTicketInspect(), newTicketRoot())
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

func newTicketRoot() *cobra.Command {
	var pass secret
	var keyFile, name, out string
	var years int
	cmd := &cobra.Command{
		Use:   "root --key FILE --name NAME",
		Short: "make the certificate that devices pin",
		Long: `Makes the self-signed certificate of the root of tickets, for an operating system
image (/usr/lib/sealant/ticket-root.pem). The key is P-384: a software key, or one
in a token. sealpub init makes one of its own; this is for a key that lies elsewhere.

  sealpub keys attach ticket-root --key ticket-root -- sealant-signer-pkcs11 --module … --token vendor
  sealpub ticket root --key ticket-root.key --name "Example ticket root" --out ticket-root.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s := cli.For(cmd)
			if years < 1 || years > 100 {
				return fault.New(fault.Usage, "cannot make ticket root: --years is 1 to 100")
			}
			if name == "" || len(name) > 64 {
				return fault.New(fault.Usage, "cannot make ticket root: a name has 1 to 64 characters")
			}
			if _, err := os.Lstat(out); err == nil {
				return fault.New(fault.Failed, "cannot make ticket root: %s exists already", out)
			}
			key, done, err := openKey(cmd.Context(), s, keyFile, &pass)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			now := time.Now()
			root, err := ticket.NewRoot(rand.Reader, key, name, now.Add(-time.Hour), now.AddDate(years, 0, 0))
			if err != nil {
				return err
			}
			if err := os.WriteFile(out, ticket.MarshalRoot(root), 0o644); err != nil {
				return fmt.Errorf("cannot write ticket root: %w", err)
			}
			if s.JSON {
				return s.Document("sealant.ticket-root/1", map[string]any{"file": out, "name": name, "until": root.NotAfter.UTC()})
			}
			s.Printf("%s\n", out)
			s.Notef("%s %s, until %s; no device looks at that date\n", s.Good(), name, root.NotAfter.UTC().Format(time.DateOnly))
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "key file of the root (P-384)")
	cmd.Flags().StringVar(&name, "name", "", "what the root is called")
	cmd.Flags().StringVarP(&out, "out", "o", "ticket-root.pem", "where to write the certificate")
	cmd.Flags().IntVar(&years, "years", 30, "how long people should use it")
	pass.flags(cmd)
	cobra.CheckErr(cmd.MarkFlagRequired("key"))
	cobra.CheckErr(cmd.MarkFlagRequired("name"))
	return cmd
}
