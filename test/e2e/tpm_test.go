package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/identity"
)

// fitTPM puts a TPM into a machine and returns what takes it out again.
func (m *machine) fitTPM() (remove func()) {
	m.t.Helper()
	return m.fitTPMWith(m.t.TempDir())
}

// fitTPMWith puts in the TPM whose memory is in a folder.
func (m *machine) fitTPMWith(state string) (remove func()) {
	m.t.Helper()
	path, err := exec.LookPath("swtpm")
	if err != nil {
		m.t.Fatalf("this test needs Debian's swtpm: %v", err)
	}
	socket := filepath.Join(m.root, "dev/tpmrm0")
	m.v.must(os.MkdirAll(filepath.Dir(socket), 0o755))
	cmd := exec.Command(path, "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+filepath.Join(m.t.TempDir(), "c"), "--flags", "not-need-init,startup-clear")
	m.v.must(cmd.Start())
	remove = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(socket)
	}
	m.t.Cleanup(remove)
	for range 500 {
		if c, err := net.Dial("unix", socket); err == nil {
			m.v.must(c.Close())
			return remove
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.t.Fatal("the TPM doesn't come up")
	return nil
}

func finding(t *testing.T, m *machine, code string) string {
	t.Helper()
	g, err := m.open().Doctor(t.Context())
	m.v.must(err)
	for _, f := range g.Findings {
		if f.Code == code {
			return f.Level + ": " + f.Text
		}
	}
	return ""
}

// TestKeyInTPM takes a device whose key is in a TPM through an improvement. A
// copy of its disk in another machine is that device no more.
func TestKeyInTPM(t *testing.T) {
	v := newVendor(t)
	m := v.machine("")
	remove := m.fitTPM()
	if r, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1), DryRun: true}, user, nil); err != nil || r.Identity != device.IdentityTPM {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	r, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1)}, user, m.log)
	if err != nil || r.Identity != device.IdentityTPM {
		t.Fatalf("enrol: %+v, %v", r, err)
	}
	m.boot()
	text, err := m.open().Store.IdentityKey()
	if err != nil || !identity.IsTPMKey(text) {
		t.Errorf("the key is in a file: %v", err)
	}
	if got := finding(t, m, "I2"); !strings.HasPrefix(got, "ok: the device's key is in the TPM") {
		t.Errorf("doctor: %s", got)
	}
	v.release(1, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	if rec := m.boot(); rec.Release != "SI-2026-0001" || m.level("web") != 1 {
		t.Errorf("boot: %+v", rec)
	}

	// The disk in a machine with another TPM: the baseline still boots, but the
	// device can't speak for itself any more, and its nonces count for nothing.
	remove()
	m.fitTPM()
	if rec := m.boot(); rec.Slot != store.Base || !wasRefused(rec, store.Current) {
		t.Errorf("boot in another machine: %+v", rec)
	}
	if got := finding(t, m, "I2"); !strings.HasPrefix(got, "bad: the device's key is in a TPM, but not usable") {
		t.Errorf("doctor in another machine: %s", got)
	}
	v.release(2, 100)
	if r, err := m.install(""); err == nil {
		t.Errorf("a copied disk got a ticket: %+v", r)
	}
}

func TestWhereTheKeyIs(t *testing.T) {
	v := newVendor(t)
	m := v.machine("")
	_, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1), Identity: "cloud"}, user, nil)
	wantKind(t, err, fault.Usage)
	_, err = m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1), Identity: device.IdentityTPM}, user, nil)
	wantKind(t, err, fault.Failed)
	m.fitTPM()
	r, err := m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1), Identity: device.IdentityFile}, user, nil)
	if err != nil || r.Identity != device.IdentityFile {
		t.Errorf("a file although there is a TPM: %+v, %v", r, err)
	}

	// A TPM that is broken is said, and a file is used.
	m = v.machine("")
	v.must(os.MkdirAll(filepath.Join(m.root, "dev"), 0o755))
	v.must(os.WriteFile(filepath.Join(m.root, "dev/tpmrm0"), nil, 0o600))
	warned := false
	r, err = m.open().Enroll(t.Context(), device.EnrollOptions{Token: v.node.Token(1)}, user, func(e device.Event) {
		warned = warned || e.Kind == device.Warning && e.Step == "identity"
	})
	if err != nil || r.Identity != device.IdentityFile || !warned {
		t.Errorf("a broken TPM: %+v, %v, warned %v", r, err, warned)
	}
}
