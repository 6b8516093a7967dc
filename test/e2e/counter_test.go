package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/tpm"
)

// withTPM makes a device whose key is in a TPM.
func (v *vendor) withTPM() *machine {
	v.t.Helper()
	m := v.machine("")
	m.fitTPM()
	m.enroll()
	return m
}

// advance installs the newest improvement and restarts.
func (m *machine) advance() activate.Record {
	m.t.Helper()
	if _, err := m.install(""); err != nil {
		m.t.Fatal(err)
	}
	return m.boot()
}

func wasRefused(r activate.Record, slot store.Slot) bool {
	return slices.ContainsFunc(r.Refused, func(f activate.Refusal) bool {
		return f.Slot == slot && f.Reason == activate.ReasonCounter
	})
}

// TestOldStatePutBack: a copy of all files of an older day, ticket and nonces
// included, is not the device any more.
func TestOldStatePutBack(t *testing.T) {
	v := newVendor(t)
	m := v.withTPM()
	if got := finding(t, m, "I3"); !strings.HasPrefix(got, "ok: ") {
		t.Fatalf("after the enrolment: %s", got)
	}
	v.release(1, 100)
	m.advance()
	m.save("confirmed")
	v.release(2, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	m.save("staged")
	if rec := m.boot(); rec.Release != "SI-2026-0002" {
		t.Fatalf("boot: %+v", rec)
	}

	for _, test := range []struct {
		name string
		slot store.Slot
	}{{"confirmed", store.Current}, {"staged", store.Next}} {
		m.load(test.name)
		rec := m.bootOnly()
		if rec.Slot != store.Base || !wasRefused(rec, test.slot) || m.level("web") != 0 {
			t.Fatalf("%s: %+v", test.name, rec)
		}
		if got := finding(t, m, "I3"); !strings.HasPrefix(got, "bad: somebody put an old copy") {
			t.Errorf("%s: doctor: %s", test.name, got)
		}
		if k, bad := m.verify().Kind(); !bad || k != fault.Ticket {
			t.Errorf("%s: verify found nothing", test.name)
		}
		// Staging what the old copy has is refused as well.
		set, err := m.open().Store.Slot(test.slot)
		v.must(err)
		wantKind(t, activate.Stage(t.Context(), m.open().Store, set, nil), fault.Ticket)

		// The agent makes the best of it.
		if _, err := m.open().Confirm(t.Context(), m.log); err != nil {
			t.Fatal(err)
		}
		if got := finding(t, m, "I3"); !strings.HasPrefix(got, "ok: ") {
			t.Errorf("%s: doctor after starting over: %s", test.name, got)
		}
		if st := m.open().Store; st.SlotID(store.Current) != st.SlotID(store.Base) || st.SlotID(store.Next) != "" {
			t.Errorf("%s: %s and %s are left", test.name, st.SlotID(store.Current), st.SlotID(store.Next))
		}
		if rec := m.advance(); rec.Release != "SI-2026-0002" || rec.Slot != store.Next || m.level("web") != 2 {
			t.Errorf("%s: it doesn't go on: %+v", test.name, rec)
		}
	}

	// What stands in the state doesn't help: the old nonces alone, neither.
	st := m.open().Store
	old, err := st.Nonces()
	v.must(err)
	if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, nil); err != nil {
		t.Fatal(err)
	}
	m.boot()
	v.must(st.WriteNonces(old))
	if rec := m.boot(); rec.Slot != store.Current || m.level("web") != 0 {
		t.Errorf("the baseline doesn't need nonces: %+v", rec)
	}
}

// TestKilledBeforeCounting: the device is killed after its nonces were written
// and before the TPM counted, at each change of them.
func TestKilledBeforeCounting(t *testing.T) {
	v := newVendor(t)
	m := v.withTPM()
	v.release(1, 100)
	st := m.open().Store
	rand := m.open().Rand

	n, err := st.Nonces()
	v.must(err)
	n, err = n.Next(rand) // an installation is killed
	v.must(err)
	v.must(st.WriteNonces(n))
	if rec := m.boot(); rec.Slot != store.Current || len(rec.Refused) != 0 {
		t.Fatalf("boot: %+v", rec)
	}
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	if rec := m.bootOnly(); rec.Slot != store.Next {
		t.Fatalf("boot: %+v", rec)
	}
	m.save("before")
	n, err = st.Nonces()
	v.must(err)
	n, err = n.Confirm() // the confirmation is
	v.must(err)
	v.must(st.WriteNonces(n))
	m.save("after")
	// Both files count as the present as long as the TPM didn't count; then
	// only what was confirmed does.
	m.load("before")
	if rec := m.bootOnly(); rec.Slot != store.Next {
		t.Fatalf("boot before: %+v", rec)
	}
	m.load("after")
	if rec := m.boot(); rec.Release != "SI-2026-0001" || rec.Slot != store.Next || st.SlotID(store.Next) != "" {
		t.Fatalf("boot after: %+v", rec)
	}
	m.load("before")
	if rec := m.bootOnly(); rec.Release != "" || !wasRefused(rec, store.Next) {
		t.Errorf("the state before the confirmation came back: %+v", rec)
	}
}

