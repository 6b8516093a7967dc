package device

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// A strict app is not started where nothing enforces that it is one, unless policy
// gives up on that.
func TestStrictNeedsTheKernel(t *testing.T) {
	d := folderDevice(t, map[string]string{"etc/sealant/agent.toml": ""})
	self, err := linux.OpenPidfd(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	confine := Confine(d.Store)
	for _, caller := range []linux.Pidfd{{}, self} {
		if err := confine(self, true, caller); fault.KindOf(err) != fault.Policy {
			t.Error(err)
		}
		if err := confine(self, false, caller); err != nil {
			t.Error(err)
		}
	}
	off := folderDevice(t, map[string]string{"etc/sealant/agent.toml": "[trust]\nexecution = \"off\"\n"})
	if err := Confine(off.Store)(self, true, self); err != nil {
		t.Error(err)
	}
	// A mistake in the configuration makes no strict app an ordinary one.
	broken := filepath.Join(d.Store.ConfigDir(), "agent.toml")
	if err := os.WriteFile(broken, []byte("trust = 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := confine(self, true, self); err == nil || fault.KindOf(err) == fault.Policy {
		t.Error(err)
	}
}
