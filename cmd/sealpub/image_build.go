package main

import (
	"encoding/hex"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

// imageSummary is the part of a document that says what an image is.
type imageSummary struct {
	File        string       `json:"file"`
	Name        string       `json:"name"`
	Subtype     string       `json:"subtype"`
	Size        int64        `json:"size"`
	Digest      image.Digest `json:"digest"`
	Seal        sealSummary  `json:"seal"`
	TrustCache  image.Digest `json:"trust_cache"`
	Files       int          `json:"files"`
	Executables int          `json:"executables"`
}

// sealSummary is what dm-verity needs to know.
type sealSummary struct {
	Root       string       `json:"root"`
	Salt       string       `json:"salt"`
	DataBlocks uint64       `json:"data_blocks"`
	Digest     image.Digest `json:"digest"`
}

func summarize(file string, s image.Summary) imageSummary {
	return imageSummary{
		File: file, Name: s.Name, Subtype: s.Subtype.String(), Size: s.Size, Digest: s.Digest,
		Seal: sealSummary{
			Root: s.Seal.String(), Salt: hex.EncodeToString(s.Seal.Salt[:]),
			DataBlocks: s.Seal.DataBlocks, Digest: s.Seal.Digest(),
		},
		TrustCache: s.TrustCache, Files: s.Files, Executables: s.Executables,
	}
}

// printSummary shows an image to a person: what it is, then its identities.
func printSummary(s *cli.Screen, sum imageSummary) {
	s.Printf("%s  %s (%s)  %s  %d files, %d of them may execute\n", sum.File, sum.Name, sum.Subtype, cli.Bytes(sum.Size), sum.Files, sum.Executables)
	s.Printf("  seal    %s\n", sum.Seal.Root)
	s.Printf("  digest  %s\n", sum.Digest)
}

func newImageBuild() *cobra.Command {
	var in, out, name, subtype, salt string
	cmd := &cobra.Command{
		Use:   "build --in DIR --out FILE --name NAME --subtype os|app",
		Short: "make a sealed image of a tree of files",
		Long: `Makes FILE a sealed image of the tree below DIR. FILE appears only when it is whole.

It keeps modes, owners, symbolic and hard links, extended attributes with
capabilities and access control lists, and the times of files in whole seconds.
It refuses devices, sockets and named pipes. Two builds of one tree give the
same bytes. Where SOURCE_DATE_EPOCH is set, no file is newer than it says, so
that trees made at different times give the same bytes too.

  sealpub image build --in tree --out web.cryptex --name web --subtype app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			o, err := imageOptions(name, subtype, salt)
			if err != nil {
				return err
			}
			latest, err := sourceDate()
			if err != nil {
				return err
			}
			root, err := image.Scan(in)
			if err != nil {
				return err
			}
			if latest > 0 {
				root.ClampTimes(latest)
			}
			bar := s.Progress("build "+name, 0)
			o.Progress = bar.Set
			var sum image.Summary
			err = writeAtomically(out, func(f *os.File) (err error) {
				sum, err = image.BuildTree(cmd.Context(), f, root, o)
				return err
			})
			bar.End()
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.image-built/1", summarize(out, sum))
			}
			printSummary(s, summarize(out, sum))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&in, "in", "", "the tree of files")
	f.StringVar(&out, "out", "", "the image to write")
	f.StringVar(&name, "name", "", "the cryptex's name: a-z, 0-9 and -")
	f.StringVar(&subtype, "subtype", "", "os or app")
	f.StringVar(&salt, "salt", "", "salt of the seal, 64 hex digits (default: derived from the name)")
	for _, flag := range []string{"in", "out", "name", "subtype"} {
		_ = cmd.MarkFlagRequired(flag)
	}
	return cmd
}

// imageOptions reads the flags that say what an image is.
func imageOptions(name, subtype, salt string) (image.Options, error) {
	o := image.Options{Name: name}
	err := image.CheckName(name)
	if err == nil {
		o.Subtype, err = image.ParseSubtype(subtype)
	}
	if err != nil {
		return o, err
	}
	if salt != "" {
		b, err := hex.DecodeString(salt)
		if err != nil || len(b) != len(o.Salt) {
			return o, fault.New(fault.Usage, "cannot use the salt %.80q: it is not %d hex digits", salt, 2*len(o.Salt))
		}
		copy(o.Salt[:], b)
	}
	return o, nil
}
