package catalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	signed "github.com/sealant-os/sealant/release/catalog"
)

// Mirrored says what a Mirror did.
type Mirrored struct {
	Version int64     // of the catalog that was shown
	Expires time.Time // when its first part ends
	Targets int       // files that it names
	Copied  int       // files that were not there before, metadata among them
	Bytes   int64     // in those
}

// Mirror brings a catalog's folder into another one: onto a stick, or from one
// into the folder of a server that has no network. Everything is verified from
// the pinned root first, as a device does, recalls among it; the folder that is
// written never goes back to an older state. Files come before what names them,
// and timestamp.json last: who reads the folder meanwhile sees the old state or
// the new one.
func Mirror(ctx context.Context, from, to string, root []byte, now func() time.Time) (Mirrored, error) {
	var m Mirrored
	state, err := os.MkdirTemp("", "sealsrv-mirror-")
	if err != nil {
		return m, fmt.Errorf("cannot copy the catalog: %w", err)
	}
	defer os.RemoveAll(state)
	// What stands there already is what versions may not fall behind. If it has
	// expired, or is nothing, it binds nobody.
	if _, err := open(ctx, to, root, state, now); err != nil && fault.KindOf(err) != fault.Stale && fault.KindOf(err) != fault.Unreachable && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	client, err := open(ctx, from, root, state, now)
	if err != nil {
		return m, fmt.Errorf("cannot use the catalog in %s: %w", from, err)
	}
	for _, name := range client.Paths("") {
		t, err := client.Locate(name)
		if err != nil {
			return m, err
		}
		if err := m.target(from, to, t); err != nil {
			return m, fmt.Errorf("cannot copy %s: %w", name, err)
		}
		if err := ctx.Err(); err != nil {
			return m, err
		}
	}
	files, err := client.Metadata()
	if err != nil {
		return m, err
	}
	if err := m.metadata(files, to); err != nil {
		return m, fmt.Errorf("cannot copy the catalog's metadata: %w", err)
	}
	shown, err := open(ctx, to, root, state, now)
	if err != nil {
		return m, fmt.Errorf("the copy in %s is not good: %w", to, err)
	}
	m.Version, m.Expires = shown.Version(), shown.Expires()
	return m, nil
}

// open verifies the catalog in a folder, with the state that was seen before.
func open(ctx context.Context, dir string, root []byte, state string, now func() time.Time) (*signed.Client, error) {
	client, err := signed.New(signed.Config{Root: root, Dir: state, Remote: signed.Folder(dir), Now: now})
	if err != nil {
		return nil, err
	}
	return client, client.Refresh(ctx)
}

// target copies one file that the catalog names, unless it stands there.
func (m *Mirrored) target(from, to string, t signed.Target) error {
	m.Targets++
	path := filepath.FromSlash(t.Remote)
	if !filepath.IsLocal(path) {
		return fmt.Errorf("%s is no place in a catalog", t.Remote)
	}
	dst := filepath.Join(to, path)
	if good, err := holds(dst, t); err == nil && good {
		return nil
	}
	src, err := os.Open(filepath.Join(from, path))
	if err != nil {
		return err
	}
	defer src.Close()
	return m.write(dst, func(w io.Writer) error {
		sum := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(src, t.Length+1))
		if err == nil && (n != t.Length || [32]byte(sum.Sum(nil)) != t.SHA256) {
			err = fault.New(fault.Seal, "its content is not what was signed")
		}
		return err
	})
}

// holds tells whether a file has a target's content.
func holds(path string, t signed.Target) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, t.Length+1))
	return err == nil && n == t.Length && [32]byte(sum.Sum(nil)) == t.SHA256, err
}

// metadata writes the verified metadata, what makes it count last. Of a folder's
// other files none is taken: who fills sticks could block names that real ones
// will need.
func (m *Mirrored) metadata(files []signed.File, to string) error {
	for _, f := range files {
		dst := filepath.Join(to, "metadata", f.Name)
		if old, err := os.ReadFile(dst); err == nil && bytes.Equal(old, f.Data) {
			continue
		}
		err := m.write(dst, func(w io.Writer) error {
			_, err := w.Write(f.Data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write makes a file durable, whole or not at all.
func (m *Mirrored) write(dst string, fill func(io.Writer) error) error {
	dir := filepath.Dir(dst)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = fill(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	info, serr := f.Stat()
	if err = errors.Join(err, serr, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), dst); err != nil {
		return err
	}
	m.Copied++
	m.Bytes += info.Size()
	return nil
}
