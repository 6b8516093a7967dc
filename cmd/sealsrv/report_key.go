package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/token"
)

// tokenKeyBlock is the type of a token key's PEM block.
const tokenKeyBlock = "SEALANT REPORT TOKEN KEY"

func newReportKey() *cobra.Command {
	var create bool
	cmd := &cobra.Command{
		Use: "key", Short: "the key of the tokens that reports spend", Args: cobra.NoArgs,
		Long: `Key prints the public key that devices pin: what belongs into the OS image as
/usr/lib/sealant/report-key.txt. Devices that pin it get a few blinded tokens a day,
and each report spends one, so that nobody can stuff the counts with forged reports;
the server can't tell whose tokens they are (spec/token.md).

With --new it makes the key first, at reports.token_key of the configuration. All
servers on one database have the same.`,
		Example: "  sealsrv report key --new > report-key.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if c.Reports.TokenKey == "" {
				return fault.New(fault.Usage, "this server takes reports without tokens").Hint("set reports.token_key")
			}
			if create {
				if err := makeTokenKey(c.Reports.TokenKey); err != nil {
					return err
				}
			}
			key, err := openTokenKey(c)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.report-key/1", map[string]string{"key": key.Public().String()})
			}
			s.Printf("%s\n", key.Public())
			return nil
		},
	}
	cmd.Flags().BoolVar(&create, "new", false, "make the key")
	return cmd
}

func makeTokenKey(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Failed, "cannot make the token key: %s exists already", path)
	}
	key, err := token.NewKey()
	if err != nil {
		return err
	}
	b, err := key.Bytes()
	if err != nil {
		return err
	}
	if err := writeSecret(path, pem.EncodeToMemory(&pem.Block{Type: tokenKeyBlock, Bytes: b})); err != nil {
		return fmt.Errorf("cannot write the token key: %w", err)
	}
	return nil
}

// openTokenKey reads the key of the tokens; nil if reports need none.
func openTokenKey(c *config) (*token.Key, error) {
	if c.Reports.TokenKey == "" {
		return nil, nil
	}
	text, err := readSmall(c.Reports.TokenKey)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "cannot read the token key: %w", err).Hint("sealsrv report key --new makes one")
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != tokenKeyBlock || len(rest) != 0 {
		return nil, fmt.Errorf("%s is no token key", c.Reports.TokenKey)
	}
	return token.ParseKey(block.Bytes)
}
