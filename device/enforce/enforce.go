// Package enforce lets the kernel refuse what a trust cache does not list.
//
// # Parties
//
// The ticket names a cryptex's trust cache; whoever attaches the cryptex hands
// over the verified image (Admit), whose listed paths become inode numbers here.
// The kernel believes nothing else: not the mount, not file names, not the mode
// bits. What executes is decided by programs in the kernel's own hooks (BPF LSM),
// which live on without any process of Sealant's. The person, and root, are not
// guarded against: root can take the programs away (see Unload), as it can
// anything that is not in the hardware's or the boot loader's hands.
//
// # What is refused
//
// From a guarded cryptex only inodes that its table lists may
//
//	be executed            bprm_check_security, for the script and its interpreter both
//	be mapped executable   mmap_file: libraries, and programs named to ld.so
//	be made executable     file_mprotect
//
// A strict app, and all that it starts, may do so only with what a cryptex
// lists and with files that lie below a folder of the base (/usr). So a copy in
// /tmp, a memfd and a preloaded library are refused to it; memory without a file
// is not, and what an interpreter reads is not (spec/enforcement.md).
//
// # How the kernel knows a cryptex
//
// By storage on the inode of its root folder, which lives as long as the file
// system is mounted anywhere and dies with it. There are no device numbers here,
// so one that is given to another file system inherits nothing. The storage holds
// the number of a table, a hash of listed inodes that nobody can change any more.
// A number that has no table lists nothing.
//
//	root inode ──storage──▶ table's number ──tables──▶ {inode, inode, …}
//	folder /usr ─storage──▶ the base          task ─storage─▶ a strict app's
//
// A strict app is known by storage on its tasks that fork hands on, and a strict
// service by its control group when it executes; neither can be taken off by the
// app itself.
//
// The programs and maps are pinned at /sys/fs/bpf/sealant. Whoever opens them
// (Open) must be root.
package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/layout"
	"github.com/sealant-os/sealant/internal/linux"

	"github.com/cilium/ebpf"
)

// Mode is what happens when something that is not listed is executed.
type Mode uint32

// The modes. Their numbers are shared with the programs.
const (
	Off     Mode = 0
	Audit   Mode = 1 // it is told and allowed
	Enforce Mode = 2 // it is told and refused, with EACCES
)

// String is the mode's name in policy and JSON.
func (m Mode) String() string {
	switch m {
	case Audit:
		return "audit"
	case Enforce:
		return "enforce"
	}
	return "off"
}

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Off, Audit, Enforce} {
		if s == m.String() {
			return m, nil
		}
	}
	return Off, fault.New(fault.Usage, "cannot use the mode %q: it is none of off, audit, enforce", s)
}

// Guard is the programs in the kernel, opened.
type Guard struct {
	maps
	dir string
}

// Open opens what is pinned. If that is nothing, or not everything, the error is
// fs.ErrNotExist.
func Open() (*Guard, error) { return open(defaultDir) }

func open(dir string) (*Guard, error) {
	if !whole(dir) {
		return nil, fmt.Errorf("cannot open the kernel's programs at %s: %w", dir, fs.ErrNotExist)
	}
	g := &Guard{dir: dir}
	if err := g.maps.open(dir, false); err != nil {
		g.Close()
		return nil, err
	}
	c, err := g.settings()
	if err == nil && c.Revision != revision {
		err = fmt.Errorf("cannot use the kernel's programs at %s: they have revision %d: %w", dir, c.Revision, fs.ErrNotExist)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Load opens what is pinned and puts what is missing, or of an older revision,
// into the kernel. Programs that are new are Off until SetMode. A kernel that
// can't is a *fault.Unsupported.
func Load(ctx context.Context) (*Guard, error) { return load(ctx, defaultDir) }

func load(ctx context.Context, dir string) (*Guard, error) {
	if g, err := open(dir); !errors.Is(err, fs.ErrNotExist) {
		return g, err
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	if err := linux.MountBPF(bpffs); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot make %s: %w", dir, err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close() // ends the lock
	if err := linux.Lock(ctx, folder); err != nil {
		return nil, err
	}
	g, err := open(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return g, err
	}
	g = &Guard{dir: dir}
	if err := g.renew(); err != nil {
		g.Close()
		if !attached(dir) {
			// Nothing is in force: leave nothing.
			err = errors.Join(err, unload(dir))
		}
		var lacks *fault.Unsupported
		if !errors.As(err, &lacks) && (errors.Is(err, ebpf.ErrNotSupported) || layout.Missing(err)) {
			return nil, lacking(err)
		}
		return nil, fmt.Errorf("cannot enforce trust caches: %w", err)
	}
	return g, nil
}

func (g *Guard) renew() error {
	if err := g.maps.open(g.dir, true); err != nil {
		return err
	}
	c, err := g.settings()
	if err != nil {
		return err
	}
	if err := g.attach(g.dir); err != nil {
		return err
	}
	c.Revision = revision
	if err := g.config.Put(uint32(0), c); err != nil {
		return fmt.Errorf("cannot note the revision: %w", err)
	}
	return nil
}

// Close lets go of the programs, which go on.
func (g *Guard) Close() { g.maps.close() }

// Unload takes the programs out of the kernel. Nothing is enforced after that.
func Unload() error { return unload(defaultDir) }

func unload(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot list %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("cannot take a program out of the kernel: %w", err)
		}
	}
	return os.Remove(dir)
}

// Mode is the mode in force.
func (g *Guard) Mode() (Mode, error) {
	c, err := g.settings()
	return Mode(c.Mode), err
}

// SetMode puts a mode into force, at once and for everybody.
func (g *Guard) SetMode(m Mode) error {
	c, err := g.settings()
	if err != nil {
		return err
	}
	c.Mode = uint32(m)
	if err := g.config.Put(uint32(0), c); err != nil {
		return fmt.Errorf("cannot set the mode of enforcement: %w", err)
	}
	return nil
}

// Counts is what happened since the programs were loaded.
type Counts struct {
	Refused uint64 `json:"refused"`
	Audited uint64 `json:"audited"`
	Lost    uint64 `json:"lost"` // events that nobody read in time; they are among the counted
}

// Counts reads the counters.
func (g *Guard) Counts() (Counts, error) {
	var n [4]uint64
	if err := g.counts.Lookup(uint32(0), &n); err != nil {
		return Counts{}, fmt.Errorf("cannot read the counters of enforcement: %w", err)
	}
	return Counts{Refused: n[Enforce], Audited: n[Audit], Lost: n[0]}, nil
}
