package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/store"
)

func newEnroll() *cobra.Command {
	token := &cobra.Command{
		Use: "token", Short: "tokens that let devices in",
		Long: `A token admits a device to the fleet. It is good for one enrolment, or for a
number of them, until it expires. The server keeps only its hash: the secret is
printed once, when it is made.`,
	}
	token.AddCommand(newTokenNew(), newTokenList(), newTokenRevoke())
	cmd := &cobra.Command{Use: "enroll", Short: "let devices in"}
	cmd.AddCommand(token, newEK(), newRequire())
	return cmd
}

// maxUses is the most enrolments that one token can be good for.
const maxUses = 10_000_000

func newTokenNew() *cobra.Command {
	var uses int64
	var expires time.Duration
	var note string
	cmd := &cobra.Command{
		Use: "new", Short: "make a token and print its secret", Args: cobra.NoArgs,
		Example: `  sealsrv enroll token new
  sealsrv enroll token new --uses 500 --expires 720h --note "factory line 2"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uses < 1 || uses > maxUses {
				return fault.New(fault.Usage, "--uses %d: from 1 to %d are possible", uses, maxUses)
			}
			if expires <= 0 {
				return fault.New(fault.Usage, "--expires %s: it would have expired already", expires)
			}
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				now := time.Now()
				secret, t, err := db.NewToken(ctx, note, uses, now, now.Add(expires))
				if err != nil {
					return err
				}
				detail := fmt.Sprintf("%d enrolments until %s", uses, t.Expires.UTC().Format(time.RFC3339))
				if err := db.Note(ctx, store.Event{At: now, Actor: actor(), Action: "token.new", Target: t.ID, Detail: detail}); err != nil {
					return err
				}
				screen := cli.For(cmd)
				if screen.JSON {
					doc := tokenDocument(t, now)
					doc.Secret = secret
					return screen.Document("sealant.token/1", doc)
				}
				screen.Notef("token %s, good for %d enrolment(s) until %s\n", t.ID, t.Uses, stamp(screen, t.Expires))
				screen.Printf("%s\n", secret)
				return nil
			})
		},
	}
	cmd.Flags().Int64Var(&uses, "uses", 1, "how many devices it admits")
	cmd.Flags().DurationVar(&expires, "expires", 7*24*time.Hour, "for how long")
	cmd.Flags().StringVar(&note, "note", "", "what it is for")
	return cmd
}

// tokenJSON is one token in a document.
type tokenJSON struct {
	ID      string    `json:"id"`
	Secret  string    `json:"secret,omitempty"`
	Note    string    `json:"note"`
	Uses    int64     `json:"uses"`
	Used    int64     `json:"used"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	State   string    `json:"state"` // open, used, expired, revoked
}

func tokenDocument(t store.Token, now time.Time) tokenJSON {
	state := "open"
	switch {
	case !t.Revoked.IsZero():
		state = "revoked"
	case t.Used >= t.Uses:
		state = "used"
	case !now.Before(t.Expires):
		state = "expired"
	}
	return tokenJSON{ID: t.ID, Note: t.Note, Uses: t.Uses, Used: t.Used, Created: t.Created.UTC(), Expires: t.Expires.UTC(), State: state}
}

func newTokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "every token and how far it is used", Args: cobra.NoArgs,
		Example: "  sealsrv enroll token list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				tokens, err := db.Tokens(ctx)
				if err != nil {
					return err
				}
				screen, now := cli.For(cmd), time.Now()
				list := []tokenJSON{}
				for _, t := range tokens {
					list = append(list, tokenDocument(t, now))
				}
				if screen.JSON {
					return screen.Document("sealant.tokens/1", map[string]any{"tokens": list})
				}
				if len(list) == 0 {
					screen.Notef("no tokens\n")
					return nil
				}
				w := tabwriter.NewWriter(screen.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TOKEN\tSTATE\tUSED\tEXPIRES\tNOTE")
				for _, t := range list {
					fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%s\n", t.ID, t.State, t.Used, t.Uses, stamp(screen, t.Expires), t.Note)
				}
				return w.Flush()
			})
		},
	}
}

func newTokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "close a token for good", Args: cobra.ExactArgs(1),
		Long:    "Revoke closes a token by its id (not its secret). Devices that came in by it stay.",
		Example: "  sealsrv enroll token revoke k3j9x2aq",
		RunE: func(cmd *cobra.Command, args []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				now := time.Now()
				if err := db.RevokeToken(ctx, args[0], now); errors.Is(err, store.ErrNotFound) {
					return fault.New(fault.Usage, "there is no token %s", args[0]).Hint("sealsrv enroll token list")
				} else if err != nil {
					return err
				}
				if err := db.Note(ctx, store.Event{At: now, Actor: actor(), Action: "token.revoke", Target: args[0]}); err != nil {
					return err
				}
				screen := cli.For(cmd)
				if screen.JSON {
					return screen.Document("sealant.token-revoked/1", map[string]string{"id": args[0]})
				}
				screen.Notef("%s token %s is closed\n", screen.Good(), args[0])
				return nil
			})
		},
	}
}
