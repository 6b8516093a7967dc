package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newCheck() *cobra.Command {
	var o device.CheckOptions
	var why bool
	cmd := &cobra.Command{
		Use:   "check [--why]",
		Short: "ask for news",
		Long: `Check asks the vendor's catalog for news. It takes back what the vendor recalled,
and says whether an improvement is available. It installs nothing.

With --why it lists every gate that decides about the newest improvement, open or
closed, and for the first closed one what can be done.

Exit codes: 0 nothing to do, 10 an improvement is available, 12 one is staged and
waits for a restart, 20 to 22 the first closed gate, 41 one was taken back.`,
		Example: "  sealant check --why",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ask[device.Checked](cmd, "check", o)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				if err := s.Document("sealant.check/1", c); err != nil {
					return err
				}
			} else {
				printCheck(s, c, why)
			}
			if kind := c.Answer(); kind != 0 {
				return cli.Exit(kind)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&why, "why", false, "list every gate that decides")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "ask, but take nothing back that was recalled")
	return cmd
}

func printCheck(s *cli.Screen, c device.Checked, why bool) {
	printf(s, "%s catalog v%d, %s signatures, expires %s\n", s.Good(), c.Catalog, c.Signed, c.Expires.UTC().Format("2006-01-02"))
	if c.Recall != nil {
		printf(s, "%s %s\n", s.Warn(), c.Recall.Message)
	}
	switch c.State {
	case device.StateNone:
		printf(s, "Nothing is offered for this system: it has the newest.\n")
		return
	case device.StateActive:
		printf(s, "%s (%s) is installed and active. Nothing newer.\n", c.Name, c.Release)
	case device.StateStaged:
		printf(s, "%s (%s) is staged: restart to finish.\n", c.Name, c.Release)
	case device.StateAvailable:
		printf(s, "%s %s · %s\n", c.Name, c.Release, summary(c))
		printf(s, "Available: sealant install\n")
	default:
		printf(s, "%s %s · %s\n", c.Name, c.Release, summary(c))
	}
	closed := false
	for _, g := range c.Gates {
		if g.Open {
			if why {
				printf(s, "%s %-11s %s\n", s.Good(), g.Gate, g.Text)
			}
			continue
		}
		if c.State != device.StateClosed && !why {
			continue
		}
		if !why && closed {
			continue
		}
		printf(s, "%s %-11s %s (%s)\n", s.Bad(), g.Gate, g.Text, g.Code)
		if !closed && g.Remedy != "" {
			printf(s, "  %-11s %s\n", "", g.Remedy)
		}
		closed = true
	}
}

// summary is "2 CVEs, 1 exploited · 4.1 MB".
func summary(c device.Checked) string {
	parts := []string{sprintf("%d CVEs", c.CVEs)}
	if c.CVEs == 1 {
		parts[0] = "1 CVE"
	}
	if c.Exploited {
		parts[0] += ", exploited"
	}
	if c.Title != "" {
		parts = append(parts, c.Title)
	}
	return strings.Join(append(parts, cli.Bytes(c.Download)+" to download"), " · ")
}
