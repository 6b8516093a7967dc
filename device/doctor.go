package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/amount"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/identity"
)

// Diagnosis is what is good and what isn't, in plain words.
type Diagnosis struct {
	Findings []Symptom `json:"findings"`
}

// Symptom is one of them.
type Symptom struct {
	Code   string `json:"code"`  // stable: V2, I1, C1…
	Level  string `json:"level"` // ok, warn, bad
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

func (g *Diagnosis) add(code, level, remedy, format string, args ...any) {
	g.Findings = append(g.Findings, Symptom{code, level, fmt.Sprintf(format, args...), remedy})
}

// Doctor looks at what this machine's protection rests on. It changes nothing
// and needs no network.
func (d *Device) Doctor(ctx context.Context) (Diagnosis, error) {
	var g Diagnosis
	d.examineIdentity(&g)
	d.examineEnforcement(&g)
	d.examineExecution(&g)
	d.examineIPE(&g)
	d.examineClock(&g)
	d.examineFeed(&g)
	d.examineLog(&g)
	d.examineSpace(&g)
	d.examineBoot(&g)
	d.examineCounting(&g)
	d.examineServices(&g)
	d.examineAccess(&g)
	d.examineForce(&g)
	return g, nil
}

func (d *Device) examineIdentity(g *Diagnosis) {
	e, err := d.Store.Enrolment()
	switch {
	case errors.Is(err, store.ErrEmpty):
		g.add("I1", "bad", "sealant enroll --token TOKEN", "this device is not enrolled: it gets no improvements")
		return
	case err != nil:
		g.add("I1", "bad", "", "%v", err)
		return
	}
	if id, err := d.keyID(); err != nil {
		if os.IsPermission(err) {
			g.add("I2", "warn", "run sealant doctor as root", "the device's key can't be read by this user")
			return
		}
		g.add("I2", "bad", "enrol this device again", "the device's key can't be used: %v", err)
	} else if [32]byte(id) != [32]byte(e.Device) {
		g.add("I2", "bad", "enrol this device again", "the device's key is not the one that was enrolled")
	} else {
		d.examineKey(g, id)
	}
}

// examineKey says how well the key is kept; a TPM must show that it has it.
func (d *Device) examineKey(g *Diagnosis, id identity.ID) {
	if d.identityPlace() == IdentityFile {
		g.add("I2", "warn", "a TPM would keep the key from being copied", "the device's key lies in a file that root can copy; device %s", id)
		return
	}
	key, err := d.key()
	if err == nil {
		_, err = identity.SignRequest(key, "GET", "/", nil, d.Now())
	}
	if err != nil {
		g.add("I2", "bad", "enrol this device again if its mainboard was changed", "the device's key is in a TPM, but not usable: %v", err)
		return
	}
	g.add("I2", "ok", "", "the device's key is in the TPM and can't leave it; device %s", id)
	switch err := activate.CheckNonces(d.Store); {
	case err == nil:
		g.add("I3", "ok", "", "the TPM's counter says that this state is no old copy")
	case fault.KindOf(err) == fault.Ticket:
		g.add("I3", "bad", "restart the agent: the device then goes on from its baseline", "somebody put an old copy of this device's state back: %v", err)
	default:
		g.add("I3", "bad", "enrol this device again if its TPM was cleared", "%v", err)
	}
}

func (d *Device) examineEnforcement(g *Diagnosis) {
	e, why := d.enforcement()
	if e == activate.Kernel {
		g.add("V1", "ok", "", "the kernel checks every block of the improvements whenever it is read from the disk (dm-verity)")
	} else {
		level, remedy := "warn", "device-mapper in the kernel (CONFIG_DM_VERITY) would catch them"
		if d.Config.Policy.TrustEnforcement == "kernel" {
			level = "bad"
		}
		g.add("V2", level, remedy, "improvements are checked when they are mounted, all bytes of them; changes on the disk after that are not caught: %s", why)
	}
	for _, name := range d.damage() {
		g.add("V3", "bad", "sealant install makes it anew; if it comes again, the disk is failing", "the kernel refused to read damaged blocks of %s", name)
	}
}

func (d *Device) examineClock(g *Diagnosis) {
	cat, err := d.catalog()
	if err != nil {
		return
	}
	now := d.Now()
	switch believed := cat.Clock(); {
	case believed.Sub(now) > time.Minute:
		g.add("C1", "bad", "set the clock", "the clock is wrong: it says %s, but it is at least %s",
			now.UTC().Format("2006-01-02 15:04Z"), believed.UTC().Format("2006-01-02 15:04Z"))
	default:
		g.add("C1", "ok", "", "the clock is not behind anything that was verified")
	}
}

func (d *Device) examineFeed(g *Diagnosis) {
	if d.server() == "" {
		g.add("F1", "bad", "set server.url in "+d.Store.ConfigDir()+"/agent.toml", "no server is configured")
		return
	}
	cat, err := d.catalog()
	switch {
	case err != nil:
		g.add("F2", "bad", "", "the catalog can't be opened: %v", err)
	case cat.Checked().IsZero():
		g.add("F2", "warn", "sealant check", "the vendor's catalog was never asked")
	case cat.Clock().Sub(cat.Checked()) > d.Config.Policy.TrustFreshnessMax:
		g.add("F2", "bad", "sealant check", "the vendor was last heard %s ago; somebody may be hiding updates", amount.Span(cat.Clock().Sub(cat.Checked())))
	default:
		g.add("F2", "ok", "", "the vendor was last heard %s ago (catalog v%d)", amount.Span(cat.Clock().Sub(cat.Checked())), cat.Version())
	}
}

func (d *Device) examineSpace(g *Diagnosis) {
	free, where, err := d.Store.Free()
	if err != nil {
		return
	}
	var need int64 = 64 << 20
	if b, err := d.baseline(); err == nil {
		need = 0
		for _, c := range b.Cryptexes {
			need += 2 * c.Size
		}
	}
	if free < need {
		g.add("S1", "warn", "free some room there", "%s has %s free; a large improvement may need up to %s", where, amount.Bytes(free), amount.Bytes(need))
		return
	}
	g.add("S1", "ok", "", "%s has %s free; removal needs nothing of it", where, amount.Bytes(free))
}

func (d *Device) examineBoot(g *Diagnosis) {
	r, err := activate.ReadRecord(d.Store)
	switch {
	case errors.Is(err, os.ErrNotExist):
		g.add("B1", "bad", "sealant-boot must run early at boot (sealant-boot.service)", "sealant-boot did not run at this boot: no cryptex is attached")
	case err != nil:
		g.add("B1", "bad", "", "%v", err)
	case len(r.Refused) > 0:
		g.add("B1", "warn", "sealant history, sealant verify", "booted %s (%s), after passing over: %s", bootName(r), r.Slot, r.Refused[0].Text)
	default:
		g.add("B1", "ok", "", "booted %s (%s)", bootName(r), r.Slot)
	}
}

func (d *Device) examineCounting(g *Diagnosis) {
	switch {
	case d.Counting != "":
		g.add("E1", "ok", "", "crashes are counted by %s", d.Counting)
	case d.Agent:
		g.add("E1", "warn", "the agent's log says why", "crashes are not counted: this device can't see by itself that an improvement harms")
	default:
		g.add("E1", "warn", "systemctl start sealant.service", "crashes are not counted while the agent does not run")
	}
}
