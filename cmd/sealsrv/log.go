package main

import (
	"crypto/ed25519"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
)

func newLog() *cobra.Command {
	cmd := &cobra.Command{
		Use: "log", Short: "the public log of every set that was authorised",
		Long: `The server puts every set into a public log before it signs the first ticket for
it. Devices whose OS image has /usr/lib/sealant/log-key.txt install nothing that
is not in the log. sealsrv audit compares the log with the catalog.`,
	}
	cmd.AddCommand(newLogKey())
	return cmd
}

func newLogKey() *cobra.Command {
	return &cobra.Command{
		Use: "key", Short: "print what devices pin of the log", Args: cobra.NoArgs,
		Long: `Key prints the verifier key of the configured log: what belongs into the OS
image as /usr/lib/sealant/log-key.txt. sealpub init writes the same file for the
log key that it makes. The private key is not unlocked.`,
		Example: "  sealsrv log key > log-key.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if c.Log.Key == "" {
				return fault.New(fault.Usage, "this server keeps no public log").Hint("set log.name and log.key")
			}
			file, err := logKey(c)
			if err != nil {
				return err
			}
			screen := cli.For(cmd)
			if screen.JSON {
				return screen.Document("sealant.log-key/1", map[string]string{"name": c.Log.Name, "key": string(file[:len(file)-1])})
			}
			_, err = screen.Out.Write(file)
			return err
		},
	}
}

// logKey is the file of the configured log's verifier key.
func logKey(c *config) ([]byte, error) {
	text, err := readSmall(c.Log.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot read the log's key: %w", err)
	}
	k, err := signer.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Log.Key, err)
	}
	public, ok := k.Public.(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Usage, "the log's key %s is not Ed25519", c.Log.Key)
	}
	return setlog.FormatKey(c.Log.Name, public)
}
