package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/rollout"
)

// newListSign makes the command by which the next person signs a list: need is
// the role.
func newListSign(need string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "add your signature to a list that waits; publish it when that is enough", Args: cobra.ExactArgs(1),
		Long: `Sign shows the list that somebody prepared, and adds a signature after you typed its
name. If enough people have signed, it is published and shown to devices; if not,
the file waits for the next one. A file that was signed elsewhere, with sealpub
sign, is published if it needs no more.`,
		Example: fmt.Sprintf("  sealsrv %s sign %s-v3.json --key %s-2.key", map[string]string{needRecall: "recall", needAdvice: "recommend"}[need], need, need),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := readCeremony(args[0])
			if err != nil {
				return err
			}
			if role := c.Steps()[0].Role; role != need || c.List() == nil {
				return fault.New(fault.Usage, "%s is a change of %s, not a list of %s", args[0], role, need).Hint("sealpub sign %s", args[0])
			}
			screen := cli.For(cmd)
			if !yes {
				describeList(screen, c)
			}
			if err := screen.Confirm(c.Name, yes); err != nil {
				return err
			}
			keys := need
			if c.Enough() {
				keys = needNone
			}
			return atDesk(cmd, keys, func(ctx context.Context, d *rollout.Desk) error {
				if !c.Enough() {
					by, err := c.Sign(append(append([]crypto.Signer{}, d.Recallers...), d.Advisers...)...)
					if err != nil {
						return err
					}
					if len(by) == 0 {
						return fault.New(fault.Refused, "cannot sign %s: the key is none of those that count for it", c.Name)
					}
				}
				if !c.Enough() {
					return keepForOthers(cmd, c, args[0])
				}
				if err := d.Perform(ctx, c); err != nil {
					return err
				}
				if screen.JSON {
					return screen.Document("sealant.list-signed/1", listDocument(c, ""))
				}
				screen.Notef("%s %s is signed by %d and shown to devices\n", screen.Good(), c.Name, c.Steps()[0].Signed.Valid)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask to type the name")
	signingFlags(cmd)
	return cmd
}

// listDocument says how far a list came; file is where it waits, "" if it is
// published.
func listDocument(c *signed.Ceremony, file string) map[string]any {
	s := c.Steps()[0]
	return map[string]any{
		"name": c.Name, "role": s.Role, "file": file, "signed": s.Signed.Valid, "needed": s.Signed.Threshold, "published": file == "",
	}
}

// describeList shows on stderr what is to be signed.
func describeList(screen *cli.Screen, c *signed.Ceremony) {
	s := c.Steps()[0]
	screen.Notef("%s: %d of %d signatures\n", c.Name, s.Signed.Valid, s.Signed.Threshold)
	if l, err := release.ParseRecallList(c.List()); err == nil {
		for _, e := range l.Entries {
			to := e.To
			if to == "" {
				to = "the baseline"
			}
			screen.Notef("  recalled: %s %s %s, %s: %s\n", e.Release, screen.Arrow(), to, e.Date.UTC().Format(time.DateOnly), e.Reason)
		}
		for _, e := range l.Leaves {
			screen.Notef("  revoked leaf: %.8s, %s: %s\n", e.ID, e.Date.UTC().Format(time.DateOnly), e.Reason)
		}
	}
	if l, err := release.ParseAdviceList(c.List()); err == nil {
		for _, e := range l.Entries {
			screen.Notef("  %s may harm %s\n", e.Release, e.App)
		}
	}
}

// keepForOthers writes a list that needs more signatures: to file, or to where
// --out says.
func keepForOthers(cmd *cobra.Command, c *signed.Ceremony, file string) error {
	if out, err := cmd.Flags().GetString("out"); err == nil && out != "" {
		file = out
	}
	if file == "" {
		file = c.Name + ".json"
	}
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if err := replaceFile(file, data); err != nil {
		return fmt.Errorf("cannot keep %s: %w", c.Name, err)
	}
	screen := cli.For(cmd)
	if screen.JSON {
		return screen.Document("sealant.list-signed/1", listDocument(c, file))
	}
	s := c.Steps()[0]
	words := map[string]string{needRecall: "recall", needAdvice: "recommend"}
	if s.Role == needRecall {
		screen.Notef("%s signing of what is recalled has stopped in every server\n", screen.Good())
	}
	screen.Notef("%s %s is signed by %d of %d and waits in %s\nNext: sealsrv %s sign %s --key KEYFILE\n", screen.Empty(), c.Name,
		s.Signed.Valid, s.Signed.Threshold, file, words[s.Role], file)
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func readCeremony(file string) (*signed.Ceremony, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the list: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, signed.MaxCeremony+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the list: %w", err)
	}
	return signed.ParseCeremony(data)
}
