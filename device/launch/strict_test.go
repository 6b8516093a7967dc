package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// free confines nobody.
func free(linux.Pidfd, bool, linux.Pidfd) error { return nil }

// A strict app is confined before it can execute anything, by whatever path somebody
// names it, and not started where that fails. The first launch and those by a spare
// child are the same.
func TestConfined(t *testing.T) {
	d, _ := booted(t)
	done := filepath.Join(d.Root, "done")
	apps := []policy.App{{ID: "strict", Cryptexes: []string{"web"}, Command: []string{"/bin/touch", done}, Strict: true}}
	refused := errors.New("cannot confine it")
	serve(t, d, &Server{
		Apps: func() ([]policy.App, error) { return apps, nil },
		Confine: func(program linux.Pidfd, strict bool, caller linux.Pidfd) error {
			if caller == (linux.Pidfd{}) || caller.Ended() || program.Ended() {
				return errors.New("it is not told who launches, and what")
			}
			if strict {
				return fault.New(fault.Policy, "%w", refused)
			}
			return nil
		},
	})
	for range 3 {
		text, code := output(t, nobody(as("run-by-agent", d, "/bin/touch", done)))
		if code != 200+int(fault.Policy) || text != fmt.Sprintln(refused) {
			t.Errorf("%d %q", code, text)
		}
		if text, code := output(t, nobody(as("run-by-agent", d, "/bin/echo", "other"))); code != 0 || text != "other\n" {
			t.Errorf("%d %q", code, text)
		}
	}
	if _, err := os.Stat(done); err == nil {
		t.Error("a strict app was started that could not be confined")
	}
}
