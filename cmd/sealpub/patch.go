package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

func newPatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "patch",
		Short: "make, apply and inspect patches",
		Long: `A patch turns one exact file into one other exact file. It knows both by their
SHA-384 digests. Sealed images are what it is made for, but any two files do.`,
	}
	cmd.AddCommand(newPatchMake(), newPatchApply(), newPatchInspect())
	return cmd
}

// patchMade is the document of patch make.
type patchMade struct {
	Patch  string       `json:"patch"`
	Source fileDigest   `json:"source"`
	Result fileDigest   `json:"result"`
	Digest image.Digest `json:"digest"` // of the patch
	Memory int64        `json:"memory"` // bytes that applying takes
	Stats  patch.Stats  `json:"stats"`

	Antipatch *patchMade `json:"antipatch,omitempty"`
}

// describePatch tells of a patch that was made.
func describePatch(name string, stats patch.Stats) (patchMade, error) {
	p, err := openSource(name)
	if err != nil {
		return patchMade{}, err
	}
	defer p.Close()
	h, err := patch.Inspect(p.reader())
	if err != nil {
		return patchMade{}, err
	}
	sum, err := patch.Digest(p)
	return patchMade{
		Patch: name, Source: fileDigest{h.Source, h.SourceSize}, Result: fileDigest{h.Result, h.ResultSize},
		Digest: sum, Memory: h.Memory, Stats: stats,
	}, err
}

// fileDigest names a file by what it holds.
type fileDigest struct {
	Digest image.Digest `json:"digest"`
	Size   int64        `json:"size"`
}

func newPatchMake() *cobra.Command {
	var out, antipatch, memory string
	var force bool
	cmd := &cobra.Command{
		Use:   "make OLD NEW PATCH",
		Short: "make the patch from OLD to NEW",
		Long: `Makes the patch that turns OLD into NEW. The same files always give the same patch.
--antipatch makes the one for the way back in the same run. A file that is there
already stays, unless --force or -o replaces it.

All processors are used, and about six times the memory of both files; --memory
bounds it. Files above 2 GB, and whatever does not fit into the bound, are looked
through for long matches only.

  sealpub patch make web-base.cryptex web-b.cryptex web-b.patch
  sealpub patch make --antipatch web-b.back web-base.cryptex web-b.cryptex web-b.patch
  sealpub patch make libssl.so.old libssl.so.new libssl.patch`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			if err := output(&out, args, force); err != nil {
				return err
			}
			if antipatch != "" {
				if antipatch == out {
					return fault.New(fault.Usage, "cannot write both patches to %s", out)
				}
				if err := absent(antipatch, force); err != nil {
					return err
				}
			}
			old, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer old.Close()
			data, err := openSource(args[1])
			if err != nil {
				return err
			}
			defer data.Close()
			o := patch.MakeOptions{Context: cmd.Context()}
			if memory != "" {
				if o.Memory, err = cli.ParseSize(memory); err != nil {
					return err
				}
				debug.SetMemoryLimit(max(o.Memory-outside, 8<<20))
			}
			bar := s.Progress("patch", 0)
			o.Progress = bar.Set
			var stats, back patch.Stats
			err = writeAtomically(out, func(f *os.File) (err error) {
				if antipatch == "" {
					stats, err = patch.Make(f, old, data, o)
					return err
				}
				return writeAtomically(antipatch, func(g *os.File) (err error) {
					stats, back, err = patch.MakeBoth(f, g, old, data, o)
					return err
				})
			})
			bar.End()
			if err != nil {
				return err
			}
			made, err := describePatch(out, stats)
			if err != nil {
				return err
			}
			if antipatch != "" {
				anti, err := describePatch(antipatch, back)
				if err != nil {
					return err
				}
				made.Antipatch = &anti
			}
			if s.JSON {
				return s.Document("sealant.patch-made/1", made)
			}
			for m := &made; m != nil; m = m.Antipatch {
				s.Printf("%s  %d bytes for a result of %d (%s)\n", m.Patch, m.Stats.Size, m.Result.Size, share(m.Stats.Size, m.Result.Size))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&antipatch, "antipatch", "", "make the patch from NEW to OLD too, and write it here")
	cmd.Flags().StringVar(&memory, "memory", "", "take no more memory than this, such as 800M or 2G; where that is short the patch is larger")
	cmd.Flags().StringVarP(&out, "output", "o", "", "the patch to write, in place of a third argument; replaces what is there")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there already")
	return cmd
}

func share(part, whole int64) string {
	if whole == 0 {
		return "empty"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(part)/float64(whole))
}

func newPatchApply() *cobra.Command {
	var out string
	var force bool
	var memory int64
	cmd := &cobra.Command{
		Use:   "apply OLD PATCH NEW",
		Short: "apply PATCH to OLD",
		Long: `Verifies OLD, applies PATCH to it and verifies the result. NEW appears only when
all of it is right; otherwise nothing is left behind, and a file that is there
already stays, unless --force or -o replaces it. The process keeps to the memory that
the patch declares (patch inspect shows it). Cancelled or interrupted, it is
simply started again.

Ends with 0 when NEW is written; 32 when OLD, PATCH or the result is not what
the digests say; 1 when the patch asks for more than it may; 2 for a wrong
command line.

  sealpub patch apply web-base.cryptex web-b.patch web-b.cryptex
  sealpub patch apply --force --memory 64 libssl.so.old libssl.patch libssl.so.new`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			if err := output(&out, args, force); err != nil {
				return err
			}
			if memory <= 0 {
				return fault.New(fault.Usage, "cannot apply with %d MiB of memory", memory)
			}
			old, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer old.Close()
			p, err := openSource(args[1])
			if err != nil {
				return err
			}
			defer p.Close()
			h, err := patch.Inspect(p.reader())
			if err != nil {
				return err
			}
			keepTo(min(h.Memory, memory<<20))
			bar := s.Progress("apply", 0)
			var result patch.Result
			err = writeAtomically(out, func(f *os.File) (err error) {
				result, err = patch.Apply(f, old, p.reader(), patch.ApplyOptions{
					MaxMemory: memory << 20, Progress: bar.Set, Context: cmd.Context(),
					Share: func(to, from, n int64) error { return linux.ShareRange(f, to, old.File, from, n) },
				})
				return err
			})
			bar.End()
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.patch-applied/1", struct {
					Result string `json:"result"`
					fileDigest
				}{out, fileDigest{result.Digest, result.Size}})
			}
			s.Printf("%s  %d bytes  sha-384 %s\n", out, result.Size, result.Digest)
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the result to write, in place of a third argument; replaces what is there")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there already")
	cmd.Flags().Int64Var(&memory, "memory", patch.DefaultMaxMemory>>20, "refuse a patch that needs more memory than this, in MiB")
	return cmd
}

