package enforce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/layout"
	"github.com/sealant-os/sealant/internal/linux"
)

// Places in the kernel's file system of BPF objects. What is pinned there lives
// on when the process that made it ends.
const (
	bpffs      = "/sys/fs/bpf"
	defaultDir = bpffs + "/sealant"
)

// revision is the form of the programs and maps together. A change of any of
// them needs another number: then Load puts new programs in the place of pinned
// ones.
const revision = 2

// Limits of what the kernel is asked to hold.
const (
	maxTables = 64                    // images whose lists are held at once
	maxList   = trustcache.MaxEntries // inodes in one list
	MaxListed = 4 * maxList           // inodes in all lists together: about 40 MiB of the kernel's memory
	maxGroups = 4096                  // control groups of strict services
	ringSize  = 64 << 10              // bytes, 450 events
	toldSize  = 1024                  // files whose last telling is remembered
	aboutSize = 2*8 + 48 + 32         // bytes of a description
)

// maps are what the programs share with each other and with this package.
type maps struct {
	config    *ebpf.Map // the mode and the revision
	cryptexes *ebpf.Map // root folder of a cryptex → its table
	tables    *ebpf.Map // table → listed inodes
	about     *ebpf.Map // table → what it lists
	base      *ebpf.Map // folders that the base lies below
	apps      *ebpf.Map // tasks of strict apps
	groups    *ebpf.Map // control groups of strict services
	counts    *ebpf.Map // lost, audited, refused
	told      *ebpf.Map // what was told → when
	events    *ebpf.Map // to whom reads
}

// list is a table of listed inodes. The programs may only read it, and nobody
// can write it once it is frozen.
func list(n int) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "sealant_list", Type: ebpf.Hash, KeySize: 8, ValueSize: 1, MaxEntries: uint32(max(n, 1)), Flags: rdOnlyProg}
}

// Flags of linux/bpf.h.
const (
	noPrealloc = 1 << 0 // BPF_F_NO_PREALLOC
	rdOnlyProg = 1 << 7 // BPF_F_RDONLY_PROG
)

// specs describes the maps by the names that they are pinned under.
func (m *maps) specs() []struct {
	name string
	to   **ebpf.Map
	spec *ebpf.MapSpec
} {
	// Storage that belongs to an inode or a task, and ends with it.
	storage := func(kind ebpf.MapType) *ebpf.MapSpec {
		return &ebpf.MapSpec{
			Type: kind, KeySize: 4, ValueSize: 8, Flags: noPrealloc,
			Key:   &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
			Value: &btf.Int{Name: "unsigned long long", Size: 8},
		}
	}
	return []struct {
		name string
		to   **ebpf.Map
		spec *ebpf.MapSpec
	}{
		{"config", &m.config, &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
		{"cryptexes", &m.cryptexes, storage(ebpf.InodeStorage)},
		{"tables", &m.tables, &ebpf.MapSpec{Type: ebpf.HashOfMaps, KeySize: 8, ValueSize: 4, MaxEntries: maxTables, InnerMap: list(1)}},
		{"about", &m.about, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: aboutSize, MaxEntries: maxTables}},
		{"base", &m.base, storage(ebpf.InodeStorage)},
		{"apps", &m.apps, storage(ebpf.TaskStorage)},
		{"groups", &m.groups, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 1, MaxEntries: maxGroups}},
		{"counts", &m.counts, &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 32, MaxEntries: 1}},
		{"told", &m.told, &ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 16, ValueSize: 8, MaxEntries: toldSize}},
		{"events", &m.events, &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringSize}},
	}
}

// open takes the pinned maps; with make it makes and pins those that are missing.
func (m *maps) open(dir string, make bool) error {
	for _, s := range m.specs() {
		path := filepath.Join(dir, s.name)
		pinned, err := ebpf.LoadPinnedMap(path, nil)
		switch {
		case err == nil:
			*s.to = pinned
			if pinned.Type() != s.spec.Type || pinned.KeySize() != s.spec.KeySize || pinned.ValueSize() != s.spec.ValueSize {
				return fault.New(fault.Failed, "cannot use the kernel's tables at %s: they are of another version of this program", path).
					Hint("restart the device, or: sealant enforce unload && sealant enforce load")
			}
			continue
		case !make || !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("cannot open %s: %w", path, err)
		}
		s.spec.Name = "sealant_" + s.name[:min(7, len(s.name))]
		made, err := ebpf.NewMap(s.spec)
		if err != nil {
			return fmt.Errorf("cannot make the kernel's table %q: %w", s.name, err)
		}
		*s.to = made
		if err := made.Pin(path); err != nil {
			return fmt.Errorf("cannot keep the kernel's table %q: %w", s.name, err)
		}
	}
	return nil
}

