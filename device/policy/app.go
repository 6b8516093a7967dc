package policy

import (
	"fmt"
	"path/filepath"
	"strings"
)

// App says which cryptexes an app uses and how it is brought into new content.
// apps.d/browser.toml describes the app with the id "browser":
//
//	name      = "Browser"               # for people; default: the id
//	cryptexes = ["web"]
//	command   = ["/usr/bin/browser"]    # what `sealant run browser` starts
//	unit      = "browser.service"       # or: the systemd service to restart
//	match     = ["/usr/lib/browser/"]   # further executables of the app; a
//	                                    # last / means everything below
//	version   = ["/usr/bin/browser", "--version"]   # optional: prints its version
type App struct {
	ID        string   `toml:"-"`
	Name      string   `toml:"name"`
	Cryptexes []string `toml:"cryptexes"`
	Command   []string `toml:"command"`
	Unit      string   `toml:"unit"`
	Match     []string `toml:"match"`
	Version   []string `toml:"version"`
}

// Uses says whether the app uses a cryptex.
func (a App) Uses(cryptex string) bool {
	for _, c := range a.Cryptexes {
		if c == cryptex {
			return true
		}
	}
	return false
}

// Owns says whether an executable belongs to the app.
func (a App) Owns(executable string) bool {
	if len(a.Command) > 0 && a.Command[0] == executable {
		return true
	}
	for _, m := range a.Match {
		if m == executable || strings.HasSuffix(m, "/") && strings.HasPrefix(executable, m) {
			return true
		}
	}
	return false
}

func loadApps(dir string) ([]App, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	var apps []App
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		app := App{ID: strings.TrimSuffix(filepath.Base(name), ".toml")}
		if err := decode(name, data, &app); err != nil {
			return nil, err
		}
		if err := app.check(); err != nil {
			return nil, problem(name, 0, "%w", err)
		}
		if app.Name == "" {
			app.Name = app.ID
		}
		apps = append(apps, app)
	}
	return apps, nil
}

func (a App) check() error {
	for _, c := range a.ID {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c) {
			return fmt.Errorf("%q can't name an app", a.ID)
		}
	}
	if len(a.Cryptexes) == 0 {
		return fmt.Errorf("cryptexes: missing")
	}
	if len(a.Command) == 0 && a.Unit == "" {
		return fmt.Errorf("command or unit: missing")
	}
	if len(a.Command) > 0 && a.Unit != "" {
		return fmt.Errorf("command and unit: only one of them")
	}
	if len(a.Command) > 0 && !filepath.IsAbs(a.Command[0]) {
		return fmt.Errorf("command: %q is not an absolute path", a.Command[0])
	}
	for _, m := range a.Match {
		if !filepath.IsAbs(m) {
			return fmt.Errorf("match: %q is not an absolute path", m)
		}
	}
	return nil
}
