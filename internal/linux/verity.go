package linux

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
)

// OnCorruption is what the kernel does when it reads a block that isn't what
// the root hash says.
type OnCorruption string

// What the kernel can do. A reader never gets to see the block.
const (
	FailRead OnCorruption = ""                      // the read fails with EIO
	Restart  OnCorruption = "restart_on_corruption" // the machine restarts at once
	Panic    OnCorruption = "panic_on_corruption"   // the kernel panics (Linux 5.9)
)

// Verity says how the kernel guards an image: dm-verity, hash type 1, SHA-256,
// blocks of 4096 bytes, data from byte 0, the hash tree in the same file.
type Verity struct {
	// Name is the device's name in the device mapper, of letters, digits and
	// "-". If it is taken a number is appended.
	Name string
	// Blocks is the number of data blocks.
	Blocks uint64
	// Tree is where the hash tree begins, after its superblock, in bytes.
	Tree int64
	// Root is the digest of the tree's top. It alone decides which bytes can be
	// read, so it must come from whoever is trusted, never from the image.
	Root, Salt [32]byte

	OnCorruption OnCorruption
}

// verityBlock is the size of data and hash blocks, in bytes.
const verityBlock = 4096

// verityNames bounds how many devices may have one name.
const verityNames = 4096

// verityUUID begins the UUIDs of the devices that MountVerity makes.
const verityUUID = "SEALANT-VERITY-"

// HasVerity says whether the running kernel has dm-verity: nil, or what lacks.
func HasVerity() error {
	m, err := openMapper()
	if err != nil {
		return err
	}
	defer m.close()
	// Asking for a target's version makes the kernel load it (Linux 5.6).
	switch _, err := m.do(unix.DM_GET_TARGET_VERSION, request{name: "verity"}); {
	case errors.Is(err, unix.EINVAL):
		return &fault.Unsupported{Feature: "dm-verity"}
	case errors.Is(err, unix.ENOTTY):
		return nil // older: the table will tell
	default:
		return err
	}
}

// MountVerity mounts the EROFS file system that begins at byte 0 of image, that
// very open file, so that the kernel compares every block with the root hash
// whenever it is read from the disk. A loop device and a dm-verity device stand
// between; the kernel removes both with the mount's last user. The image may
// be closed afterwards.
func MountVerity(image *os.File, v Verity, o Options) (*Mount, error) {
	m, err := openMapper()
	if err != nil {
		return nil, err
	}
	defer m.close()
	loop, err := attachLoop(image)
	if err != nil {
		return nil, err
	}
	// From here on the loop device lives as long as something uses it.
	defer loop.Close()
	below, err := deviceOf(loop)
	if err != nil {
		return nil, err
	}
	var mount *Mount
	var name string
	var dev Device
	err = aside(func() (err error) {
		// In here, so that whatever fails afterwards takes the device away again.
		if name, dev, err = v.create(m, below); err != nil {
			return fmt.Errorf("cannot set up dm-verity: %w", err)
		}
		if err := dev.node(o.Source); err != nil {
			return errors.Join(err, m.release(name))
		}
		held, err := os.Open(o.Source)
		if err != nil {
			return errors.Join(fmt.Errorf("cannot open a dm-verity device: %w", err), m.release(name))
		}
		// As long as this is open the device stays, then only while it is
		// mounted, also if this process is killed at any time from now on.
		defer held.Close()
		if err := m.release(name); err != nil {
			return fmt.Errorf("cannot hand a dm-verity device to the kernel: %w", err)
		}
		if mount, err = newErofs(o); err == nil {
			return nil
		}
		if _, state, serr := m.status(dev, 0); serr == nil && corrupted(state) {
			return fault.New(fault.Seal, "%w: the kernel refused to read damaged blocks", err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if got, err := mount.Device(); err != nil || got != dev {
		mount.Close()
		return nil, fmt.Errorf("cannot mount %s: another device was mounted in its stead", name)
	}
	return mount, nil
}

// create makes the dm-verity device over the device that holds the image.
func (v Verity) create(m mapper, below Device) (string, Device, error) {
	if v.Blocks == 0 || v.Blocks > 1<<40 || v.Tree < 0 || v.Tree%verityBlock != 0 {
		return "", Device{}, errors.New("its sizes are out of range")
	}
	table := v.table(below)
	for n := range verityNames {
		name := v.Name
		if n > 0 {
			name = fmt.Sprintf("%s-%d", v.Name, n+1)
		}
		dev, err := m.create(name, verityUUID+name, "verity", v.Blocks*(verityBlock/512), table)
		if !errors.Is(err, unix.EBUSY) {
			return name, dev, err
		}
	}
	return "", Device{}, fmt.Errorf("%d devices are called %s", verityNames, v.Name)
}

// table is dm-verity's table, see Documentation/admin-guide/device-mapper/verity.rst.
func (v Verity) table(below Device) string {
	t := fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %x", below, below, verityBlock, verityBlock, v.Blocks, v.Tree/verityBlock, v.Root, v.Salt)
	if v.OnCorruption != FailRead {
		t += " 1 " + string(v.OnCorruption)
	}
	return t
}

// Guard is a dm-verity device as the kernel has it.
type Guard struct {
	Device    Device
	Root      [32]byte
	Corrupted bool // the kernel has refused to read a block of it
}

// GuardOf tells which dm-verity device this is; ok is false for any other
// device.
func GuardOf(d Device) (g Guard, ok bool, err error) {
	m, err := openMapper()
	if err != nil {
		return g, false, err
	}
	defer m.close()
	target, table, err := m.status(d, unix.DM_STATUS_TABLE_FLAG)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL) {
		return g, false, nil // no device of the mapper
	}
	if err != nil {
		return g, false, fmt.Errorf("cannot read the table of device %s: %w", d, err)
	}
	words := strings.Fields(table)
	if target != "verity" || len(words) < 10 {
		return g, false, nil
	}
	root, err := hex.DecodeString(words[8])
	if err != nil || len(root) != len(g.Root) {
		return g, false, nil
	}
	_, state, err := m.status(d, 0)
	if err != nil {
		return g, false, fmt.Errorf("cannot read the status of device %s: %w", d, err)
	}
	g = Guard{Device: d, Root: [32]byte(root), Corrupted: corrupted(state)}
	return g, true, nil
}

// corrupted reads a dm-verity device's status: "V" or "C".
func corrupted(state string) bool { return strings.HasPrefix(state, "C") }

// SweepVerity removes the devices that a process made which was killed before
// it could hand them over to the kernel. Nobody else may be in MountVerity.
func SweepVerity(prefix string) error {
	m, err := openMapper()
	if err != nil {
		return err
	}
	defer m.close()
	list, err := m.devices(prefix)
	if err != nil {
		return fmt.Errorf("cannot list the dm-verity devices: %w", err)
	}
	var errs []error
	for name := range list {
		a, err := m.do(unix.DM_DEV_STATUS, request{uuid: verityUUID + name})
		if errors.Is(err, unix.ENXIO) {
			continue // gone, or somebody else's
		}
		if err == nil && a.open == 0 {
			err = m.release(name)
		}
		if err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("cannot remove the device %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
