package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	goerofs "github.com/erofs/go-erofs"
	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/patch/compare"
	"github.com/sealant-os/sealant/internal/cli"
)

func newDiff() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "show what really changed between two images, folders or files",
		Long: `Lists the files that were added, removed or changed. Of programs and libraries it
names the functions whose code does something else; those that only moved are
counted as the same. Compressed files and archives (gzip, zip, jar, xpi) are
compared by what they hold, texts by their lines.

  sealpub diff web-base.cryptex web-b.cryptex`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			old, err := openTree(args[0])
			if err != nil {
				return err
			}
			defer old.close()
			data, err := openTree(args[1])
			if err != nil {
				return err
			}
			defer data.close()
			var files []compare.File
			if old.fs == nil || data.fs == nil {
				files, err = diffFiles(args[0], args[1])
			} else {
				files, err = compare.Trees(old.fs, data.fs, func(string) {})
			}
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.diff/1", struct {
					Files []compare.File `json:"files"`
				}{append([]compare.File{}, files...)})
			}
			printDiff(s, files, all)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "name all functions, symbols and strings, not only the first")
	return cmd
}

// tree is what an argument of diff holds; fs is nil for a plain file.
type tree struct {
	fs   fs.FS
	file *source
}

func (t *tree) close() {
	if t.file != nil {
		t.file.Close()
	}
}

// openTree opens a folder, a cryptex, an EROFS image or a plain file.
func openTree(name string) (*tree, error) {
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		return &tree{fs: os.DirFS(name)}, nil
	}
	f, err := openSource(name)
	if err != nil {
		return nil, err
	}
	t := &tree{file: f}
	if image.IsCryptex(f, f.Size()) {
		c, err := image.Open(f, f.Size())
		if err != nil {
			t.close()
			return nil, err
		}
		if t.fs, err = c.FS(); err != nil {
			t.close()
			return nil, err
		}
	} else if i, err := erofs.Open(f, f.Size()); err == nil {
		t.fs = i.FS()
	} else if other, err := goerofs.Open(f); err == nil {
		t.fs = other // an EROFS image that others made
	}
	return t, nil
}

// diffFiles compares two plain files.
func diffFiles(old, data string) ([]compare.File, error) {
	read := func(name string) ([]byte, error) {
		f, err := openSource(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(f.reader())
	}
	a, err := read(old)
	if err != nil {
		return nil, err
	}
	b, err := read(data)
	if err != nil {
		return nil, err
	}
	if string(a) == string(b) {
		return nil, nil
	}
	f, err := compare.Data(a, b)
	f.Path = data
	return []compare.File{f}, err
}

// printDiff prints changes for people.
func printDiff(s *cli.Screen, files []compare.File, all bool) {
	count := map[compare.Change]int{}
	for _, f := range files {
		count[f.Change]++
	}
	s.Printf("%d changed, %d added, %d removed, %d renamed, %d mode or link only\n",
		count[compare.Changed], count[compare.Added], count[compare.Removed], count[compare.Renamed], count[compare.Mode])
	printFiles(s, files, "", all)
}

var marks = map[compare.Change]string{compare.Changed: "~", compare.Added: "+", compare.Removed: "-", compare.Renamed: "=", compare.Mode: "m"}

// printFiles prints changed files, and what changed in them, behind an indent.
func printFiles(s *cli.Screen, files []compare.File, indent string, all bool) {
	for _, f := range files {
		s.Printf("%s%s ", indent, marks[f.Change])
		if f.OldPath != "" {
			s.Printf("%s %s ", f.OldPath, s.Arrow())
		}
		s.Printf("%s", f.Path)
		switch {
		case f.Change == compare.Added:
			s.Printf("  %d bytes", f.NewSize)
		case f.Change == compare.Removed:
			s.Printf("  %d bytes", f.OldSize)
		case f.OldSize != f.NewSize:
			s.Printf("  %d %s %d bytes", f.OldSize, s.Arrow(), f.NewSize)
		}
		if f.OldMode != "" && f.NewMode != "" {
			s.Printf("  %s %s %s", f.OldMode, s.Arrow(), f.NewMode)
		}
		s.Printf("\n")
		line := func(format string, args ...any) { s.Printf(indent+"    "+format+"\n", args...) }
		if f.Repacked {
			line("holds the same, packed in another way")
		}
		if f.OldBuild != f.NewBuild {
			line("build-id  %.16s %s %.16s", f.OldBuild, s.Arrow(), f.NewBuild)
		}
		if len(f.Sections) > 0 {
			var names []string
			for _, x := range f.Sections {
				name := x.Name
				if x.OldSize != x.NewSize {
					name = fmt.Sprintf("%s %+d", name, x.NewSize-x.OldSize)
				}
				names = append(names, name)
			}
			line("sections  %s", strings.Join(names, ", "))
		}
		if n := f.FunctionsSame + len(f.FunctionsChanged); n > 0 {
			line("functions %d of %d differ%s", len(f.FunctionsChanged), n, names(f.FunctionsChanged, all))
		}
		for _, l := range []struct {
			label string
			list  []string
		}{{"exports +", f.SymbolsAdded}, {"exports -", f.SymbolsRemoved}, {"strings +", f.StringsAdded}, {"strings -", f.StringsRemoved}, {"lines   +", f.LinesAdded}, {"lines   -", f.LinesRemoved}} {
			if len(l.list) > 0 {
				line("%s %d%s", l.label, len(l.list), names(l.list, all))
			}
		}
		printFiles(s, f.Members, indent+"    ", all)
	}
}

// firstNames is how many names are shown unless all are asked for.
const firstNames = 8

func names(list []string, all bool) string {
	if len(list) == 0 {
		return ""
	}
	more := ""
	if !all && len(list) > firstNames {
		list, more = list[:firstNames], ", …"
	}
	shown := make([]string, len(list))
	for i, n := range list {
		shown[i] = n
		if q := fmt.Sprintf("%q", n); q != `"`+n+`"` || len(n) > 60 && !all {
			shown[i] = fmt.Sprintf("%.60q", n)
		}
	}
	return ": " + strings.Join(shown, ", ") + more
}
