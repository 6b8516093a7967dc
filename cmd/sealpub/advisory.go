package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release/advisory"
)

func newAdvisory() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "advisory",
		Short: "tell the public what was fixed",
		Long: `Makes the public pages "Security releases" from what was published: HTML for
people, CSAF 2.0 and OSV for machines, an Atom feed. Recalled improvements stay,
marked with the reason.

  sealpub advisory render --dir vendor`,
	}
	cmd.AddCommand(newAdvisoryNew(), newAdvisoryLint(), newAdvisoryRender())
	return cmd
}

func newAdvisoryNew() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "new ID",
		Short: "begin a document of words about an improvement",
		Long: `Writes DIR/advisories/ID.json with the words of the release, to be edited: impact,
description, component, credit, CVSS, and "embargo", the time until which details
are not shown. What stands there takes the place of the release's own words.

  sealpub advisory new SI-2026-0007 --dir vendor`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			name, err := v.NewAdvisory(args[0])
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.advisory-begun/1", map[string]string{"file": name})
			}
			s.Printf("%s\nEdit it, then: sealpub advisory render --dir %s\n", name, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	return cmd
}

func newAdvisoryLint() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "say what readers of the pages will miss",
		Long: `Reads all releases and words and lists what is missing: impact, credit, contact,
end of support. Broken documents are errors.

  sealpub advisory lint --dir vendor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			b, err := v.Bulletin()
			if err != nil {
				return err
			}
			remarks := b.Lint()
			if s.JSON {
				return s.Document("sealant.advisory-lint/1", struct {
					Releases int               `json:"releases"`
					Remarks  []advisory.Remark `json:"remarks"`
				}{len(b.Entries), remarks})
			}
			for _, r := range remarks {
				id := r.ID
				if id == "" {
					id = s.Dash()
				}
				s.Printf("%s %-14s %s\n", s.Warn(), id, r.Text)
			}
			s.Printf("%s, %s\n", plural(len(b.Entries), "release"), plural(len(remarks), "remark"))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	return cmd
}

func newAdvisoryRender() *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use:   "render",
		Short: "write the public pages",
		Long: `Writes the pages into DIR/security, from where the server shows them, or into
--out for any web server. The same input always gives the same files.

  sealpub advisory render --dir vendor --out site`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			if out == "" {
				out = v.SecurityPath()
			}
			b, err := v.Bulletin()
			if err != nil {
				return err
			}
			files, err := v.Render(b, out)
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.advisory-rendered/1", struct {
					Dir      string   `json:"dir"`
					Releases int      `json:"releases"`
					Files    []string `json:"files"`
				}{out, len(b.Entries), files})
			}
			s.Printf("%s %s: %s, %s\n", s.Good(), out, plural(len(b.Entries), "release"), plural(len(files), "file"))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	cmd.Flags().StringVar(&out, "out", "", "where to write the pages (default DIR/security)")
	return cmd
}
