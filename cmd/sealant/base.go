package main

import (
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/cli"
)

func newBase() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "base",
		Short: "the baseline that the operating system brought",
		Long: `The baseline is what an OS update brings in /usr/lib/sealant: base.json, which
names its images, and the images in base/. Improvements start from it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBaseInstall())
	return cmd
}

func newBaseInstall() *cobra.Command {
	var o device.BaseOptions
	cmd := &cobra.Command{
		Use:   "install BASE.JSON [IMAGE…]",
		Short: "put a baseline that was brought by hand in the place of the installed one",
		Long: `Installs a baseline where no OS updater does: verifies every byte of the images
against the description, and the description against the vendor's signed catalog;
then puts them in the place of the installed baseline, all at once. An image that
is not named is taken from the installed baseline. A crash leaves the old baseline
or the new one. It needs room for both.

What runs is not touched. At the next start the new images are attached, and what
was made for the old baseline is inert before anything is started; then its space
is reclaimed. With --into the baseline goes into another system, such as the
inactive half of an A/B device; this device's catalog vouches for it.

The rest of the operating system stays as it is: the links into the cryptexes must
fit the new images.`,
		Example: `  sealant base install base.json os.cryptex web.cryptex
  sealant base install --into /mnt/b base.json *.cryptex`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Document, o.Images = args[0], args[1:]
			d, err := device.Open(rootOf(cmd))
			if err != nil {
				return err
			}
			w := &watch{screen: cli.For(cmd)}
			r, err := d.InstallBase(cmd.Context(), o, w.event)
			w.end()
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.base-installed/1", r)
			}
			version := device.VersionText(r.OSVersion)
			switch {
			case o.DryRun:
				printf(s, "Would install %s %s: %d cryptexes, %s.\n", r.Product, version, r.Cryptexes, cli.Bytes(r.Bytes))
			case !r.Changed:
				printf(s, "%s %s %s is installed and whole.\n", s.Good(), r.Product, version)
			case r.Restart:
				printf(s, "%s %s %s is installed. Nothing running was changed.\nRestart to use it; improvements for what was before are inert from then on.\n", s.Good(), r.Product, version)
			default:
				printf(s, "%s %s %s is installed in %s.\n", s.Good(), r.Product, version, r.Into)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Into, "into", "", "root of the system that gets it (default: this device's own)")
	cmd.Flags().BoolVar(&o.Unlisted, "unlisted", false, "take it though the vendor's catalog does not list it")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "verify everything, and change nothing")
	return cmd
}
