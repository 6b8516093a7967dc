package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

func newShow() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "show ID [--files]",
		Short: "what an improvement fixes and changes",
		Long: `Show tells what an improvement fixes. With --files it also lists the files that it
changes, with their sizes and build-ids.`,
		Example: "  sealant show SI-2026-0007 --files",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := ask[device.Shown](cmd, "show", device.ShowOptions{Release: args[0]})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.show/1", r)
			}
			printShown(s, r, files)
			return nil
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "list the changed files")
	return cmd
}

func printShown(s *cli.Screen, r device.Shown, files bool) {
	m := r.Manifest
	printf(s, "%s %s · %s · %s · published %s · %s on this device\n", r.Name, m.ID, m.Title, m.Severity, m.Published.UTC().Format("2006-01-02"), r.State)
	if r.Recalled != "" {
		printf(s, "%s recalled: %s\n", s.Bad(), r.Recalled)
	}
	if r.Held != "" {
		printf(s, "%s held: %s\n", s.Warn(), r.Held)
	}
	if m.Text != "" {
		printf(s, "%s\n", strings.TrimSpace(m.Text))
	}
	for _, c := range m.CVEs {
		exploited := ""
		if c.Exploited {
			exploited = " (exploited)"
		}
		printf(s, "  %s%s  %s\n", c.ID, exploited, c.Text)
	}
	for _, c := range m.Cryptexes {
		printf(s, "%s  %s %s %s  patch %s, antipatch %s, image %s\n", c.Name, s.Short(c.From.Seal.Root.String()), s.Arrow(),
			s.Short(c.To.Seal.Root.String()), cli.Bytes(c.Patch.Size), cli.Bytes(c.Antipatch.Size), cli.Bytes(c.To.Size))
		if files {
			printFiles(s, c)
		}
	}
}

func printFiles(s *cli.Screen, c release.Change) {
	marks := map[string]string{release.Added: "+", release.Removed: "-", release.Content: "~", release.Mode: "m"}
	for _, f := range c.Files {
		printf(s, "  %s %s  %d %s %d bytes", marks[f.Change], f.Path, f.Before, s.Arrow(), f.After)
		if f.Build != nil {
			printf(s, "  build-id %.8s%s%.8s", f.Build.Before, s.Arrow(), f.Build.After)
		}
		printf(s, "\n")
	}
	if more := c.Changed - len(c.Files); more > 0 {
		printf(s, "  and %d more\n", more)
	}
}

func newCVE() *cobra.Command {
	return &cobra.Command{
		Use:   "cve CVE-…",
		Short: "is this device protected from a flaw?",
		Long: `Cve says whether a flaw is fixed on this device: active (and where), installed but
not active, available, or not known to the catalog.

Exit codes: 0 active everywhere, 10 an improvement that fixes it is available,
11 an app must be relaunched, 12 a restart is needed, 42 not enough information.`,
		Example: "  sealant cve CVE-2026-1101",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := ask[device.Protection](cmd, "cve", device.CVEOptions{ID: args[0]})
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			kind := fault.Undetermined
			mark := s.Dash()
			switch p.State {
			case "active":
				kind, mark = 0, s.Full()
			case "partly":
				kind, mark = fault.Relaunch, s.Half()
			case "staged":
				kind, mark = fault.Restart, s.Empty()
			case device.StateAvailable:
				kind, mark = fault.Available, s.Empty()
			}
			if s.JSON {
				if err := s.Document("sealant.cve/1", p); err != nil {
					return err
				}
			}
			printf(s, "%s %s: %s\n", mark, p.ID, p.Text)
			if kind != 0 {
				return cli.Exit(kind)
			}
			return nil
		},
	}
}
