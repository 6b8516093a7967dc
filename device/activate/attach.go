package activate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/trust/ticket"
)

// attached is a cryptex that was verified and mounted and has no place yet.
type attached struct {
	want   ticket.Cryptex
	mount  *linux.Mount
	device linux.Device
}

func closeAll(list []attached) {
	for _, a := range list {
		if a.mount != nil {
			a.mount.Close()
		}
	}
}

// progressFunc is told how many bytes of a set were verified.
type progressFunc func(done, total int64)

// attach verifies the open image against want, and mounts that open file.
// Whatever happens to the file's name in between doesn't matter.
func (g guard) attach(ctx context.Context, f *os.File, want ticket.Cryptex, progress progressFunc) (attached, error) {
	c, err := inspect(f, want)
	if err != nil {
		return attached{}, err
	}
	if g.frameOnly() {
		err = c.VerifyFrame()
	} else {
		err = verifyWhole(ctx, c, want, progress)
	}
	if err != nil {
		return attached{}, err
	}
	m, err := g.mount(f, c, want)
	if err != nil {
		return attached{}, err
	}
	device, err := m.Device()
	if err != nil {
		m.Close()
		return attached{}, err
	}
	err = g.readable(c, m)
	if err == nil {
		err = g.admitted(c, want, m, device)
	}
	if err != nil {
		m.Close()
		return attached{}, err
	}
	return attached{want, m, device}, nil
}

// mount mounts a verified image. What decides which bytes are read is the root
// of the ticket; salt and sizes are bound to it by the seal's digest.
func (g guard) mount(f *os.File, c *image.Cryptex, want ticket.Cryptex) (*linux.Mount, error) {
	o := linux.Options{Source: present.Content{Name: want.Name, Image: want.Image}.Source(), NoSuid: want.Subtype != uint8(image.OS)}
	if g.enforcement != Kernel {
		return linux.MountErofs(f, o)
	}
	return linux.MountVerity(f, linux.Verity{
		Name:   deviceName(want.Name, want.Image),
		Blocks: c.Seal.DataBlocks, Tree: c.TreeOffset(), Root: want.Root, Salt: c.Seal.Salt,
		OnCorruption: g.onCorruption,
	}, o)
}

// readable reads what executes from an os cryptex, at a boot by the kernel's check
// alone. Process 1 may need any of it: damage must be met here, where another set can
// be taken, and not when the machine comes to a stop.
func (g guard) readable(c *image.Cryptex, m *linux.Mount) error {
	if !g.frameOnly() || g.lastResort || c.Subtype != image.OS {
		return nil
	}
	list, err := c.TrustCache()
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for _, e := range list.Entries {
		f, err := m.OpenFile(e.Path)
		for err == nil {
			_, err = f.Read(block)
		}
		f.Close()
		if errors.Is(err, syscall.EIO) {
			return fault.New(fault.Seal, "cannot use the image of %s: it is damaged: %w", c.Name, err)
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot use the image of %s: %w", c.Name, err)
		}
	}
	return nil
}

// verify reads the whole image: its digest, its seal and its trust cache must
// be the wanted ones, and its parts must agree with each other.
func verify(ctx context.Context, f *os.File, want ticket.Cryptex, progress progressFunc) error {
	c, err := inspect(f, want)
	if err != nil {
		return err
	}
	return verifyWhole(ctx, c, want, progress)
}

// inspect opens an image and compares what its footer says with the ticket.
func inspect(f *os.File, want ticket.Cryptex) (*image.Cryptex, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot look at the image: %w", err)
	}
	c, err := image.Open(f, st.Size())
	if err != nil {
		return nil, err
	}
	switch {
	case c.Name != want.Name:
		return nil, wrong(want, "name")
	case uint8(c.Subtype) != want.Subtype:
		return nil, wrong(want, "subtype")
	case c.Seal.Root != want.Root, c.Seal.Digest() != want.Seal:
		return nil, wrong(want, "seal")
	case c.TrustCacheDigest != image.Digest(want.TrustCache):
		return nil, wrong(want, "trust cache")
	}
	return c, nil
}

func verifyWhole(ctx context.Context, c *image.Cryptex, want ticket.Cryptex, progress progressFunc) error {
	digest, err := c.VerifyDigest(ctx, progress)
	if err != nil {
		return err
	}
	if digest != image.Digest(want.Image) {
		return wrong(want, "digest")
	}
	return nil
}

func wrong(want ticket.Cryptex, what string) error {
	return fault.New(fault.Seal, "cannot use the image of %s: it has another %s than the ticket names", want.Name, what)
}

// opener finds the file that should hold a cryptex's image.
type opener func(want ticket.Cryptex) (*os.File, error)

// stored opens images from the state.
func stored(st *store.Store) opener {
	return func(want ticket.Cryptex) (*os.File, error) { return st.OpenImage(want.Image) }
}

// attachAll attaches several cryptexes at once and gives, for each, either the
// mount or the error. Two images are read at the same time at most.
func (g guard) attachAll(ctx context.Context, list []ticket.Cryptex, open opener, progress progressFunc) ([]attached, []error) {
	mounts, errs := make([]attached, len(list)), make([]error, len(list))
	files := make([]*os.File, len(list))
	sum := &sums{report: progress, done: make([]int64, len(list)), size: make([]int64, len(list))}
	for i, want := range list {
		f, err := open(want)
		if err != nil {
			errs[i] = &imageError{want.Name, "", err}
			continue
		}
		defer f.Close()
		files[i] = f
		if st, err := f.Stat(); err == nil {
			sum.size[i] = st.Size()
		}
	}
	places := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, f := range files {
		if f == nil {
			continue
		}
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			var err error
			mounts[i], err = g.attach(ctx, f, list[i], sum.of(i))
			if err != nil {
				errs[i] = &imageError{list[i].Name, f.Name(), err}
			}
		})
	}
	wg.Wait()
	return mounts, errs
}

// attachSet attaches a whole set or nothing.
func (g guard) attachSet(ctx context.Context, st *store.Store, set store.Set, list []ticket.Cryptex, progress progressFunc) ([]attached, error) {
	if err := g.permit(set); err != nil {
		return nil, err
	}
	mounts, errs := g.attachAll(ctx, list, stored(st), progress)
	for _, err := range errs {
		if err != nil {
			closeAll(mounts)
			return nil, err
		}
	}
	return mounts, nil
}

// imageError names the cryptex and the file that a refusal is about.
type imageError struct {
	name, file string
	err        error
}

func (e *imageError) Error() string {
	if e.file == "" {
		return e.name + ": " + e.err.Error()
	}
	return e.name + " (" + e.file + "): " + e.err.Error()
}

func (e *imageError) Unwrap() error { return e.err }

// sums adds up the progress of images that are verified side by side, in bytes
// of whole files.
type sums struct {
	mu         sync.Mutex
	report     progressFunc
	done, size []int64
}

func (s *sums) of(i int) progressFunc {
	if s.report == nil {
		return nil
	}
	return func(done, total int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		// The image counts only some of its parts; all of it is read with them.
		if total > 0 {
			s.done[i] = int64(float64(s.size[i]) * float64(done) / float64(total))
		}
		var d, t int64
		for i := range s.done {
			d, t = d+s.done[i], t+s.size[i]
		}
		s.report(d, t)
	}
}
