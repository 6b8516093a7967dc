package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
)

// A strict app is not started where nothing enforces that it is one, unless policy
// gives up on that; by whatever path somebody names it.
func TestStrictNeedsTheKernel(t *testing.T) {
	d, _ := booted(t)
	agent(t, d, policy.App{ID: "strict", Cryptexes: []string{"web"}, Command: []string{"/bin/true"}, Strict: true})
	text, code := output(t, nobody(as("run-by-agent", d, "/bin/true")))
	if code != 200+int(fault.Policy) || !strings.Contains(text, "cannot launch a strict app") {
		t.Errorf("%d %q", code, text)
	}
	if text, code := output(t, nobody(as("run-by-agent", d, "/bin/echo", "other"))); code != 0 || text != "other\n" {
		t.Errorf("%d %q", code, text)
	}
	must(t, os.MkdirAll(d.Store.ConfigDir(), 0o755))
	must(t, os.WriteFile(filepath.Join(d.Store.ConfigDir(), "agent.toml"), []byte("[trust]\nexecution = \"off\"\n"), 0o644))
	if text, code := output(t, nobody(as("run-by-agent", d, "/bin/true"))); code != 0 {
		t.Errorf("%d %q", code, text)
	}
}
