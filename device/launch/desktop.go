package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

// Limits of what is read of a desktop's files.
const (
	maxEntry   = 1 << 20 // bytes of one file
	maxEntries = 10000   // files of one folder
)

// The folders of a data folder (XDG_DATA_DIRS) in which programs are described.
const (
	applications = "applications"
	services     = "dbus-1/services"
)

// wrapMark says, in a file that Wrap made, from which one.
const wrapMark = "X-Sealant-Wraps="

// prefix is what a wrapped command begins with.
const prefix = "/usr/bin/sealant run -- "

// Wrapper is a file that starts an app by sealant run where another one started
// it as it is.
type Wrapper struct {
	Original string // path of the file that it stands in front of
	Name     string // below a data folder: "applications/browser.desktop"
	Text     []byte
}

// Wrap finds the desktop entries and the services of the session bus that start
// an app, in data folders of which the first has precedence, and makes for each
// one that starts it on staged content. look finds a command that is no path, as
// exec.LookPath does. Nothing is written.
func Wrap(app policy.App, dirs []string, look func(string) (string, error)) ([]Wrapper, error) {
	var list []Wrapper
	seen := map[string]bool{}
	for _, dir := range dirs {
		for _, kind := range []string{applications, services} {
			found, err := wrapFolder(app, filepath.Join(dir, kind), look)
			if err != nil {
				return nil, err
			}
			for _, w := range found {
				w.Name = filepath.Join(kind, filepath.Base(w.Original))
				if !seen[w.Name] {
					seen[w.Name] = true
					list = append(list, w)
				}
			}
		}
	}
	return list, nil
}

func wrapFolder(app policy.App, dir string, look func(string) (string, error)) (list []Wrapper, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for desktop entries: %w", err)
	}
	if len(entries) > maxEntries {
		return nil, fault.New(fault.Failed, "cannot look for desktop entries: more than %d files in %s", maxEntries, dir)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".desktop" && ext != ".service" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		text, err := store.ReadFile(path, maxEntry)
		if err != nil || bytes.Contains(text, []byte(wrapMark)) {
			continue // not readable for this person, or made here
		}
		if wrapped, ok := wrapEntry(app, path, string(text), look); ok {
			list = append(list, Wrapper{Original: path, Text: []byte(wrapped)})
		}
	}
	return list, nil
}

// wrapEntry rewrites one file; ok is false if it does not start the app. Every
// action of an entry is rewritten. Who starts it through systemd's unit instead
// would start it without: so that line goes.
func wrapEntry(app policy.App, path, text string, look func(string) (string, error)) (wrapped string, ok bool) {
	var b strings.Builder
	first := true
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		switch key = strings.TrimSpace(key); {
		case key == "Exec" && starts(app, strings.TrimSpace(value), look):
			ok = true
			fmt.Fprintf(&b, "Exec=%s%s\n", prefix, strings.TrimSpace(value))
			continue
		case key == "SystemdService":
			continue
		}
		b.WriteString(line)
		if first && strings.HasPrefix(line, "[") {
			fmt.Fprintf(&b, "%s%s\n", wrapMark, path)
			first = false
		}
	}
	return b.String(), ok
}

// starts says whether a command line of a desktop entry starts the app.
func starts(app policy.App, line string, look func(string) (string, error)) bool {
	program, _, _ := strings.Cut(line, " ")
	if rest, quoted := strings.CutPrefix(line, `"`); quoted {
		program, _, _ = strings.Cut(rest, `"`)
	}
	if program == "" {
		return false
	}
	if !strings.Contains(program, "/") {
		found, err := look(program)
		if err != nil {
			return false
		}
		program = found
	}
	return app.Owns(program)
}

// Write puts a wrapper below a data folder, which must have precedence over the
// one of the original. A file of somebody else's is left alone.
func (w Wrapper) Write(dir string) (path string, err error) {
	path = filepath.Join(dir, w.Name)
	old, err := store.ReadFile(path, maxEntry)
	if err == nil && !bytes.Contains(old, []byte(wrapMark)) {
		return path, fault.New(fault.Failed, "cannot write %s: there is one already, which sealant did not make", path).Hint("put `%s` in front of its Exec= yourself", strings.TrimSpace(prefix))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return path, fmt.Errorf("cannot write a desktop entry: %w", err)
	}
	if err := store.WriteFile(path, w.Text, 0o644); err != nil {
		return path, fmt.Errorf("cannot write a desktop entry: %w", err)
	}
	return path, nil
}