func (m *maps) close() {
	for _, s := range m.specs() {
		if *s.to != nil {
			(*s.to).Close()
		}
	}
}

// config is the value of the map of that name.
type config struct {
	Mode     uint32
	Revision uint32
}

func (m *maps) settings() (config, error) {
	var c config
	err := m.config.Lookup(uint32(0), &c)
	if err != nil {
		err = fmt.Errorf("cannot read the mode of enforcement: %w", err)
	}
	return c, err
}

// description is what the map "about" holds for a table.
type description struct {
	Entries uint64
	Since   uint64 // seconds since 1970
	Image   image.Digest
	Name    [32]byte
}

// attach loads the programs and puts them into the kernel's hooks. A program that
// is pinned already is replaced only when the new one is in force.
func (m *maps) attach(dir string) error {
	kernel, err := layout.Running()
	if err != nil {
		return err
	}
	at, err := fieldsOf(kernel)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if !kernel.Function("bpf_lsm_" + h.name) {
			return lacking(fmt.Errorf("no function bpf_lsm_%s: %w", h.name, ebpf.ErrNotSupported))
		}
		if err := m.attachOne(dir, h, at); err != nil {
			return fmt.Errorf("cannot guard %s: %w", h.name, err)
		}
	}
	return nil
}

func (m *maps) attachOne(dir string, h hook, at fields) error {
	program, err := m.load(h, at, true)
	if err != nil {
		// A kernel that is locked down for confidentiality lets no program read
		// names. If there is another reason, the second error tells.
		program, err = m.load(h, at, false)
	}
	if err != nil {
		return err
	}
	defer program.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		return err
	}
	defer l.Close()
	path := filepath.Join(dir, linkPrefix+h.name)
	next := filepath.Join(dir, "new_"+h.name) // no dots in this file system
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := l.Pin(next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// linkPrefix begins the names of the pinned links.
const linkPrefix = "on_"

// logSize is how much of the verifier's reasons is kept in an error, in bytes.
const logSize = 4 << 10

func (m *maps) load(h hook, at fields, names bool) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sealant_" + h.name[:min(7, len(h.name))], Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: h.name,
		License: "Dual BSD/GPL", Instructions: m.program(h, at, names),
	})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		text := strings.Join(refused.Log[max(0, len(refused.Log)-20):], "\n")
		err = fmt.Errorf("%w\nthe kernel's verifier says:\n%s", err, text[max(0, len(text)-logSize):])
	} else if errors.Is(err, os.ErrPermission) {
		err = lacking(errors.New("loading such a program is not permitted here, in a container perhaps"))
	}
	return program, err
}

// whole reports whether all links are pinned.
func whole(dir string) bool {
	for _, h := range hooks {
		if _, err := os.Stat(filepath.Join(dir, linkPrefix+h.name)); err != nil {
			return false
		}
	}
	return true
}

// attached reports whether any link is pinned.
func attached(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, linkPrefix+"*"))
	return len(found) > 0
}

// firstKernel is the first that has all that the programs use.
const firstKernel = "5.17"

// lacking is the answer of a kernel that can't run the programs.
func lacking(cause error) error {
	u := &fault.Unsupported{Feature: "BPF programs as a security module (CONFIG_BPF_LSM, CONFIG_DEBUG_INFO_BTF, and bpf among lsm=)"}
	if !linux.AtLeast(firstKernel) {
		u.Kernel = firstKernel
	}
	return fmt.Errorf("%w: %w", u, cause)
}

// Supported says whether this kernel can run the programs: nil, or what lacks.
func Supported() error {
	if strconv.IntSize != 64 {
		return lacking(errors.New("the kernel's numbers have not 64 bits"))
	}
	modules, err := linux.SecurityModules()
	switch {
	case errors.Is(err, os.ErrNotExist): // securityfs is not mounted yet: trying tells
	case err != nil:
		return err
	case !slices.Contains(modules, "bpf"):
		return lacking(fmt.Errorf("the security modules in force are %s", strings.Join(modules, ",")))
	}
	if _, err := layout.Running(); err != nil {
		return lacking(err)
	}
	return nil
}
