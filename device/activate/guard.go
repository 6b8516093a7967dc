package activate

import (
	"errors"
	"fmt"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// guard is how content is guarded after it was mounted: decided once for each
// boot and each staging, by what the kernel can and what policy wants.
type guard struct {
	enforcement  Enforcement
	onCorruption linux.OnCorruption
	booting      bool  // the kernel's check of the data is enough
	lastResort   bool  // there is nothing else to take, damaged or not
	lacking      error // why it is not the kernel
	required     bool  // an improvement is used only if the kernel guards it
	policy       error // why the policy can't be read
	admit        Admit // told of what is attached; nil for nobody
}

// probe says whether this kernel has dm-verity: nil, or what lacks. Tests put
// another in its place.
var probe = linux.HasVerity

// Lacking says why the kernel of this machine can't guard content; nil if it
// can.
func Lacking() error { return probe() }

// Enforced is the enforcement of what this machine mounts from now on. What was
// mounted at boot is in the boot record.
func Enforced() Enforcement {
	if Lacking() != nil {
		return AtMount
	}
	return Kernel
}

func newGuard(st *store.Store) guard {
	g := guard{enforcement: Kernel, lacking: Lacking()}
	if g.lacking != nil {
		g.enforcement = AtMount
	}
	c, err := policy.Load(st.ConfigDir())
	if err != nil {
		// A restriction that can't be read is taken to be there.
		g.policy, g.required = err, true
		return g
	}
	g.required = c.Policy.TrustEnforcement == "kernel"
	switch c.Policy.TrustCorruption {
	case "restart":
		g.onCorruption = linux.Restart
	case "panic":
		g.onCorruption = linux.Panic
	}
	return g
}

// frameOnly says whether the contents of files are left to the kernel's check at
// reading. Where that ends the machine, all of an image is read beforehand: the next
// start would meet the same block again, and so for ever.
func (g guard) frameOnly() bool {
	return g.booting && g.enforcement == Kernel && g.onCorruption == linux.FailRead
}

// desperate is the guard for what is better than nothing, though it is damaged: the
// device must come up, and stay.
func (g guard) desperate() guard {
	g.lastResort, g.onCorruption = true, linux.FailRead
	return g
}

// notes are what a boot record says of the guard.
func (g guard) notes() []string {
	var notes []string
	if g.lacking != nil {
		notes = append(notes, "the kernel does not guard the content: "+g.lacking.Error())
	}
	if g.policy != nil {
		notes = append(notes, "the strictest policy was assumed: "+g.policy.Error())
	}
	return notes
}

// permit says whether a set may be used under this guard. The baseline always
// may: the device must come up.
func (g guard) permit(set store.Set) error {
	if !g.required || g.enforcement == Kernel || set.IsBaseline() {
		return nil
	}
	err := fmt.Errorf("policy wants the kernel to guard improvements (trust.enforcement), and this one can't: %w", g.lacking)
	if g.policy != nil {
		err = fmt.Errorf("the kernel can't guard it (%w), and whether policy allows that can't be read: %w", g.lacking, g.policy)
	}
	return &unguarded{fault.New(fault.Policy, "cannot use the set %s: %w", set.ID, err)}
}

// unguarded is the refusal of a set because the kernel can't guard it.
type unguarded struct{ cause error }

func (e *unguarded) Error() string { return e.cause.Error() }
func (e *unguarded) Unwrap() error { return e.cause }

// devicePrefix begins the names of our devices in the device mapper.
const devicePrefix = "sealant-"

// deviceName is the name of a cryptex's device in the device mapper, "sealant-web-91b0c2d4".
func deviceName(name string, image store.Digest) string {
	return devicePrefix + name + "-" + image.String()[:8]
}

// sweep removes devices that an attaching process left behind when it was
// killed at a moment at which nobody used them yet. Only one process attaches
// at a time: sealant-boot runs before the agent, the rest holds the state's lock.
func (g guard) sweep() error {
	if g.enforcement != Kernel {
		return nil
	}
	return linux.SweepVerity(devicePrefix)
}

// Guarded is a cryptex that is mounted somewhere, and how the kernel guards it.
type Guarded struct {
	present.Content
	Device      linux.Device
	Enforcement Enforcement
	Root        store.Sum // that the kernel compares with, if it does
	Corrupted   bool      // the kernel has refused to read a block of it
}

// Guards tells of every device that was mounted since boot, and is still there,
// how it is guarded. It needs root.
func Guards(st *store.Store) ([]Guarded, error) {
	devices, err := present.Devices(st)
	if err != nil {
		return nil, err
	}
	var list []Guarded
	var errs []error
	for device, content := range devices {
		g, err := guardOf(device, content)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, g)
	}
	return list, errors.Join(errs...)
}

func guardOf(device linux.Device, content present.Content) (Guarded, error) {
	g := Guarded{Content: content, Device: device, Enforcement: AtMount}
	if device.Major == 0 {
		return g, nil // no block device: the kernel mounted the file itself
	}
	kernel, ok, err := linux.GuardOf(device)
	var unsupported *fault.Unsupported
	if errors.As(err, &unsupported) {
		return g, nil
	}
	if ok {
		g.Enforcement, g.Root, g.Corrupted = Kernel, kernel.Root, kernel.Corrupted
	}
	return g, err
}
