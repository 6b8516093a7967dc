package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
)

func newServe() *cobra.Command {
	var listen, database string
	cmd := &cobra.Command{
		Use: "serve", Short: "serve devices", Args: cobra.NoArgs,
		Long: `Serve answers devices and mirrors until it is told to stop. It renews the
catalog's short-lived signatures if it has the online keys, takes up a new
signing leaf and a new TLS certificate when their files change, and notices at
the next request what other processes publish: a recall takes force at once.

The configuration is one TOML file; an unknown key is an error that names its
line. docs/server.md explains every key.

  listen     = "0.0.0.0:8470"
  database   = "fleet.db"            # or postgres://sealant@db/fleet
  repository = "repo"
  root       = "root.json"
  state      = "state"
  [tickets]
  root = "ticket-root.pem"
  leaf = "leaf.pem"
  [keys]
  online = ["keys/rollout.key", "keys/snapshot.key", "keys/timestamp.key"]
  [log]
  name = "ExampleOS"                 # as in log-key.txt, which devices pin
  key  = "keys/log.key"`,
		Example: "  sealsrv serve --config /etc/sealant/sealsrv.toml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if listen != "" {
				c.Listen = listen
			}
			if database != "" {
				c.Database = database
			}
			screen := cli.For(cmd)
			return run(cmd, c, func(url string) error { return announce(screen, url) })
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on, in place of the configuration's")
	cmd.Flags().StringVar(&database, "database", "", "database, in place of the configuration's: a file or postgres://…")
	return cmd
}

// announce prints the server's address when it answers.
func announce(screen *cli.Screen, url string) error {
	if screen.JSON {
		return screen.Document("sealant.listening/1", map[string]string{"url": url})
	}
	screen.Printf("%s\n", url)
	return nil
}
