package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/test/vm"
)

// A restart by policy gives way to who holds it back, by the real logind; and the
// network counts as metered when the real NetworkManager says so.
func TestLoginManager(t *testing.T) {
	k := newKiosk(t, files{
		"etc/sealant/policy.d/10-night.toml": "[activate]\nrestart = \"window\"\n",
		"etc/sealant/agent.toml":             "[restart]\ncommand = [\"/usr/bin/touch\", \"/run/restarted\"]\n",
	})
	k.Run("rm -f /etc/systemd/system/systemd-logind.service; systemctl daemon-reload; systemctl start systemd-logind")
	k.Run("systemd-run --unit=burner systemd-inhibit --what=shutdown --who=burner --why='a disc is being burnt' --mode=block sleep 1000")
	k.Eventually("the inhibitor is held", "systemd-inhibit --list --no-legend | grep burner")
	k.stage(k.a.ID)
	if out := k.Run("/usr/lib/sealant-test force-inside 0"); !strings.Contains(out, "wait inhibited") || strings.Contains(out, "planned") {
		t.Errorf("a restart was planned although somebody holds it back: %s", out)
	}
	k.Run("systemctl stop burner")
	if out := k.Run("/usr/lib/sealant-test force-inside 0"); !strings.Contains(out, "planned in 15m") {
		t.Errorf("%s", out)
	}
	k.Run("test ! -e /run/restarted")
	// A quarter of an hour later somebody holds it back again.
	k.Run("systemd-run --unit=burner2 systemd-inhibit --what=shutdown --who=burner --why=again --mode=block sleep 1000")
	k.Eventually("the inhibitor is held", "systemd-inhibit --list --no-legend | grep burner")
	if out := k.Run("/usr/lib/sealant-test force-inside 15"); strings.Contains(out, "planned") {
		t.Errorf("the plan stands: %s", out)
	}
	k.Run("test ! -e /run/restarted; systemctl stop burner2")
	k.Run("/usr/lib/sealant-test force-inside 0; test ! -e /run/restarted")
	k.Run("/usr/lib/sealant-test force-inside 15")
	k.Eventually("the device is restarted", "test -e /run/restarted")
}

// A restart that a person asks for is refused while somebody holds it back, and said by
// whom; then the real logind restarts the machine.
func TestRestart(t *testing.T) {
	k := newKiosk(t, nil)
	k.Run("rm -f /etc/systemd/system/systemd-logind.service; systemctl daemon-reload; systemctl start systemd-logind")
	k.Run("systemd-run --unit=burner systemd-inhibit --what=shutdown --who=burner --why='a disc is being burnt' --mode=block sleep 1000")
	k.Eventually("the inhibitor is held", "systemd-inhibit --list --no-legend | grep burner")
	k.stage(k.a.ID)
	k.active("sealant.service")
	out := k.Run("sealant restart 2>&1 || echo \"code $?\"")
	if !strings.Contains(out, `cannot restart now: "burner" holds it back: "a disc is being burnt"`) || !strings.Contains(out, "code 22\n") {
		t.Errorf("%s", out)
	}
	k.Run("systemctl stop burner; sealant restart")
	for end := time.Now().Add(60 * time.Second); syscall.Kill(k.PID(), 0) == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			jobs, _ := k.Try("systemctl list-jobs")
			t.Fatalf("the machine was not restarted: %s", jobs)
		}
	}
}

// extended is the machine's tree with what some tests need besides.
func extended(t *testing.T) string {
	return vm.Build(t).Derive(t, "network-manager bubblewrap 1", func(tree string) error {
		cmd := exec.Command("chroot", tree, "sh", "-c", "apt-get -qq update && apt-get -qq install --no-install-recommends -y network-manager bubblewrap")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s", out)
		}
		return err
	}).Tree()
}

func TestNetworkManager(t *testing.T) {
	tree := extended(t)
	built := programs(t)
	m := Boot(t, tree, func(root string) {
		for at, from := range built {
			copyFile(t, from, filepath.Join(root, at), 0o755)
		}
		self, err := os.Executable()
		must(t, err)
		copyFile(t, self, filepath.Join(root, "usr/lib/sealant-test"), 0o755)
		put(t, filepath.Join(root, "etc/NetworkManager/NetworkManager.conf"), "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=none\n")
	})
	m.Run("systemctl start NetworkManager")
	metered := func() string { return strings.TrimSpace(m.Run("/usr/lib/sealant-test metered-inside")) }
	if got := metered(); got != "false" {
		t.Errorf("nothing is connected: %q", got)
	}
	m.Run("nmcli connection add type bridge bridge.stp no ifname d0 con-name d0 ipv4.method manual ipv4.addresses 192.0.2.2/24 ipv4.gateway 192.0.2.1 ipv6.method disabled connection.metered yes >/dev/null; nmcli connection up d0 >/dev/null")
	m.Eventually("NetworkManager says that it is metered", "test \"$(/usr/lib/sealant-test metered-inside)\" = true")
	m.Run("nmcli connection modify d0 connection.metered no; nmcli connection up d0 >/dev/null")
	m.Eventually("and that it is not", "test \"$(/usr/lib/sealant-test metered-inside)\" = false")
}
