package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/tpm"
)

func newEK() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ek", Short: "TPMs that let their devices in",
		Long: `A device whose key is in a TPM of this list enrols without a token: it shows
that the key is in that very TPM. A TPM is named by the SHA-256 of its
endorsement key (SubjectPublicKeyInfo; P-256, P-384 or RSA-2048), 64 hexadecimal
digits, which sealant enroll --identity tpm --dry-run says on the device; or by its
maker's certificate for that key.

With enroll.ek_roots in the configuration, TPMs come onto the list by themselves if
one of these makers certified them. A TPM has a key of each sort: revoke all that it
has certificates for.`,
	}
	cmd.AddCommand(newEKAdd(), newEKList(), newEKRevoke())
	return cmd
}

// endorsementID reads a TPM's id, or the certificate in a file.
func endorsementID(arg string) (id [32]byte, err error) {
	if raw, bad := hex.DecodeString(arg); bad == nil && len(raw) == len(id) {
		return [32]byte(raw), nil
	}
	file, err := readSmall(arg)
	if err != nil {
		return id, fault.New(fault.Usage, "%q is neither 64 hexadecimal digits nor a certificate: %w", arg, err)
	}
	if block, _ := pem.Decode(file); block != nil {
		file = block.Bytes
	}
	cert, err := x509.ParseCertificate(file)
	if err == nil {
		id, err = tpm.CertifiedID(cert)
	}
	if err != nil {
		return id, fault.New(fault.Usage, "%s: %w", arg, err)
	}
	return id, nil
}

func newEKAdd() *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: "add ID|CERTIFICATE…", Short: "let the devices of these TPMs in", Args: cobra.MinimumNArgs(1),
		Example: `  sealsrv enroll ek add 5f1c… --note "rack 7"
  sealsrv enroll ek add ek/*.crt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids [][32]byte
			for _, arg := range args {
				id, err := endorsementID(arg)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				now := time.Now()
				names := []string{}
				for _, id := range ids {
					if err := db.AddEndorsement(ctx, id, note, now); err != nil {
						return err
					}
					names = append(names, hex.EncodeToString(id[:]))
					if err := db.Note(ctx, store.Event{At: now, Actor: actor(), Action: "ek.add", Target: names[len(names)-1], Detail: note}); err != nil {
						return err
					}
				}
				screen := cli.For(cmd)
				if screen.JSON {
					return screen.Document("sealant.endorsements-added/1", map[string]any{"endorsements": names})
				}
				for _, name := range names {
					screen.Notef("%s TPM %s may enrol devices\n", screen.Good(), name)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "which machines they are")
	return cmd
}

// endorsementJSON is one TPM in a document.
type endorsementJSON struct {
	ID      string     `json:"id"`
	Note    string     `json:"note"`
	Added   time.Time  `json:"added"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

func newEKList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "every TPM on the list", Args: cobra.NoArgs,
		Example: "  sealsrv enroll ek list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				list := []endorsementJSON{}
				err := db.EachEndorsement(ctx, func(e store.Endorsement) error {
					doc := endorsementJSON{ID: hex.EncodeToString(e.ID[:]), Note: e.Note, Added: e.Added.UTC()}
					if !e.Revoked.IsZero() {
						doc.Revoked = &e.Revoked
					}
					list = append(list, doc)
					return nil
				})
				if err != nil {
					return err
				}
				only, err := db.TPMOnly(ctx)
				if err != nil {
					return err
				}
				screen := cli.For(cmd)
				if screen.JSON {
					return screen.Document("sealant.endorsements/1", map[string]any{"endorsements": list, "required": only})
				}
				if only {
					screen.Notef("only devices with one of these TPMs are admitted\n")
				}
				if len(list) == 0 {
					screen.Notef("no TPMs\n")
					return nil
				}
				w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TPM\tSTATE\tADDED\tNOTE")
				for _, e := range list {
					state := "open"
					if e.Revoked != nil {
						state = "revoked"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.ID, state, stamp(screen, e.Added), e.Note)
				}
				return w.Flush()
			})
		},
	}
}

func newEKRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID|CERTIFICATE", Short: "let a TPM enrol no more devices", Args: cobra.ExactArgs(1),
		Long:    "Revoke closes the list to a TPM. Devices that came in by it stay; sealsrv devices block ends them.",
		Example: "  sealsrv enroll ek revoke 5f1c…",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := endorsementID(args[0])
			if err != nil {
				return err
			}
			name := hex.EncodeToString(id[:])
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				now := time.Now()
				if err := db.RevokeEndorsement(ctx, id, now); errors.Is(err, store.ErrNotFound) {
					return fault.New(fault.Usage, "the TPM %s is not on the list", name).Hint("sealsrv enroll ek list")
				} else if err != nil {
					return err
				}
				if err := db.Note(ctx, store.Event{At: now, Actor: actor(), Action: "ek.revoke", Target: name}); err != nil {
					return err
				}
				screen := cli.For(cmd)
				if screen.JSON {
					return screen.Document("sealant.endorsement-revoked/1", map[string]string{"id": name})
				}
				screen.Notef("%s TPM %s enrols no more devices\n", screen.Good(), name)
				return nil
			})
		},
	}
}

func newRequire() *cobra.Command {
	return &cobra.Command{
		Use: "require tpm|nothing", Short: "decide whether tokens admit devices", Args: cobra.ExactArgs(1), ValidArgs: []string{"tpm", "nothing"},
		Long: `Require tpm admits only devices whose key is in a TPM of the list (sealsrv enroll
ek), whatever token they have. It holds for every server on the database, from
the next enrolment on; devices that are in stay. Require nothing ends it.`,
		Example: "  sealsrv enroll require tpm",
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "tpm" && args[0] != "nothing" {
				return fault.New(fault.Usage, "enrolment can require tpm or nothing, not %q", args[0])
			}
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				if err := db.SetTPMOnly(ctx, args[0] == "tpm"); err != nil {
					return err
				}
				if err := db.Note(ctx, store.Event{At: time.Now(), Actor: actor(), Action: "enroll.require", Target: args[0]}); err != nil {
					return err
				}
				screen := cli.For(cmd)
				if screen.JSON {
					return screen.Document("sealant.enrolment-requires/1", map[string]string{"requires": args[0]})
				}
				screen.Notef("%s enrolment requires %s\n", screen.Good(), args[0])
				return nil
			})
		},
	}
}
