// Package gate decides whether an improvement may be installed on this device
// now. Every gate always answers, so that "why is nothing offered?" has a
// whole answer: which gates are open, which is the first closed one, with a
// stable code and what a person can do about it.
//
// Parties: the vendor's catalog says for which baseline an improvement is and
// to whom it is offered; policy says what an administrator allows; the machine
// says how it is powered, connected and how much room it has. Check is pure:
// all of that is in Facts. ReadPower and Metered ask the machine.
//
// What the caller must still check: that Facts came from a verified catalog,
// and afterwards the ticket and every byte. A gate is no security boundary.
package gate

import (
	"fmt"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/internal/amount"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// Facts are what the gates decide on.
type Facts struct {
	Now      time.Time // never behind the last verified moment
	Device   [32]byte
	Product  string
	Baseline release.Digest // of the installed OS update
	Policy   policy.Policy
	Asked    bool // a person asked for the installation, or a recall leads here
	Toggle   bool // the person's "Automatically Install"
	Deadline bool // install.deadline was set, and is not only the default
	Power    Power
	Metered  bool
	Kernel   bool   // the kernel guards mounted content (dm-verity)
	Held     string // why this device refuses this improvement for now; "" if it doesn't
	Free     int64  // bytes
	Where    string // the file system that Free is about

	Manifest release.Manifest
	Recalls  release.RecallList
	Rollout  release.Rollout
	Urgent   bool  // it fixes a flaw with known attacks that is still open here
	Again    bool  // this very improvement is being reapplied: ring and defer were passed before
	Download int64 // bytes that must still be downloaded
	Need     int64 // bytes of room that the work takes
}

// Result is one gate's answer.
type Result struct {
	Gate   string     `json:"gate"` // base, policy, enforcement, pin, recall, held, ring, defer, automatic, battery, metered, space
	Open   bool       `json:"open"`
	Code   string     `json:"code"`             // stable reason of a closed gate, "" if open
	Text   string     `json:"text"`             // what was found
	Remedy string     `json:"remedy,omitempty"` // what a person can do about a closed gate
	Kind   fault.Kind `json:"-"`
}

// Check asks every gate, in the order in which a person would want to know.
func Check(f Facts) []Result {
	gates := []struct {
		name string
		ask  func(Facts) Result
	}{
		{"base", base},
		{"policy", allow},
		{"enforcement", enforcement},
		{"pin", pin},
		{"recall", recall},
		{"held", held},
		{"ring", ring},
		{"defer", deferral},
		{"automatic", automatic},
		{"battery", battery},
		{"metered", metered},
		{"space", space},
	}
	results := make([]Result, 0, len(gates))
	for _, g := range gates {
		r := g.ask(f)
		r.Gate = g.name
		results = append(results, r)
	}
	return results
}

// First is the first closed gate as an error, nil if all are open.
func First(results []Result) error {
	for _, r := range results {
		if !r.Open {
			return r.Err()
		}
	}
	return nil
}

// Err is a closed gate as an error with its kind and remedy.
func (r Result) Err() error {
	if r.Open {
		return nil
	}
	return fault.New(r.Kind, "cannot install: %s (%s)", r.Text, r.Code).Hint("%s", r.Remedy)
}

func open(format string, args ...any) Result {
	return Result{Open: true, Text: fmt.Sprintf(format, args...)}
}

func closed(kind fault.Kind, code, remedy, format string, args ...any) Result {
	return Result{Code: code, Kind: kind, Remedy: remedy, Text: fmt.Sprintf(format, args...)}
}

func base(f Facts) Result {
	switch {
	case f.Manifest.Product != f.Product:
		return closed(fault.NotEligible, "product-differs", "this improvement is for another product",
			"it is for %s, this is %s", f.Manifest.Product, f.Product)
	case f.Manifest.Baseline != f.Baseline:
		return closed(fault.NotEligible, "baseline-differs", "install the OS update that it is for",
			"it is for base %s (%.8s…), installed is %.8s…", f.Manifest.OSVersion, f.Manifest.Baseline, f.Baseline)
	}
	return open("base matches")
}

func allow(f Facts) Result {
	if !f.Policy.InstallAllow {
		return closed(fault.Policy, "install-forbidden", "sealant policy --effective names who forbids it", "policy forbids improvements")
	}
	return open("policy allows it")
}

func enforcement(f Facts) Result {
	switch {
	case f.Kernel:
		return open("the kernel guards what is mounted")
	case f.Policy.TrustEnforcement == "kernel":
		return closed(fault.Policy, "enforcement", "sealant doctor says what this machine lacks", "policy wants the kernel to guard content, which this machine can't")
	}
	return open("content is checked when mounted")
}

func pin(f Facts) Result {
	if p := f.Policy.PinRelease; p != "" && p != f.Manifest.ID {
		return closed(fault.Policy, "pinned", "pin.release holds this device; sealant policy --effective names the file", "this device is pinned to %s", p)
	}
	return open("not pinned elsewhere")
}

func recall(f Facts) Result {
	if r, ok := f.Recalls.Find(f.Manifest.ID); ok {
		return closed(fault.Recalled, "recalled", "a corrected improvement will follow", "the vendor took it back: %s", r.Reason)
	}
	return open("not recalled")
}

func held(f Facts) Result {
	if f.Held != "" {
		return closed(fault.NotEligible, "held", "sealant reapply puts it back; a newer improvement ends this by itself", "held on this device: %s", f.Held)
	}
	return open("not held")
}

func ring(f Facts) Result {
	if f.Again {
		return open("was offered to this device")
	}
	e, ok := f.Rollout.Find(f.Manifest.ID)
	switch {
	case !ok:
		return closed(fault.NotEligible, "not-in-ring", "wait: it will be offered to this device later", "not in your ring yet: its rollout has not begun")
	case e.Halted:
		return closed(fault.NotEligible, "halted", "wait: the vendor stopped offering it for now", "its rollout is halted")
	case !f.Rollout.Offers(f.Device, f.Manifest.ID):
		return closed(fault.NotEligible, "not-in-ring", "wait: it will be offered to this device later", "not in your ring yet (offered to %d %% of devices)", e.Percent)
	}
	return open("in your ring (%d %%)", e.Percent)
}

func deferral(f Facts) Result {
	wait := f.Policy.DeferFor(f.Urgent)
	if f.Again || wait == 0 {
		return open("not deferred")
	}
	if from := f.Manifest.Published.Add(wait); f.Now.Before(from) {
		return closed(fault.Waiting, "deferred", "wait, or change install.defer", "deferred by policy until %s", from.UTC().Format("2006-01-02 15:04Z"))
	}
	return open("deferral is over")
}

// overdue says whether the improvement should have been staged by now: the
// deadline runs from the moment at which it might have been.
func (f Facts) overdue() bool {
	return !f.Now.Before(f.Manifest.Published.Add(f.Policy.DeferFor(f.Urgent) + f.Policy.InstallDeadline))
}

func automatic(f Facts) Result {
	switch {
	case f.Asked:
		return open("asked for by a person")
	case f.Policy.InstallAutomatic == "never":
		return closed(fault.Policy, "automatic-never", "sealant install installs it", "policy forbids automatic installation")
	case f.Policy.InstallAutomatic == "user" && !f.Toggle && f.Deadline && f.overdue():
		return open("Automatically Install is off, but policy's deadline has passed")
	case f.Policy.InstallAutomatic == "user" && !f.Toggle:
		return closed(fault.Policy, "automatic-off", "sealant install installs it", "Automatically Install is off")
	}
	return open("automatic installation is on")
}

func battery(f Facts) Result {
	p, need := f.Power, f.Policy.InstallBatteryMin
	switch {
	case p.Mains && p.Battery:
		return open("on mains, battery %d %%", p.Percent)
	case p.Mains || !p.Battery:
		return open("on mains")
	case p.Percent < need:
		return closed(fault.Waiting, "battery-low", "connect the device to power", "battery %d %% (needs %d)", p.Percent, need)
	}
	return open("battery %d %% (needs %d)", p.Percent, need)
}

func metered(f Facts) Result {
	switch {
	case f.Download == 0:
		return open("nothing to download")
	case !f.Metered:
		return open("not metered")
	case f.Policy.InstallMetered == "deny":
		return closed(fault.Waiting, "metered", "connect to a network that is not metered", "the network is metered")
	case f.Policy.InstallMetered == "small" && f.Download > policy.Small && f.overdue():
		return open("metered, but the deadline has passed")
	case f.Policy.InstallMetered == "small" && f.Download > policy.Small:
		return closed(fault.Waiting, "metered", "connect to a network that is not metered",
			"the network is metered and the download is %s (limit %s)", amount.Bytes(f.Download), amount.Bytes(policy.Small))
	}
	return open("metered, download allowed")
}

func space(f Facts) Result {
	if f.Free < f.Need {
		return closed(fault.Failed, "no-space", "free some room on that file system",
			"the file system of %s has %s free, this takes %s", f.Where, amount.Bytes(f.Free), amount.Bytes(f.Need))
	}
	return open("%s free in %s (needs %s)", amount.Bytes(f.Free), f.Where, amount.Bytes(f.Need))
}

// kinds are the kinds of closed gates by their code, for answers that came
// over the wire.
var kinds = map[string]fault.Kind{
	"product-differs": fault.NotEligible, "baseline-differs": fault.NotEligible, "install-forbidden": fault.Policy, "enforcement": fault.Policy,
	"pinned": fault.Policy, "recalled": fault.Recalled, "held": fault.NotEligible, "not-in-ring": fault.NotEligible,
	"halted": fault.NotEligible, "deferred": fault.Waiting, "automatic-never": fault.Policy, "automatic-off": fault.Policy,
	"battery-low": fault.Waiting, "metered": fault.Waiting, "no-space": fault.Failed,
}

// KindOf is the kind that a closed gate with that code has.
func KindOf(code string) fault.Kind { return kinds[code] }
