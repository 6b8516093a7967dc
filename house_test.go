// Package sealant holds the house rules: which room may import which, that
// every package says what it is, and what each program links.
package sealant

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sealant-os/sealant/"

// arrows says, for each room, which other rooms it may import (its own rooms
// and internal/fault are always open). A room is the longest entry that is a
// prefix of the package's folder. ARCHITECTURE.md draws the same picture.
var arrows = map[string][]string{
	"cmd":            {"publish", "server", "device", "release", "trust", "image", "internal"},
	"publish":        {"release", "trust", "image", "internal"},
	"server":         {"release", "trust", "internal"},
	"device":         {"release", "trust", "image", "internal"},
	"release":        {"trust", "internal"},
	"trust":          {"internal"},
	"image":          {"internal"},
	"internal":       {"internal/linux", "internal/layout", "internal/pattern"},
	"internal/cli":   {"internal/fault", "internal/amount"},
	"internal/linux": {},
	"test":           {"cmd", "publish", "server", "device", "release", "trust", "image", "internal", "spec"},
}

// organs are device's inner rooms: journeys (package device) import them, they
// never import journeys.
const journeys = "device"

func roomOf(folder string) string {
	best := ""
	for room := range arrows {
		if (folder == room || strings.HasPrefix(folder, room+"/")) && len(room) > len(best) {
			best = room
		}
	}
	return best
}

// source is one Go file of the project.
type source struct {
	path, folder string
	test         bool
	imports      []string
	doc, name    string
	lines        int
	others       bool // somebody else's, kept in its shape
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			// A nested module or a hidden folder is another house.
			if path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin" || nested(path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: path, folder: filepath.Dir(path), test: strings.HasSuffix(path, "_test.go"), name: file.Name.Name, lines: bytes.Count(text, []byte("\n")), others: bytes.HasPrefix(text, []byte("// Copyright "))}
		if file.Doc != nil {
			s.doc = file.Doc.Text()
		}
		for _, imp := range file.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			s.imports = append(s.imports, name)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found: the test looks in the wrong place", len(all))
	}
	return all
}

func nested(folder string) bool {
	matches, _ := filepath.Glob(filepath.Join(folder, "go.mod"))
	return len(matches) > 0
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		if s.folder == "." || s.test {
			continue
		}
		room := roomOf(s.folder)
		if room == "" {
			t.Errorf("%s stands in no room of ARCHITECTURE.md", s.path)
			continue
		}
		for _, imp := range s.imports {
			folder, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if !allowed(room, s.folder, folder) {
				t.Errorf("%s imports %s: no arrow leads from %s to there", s.path, folder, room)
			}
		}
	}
}

func allowed(room, from, to string) bool {
	if to == "internal/fault" {
		return true
	}
	if strings.HasPrefix(from, journeys+"/") && to == journeys {
		return false
	}
	if to == "internal/cli" {
		return room == "cmd"
	}
	top := func(folder string) string { return strings.SplitN(folder, "/", 2)[0] }
	if top(from) == top(to) && top(from) != "internal" && top(from) != "cmd" {
		return true
	}
	for _, open := range arrows[room] {
		if to == open || strings.HasPrefix(to, open+"/") {
			return true
		}
	}
	return false
}

func TestOnlyLinuxTouchesTheKernel(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range s.imports {
			if imp == "golang.org/x/sys/unix" && !s.test && s.folder != "internal/linux" {
				t.Errorf("%s imports %s: only internal/linux may", s.path, imp)
			}
			if strings.HasPrefix(imp, "github.com/spf13/") && roomOf(s.folder) != "cmd" && s.folder != "internal/cli" {
				t.Errorf("%s imports %s: only programs have a command line", s.path, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		if s.test && s.folder != "." {
			continue
		}
		said[s.folder] = said[s.folder] || len(s.doc) > 40
	}
	for folder, ok := range said {
		if !ok {
			t.Errorf("%s has no package comment", folder)
		}
	}
}

func TestNoLumberRooms(t *testing.T) {
	for _, s := range sources(t) {
		for _, part := range strings.Split(filepath.ToSlash(s.folder), "/") {
			switch part {
			case "util", "utils", "common", "types", "pkg", "helpers", "misc", "errors":
				t.Errorf("%s: no room is called %s", s.path, part)
			}
		}
		if !s.test && !s.others && s.lines > 500 {
			t.Errorf("%s has %d lines, at most 500", s.path, s.lines)
		}
	}
}

// links are packages that a program must never link, and why.
var links = map[string]map[string]string{
	"sealant-boot": {
		"net/http":   "it runs before any network and must not be able to use one",
		"crypto/tls": "it runs before any network and must not be able to use one",
		"os/exec":    "it starts nothing",
		"github.com/theupdateframework/go-tuf/v2/metadata": "tickets are checked offline",
		"github.com/spf13/cobra":                           "it has no command line to speak of",
		"modernc.org/sqlite":                               "state at boot is plain files",
		"github.com/cilium/ebpf":                           "what executes is enforced by a program that starts after it",
		"github.com/cloudflare/circl":                      "it reports nothing",
	},
	"sealant": {
		"modernc.org/sqlite":           "the device has no database",
		module + "server":              "the device is not the server",
		module + "publish":             "the device is not the publisher",
		"github.com/gocsaf/csaf/v3":    "only tests validate advisories",
		"github.com/spf13/cobra/doc":   "man pages are made by a build of their own",
		"github.com/google/go-cmp/cmp": "a test library",
	},
	"sealant-launch": {
		"github.com/cilium/ebpf":   "everybody who launches waits for its start",
		"github.com/spf13/cobra":   "everybody who launches waits for its start",
		"crypto/x509":              "everybody who launches waits for its start",
		module + "device":          "everybody who launches waits for its start",
		module + "device/activate": "everybody who launches waits for its start",
	},
	"sealsrv": {
		module + "device":  "the server is not the device",
		module + "publish": "the publisher's keys never reach the server",
	},
	"sealpub": {
		module + "device": "the publisher is not the device",
		module + "server": "the publisher is not the server",
	},
}

func TestProgramsLinkNoMoreThanTheyMay(t *testing.T) {
	for program, forbidden := range links {
		out, err := exec.Command("go", "list", "-deps", "./cmd/"+program).CombinedOutput()
		if err != nil {
			t.Errorf("cannot list what %s links: %s", program, out)
			continue
		}
		for _, dep := range strings.Fields(string(out)) {
			if why, bad := forbidden[dep]; bad {
				t.Errorf("%s links %s: %s", program, dep, why)
			}
		}
	}
}
