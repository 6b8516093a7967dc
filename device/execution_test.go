package device

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/enforce"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
)

// folderDevice is a device below a folder, as a lab has many.
func folderDevice(t *testing.T, files map[string]string) *Device {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := policy.Load(filepath.Join(root, "etc/sealant"))
	if err != nil {
		t.Fatal(err)
	}
	return &Device{Store: store.Below(root), Config: c}
}

// A device that lives in a folder leaves the kernel of its machine alone, whatever
// its policy says.
func TestFolderDevicesLeaveTheKernelAlone(t *testing.T) {
	for _, mode := range []string{"off", "audit", "enforce"} {
		d := folderDevice(t, map[string]string{"etc/sealant/agent.toml": "[trust]\nexecution = \"" + mode + "\"\n"})
		if err := d.LoadExecution(t.Context()); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		admit, done, err := d.admitter()
		if admit != nil || err != nil {
			t.Errorf("%s: somebody is told of what is attached: %v", mode, err)
		}
		done()
		e, err := d.Execution()
		if err != nil || e.Mode != "off" || !strings.Contains(e.Text, "folder") {
			t.Errorf("%s: %+v %v", mode, e, err)
		}
		var g Diagnosis
		d.examineExecution(&g)
		if len(g.Findings) != 1 || g.Findings[0].Code != "X1" || g.Findings[0].Level != "warn" {
			t.Errorf("%s: %+v", mode, g)
		}
		open := func() (*Device, error) { return d, nil }
		ctx, stop := context.WithCancel(t.Context())
		stop()
		x := &executor{open: open, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if err := x.keep(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestStagesOnThisMachine stages the baseline on the machine that it runs on, as a
// removal does.
func TestStagesOnThisMachine(t *testing.T) {
	if os.Getenv("SEALANT_TEST_MACHINE") == "" {
		t.Skip("runs in test/vm/enforce, on a machine that is nothing but a device")
	}
	d, err := Open("/")
	if err != nil {
		t.Fatal(err)
	}
	set, err := d.Store.Slot(store.Base)
	if err == nil {
		err = d.Store.Stage(set.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.attach(t.Context(), func(e Event) { t.Logf("%+v", e) })
	if id, err := present.Staged(d.Store); err != nil || id != set.ID {
		t.Fatalf("staged is %q, %v", id, err)
	}
	g, err := enforce.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, c := range set.Cryptexes {
		root, err := os.Open(d.Store.SetMount(set.ID, c.Name))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if guarded, err := g.Guarded(root); !guarded || err != nil {
			t.Errorf("%s is not guarded: %v", c.Name, err)
		}
	}
}

// Only strict apps' services are made strict.
func TestStrictUnits(t *testing.T) {
	d := folderDevice(t, map[string]string{
		"etc/sealant/apps.d/a.toml": "cryptexes=[\"web\"]\nunit=\"a.service\"\nstrict=true\n",
		"etc/sealant/apps.d/b.toml": "cryptexes=[\"web\"]\nunit=\"b.service\"\n",
		"etc/sealant/apps.d/c.toml": "cryptexes=[\"web\"]\ncommand=[\"/c\"]\nstrict=true\n",
	})
	dir := t.TempDir()
	if err := d.StrictUnits(dir); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(dir + "/*/*")
	if err != nil || len(found) != 1 || found[0] != dir+"/a.service.d/20-sealant-strict.conf" {
		t.Fatalf("%q %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil || !strings.Contains(string(text), "\nExecStartPre=+/usr/bin/sealant enforce strict\n") {
		t.Errorf("%s %v", text, err)
	}
}
