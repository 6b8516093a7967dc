package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/policy"
)

func TestWrap(t *testing.T) {
	app := policy.App{ID: "browser", Command: []string{"/usr/bin/browser"}, Match: []string{"/usr/lib/browser/"}}
	vendor, mine := t.TempDir(), t.TempDir()
	file := func(dir, name, text string) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	file(vendor, "applications/browser.desktop", "#!/usr/bin/env xdg-open\n[Desktop Entry]\nName=Browser\nTryExec=browser\nExec=browser --new %U\nActions=private;\n\n[Desktop Action private]\nExec=\"/usr/lib/browser/start\" --private\n")
	file(vendor, "applications/other.desktop", "[Desktop Entry]\nExec=/usr/bin/other browser\n")
	file(vendor, "dbus-1/services/org.example.Browser.service", "[D-BUS Service]\nName=org.example.Browser\nExec=/usr/bin/browser --gapplication-service\nSystemdService=browser.service\n")
	look := func(name string) (string, error) {
		if name == "browser" {
			return "/usr/bin/browser", nil
		}
		return "", errors.New("no such program")
	}
	list, err := Wrap(app, []string{mine, vendor}, look)
	must(t, err)
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, w := range list {
		path, err := w.Write(mine)
		must(t, err)
		text, err := os.ReadFile(path)
		must(t, err)
		switch filepath.Base(path) {
		case "browser.desktop":
			for _, want := range []string{
				"\nExec=/usr/bin/sealant run -- browser --new %U\n", "\nExec=/usr/bin/sealant run -- \"/usr/lib/browser/start\" --private\n",
				"\nTryExec=browser\n", "\nX-Sealant-Wraps=" + vendor + "/applications/browser.desktop\n",
			} {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		case "org.example.Browser.service":
			if !strings.Contains(string(text), "\nExec=/usr/bin/sealant run -- /usr/bin/browser --gapplication-service\n") || strings.Contains(string(text), "SystemdService") {
				t.Errorf("%s", text)
			}
		default:
			t.Error(path)
		}
	}
	// Once more: what was made here is not wrapped again, and may be replaced.
	again, err := Wrap(app, []string{mine, vendor}, look)
	must(t, err)
	if len(again) != 2 || again[0].Original != list[0].Original {
		t.Errorf("%+v", again)
	}
	_, err = again[0].Write(mine)
	must(t, err)
	file(mine, "applications/browser.desktop", "[Desktop Entry]\nExec=mine\n")
	if _, err := list[0].Write(mine); err == nil || !strings.Contains(err.Error(), "did not make") {
		t.Error(err)
	}
}
