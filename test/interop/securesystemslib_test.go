package interop

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// python runs tuf.py, which needs Debian's python3-securesystemslib (python-tuf
// itself is not packaged there).
func python(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	const interpreter = "/usr/bin/python3" // Debian's: the package is for no other
	if err := exec.Command(interpreter, "-c", "import securesystemslib").Run(); err != nil {
		t.Fatalf("this test needs Debian's python3-securesystemslib: %v", err)
	}
	cmd := exec.Command(interpreter, append([]string{"tuf.py"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestSecuresystemslibReads: the library that python-tuf signs and verifies with
// accepts a catalog of ours, and no changed one.
func TestSecuresystemslibReads(t *testing.T) {
	dir, _, wanted := made(t)
	out, err := python(t, "", "read", dir)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Root != 4 {
		t.Fatalf("%v: %s", err, out)
	}
	for name, digest := range wanted {
		if a.Found[name] == nil || *a.Found[name] != digest {
			t.Errorf("it read other bytes of %s", name)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "metadata", "*"))
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// A version that was moved, or a year more to live.
		bad := strings.Replace(string(data), `"expires":"20`, `"expires":"21`, 1)
		if bad == string(data) {
			t.Fatalf("%s says nothing of an expiry", name)
		}
		if err := os.WriteFile(name, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := python(t, "", "read", dir); err == nil && current(dir, name) {
			t.Errorf("it accepted a changed %s: %s", filepath.Base(name), out)
		} else if err != nil {
			changed++
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if changed < 7 {
		t.Errorf("%d changes were seen", changed)
	}
}

// current says whether a metadata file is part of the state in force: roots all
// are, of the others the newest.
func current(dir, name string) bool {
	base := filepath.Base(name)
	version, role, numbered := strings.Cut(base, ".")
	if !numbered || version == "timestamp" || strings.HasPrefix(role, "root.") {
		return true
	}
	all, err := filepath.Glob(filepath.Join(dir, "metadata", "*."+role))
	return err == nil && len(all) == 1 && version == "1"
}

// TestSecuresystemslibMade: our client reads a catalog that was made and signed
// elsewhere, follows its second root, and refuses it changed.
func TestSecuresystemslibMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	list := release.RecallList{Schema: release.RecallSchema, Product: "ExampleOS", Version: 1, Entries: []release.Recall{
		{Release: "SI-2026-0001", Reason: "Umlaute: äöü", Date: release.Time(time.Now())},
	}}
	text, err := list.Encode()
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(map[string]string{"recall": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := python(t, string(in), "make", dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first, err := os.ReadFile(filepath.Join(dir, "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	client := func() *catalog.Client {
		c, err := catalog.New(catalog.Config{Root: first, Dir: t.TempDir(), Remote: catalog.Folder(dir)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := client()
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.RootVersion() != 2 {
		t.Errorf("root %d", c.RootVersion())
	}
	if data, err := c.Read(t.Context(), "patches/abc"); err != nil || string(data) != "a patch, made by others\n" {
		t.Errorf("%q, %v", data, err)
	}
	if got, err := c.RecallList(t.Context()); err != nil || len(got.Entries) != 1 || got.Entries[0].Reason != "Umlaute: äöü" {
		t.Errorf("%+v, %v", got, err)
	}
	err = fs.WalkDir(os.DirFS(dir), "metadata", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || name == "metadata/1.root.json" {
			return err
		}
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		bad := strings.Replace(string(data), `"expires": "20`, `"expires": "21`, 1)
		if bad == string(data) {
			t.Errorf("%s says nothing of an expiry", name)
		}
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			return err
		}
		if err := client().Refresh(t.Context()); err == nil {
			t.Errorf("a changed %s was accepted", name)
		}
		return os.WriteFile(path, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
