package activate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Attached is a cryptex that was verified and mounted, for whoever decides what
// executes from it.
type Attached struct {
	Want  ticket.Cryptex // what the ticket says of it
	Root  *os.File       // the root folder of what is mounted
	Image *image.Cryptex // compared with Want
	Data  io.ReaderAt    // the image's data: the dm-verity device where there is one
}

// Admit is told of a cryptex that was attached. If it fails, the cryptex is not
// used.
type Admit func(Attached) error

// StageAdmitted is Stage with admit, which is told of every image before it has
// a place that anything could be executed from.
func StageAdmitted(ctx context.Context, st *store.Store, set store.Set, admit Admit, progress func(done, total int64), then ...func() error) error {
	g := newGuard(st)
	g.admit = admit
	return g.stage(ctx, st, set, progress, then)
}

// admitted tells of an image that has just been mounted and verified.
func (g guard) admitted(c *image.Cryptex, want ticket.Cryptex, m *linux.Mount, d linux.Device) error {
	if g.admit == nil {
		return nil
	}
	root, err := m.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	a := Attached{want, root, c, c.Data()}
	if g.enforcement == Kernel {
		device, err := linux.OpenBlock(d)
		if err != nil {
			return err
		}
		defer device.Close()
		a.Data = device
	}
	return g.admit(a)
}

// AdmitMounted tells of every cryptex that is mounted already: of what was
// attached at boot, and staged since. Each is compared with its verified ticket
// again; where the kernel does not guard the data, all bytes are. Those that skip
// names by their root folder are left out. What can't be verified any more is told
// to refuse, with the reason.
func AdmitMounted(ctx context.Context, st *store.Store, skip func(root *os.File) bool, admit Admit, refuse func(name string, root *os.File, err error) error) error {
	ids, err := os.ReadDir(st.SetMounts(""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot list the mounted sets: %w", err)
	}
	var errs []error
	for _, id := range ids {
		names, err := os.ReadDir(st.SetMounts(id.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot list the mounts of set %s: %w", id.Name(), err))
			continue
		}
		m := mounted{st: st, id: id.Name(), admit: admit}
		for _, name := range names {
			err := m.each(ctx, name.Name(), skip, refuse)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // it was unmounted meanwhile
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// mounted is one set that is mounted.
type mounted struct {
	st    *store.Store
	id    string
	admit Admit
	want  []ticket.Cryptex // nil until it is known
}

func (m *mounted) each(ctx context.Context, name string, skip func(*os.File) bool, refuse func(string, *os.File, error) error) error {
	path := m.st.SetMount(m.id, name)
	if taken, err := linux.Mounted(path); err != nil || !taken {
		return err
	}
	root, err := os.Open(path)
	if err != nil {
		return err
	}
	defer root.Close()
	if skip(root) {
		return nil
	}
	if err := m.verify(ctx, name, path, root); err != nil {
		return refuse(name, root, err)
	}
	return nil
}

func (m *mounted) verify(ctx context.Context, name, path string, root *os.File) error {
	if m.want == nil {
		want, err := trusted(m.st, m.id)
		if err != nil {
			return err
		}
		m.want = want
	}
	for _, want := range m.want {
		if want.Name == name {
			return m.verifyOne(ctx, want, path, root)
		}
	}
	return fmt.Errorf("cannot find %s in the set %s", name, m.id)
}

func (m *mounted) verifyOne(ctx context.Context, want ticket.Cryptex, path string, root *os.File) error {
	device, err := linux.DeviceAt(path)
	if err != nil {
		return err
	}
	guarded, err := guardOf(device, present.Content{Name: want.Name, Image: want.Image})
	if err != nil {
		return err
	}
	f, err := m.st.OpenImage(want.Image)
	if err != nil && strings.HasPrefix(m.id, deliveredPrefix) {
		f, err = os.Open(m.st.BaseImagePath(want.Name))
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := inspect(f, want)
	if err != nil {
		return err
	}
	a := Attached{want, root, c, c.Data()}
	if guarded.Enforcement != Kernel {
		if err := verifyWhole(ctx, c, want, nil); err != nil {
			return err
		}
		return m.admit(a)
	}
	if guarded.Root != want.Root {
		return wrong(want, "seal in the kernel")
	}
	block, err := linux.OpenBlock(device)
	if err != nil {
		return err
	}
	defer block.Close()
	a.Data = block
	return m.admit(a)
}

// deliveredPrefix begins the ids of sets that only a boot knows, of the images
// that the OS update delivered.
const deliveredPrefix = "delivered-"

// trusted is what a verified ticket, or the OS update itself, says of the
// cryptexes of a mounted set.
func trusted(st *store.Store, id string) ([]ticket.Cryptex, error) {
	if strings.HasPrefix(id, deliveredPrefix) {
		baseline, err := ReadBaseline(st)
		if err != nil {
			return nil, err
		}
		if id != deliveredID(baseline) {
			return nil, fmt.Errorf("cannot tell what the set %s holds: the baseline is another", id)
		}
		return baselineContents(baseline), nil
	}
	set, err := st.SetByID(id)
	if err != nil {
		return nil, err
	}
	return authorised(st, set)
}
