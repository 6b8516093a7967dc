package build

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/upstream"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
)

// downloadTries is how often one file is taken up again after the connection
// broke, as long as each time brings bytes.
const downloadTries = 5

// Fetch brings a release's patch or antipatch of one cryptex, unless it is kept.
func (b *Builder) Fetch(ctx context.Context, rel string, c release.Change, kind store.PatchKind) error {
	file := c.Patch
	if kind == store.Antipatch {
		file = c.Antipatch
	}
	if b.patchKept(ctx, rel, c.Name, kind, file) {
		return nil
	}
	err := b.download(ctx, release.PatchPath(file.Digest), file, b.Progress("download "+c.Name+" "+string(kind)))
	if kind == store.Patch && fault.KindOf(err) == fault.Seal {
		// Building then asks for the whole image. There is no such way around
		// an antipatch: without it the improvement could not be removed.
		b.Warn("download "+c.Name, "%v", err)
		return nil
	}
	return err
}

// patchKept says whether a patch is kept and has its digest.
func (b *Builder) patchKept(ctx context.Context, rel, cryptex string, kind store.PatchKind, file release.File) bool {
	f, err := b.Store.OpenPatch(rel, cryptex, kind)
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := digestOf(ctx, f)
	return err == nil && got == file.Digest
}

// download brings a file of the catalog into the store's downloads, taking up
// what an earlier attempt left. It returns only when the file has its digest.
// Wrong bytes are thrown away and asked for once more, from the start and of the
// server itself; then it is a fault.Seal.
func (b *Builder) download(ctx context.Context, path string, file release.File, progress func(done, total int64)) error {
	if b.Catalog == nil {
		return fault.New(fault.Unreachable, "cannot download %s: the catalog can't be opened", path)
	}
	t, err := b.Catalog.Locate(path)
	if err != nil {
		return fault.New(fault.Unreachable, "cannot download: %w", err)
	}
	if t.Length != file.Size {
		return fault.New(fault.Seal, "cannot download %s: the catalog says %d bytes, the release says %d", path, t.Length, file.Size)
	}
	f, err := b.Store.OpenDownload(store.Digest(file.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	for attempt := range 2 {
		if err := b.fill(ctx, t, f, progress); err != nil {
			return err
		}
		got, err := digestOf(ctx, f)
		if err != nil {
			return err
		}
		if got == file.Digest {
			return f.Sync()
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		if attempt == 1 {
			return fault.New(fault.Seal, "cannot use %s: its digest is %.12s…, not that of the release", path, got).
				Hint("the server serves damaged files; nothing was changed here")
		}
		ctx = upstream.PastMirrors(ctx)
	}
	return nil
}

// fill appends to f until it has all of t's bytes.
func (b *Builder) fill(ctx context.Context, t catalog.Target, f *os.File, progress func(done, total int64)) error {
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if have > t.Length {
		if err := f.Truncate(0); err != nil {
			return err
		}
		have = 0
	}
	progress(have, t.Length)
	for try := 1; have < t.Length; try++ {
		before := have
		n, err := b.append(ctx, t, f, have, progress)
		have += n
		switch {
		case err == nil && have == before:
			err = fault.New(fault.Unreachable, "cannot download %s: the server sends nothing after %d of %d bytes", t.Path, have, t.Length)
			fallthrough
		case err != nil:
			kind := fault.KindOf(err)
			if have == before || try == downloadTries || ctx.Err() != nil || kind != fault.Unreachable && kind != fault.Busy {
				return upstream.Explain(err)
			}
			ctx = upstream.PastMirrors(ctx)
		}
	}
	return nil
}

func (b *Builder) append(ctx context.Context, t catalog.Target, f *os.File, have int64, progress func(done, total int64)) (int64, error) {
	r, err := b.Catalog.Open(ctx, t, have)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	w := &counter{f: f, at: have, total: t.Length, progress: progress}
	_, err = io.Copy(w, io.LimitReader(r, t.Length-have))
	if w.err != nil { // our disk, not their network
		return w.at - have, fmt.Errorf("cannot keep the download: %w", w.err)
	}
	if err != nil {
		if ctx.Err() != nil {
			return w.at - have, ctx.Err()
		}
		return w.at - have, fault.New(fault.Unreachable, "cannot download %s: %w", t.Path, err)
	}
	return w.at - have, nil
}

// counter writes at an offset and tells how far it is.
type counter struct {
	f        *os.File
	at       int64
	total    int64
	progress func(done, total int64)
	err      error
}

func (w *counter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.at)
	w.at += int64(n)
	w.err = err
	w.progress(w.at, w.total)
	return n, err
}

// digestOf reads a whole file.
func digestOf(ctx context.Context, f *os.File) (release.Digest, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return release.Digest{}, err
	}
	h := sha512.New384()
	if _, err := io.Copy(h, reader{ctx, f}); err != nil {
		return release.Digest{}, err
	}
	return release.Digest(h.Sum(nil)), nil
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Missing is how many of a file's bytes a download still lacks.
func Missing(s *store.Store, file release.File) int64 {
	fi, err := os.Stat(s.DownloadPath(store.Digest(file.Digest)))
	if errors.Is(err, os.ErrNotExist) || err != nil || fi.Size() > file.Size {
		return file.Size
	}
	return file.Size - fi.Size()
}

// Keep moves a release's downloaded patches to where they stay. It is idempotent: what
// was moved already isn't among the downloads any more.
func Keep(s *store.Store, m release.Manifest) error {
	for _, c := range m.Cryptexes {
		for kind, file := range map[store.PatchKind]release.File{store.Patch: c.Patch, store.Antipatch: c.Antipatch} {
			if Missing(s, file) != 0 {
				continue
			}
			if err := s.KeepPatch(m.ID, c.Name, kind, store.Digest(file.Digest)); err != nil {
				return err
			}
		}
	}
	return nil
}
