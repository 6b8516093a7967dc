package e2e

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// small gives the device's state a file system of its own of that many bytes, and
// of 400 inodes.
func (m *machine) small(size string) {
	m.t.Helper()
	m.v.must(os.MkdirAll(m.state(), 0o755))
	m.v.must(syscall.Mount("tmpfs", m.state(), "tmpfs", 0, "nr_inodes=400,size="+size))
	m.stay = m.state()
	m.t.Cleanup(func() { syscall.Unmount(m.stay, syscall.MNT_DETACH) })
}

// fill leaves no byte free where the device's state is.
func (m *machine) fill() {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.state(), "filler"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	m.v.must(err)
	defer f.Close()
	for n := 1 << 20; n > 0; {
		if _, err := f.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
}

// crowd leaves no inode free there.
func (m *machine) crowd() {
	m.t.Helper()
	dir := filepath.Join(m.state(), "crowd")
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, syscall.ENOSPC) {
		m.v.must(err)
	}
	for n := range 1000 {
		f, err := os.CreateTemp(dir, "")
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, fs.ErrNotExist) {
			return
		}
		m.v.must(err)
		f.Close()
		if n == 999 {
			m.t.Fatal("there is no end of inodes")
		}
	}
}

func TestFullDisk(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)

	t.Run("too small", func(t *testing.T) {
		m := v.machine("")
		m.small("4m")
		m.enroll()
		_, err := m.install("")
		wantKind(t, err, fault.Failed)
		if err == nil || !strings.Contains(err.Error(), m.state()) || !strings.Contains(err.Error(), "no-space") {
			t.Errorf("%v", err)
		}
	})

	t.Run("fills up meanwhile", func(t *testing.T) {
		m := v.machine("")
		m.small("16m")
		m.enroll()
		before := m.snapshot()
		v.hostile(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/targets/patches/") {
				m.fill()
			}
			return false
		})
		_, err := m.install("")
		v.hostile(nil)
		wantKind(t, err, fault.Failed)
		if err == nil || !strings.Contains(err.Error(), "is full") || !strings.Contains(err.Error(), m.state()) {
			t.Errorf("%v", err)
		}
		if after := m.snapshot(); after != before {
			t.Errorf("the state changed:\n%s", after)
		}
		m.v.must(os.Remove(filepath.Join(m.state(), "filler")))
		if _, err := m.install(""); err != nil {
			t.Errorf("with room again: %v", err)
		}
	})

	// Whatever becomes free on the way, somebody else takes it at once.
	for name, fill := range map[string]func(*machine){
		"bytes": (*machine).fill, "inodes": (*machine).crowd, "bytes and inodes": func(m *machine) { m.fill(); m.crowd() },
	} {
		t.Run("removal offline with no "+name, func(t *testing.T) {
			m := v.machine("")
			m.small("16m")
			m.enroll()
			if _, err := m.install(""); err != nil {
				t.Fatal(err)
			}
			if m.boot(); m.level("web") != 1 {
				t.Fatal("not active")
			}
			fill(m)
			v.hostile(hangUp)
			defer v.hostile(nil)
			r, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log)
			if err != nil || r.State != device.StateStaged {
				t.Fatalf("%+v %v", r, err)
			}
			fill(m)
			if m.bootOnly(); m.level("web") != 0 {
				t.Errorf("level %d", m.level("web"))
			}
			fill(m)
			if c, err := m.open().Confirm(t.Context(), m.log); err != nil || c.State != "confirmed" {
				t.Errorf("%+v %v", c, err)
			}
			if m.boot(); m.level("web") != 0 {
				t.Errorf("level %d", m.level("web"))
			}
			if s := m.status(); s.State != device.StateNone {
				t.Errorf("%+v", s)
			}
			if h, err := m.open().History(t.Context()); err != nil || !h.Whole {
				t.Errorf("%+v %v", h, err)
			}
		})
	}
}

