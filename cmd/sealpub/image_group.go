package main

import "github.com/spf13/cobra"

func newImage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "build, split, inspect and verify sealed images",
		Long: `An image (a cryptex) is one file: an EROFS file system, the dm-verity hash tree
that seals it, the list of what may execute from it, and a footer.

  sealpub image build --in tree --out web.cryptex --name web --subtype app
  sealpub image inspect web.cryptex`,
	}
	cmd.AddCommand(newImageBuild(), newImageSplit(), newImageInspect(), newImageVerify())
	return cmd
}