// outside is what a process takes that the Go runtime does not count: the
// program's own pages.
const outside = 12 << 20

// keepTo has the collector of garbage keep the process within so many bytes. A
// program that ends soon has no other use for it.
func keepTo(memory int64) {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(max(memory-outside, 8<<20))
}

// output finds the file to write: the third argument, or what -o says. Standard
// input and output are no files: a patch needs to look here and there in what it
// reads, and what it wrote must be verified before anybody gets it.
func output(out *string, args []string, force bool) error {
	if len(args) == 3 {
		if *out != "" {
			return fault.New(fault.Usage, "cannot write both %s and %s", args[2], *out)
		}
		*out = args[2]
	} else {
		force = true // whoever says -o, in a script, means it
	}
	if *out == "" {
		return fault.New(fault.Usage, "cannot tell which file to write").Hint("name it after the two files to read")
	}
	for _, name := range append(args[:2:2], *out) {
		if name == "-" {
			return fault.New(fault.Usage, "cannot work on standard input or output").Hint("name a file; ./- is one that is called -")
		}
	}
	return absent(*out, force)
}

// absent refuses to write what is there already, unless it may be replaced.
func absent(name string, force bool) error {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return nil
	case !st.Mode().IsRegular():
		return fault.New(fault.Usage, "cannot write %s: it is there and is no regular file", name)
	case !force:
		return fault.New(fault.Usage, "cannot write %s: it is there already", name).Hint("--force replaces it")
	}
	return nil
}

// source is an open regular file of known size.
type source struct {
	*os.File
	size int64
}

func (s *source) Size() int64 { return s.size }

func (s *source) reader() io.Reader { return io.NewSectionReader(s.File, 0, s.size) }

// openSource opens a file for reading.
func openSource(name string) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	return &source{f, st.Size()}, nil
}

// writeAtomically has fill write a temporary file beside name, and gives it that
// name only when all is written and on disk. Nothing is left behind otherwise.
func writeAtomically(name string, fill func(*os.File) error) (err error) {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return fault.New(fault.Usage, "cannot write %s: it is there and is no regular file", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}
