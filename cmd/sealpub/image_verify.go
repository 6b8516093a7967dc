package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/cli"
)

func newImageVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "read every byte of an image and check it",
		Long: `Reads every byte of an image and checks that its parts agree: data and hash tree
with the seal, the trust cache with the files, the file system with itself. Any
damage ends with exit code 32. Whether the seal is the right one, only a ticket
or a catalog can say.

  sealpub image verify web.cryptex`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			f, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			c, err := image.Open(f, f.Size())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			bar := s.Progress("verify "+c.Name, c.DataSize)
			digest, err := c.VerifyDigest(cmd.Context(), bar.Set)
			bar.End()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if s.JSON {
				return s.Document("sealant.image-verified/1", struct {
					File       string       `json:"file"`
					Name       string       `json:"name"`
					Size       int64        `json:"size"`
					Digest     image.Digest `json:"digest"`
					Root       string       `json:"root"`
					TrustCache image.Digest `json:"trust_cache"`
				}{args[0], c.Name, c.Size, digest, c.Seal.String(), c.TrustCacheDigest})
			}
			s.Printf("%s %s  %s (%s)  every byte of %s agrees with its seal\n", s.Good(), args[0], c.Name, c.Subtype, cli.Bytes(c.Size))
			s.Printf("  seal    %s\n", c.Seal)
			s.Printf("  digest  %s\n", digest)
			return nil
		},
	}
}
