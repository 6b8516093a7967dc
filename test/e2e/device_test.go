// Package e2e has the tests that run whole journeys: a device with real images
// and mounts against a real server and catalog.
package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

// down unmounts everything below the device's folder, as a power switch would.
func (m *machine) down() {
	m.t.Helper()
	for range 100 {
		left := false
		data, err := os.ReadFile("/proc/self/mountinfo")
		m.v.must(err)
		for _, path := range mountsBelow(string(data), m.root) {
			if path == m.stay {
				continue
			}
			left = true
			syscall.Unmount(path, syscall.MNT_DETACH)
		}
		if !left {
			break
		}
	}
	m.v.must(os.RemoveAll(filepath.Join(m.root, "run/sealant")))
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Errorf("%v (%v), want kind %v", err, fault.KindOf(err), kind)
	}
}

// TestLife goes through the whole life of an improvement on one device.
func TestLife(t *testing.T) {
	v := newVendor(t)
	m := v.enrolled("")
	if m.level("web") != 0 || m.level("os") != 0 {
		t.Fatalf("baseline: web %d os %d", m.level("web"), m.level("os"))
	}
	if c := m.check(); c.State != device.StateNone {
		t.Errorf("nothing is published, but: %+v", c)
	}
	v.release(1, 100)
	if c := m.check(); c.State != device.StateAvailable || c.Release != "SI-2026-0001" || c.Answer() != fault.Available {
		t.Errorf("available: %+v", c)
	}

	// Install: staged, nothing running changed.
	r, err := m.install("")
	if err != nil || r.State != device.StateStaged || r.Release != "SI-2026-0001" || !r.Restart {
		t.Fatalf("install: %+v %v", r, err)
	}
	if m.level("web") != 0 {
		t.Error("a running system was changed")
	}
	if s := m.status(); s.State != device.StateStaged || s.Improvement != "42.3 (a)" || len(s.Fixed) != 0 || len(s.Waiting) == 0 {
		t.Errorf("status after install: %+v", s)
	}
	if r, err := m.install(""); err != nil || r.State != device.StateStaged || r.Seconds != 0 {
		t.Errorf("installing it again: %+v %v", r, err)
	}

	// Restart: active everywhere.
	if rec := m.boot(); rec.Slot != "next" || rec.Release != "SI-2026-0001" {
		t.Fatalf("boot: %+v", rec)
	}
	if m.level("web") != 1 || m.level("os") != 0 {
		t.Errorf("after restart: web %d os %d", m.level("web"), m.level("os"))
	}
	if s := m.status(); s.State != device.StateActive || s.Restart || len(s.Waiting) != 0 || len(s.Fixed) != 1 || s.Fixed[0].In != "everywhere" {
		t.Errorf("status after restart: %+v", s)
	}
	if vf := m.verify(); !vf.OK {
		t.Errorf("verify: %+v", vf)
	}
	if rec := m.boot(); rec.Slot != "current" || m.level("web") != 1 {
		t.Errorf("second boot: %+v", rec)
	}

	// Remove, cancel, remove: leaks again after a restart.
	if r, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil || r.State != device.StateStaged || len(r.Reopened) != 1 {
		t.Fatalf("remove: %+v %v", r, err)
	}
	if s := m.status(); s.State != device.StateRemoving {
		t.Errorf("status after remove: %+v", s)
	}
	if r, err := m.open().Remove(t.Context(), device.RemoveOptions{Cancel: true}, user, m.log); err != nil || r.State != "cancelled" {
		t.Fatalf("cancel: %+v %v", r, err)
	}
	if s := m.status(); s.State != device.StateActive {
		t.Errorf("status after cancel: %+v", s)
	}
	if rec := m.boot(); rec.Slot != "current" || m.level("web") != 1 {
		t.Errorf("boot after cancel: %+v", rec)
	}
	if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil {
		t.Fatal(err)
	}
	if rec := m.boot(); rec.Release != "" || m.level("web") != 0 {
		t.Errorf("boot after remove: %+v, level %d", rec, m.level("web"))
	}
	if s := m.status(); s.State != device.StateNone || len(s.Held) != 1 {
		t.Errorf("status after removal: %+v", s)
	}

	// Removed stays removed.
	if c := m.check(); c.State != device.StateClosed || c.Answer() != fault.NotEligible {
		t.Errorf("check after removal: %+v", c)
	}
	_, err = m.install("")
	wantKind(t, err, fault.NotEligible)

	// Reapply: no download, a fresh ticket.
	v.hostile(nil)
	if r, err := m.open().Reapply(t.Context(), device.ReapplyOptions{}, user, m.log); err != nil || r.State != device.StateStaged {
		t.Fatalf("reapply: %+v %v", r, err)
	}
	if got := v.requests("/tuf/targets/patches"); len(got) != 0 {
		t.Errorf("reapply downloaded: %v", got)
	}
	if got := v.requests("/v1/tickets"); len(got) != 1 {
		t.Errorf("reapply asked for %d tickets", len(got))
	}
	if rec := m.boot(); rec.Release != "SI-2026-0001" || m.level("web") != 1 {
		t.Errorf("boot after reapply: %+v", rec)
	}
	if s := m.status(); len(s.Held) != 0 {
		t.Errorf("held after reapply: %+v", s.Held)
	}
	h, err := m.open().History(t.Context())
	if err != nil || !h.Whole {
		t.Errorf("history: %+v %v", h, err)
	}
	var events []string
	for _, r := range h.Records {
		events = append(events, r.Event)
	}
	want := []string{"enrolled", "staged", "confirmed", "removed", "remove-cancelled", "removed", "confirmed", "reapplied", "confirmed"}
	if !equal(events, want) {
		t.Errorf("history %v, want %v", events, want)
	}
}

