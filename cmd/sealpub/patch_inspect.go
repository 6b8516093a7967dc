package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

func newPatchInspect() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "inspect PATCH [OLD]",
		Short: "show what a patch says about itself, and what its bytes are spent on",
		Long: `Shows source, result, memory needed and parts of a patch, from its header. With OLD,
the file that it is for, it also shows what the patch's bytes are spent on, file by
file and section by section:

  map          where the result's bytes stem from
  differences  single bytes that differ there, and where
  literals     new content
  references   addresses, and what else follows from where things are

sealpub diff shows what changed there.

  sealpub patch inspect web-b.patch
  sealpub patch inspect web-b.patch web-base.cryptex --all`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			p, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			h, err := patch.Inspect(p.reader())
			if err != nil {
				return err
			}
			if h.Size != p.Size() {
				return fault.New(fault.Seal, "cannot read the patch: it has %d bytes, its header says %d", p.Size(), h.Size).Hint("the patch is damaged: fetch it again")
			}
			var files []patch.SpentOn
			if len(args) == 2 {
				if files, err = explain(cmd, s, args[1], p, h); err != nil {
					return err
				}
			}
			if s.JSON {
				return s.Document("sealant.patch/1", struct {
					Source     fileDigest        `json:"source"`
					Result     fileDigest        `json:"result"`
					Size       int64             `json:"size"`
					Memory     int64             `json:"memory"`
					Transforms []patch.Transform `json:"transforms"`
					Seal       *patch.Seal       `json:"seal,omitempty"`
					Fold       *patch.Fold       `json:"fold,omitempty"` // compressed members that are taken apart
					Runs       int64             `json:"runs"`
					MapSize    int64             `json:"map_size"`
					Segments   []patch.Segment   `json:"segments"`
					Files      []patch.SpentOn   `json:"files,omitempty"` // what is spent on them
				}{
					fileDigest{h.Source, h.SourceSize},
					fileDigest{h.Result, h.ResultSize},
					h.Size, h.Memory,
					h.Transforms, h.Seal, h.Fold, h.Runs, h.MapSize, h.Segments, files,
				})
			}
			s.Printf("patch     %d bytes (%s of the result)\n", h.Size, share(h.Size, h.ResultSize))
			s.Printf("source    %d bytes  sha-384 %s\n", h.SourceSize, h.Source)
			s.Printf("result    %d bytes  sha-384 %s\n", h.ResultSize, h.Result)
			if h.Seal != nil {
				s.Printf("seal      %s (%s), %d bytes of data; tree, trust cache and footer are computed\n", h.Seal.Name, h.Seal.Subtype, h.Seal.DataSize)
			}
			s.Printf("memory    %d MiB to apply\n", (h.Memory+1<<20-1)>>20)
			for _, t := range h.Transforms {
				s.Printf("needs     %s version %d\n", t.Name, t.Version)
			}
			if h.Fold != nil {
				s.Printf("members   %d compressed ones of the source and %d of the result are patched as plain text\n", len(h.Fold.From), len(h.Fold.To))
			}
			s.Printf("map       %d runs in %d bytes\n", h.Runs, h.MapSize)
			for i, g := range h.Segments {
				s.Printf("segment %d %d bytes in %d\n", i+1, g.Size, g.Coded)
			}
			printSpent(s, files, all)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show all files and sections, not only the most expensive")
	return cmd
}

// explain applies a patch to a file that nobody keeps.
func explain(cmd *cobra.Command, s *cli.Screen, name string, p *source, h *patch.Header) ([]patch.SpentOn, error) {
	old, err := openSource(name)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	f, err := os.CreateTemp("", "sealpub-*")
	if err != nil {
		return nil, fmt.Errorf("cannot apply the patch: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("cannot apply the patch: %w", err)
	}
	bar := s.Progress("inspect", 0)
	defer bar.End()
	return patch.Explain(f, old, p.reader(), patch.ApplyOptions{MaxMemory: h.Memory, MaxResult: h.ResultSize, Progress: bar.Set, Context: cmd.Context()})
}

// Of files and sections so many are shown unless all are asked for.
const firstSpent = 10

// printSpent prints what bytes are spent on.
func printSpent(s *cli.Screen, files []patch.SpentOn, all bool) {
	if len(files) == 0 {
		return
	}
	s.Printf("\n%8s %8s %8s %8s %8s\n", "bytes", "map", "differ", "literal", "refer")
	line := func(indent, name string, b patch.Spent) {
		s.Printf("%8d %8d %8d %8d %8d  %s%s\n", b.Bytes, b.Map, b.Differences, b.Literals, b.References, indent, name)
	}
	for i, f := range files {
		if !all && i == firstSpent {
			s.Printf("and %d more files: --all\n", len(files)-i)
			break
		}
		name := f.Path
		if name == "" {
			name = "(no file of an image)"
		}
		line("", name, f.Spent)
		for k, x := range f.Sections {
			if !all && (k == firstSpent || x.Bytes == 0) {
				break
			}
			line("  ", x.Name, x.Spent)
		}
	}
}
