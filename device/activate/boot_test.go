package activate

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/test/rig"
)

func TestMain(m *testing.M) { namespace.Main(m) }

var (
	baseContent = [2]string{"os base", "web base"}
	contentA    = [2]string{"os base", "web (a)"}
	contentB    = [2]string{"os base", "web (b)"}
)

// staged is a device with improvement (a) in next.
func staged(t testing.TB) (*rig.Device, store.Set) {
	t.Helper()
	d := rig.New(t, rig.NewVendor(t))
	set := d.Improve("SI-2026-0001", 1)
	must(t, d.Store.Stage(set.ID))
	return d, set
}

// confirmed is a device with (a) in current and (b) in next.
func confirmed(t testing.TB) (d *rig.Device, a, b store.Set) {
	t.Helper()
	d, a = staged(t)
	d.Confirm()
	b = d.Improve("SI-2026-0002", 2)
	must(t, d.Store.Stage(b.ID))
	return d, a, b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func imageOf(t testing.TB, d *rig.Device, set store.Set, name string) string {
	t.Helper()
	c, ok := set.Cryptex(name)
	if !ok {
		t.Fatalf("no %s in %s", name, set.ID)
	}
	return d.Store.ImagePath(c.Image)
}

// TestBoot is the matrix of what can be in which state, and what is used then.
func TestBoot(t *testing.T) {
	type want struct {
		slot    store.Slot
		content [2]string
		kind    fault.Kind // of the error; Failed with code "" means none
		failed  bool
		reasons string // SLOT:REASON[:CRYPTEX] of every refusal
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T) *rig.Device
		want    want
	}{
		{
			"not enrolled", func(t *testing.T) *rig.Device {
				d := rig.New(t, rig.NewVendor(t))
				must(t, os.RemoveAll(d.Store.Dir()))
				return d
			},
			want{slot: Delivered, content: baseContent},
		},
		{
			"baseline", func(t *testing.T) *rig.Device { return rig.New(t, rig.NewVendor(t)) },
			want{slot: store.Current, content: baseContent},
		},
		{
			"next", func(t *testing.T) *rig.Device { d, _ := staged(t); return d },
			want{slot: store.Next, content: contentA},
		},
		{
			"next after next", func(t *testing.T) *rig.Device { d, _, _ := confirmed(t); return d },
			want{slot: store.Next, content: contentB},
		},
		{
			"confirmed", func(t *testing.T) *rig.Device { d, _ := staged(t); d.Confirm(); return d },
			want{slot: store.Current, content: contentA},
		},
		{
			"removal staged", func(t *testing.T) *rig.Device {
				d, _ := staged(t)
				d.Confirm()
				d.Preroll()
				must(t, d.Store.Stage(d.Store.SlotID(store.Base)))
				return d
			},
			want{slot: store.Next, content: baseContent},
		},
		{
			"next's ticket damaged", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				rig.Damage(t, filepath.Join(d.Store.Dir(), "sets", b.ID, "ticket.im4m"), 300)
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Ticket, reasons: "next:ticket-invalid"},
		},
		{
			"next's image damaged", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				rig.DamageTree(t, imageOf(t, d, b, "web"))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Seal, reasons: "next:seal-mismatch:web"},
		},
		{
			"next's image missing", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				must(t, os.Remove(imageOf(t, d, b, "web")))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, reasons: "next:missing:web"},
		},
		{
			"next's image cut short", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				must(t, os.Truncate(imageOf(t, d, b, "web"), 8192))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Seal, reasons: "next:seal-mismatch:web"},
		},
		{
			"next leads nowhere", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				must(t, os.RemoveAll(filepath.Join(d.Store.Dir(), "sets", b.ID)))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, reasons: "next:failed"},
		},
		{
			"tries used up", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				for range store.FirstTries {
					d.Store.TakeTry()
				}
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, reasons: "next:no-tries"},
		},
		{
			"tries unreadable", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				must(t, os.WriteFile(filepath.Join(d.Store.Dir(), "tries.json"), []byte("{"), 0o644))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, reasons: "next:failed"},
		},
		{
			"power cut between roll and promotion, tries used up", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				for range store.FirstTries {
					d.Store.TakeTry()
				}
				d.Roll()
				return d
			},
			want{slot: store.Next, content: contentB},
		},
		{
			"current bad, next bad", func(t *testing.T) *rig.Device {
				d, a, b := confirmed(t)
				rig.DamageTree(t, imageOf(t, d, a, "web"))
				rig.DamageTree(t, imageOf(t, d, b, "web"))
				return d
			},
			want{slot: store.Base, content: baseContent, failed: true, kind: fault.Seal, reasons: "next:seal-mismatch:web current:seal-mismatch:web"},
		},
		{
			"every set bad", func(t *testing.T) *rig.Device {
				d, a, b := confirmed(t)
				for _, set := range []string{a.ID, b.ID, d.Store.SlotID(store.Base)} {
					rig.Damage(t, filepath.Join(d.Store.Dir(), "sets", set, "ticket.im4m"), 300)
				}
				return d
			},
			want{slot: Delivered, content: baseContent, failed: true, kind: fault.Ticket, reasons: "next:ticket-invalid current:ticket-invalid base:ticket-invalid"},
		},
		{
			"state wrecked", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				must(t, os.RemoveAll(d.Store.Dir()))
				must(t, os.WriteFile(d.Store.Dir(), []byte("not a folder"), 0o644))
				return d
			},
			want{slot: Delivered, content: baseContent, failed: true, reasons: ":failed"},
		},
		{
			"state of a newer version", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				must(t, os.WriteFile(filepath.Join(d.Store.Dir(), "version"), []byte("99\n"), 0o644))
				return d
			},
			want{slot: Delivered, content: baseContent, failed: true, reasons: ":failed"},
		},
		{
			"identity lost", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				must(t, os.RemoveAll(filepath.Join(d.Store.Dir(), "identity")))
				return d
			},
			want{slot: Delivered, content: baseContent, failed: true, reasons: ":failed"},
		},
		{
			"another device's ticket", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				other := b
				d.Sign(&other, [32]byte{1, 2, 3}, d.Preroll())
				must(t, d.Store.AddSet(other))
				must(t, d.Store.Stage(other.ID))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Ticket, reasons: "next:ticket-invalid"},
		},
		{
			"another vendor's ticket", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				other := rig.New(t, rig.NewVendor(t))
				set := b
				other.Sign(&set, d.ID, d.Preroll())
				must(t, d.Store.AddSet(set))
				must(t, d.Store.Stage(set.ID))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Ticket, reasons: "next:ticket-invalid"},
		},
		{
			"a removed set brought back", func(t *testing.T) *rig.Device {
				d, a, _ := confirmed(t)
				d.Confirm() // (b) is current, the nonce of (a) is gone
				must(t, d.Store.Stage(a.ID))
				d.Preroll()
				return d
			},
			want{slot: store.Current, content: contentB, failed: true, kind: fault.Ticket, reasons: "next:ticket-invalid"},
		},
		{
			"a ticket for part of the set", func(t *testing.T) *rig.Device {
				d, _, b := confirmed(t)
				part := b
				part.Cryptexes = part.Cryptexes[1:]
				d.Sign(&part, d.ID, d.Preroll())
				must(t, d.Store.AddSet(part))
				must(t, d.Store.Stage(part.ID))
				return d
			},
			want{slot: store.Current, content: contentA, failed: true, kind: fault.Seal, reasons: "next:seal-mismatch"},
		},
		{
			"an OS update", func(t *testing.T) *rig.Device {
				d, _, _ := confirmed(t)
				d.Deliver("42.4", "new")
				return d
			},
			want{
				slot: Delivered, content: [2]string{"os new", "web new"},
				reasons: "next:other-baseline current:other-baseline base:other-baseline",
			},
		},
		{
			"a delivered image damaged", func(t *testing.T) *rig.Device {
				d := rig.New(t, rig.NewVendor(t))
				rig.DamageTree(t, d.Store.BaseImagePath("web"))
				return d
			},
			want{
				slot: Delivered, content: [2]string{"os base", "nothing"}, failed: true, kind: fault.Seal,
				reasons: "current:seal-mismatch:web base:seal-mismatch:web delivered:seal-mismatch:web",
			},
		},
		{
			"a delivered image damaged, a copy in the state", func(t *testing.T) *rig.Device {
				d := rig.New(t, rig.NewVendor(t))
				set, err := d.Store.Slot(store.Base)
				must(t, err)
				data, err := os.ReadFile(imageOf(t, d, set, "web"))
				must(t, err)
				rig.DamageTree(t, d.Store.BaseImagePath("web"))
				c, _ := set.Cryptex("web")
				must(t, d.Store.RemoveImage(c.Image))
				p, err := d.Store.NewImage(c.Image)
				must(t, err)
				_, err = p.Write(data)
				must(t, err)
				must(t, p.Commit())
				return d
			},
			want{slot: store.Current, content: baseContent},
		},
		{
			"no baseline", func(t *testing.T) *rig.Device {
				d := rig.New(t, rig.NewVendor(t))
				must(t, os.Remove(d.Store.BaselinePath()))
				return d
			},
			want{content: [2]string{"nothing", "nothing"}, failed: true, reasons: ":missing"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.prepare(t)
			r, err := Boot(t.Context(), d.Root)
			if (err != nil) != tt.want.failed || err != nil && fault.KindOf(err) != tt.want.kind {
				t.Errorf("error %v of kind %v", err, fault.KindOf(err))
			}
			if r.Slot != tt.want.slot || d.Versions() != tt.want.content {
				t.Errorf("used %q, which shows %q", r.Slot, d.Versions())
			}
			var reasons []string
			for _, x := range r.Refused {
				s := string(x.Slot) + ":" + x.Reason
				if x.Cryptex != "" {
					s += ":" + x.Cryptex
					if !strings.HasPrefix(x.File, d.Root) && x.Reason != ReasonMissing {
						t.Errorf("refused file %q", x.File)
					}
				}
				reasons = append(reasons, s)
			}
			if got := strings.Join(reasons, " "); got != tt.want.reasons {
				t.Errorf("refused %q, want %q", got, tt.want.reasons)
			}
			again, err := ReadRecord(d.Store)
			if err != nil || again.Slot != r.Slot || len(again.Refused) != len(r.Refused) || again.Error != r.Error {
				t.Errorf("the record reads back as %+v, %v", again, err)
			}
			if r.Slot == "" {
				return
			}
			for _, link := range []func(*store.Store) (string, error){present.Booted, present.Staged} {
				if id, err := link(d.Store); err != nil || id != r.Set {
					t.Errorf("a link leads to %q, %v; the set is %q", id, err, r.Set)
				}
			}
		})
	}
}

