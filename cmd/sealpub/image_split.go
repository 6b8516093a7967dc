package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/split"
	"github.com/sealant-os/sealant/internal/cli"
)

// splitDocument is the document of image split.
type splitDocument struct {
	Root      string      `json:"root"`
	DryRun    bool        `json:"dry_run"`
	Cryptexes []splitPart `json:"cryptexes"`
}

type splitPart struct {
	Name  string        `json:"name"`
	Files int           `json:"files"`
	Bytes int64         `json:"bytes"`
	Moves []string      `json:"moves"` // paths that are now links
	Image *imageSummary `json:"image,omitempty"`
}

func newImageSplit() *cobra.Command {
	var root, out, subtype string
	var texts []string
	var dry bool
	cmd := &cobra.Command{
		Use:   "split --root TREE --cryptex NAME=PATTERN[,PATTERN…] --out DIR",
		Short: "move parts of an operating system tree into sealed images",
		Long: `Moves what can be patched out of the operating system tree TREE: writes one
baseline image DIR/NAME.cryptex for each NAME and leaves, at each path that moved,
a symbolic link to /usr/lib/cryptexes/NAME/PATH, where a device mounts the image.

--cryptex may be given several times. It names either patterns of paths, where *
does not match a slash, ** stands for any number of directories, and a pattern
that names a directory moves it whole; or Debian packages installed in TREE, whose
files below /usr and /opt move, but for documentation. Libraries that need each
other belong into one cryptex.

It is all or nothing. If it is killed, the next run undoes it first. With
--dry-run it only says what would move.

  sealpub image split --root os --cryptex web=/usr/lib/browser,/usr/bin/browser --out images
  sealpub image split --root os --cryptex tls=packages:libssl3,openssl --out images`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			o := split.Options{Out: out}
			var err error
			if o.Subtype, err = image.ParseSubtype(subtype); err != nil {
				return err
			}
			if o.Clamp, err = sourceDate(); err != nil {
				return err
			}
			var rules []split.Rule
			for _, text := range texts {
				r, err := split.ParseRule(text)
				if err != nil {
					return err
				}
				rules = append(rules, r)
			}
			if !dry {
				undone, err := split.Recover(root)
				if err != nil {
					return err
				}
				if undone {
					s.Notef("%s an interrupted split of %s was cleaned up\n", s.Warn(), root)
				}
			}
			plan, err := split.New(root, rules)
			if err != nil {
				return err
			}
			doc := splitDocument{Root: root, DryRun: dry}
			for _, part := range plan.Cryptexes {
				doc.Cryptexes = append(doc.Cryptexes, splitPart{Name: part.Name, Files: part.Files, Bytes: part.Bytes, Moves: part.Moves})
			}
			if !dry {
				bar := s.Progress("split", 0)
				o.Progress = bar.Set
				sums, err := plan.Run(cmd.Context(), o)
				bar.End()
				if err != nil {
					return err
				}
				for i, sum := range sums {
					image := summarize(filepath.Join(out, sum.Name+".cryptex"), sum)
					doc.Cryptexes[i].Image = &image
				}
			}
			if s.JSON {
				return s.Document("sealant.image-split/1", doc)
			}
			doc.print(s)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "the operating system tree")
	f.StringArrayVar(&texts, "cryptex", nil, "NAME=PATTERN[,PATTERN…] or NAME=packages:DEB[,DEB…]")
	f.StringVar(&out, "out", "", "the folder for the images")
	f.StringVar(&subtype, "subtype", "os", "os or app, of every image")
	f.BoolVar(&dry, "dry-run", false, "say what would move, change nothing")
	for _, flag := range []string{"root", "cryptex", "out"} {
		_ = cmd.MarkFlagRequired(flag)
	}
	return cmd
}

func (d splitDocument) print(s *cli.Screen) {
	for _, part := range d.Cryptexes {
		if part.Image != nil {
			s.Printf("%s %s  %d files, %s, %d links left in %s\n", s.Good(), part.Name, part.Files, cli.Bytes(part.Bytes), len(part.Moves), d.Root)
			printSummary(s, *part.Image)
			continue
		}
		s.Printf("%s  %d files, %s, %d links would be left in %s\n", part.Name, part.Files, cli.Bytes(part.Bytes), len(part.Moves), d.Root)
		for _, m := range part.Moves {
			s.Printf("  /%s\n", m)
		}
	}
}