// TestRecall: the most recent improvement goes back to the one before, then
// that one to the baseline; what was recalled stays away.
func TestRecall(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	v.release(2, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if m.level("web") != 2 || m.level("os") != 2 {
		t.Fatalf("web %d os %d", m.level("web"), m.level("os"))
	}
	v.recall(2)
	c := m.check()
	if c.Recall == nil || c.Recall.To != "SI-2026-0001" || c.Recall.State != device.StateStaged || len(c.Recall.Reopened) != 1 {
		t.Fatalf("recall: %+v", c.Recall)
	}
	if s := m.status(); s.State != device.StateReverting {
		t.Errorf("status: %+v", s)
	}
	if c := m.check(); c.Recall != nil {
		t.Errorf("recalled twice: %+v", c.Recall)
	}
	if rec := m.boot(); rec.Release != "SI-2026-0001" || m.level("web") != 1 || m.level("os") != 0 {
		t.Fatalf("boot after recall: %+v", rec)
	}
	_, err := m.install("SI-2026-0002")
	wantKind(t, err, fault.Recalled)
	_, err = m.open().Reapply(t.Context(), device.ReapplyOptions{Release: "SI-2026-0002"}, user, m.log)
	if err == nil {
		t.Error("a recalled improvement was reapplied")
	}

	v.recall(1)
	if c := m.check(); c.Recall == nil || c.Recall.To != "" {
		t.Fatalf("second recall: %+v", c.Recall)
	}
	if rec := m.boot(); rec.Release != "" || m.level("web") != 0 {
		t.Errorf("boot after the second recall: %+v", rec)
	}
	if c := m.check(); c.Recall != nil || c.State != device.StateClosed || c.Answer() != fault.Recalled {
		t.Errorf("check at the end: %+v", c)
	}
}

// TestRecallOfWhatIsOnlyStaged takes it away without a restart.
func TestRecallOfWhatIsOnlyStaged(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	m := v.enrolled("")
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	v.recall(1)
	c := m.check()
	if c.Recall == nil || c.Recall.State != "taken-back" {
		t.Fatalf("%+v", c.Recall)
	}
	if s := m.status(); s.State != device.StateNone || s.Restart {
		t.Errorf("%+v", s)
	}
	if rec := m.boot(); rec.Release != "" || m.level("web") != 0 {
		t.Errorf("%+v", rec)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// hangUp answers nothing, as a network that is gone.
func hangUp(w http.ResponseWriter, _ *http.Request) bool {
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		c.Close()
	}
	return true
}