// Each boot of an unconfirmed set costs a try, whatever becomes of it.
func TestBootCountsTries(t *testing.T) {
	d, _ := staged(t)
	for left := store.FirstTries - 1; left >= 0; left-- {
		r, err := Boot(t.Context(), d.Root)
		must(t, err)
		if r.Slot != store.Next || r.TriesLeft == nil || *r.TriesLeft != left {
			t.Errorf("slot %q with %v tries left, want %d", r.Slot, r.TriesLeft, left)
		}
	}
	r, err := Boot(t.Context(), d.Root)
	if r.Slot != store.Current || err == nil || d.Versions() != baseContent {
		t.Errorf("slot %q, %v", r.Slot, err)
	}
	if n, err := d.Store.Tries(); n != 0 || err != nil {
		t.Errorf("%d tries, %v", n, err)
	}
}

// A boot over the mounts of an earlier one, as on a machine that restarts its
// userspace only, switches all of it and leaves nothing of the old.
func TestBootAgain(t *testing.T) {
	d, _ := staged(t)
	_, err := Boot(t.Context(), d.Root)
	must(t, err)
	before := namespace.Counted(t, d.Root)
	for range 5 {
		d.Confirm()
		set := d.Improve("SI-2026-0002", 2)
		must(t, d.Store.Stage(set.ID))
		if _, err := Boot(t.Context(), d.Root); err != nil {
			t.Fatal(err)
		}
		if d.Versions() != contentB {
			t.Errorf("shows %q", d.Versions())
		}
		if after := namespace.Settled(t, d.Root, before); after != before {
			t.Errorf("%+v after, %+v before", after, before)
		}
	}
	d.Deliver("42.4", "new")
	must(t, os.RemoveAll(d.Store.BaseImagePath("web")))
	if _, err := Boot(t.Context(), d.Root); err == nil {
		t.Error("no error without an image")
	}
	if want := [2]string{"os new", "nothing"}; d.Versions() != want {
		t.Errorf("shows %q: content of an older boot stays", d.Versions())
	}
}

// sealant-boot runs before there is a network and must not be able to use one.
func TestLinksNoNetwork(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "net/http", "crypto/tls", "os/exec", "github.com/theupdateframework/go-tuf/v2/metadata":
			t.Errorf("links %s", dep)
		}
	}
}

func BenchmarkBoot(b *testing.B) {
	d := rig.New(b, rig.NewVendor(b))
	for b.Loop() {
		if _, err := Boot(b.Context(), d.Root); err != nil {
			b.Fatal(err)
		}
	}
}