// TestDamagedImage: a boot never uses a damaged image; verify names it; an
// installation makes it anew.
func TestDamagedImage(t *testing.T) {
	v := newVendor(t)
	m1 := v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	path := m.open().Store.ImagePath(store.Digest(m1.Cryptexes[0].To.Digest))
	data, err := os.ReadFile(path)
	v.must(err)
	v.must(os.WriteFile(path, flipped(data), 0o644))
	if vf := m.verify(); vf.OK {
		t.Error("verify is content")
	} else if kind, _ := vf.Kind(); kind != fault.Seal {
		t.Errorf("kind %v", kind)
	} else if !strings.Contains(findings(vf), path) {
		t.Errorf("verify does not name the file: %s", findings(vf))
	}
	if rec := m.boot(); rec.Slot != "base" || m.level("web") != 0 || len(rec.Refused) != 1 || rec.Refused[0].Cryptex != "web" {
		t.Errorf("boot: %+v", rec)
	}
	if s := m.status(); s.State != device.StateRefused || s.Note == "" {
		t.Errorf("status: %+v", s)
	}
	r, err := m.install("")
	if err != nil || len(r.Repaired) != 1 || r.Repaired[0] != "web" || !r.Restart {
		t.Fatalf("repair: %+v %v", r, err)
	}
	if rec := m.boot(); rec.Slot != "current" || m.level("web") != 1 {
		t.Errorf("boot after repair: %+v", rec)
	}
	if vf := m.verify(); !vf.OK {
		t.Errorf("verify after repair: %s", findings(vf))
	}
}

func findings(v device.Verified) string {
	var lines []string
	for _, c := range v.Checks {
		lines = append(lines, c.What+": "+c.Text)
	}
	return strings.Join(lines, "\n")
}

// TestNeverComesUp: a staged improvement after which the system never comes up
// is given up, and stays away.
func TestNeverComesUp(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	for i := range store.FirstTries {
		if rec := m.bootOnly(); rec.Slot != "next" || m.level("web") != 1 {
			t.Fatalf("try %d: %+v", i, rec)
		}
	}
	if rec := m.boot(); rec.Slot != "current" || m.level("web") != 0 {
		t.Errorf("after the tries: %+v", rec)
	}
	if s := m.status(); s.State != device.StateNone || len(s.Held) != 1 || s.Held[0].Reason != "boot-failed" {
		t.Errorf("%+v", s)
	}
	if c := m.check(); c.State != device.StateClosed || c.Answer() != fault.NotEligible {
		t.Errorf("%+v", c)
	}
	v.release(2, 100) // a newer one ends it
	if _, err := m.install(""); err != nil {
		t.Error(err)
	}
}

// TestOSUpdate: a new baseline makes what was for the old one inert before the
// first exec; the device gets the new baseline's ticket and tidies.
func TestOSUpdate(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	old := m.snapshot()

	v.update("42.4.0")
	m.down()
	m.v.must(exec.Command("cp", "-a", filepath.Join(v.os, "usr"), m.root).Run())
	if rec := m.boot(); rec.Release != "" || m.level("web") != 5 {
		t.Fatalf("first boot after the update: %+v, level %d", rec, m.level("web"))
	}
	if s := m.status(); s.State != device.StateInert || s.OSVersion != "42.4.0" {
		t.Errorf("%+v", s)
	}
	// Offline it stays as it is, and says so.
	v.hostile(hangUp)
	_, err := m.install("")
	wantKind(t, err, fault.Unreachable)
	v.hostile(nil)
	if c := m.check(); c.State != device.StateNone {
		t.Errorf("%+v", c)
	}
	if s := m.status(); s.State != device.StateNone || s.Note != "" {
		t.Errorf("%+v", s)
	}
	if strings.Contains(m.snapshot(), "SI-2026-0001") {
		t.Errorf("not tidied:\n%s\nbefore:\n%s", m.snapshot(), old)
	}
	if rec := m.boot(); rec.Slot != "current" || m.level("web") != 5 {
		t.Errorf("%+v", rec)
	}
	_, err = m.install("SI-2026-0001")
	wantKind(t, err, fault.NotEligible)
	if err == nil || !strings.Contains(err.Error(), "baseline-differs") {
		t.Errorf("%v", err)
	}
	if vf := m.verify(); !vf.OK {
		t.Errorf("%s", findings(vf))
	}
}

// TestOldFilesDoNotComeBack: who restores the files of a removed improvement
// gains nothing, for its nonce is used up.
func TestOldFilesDoNotComeBack(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.save("copy")
	if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil {
		t.Fatal(err)
	}
	m.boot()
	// Everything comes back but the nonces, which a TPM would keep.
	nonces := filepath.Join(m.state(), "identity/nonces.json")
	now, err := os.ReadFile(nonces)
	v.must(err)
	m.load("copy")
	v.must(os.WriteFile(nonces, now, 0o600))
	if rec := m.boot(); rec.Slot != "base" || m.level("web") != 0 || len(rec.Refused) != 1 || rec.Refused[0].Reason != fault.Ticket.String() {
		t.Errorf("%+v", rec)
	}
}

