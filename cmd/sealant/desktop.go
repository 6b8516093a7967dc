package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/device/launch"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// entries is the document of desktop entries that were written.
type entries struct {
	App     string  `json:"app"`
	Written []entry `json:"written"`
}

type entry struct {
	Path  string `json:"path"`
	Wraps string `json:"wraps"`
}

// writeDesktopEntries has desktops start an app by sealant run.
func writeDesktopEntries(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || cmd.ArgsLenAtDash() >= 0 {
		return fault.New(fault.Usage, "cannot write desktop entries: name one app").Hint("sealant run --desktop-entries APP")
	}
	s := cli.For(cmd)
	st, err := store.Open(rootOf(cmd))
	if err != nil {
		return err
	}
	apps, err := appsOf(st)
	if err != nil {
		return err
	}
	app, err := launch.FindApp(apps, args[0])
	if err != nil {
		return err
	}
	to, from := dataDirs()
	list, err := launch.Wrap(app, from, exec.LookPath)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fault.New(fault.Failed, "cannot find a desktop entry that starts %s", app.Name).
			Hint("it must start what apps.d names as command or match, and lie in %s", strings.Join(from, ", "))
	}
	done := entries{App: app.ID, Written: []entry{}}
	for _, w := range list {
		path, err := w.Write(to)
		if err != nil {
			return err
		}
		done.Written = append(done.Written, entry{path, w.Original})
	}
	if s.JSON {
		return s.Document("sealant.desktop-entries/1", done)
	}
	for _, e := range done.Written {
		printf(s, "%s %s in front of %s\n", s.Good(), e.Path, e.Wraps)
	}
	return nil
}

// dataDirs are the data folder to write to, and those after it to read from.
func dataDirs() (to string, from []string) {
	from = filepath.SplitList(os.Getenv("XDG_DATA_DIRS"))
	if len(from) == 0 {
		from = []string{"/usr/local/share", "/usr/share"}
	}
	to = "/usr/local/share"
	if !linux.Root() {
		to = os.Getenv("XDG_DATA_HOME")
		if home, err := os.UserHomeDir(); to == "" && err == nil {
			to = filepath.Join(home, ".local/share")
		}
	}
	return to, slices.DeleteFunc(from, func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(to) })
}
