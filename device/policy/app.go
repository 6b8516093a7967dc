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
//	unit      = "browser.service"       # or: the systemd service to restart;
//	                                    # browser@.service is all its instances
//	match     = ["/usr/lib/browser/"]   # further executables of the app; a
//	                                    # last / means everything below
//	version   = ["/usr/bin/browser", "--version"]   # optional: prints its version
//	strict    = true                    # it executes only what is sealed: spec/enforcement.md
type App struct {
	ID        string   `toml:"-"`
	Name      string   `toml:"name"`
	Cryptexes []string `toml:"cryptexes"`
	Command   []string `toml:"command"`
	Unit      string   `toml:"unit"`
	Match     []string `toml:"match"`
	Version   []string `toml:"version"`
	Strict    bool     `toml:"strict"`
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

// OwnsUnit says whether a unit of systemd is the app's service, or an instance
// of its template.
func (a App) OwnsUnit(unit string) bool {
	if a.Unit == "" || a.Unit == unit {
		return a.Unit == unit && unit != ""
	}
	name, instance, ok := strings.Cut(unit, "@")
	return ok && name+"@.service" == a.Unit && instance != ".service" && strings.HasSuffix(instance, ".service")
}

// maxUnit is the longest name of a unit, in bytes, as systemd has it.
const maxUnit = 255

// CheckUnit says whether a name can be that of a service of the system: a
// service, a template ("getty@.service") or an instance.
func CheckUnit(unit string) error {
	name, isService := strings.CutSuffix(unit, ".service")
	for _, other := range []string{".socket", ".timer", ".path", ".target", ".scope", ".slice", ".mount"} {
		if strings.HasSuffix(unit, other) {
			return fmt.Errorf("%q is no service: name the service that it starts", unit)
		}
	}
	odd := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@", r)
	}
	if !isService || name == "" || name[0] == '.' || strings.ContainsFunc(name, odd) || len(unit) > maxUnit {
		return fmt.Errorf("%q is not the name of a service (x.service)", unit)
	}
	return nil
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
	if a.Unit != "" {
		if err := CheckUnit(a.Unit); err != nil {
			return fmt.Errorf("unit: %w", err)
		}
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
