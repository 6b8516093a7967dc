package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/ticket"
)

// devLeaf is the life of a development server's signing leaf, which it renews
// by itself.
const devLeaf = 24 * time.Hour

func newDev() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "dev", Short: "serve one machine with throwaway keys", Args: cobra.NoArgs,
		Long: `Dev serves a folder that holds everything, keys included: for a laptop, a lab, a
test. If the folder was made by sealpub init it serves that vendor; an empty or
missing folder becomes a vendor with throwaway keys. The server's own things
(database, signing leaf) lie below server/ in it.

When it answers it prints its address. Devices take that as their server.`,
		Example: `  sealsrv dev --dir vendor
  sealsrv enroll token new --dir vendor`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cmd.Flags().GetString("dir")
			if err != nil {
				return err
			}
			if dir == "" {
				dir = "vendor"
				if err := cmd.Flags().Set("dir", dir); err != nil {
					return err
				}
			}
			screen := cli.For(cmd)
			if err := makeVendor(cmd.Context(), screen, dir); err != nil {
				return err
			}
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if listen != "" {
				c.Listen = listen
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if err := renewDevLeaf(cmd, c, dir); err != nil {
				return err
			}
			go keepDevLeaf(ctx, cmd, c, dir)
			return run(cmd, c, func(url string) error {
				if err := os.WriteFile(filepath.Join(dir, devServer, "url"), []byte(url+"\n"), 0o644); err != nil {
					return err
				}
				return announce(screen, url)
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (default 127.0.0.1:8470); port 0 picks a free one")
	return cmd
}

// makeVendor makes a vendor folder where there is none. The publisher's tool
// does it, since its keys are none of the server's business.
func makeVendor(ctx context.Context, screen *cli.Screen, dir string) error {
	_, err := os.Stat(filepath.Join(dir, "vendor.json"))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tool, err := findSealpub()
	if err != nil {
		return fault.New(fault.Usage, "%s is no vendor folder, and there is no sealpub to make one", dir).
			Hint("sealpub init %s --throwaway --product NAME --os-version VERSION", dir)
	}
	cmd := exec.CommandContext(ctx, tool, "init", dir, "--throwaway", "--product", "ExampleOS", "--os-version", "1.0", "--quiet")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a vendor in %s: %w: %s", dir, err, bytes.TrimSpace(out))
	}
	screen.Notef("%s made the vendor ExampleOS 1.0 in %s, with throwaway keys\n", screen.Good(), dir)
	return nil
}

// findSealpub finds the publisher's tool beside this program, or in PATH.
func findSealpub() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "sealpub")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	return exec.LookPath("sealpub")
}

// renewDevLeaf issues a signing leaf if the present one has less than half its
// life left.
func renewDevLeaf(cmd *cobra.Command, c *config, dir string) error {
	root, err := openTicketRoot(c)
	if err != nil {
		return err
	}
	if leaf, err := presentLeaf(c.Tickets.Leaf, root); err == nil && time.Until(leaf.NotAfter) > devLeaf/2 {
		return nil
	}
	key, err := openKey(cmd, filepath.Join(dir, "keys", "ticket-root.key"))
	if err != nil {
		return fmt.Errorf("cannot issue a signing leaf: %w", err)
	}
	fresh, err := newLeafKey("")
	if err != nil {
		return err
	}
	return issueLeaf(c.Tickets.Leaf, root, key, fresh, ticket.Limits{}, devLeaf)
}

func keepDevLeaf(ctx context.Context, cmd *cobra.Command, c *config, dir string) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := renewDevLeaf(cmd, c, dir); err != nil {
				cli.For(cmd).Notef("! %v\n", err)
			}
		}
	}
}