// TestNewerBeforeRestart: a newer improvement replaces a staged one.
func TestNewerBeforeRestart(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	v.release(2, 100)
	if r, err := m.install(""); err != nil || r.Release != "SI-2026-0002" {
		t.Fatalf("%+v %v", r, err)
	}
	_, err := m.install("SI-2026-0001")
	wantKind(t, err, fault.NotEligible)
	if m.boot(); m.level("web") != 2 || m.level("os") != 2 {
		t.Errorf("web %d os %d", m.level("web"), m.level("os"))
	}
	// Removing takes all of them.
	if r, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil || r.Labels != "(a),(b)" || len(r.Reopened) != 2 {
		t.Errorf("%+v %v", r, err)
	}
	if m.boot(); m.level("web") != 0 || m.level("os") != 0 {
		t.Errorf("web %d os %d", m.level("web"), m.level("os"))
	}
	_, err = m.install("SI-2026-0001") // older than what was removed
	wantKind(t, err, fault.NotEligible)
}

// TestRemoveBeforeRestart: what was only staged goes without a restart.
func TestRemoveBeforeRestart(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	if r, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil || r.State != "removed" || r.Restart {
		t.Errorf("%+v %v", r, err)
	}
	if s := m.status(); s.State != device.StateNone || s.Restart {
		t.Errorf("%+v", s)
	}
	_, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log)
	wantKind(t, err, fault.Failed)
	if m.boot(); m.level("web") != 0 {
		t.Error("it came back")
	}
}

// TestOffline: everything but news works without a network.
func TestOffline(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	v.hostile(hangUp)
	if vf := m.verify(); !vf.OK {
		t.Errorf("%s", findings(vf))
	}
	if p, err := m.open().CVE(t.Context(), device.CVEOptions{ID: "cve-2026-1101"}, nil); err != nil || p.State != "active" {
		t.Errorf("%+v %v", p, err)
	}
	if s, err := m.open().Show(t.Context(), device.ShowOptions{Release: "SI-2026-0001"}, nil); err != nil || s.State != device.StateActive {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil {
		t.Error(err)
	}
	m.boot()
	_, err := m.open().Reapply(t.Context(), device.ReapplyOptions{}, user, m.log)
	wantKind(t, err, fault.Unreachable)
	_, err = m.open().Check(t.Context(), device.CheckOptions{}, nil)
	wantKind(t, err, fault.Unreachable)
	v.hostile(nil)
	if _, err := m.open().Reapply(t.Context(), device.ReapplyOptions{}, user, m.log); err != nil {
		t.Error(err)
	}
}

// TestForeignTicket: a ticket of another device is decoded, and refused.
func TestForeignTicket(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m, other := v.enrolled(""), v.enrolled("")
	stolen := v.stealTicket(other)
	own := v.stealTicket(m)
	got, err := m.open().Verify(t.Context(), device.VerifyOptions{Ticket: own}, nil)
	if err != nil || !got.OK || len(got.Ticket) == 0 {
		t.Errorf("own ticket: %s %v", findings(got), err)
	}
	got, err = m.open().Verify(t.Context(), device.VerifyOptions{Ticket: stolen}, nil)
	if err != nil || got.OK || !strings.Contains(findings(got), "another device's") {
		t.Errorf("stolen ticket: %s %v", findings(got), err)
	}
	_, err = m.open().Verify(t.Context(), device.VerifyOptions{Ticket: []byte("nonsense")}, nil)
	wantKind(t, err, fault.Ticket)
}

// update publishes the next OS version, whose web is at level 5.
func (v *vendor) update(version string) {
	v.t.Helper()
	b := v.base
	b.OSVersion = version
	b.Cryptexes = append([]release.Image(nil), b.Cryptexes...)
	for i, c := range b.Cryptexes {
		if c.Name == "web" {
			b.Cryptexes[i] = v.build("web", 2, 5)
			v.must(os.Rename(v.imageFile("web", 5), v.imageFile("web", 0)))
		}
	}
	v.base = b
	v.world.PublishBaseline(b)
	v.layOutOS()
}