// TestKillCounting kills the confirmation and the removal of a device with a
// TPM at every step, the TPM's commands included. No step leaves it with nonces
// that the TPM doesn't know, or with two sets that boot.
func TestKillCounting(t *testing.T) {
	v := newVendor(t)
	m := v.machine("")
	chip := t.TempDir()
	remove := m.fitTPMWith(chip)
	m.enroll()
	v.release(1, 100)
	m.advance()
	v.release(2, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	remove()
	m.save("staged")
	for _, tt := range []struct {
		do   string
		boot bool
		to   map[int]bool // levels of web that the next boot may have
	}{
		{"confirm", true, map[int]bool{2: true}},
		{"remove", false, map[int]bool{0: true, 1: true, 2: true}},
	} {
		last := 0
		for n, killed := 1, true; killed; n += max(1, stride/3) {
			last = n
			state := t.TempDir()
			v.must(os.CopyFS(state, os.DirFS(chip)))
			m.load("staged")
			remove := m.fitTPMWith(state)
			if tt.boot {
				m.bootOnly()
			}
			killed = m.killedAmong(changing+",connect", n, tt.do)
			// The boot reads the TPM as it is, before anybody counts.
			rec := m.bootOnly()
			// Removing a staged set may find its tries replaced already: that
			// boot uses the current set.
			ended := slices.ContainsFunc(rec.Refused, func(f activate.Refusal) bool {
				return f.Reason == activate.ReasonCounter || f.Reason == fault.Ticket.String() || tt.boot
			})
			if ended || !tt.to[m.level("web")] {
				t.Errorf("%s, killed at call %d: level %d, %+v", tt.do, n, m.level("web"), rec)
			}
			m.boot()
			if got := finding(t, m, "I3"); !strings.HasPrefix(got, "ok: ") {
				t.Errorf("%s, killed at call %d: %s", tt.do, n, got)
			}
			if v := m.verify(); !v.OK {
				t.Errorf("%s, killed at call %d: %+v", tt.do, n, v.Checks)
			}
			remove()
		}
		if last < 10 {
			t.Errorf("%s ended by itself at call %d already: not killed enough", tt.do, last)
		}
		t.Logf("%s ended by itself at call %d", tt.do, last)
	}
}

// TestTPMSilent: without its TPM a device boots its baseline, and gives nothing
// up; with it, it goes on where it was.
func TestTPMSilent(t *testing.T) {
	v := newVendor(t)
	m := v.withTPM()
	v.release(1, 100)
	m.advance()
	v.release(2, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	socket := m.open().Store.TPMPath()
	v.must(os.Rename(socket, socket+".off"))
	rec := m.boot()
	if rec.Slot != store.Base || !wasRefused(rec, store.Next) || !wasRefused(rec, store.Current) {
		t.Errorf("boot without: %+v", rec)
	}
	if got := finding(t, m, "I2"); !strings.HasPrefix(got, "bad: ") {
		t.Errorf("doctor: %s", got)
	}
	v.must(os.Rename(socket+".off", socket))
	if rec := m.boot(); rec.Slot != store.Next || rec.Release != "SI-2026-0002" || m.level("web") != 2 {
		t.Errorf("boot with it again: %+v", rec)
	}
}

// TestCounterDeleted: whoever is root can delete the counter, but makes no old
// copy valid by it.
func TestCounterDeleted(t *testing.T) {
	v := newVendor(t)
	m := v.withTPM()
	v.release(1, 100)
	m.advance()
	chip := m.openTPM()
	index, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(tpm.CounterIndex)}.Execute(chip)
	v.must(err)
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(tpm.CounterIndex), Name: index.NVName},
	}.Execute(chip)
	v.must(err)
	if got := finding(t, m, "I3"); !strings.HasPrefix(got, "bad: ") {
		t.Errorf("doctor: %s", got)
	}
	if rec := m.boot(); rec.Slot != store.Base || !wasRefused(rec, store.Current) {
		t.Errorf("boot: %+v", rec)
	}
	if got := finding(t, m, "I3"); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("doctor after starting over: %s", got)
	}
	if rec := m.advance(); rec.Slot != store.Next || m.level("web") != 1 {
		t.Errorf("it doesn't go on: %+v", rec)
	}
}
