package split

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// journal is the directory, in the tree's root, that exists while a split is
// under way. It is locked by the process that works. Within it:
//
//	record.json  what will be moved and what will be made; written first
//	old/PATH     what was at PATH, moved aside
//	done/        old, renamed: the split is complete and only has to be cleaned up
//
// Undo puts everything in old back and removes what was made.
const journal = ".sealant-split"

type record struct {
	Moves []string `json:"moves"` // paths in the tree
	Made  []string `json:"made"`  // absolute paths of images and mount points
}

// Options of Run.
type Options struct {
	Out      string                         // directory for the images, made if it is missing
	Subtype  image.Subtype                  // of every cryptex
	Clamp    int64                          // no file is newer than this, in seconds since 1970; 0: no limit
	Progress func(done, total int64)        // bytes of all images; may be nil
	step     func(what, which string) error // told before each step; tests fail there
}

// errKilled makes Run end as a killed process does, without undoing.
var errKilled = errors.New("killed")

// Recover undoes a split of the tree that was interrupted, if there is one,
// and tells whether there was. A split that is under way is a fault.Busy.
func Recover(root string) (bool, error) {
	t := tree{root}
	if _, err := t.lstat(journal); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock, err := t.lock()
	if err != nil {
		return false, err
	}
	defer lock.Close()
	return true, t.undo()
}

// interrupted refuses a tree with a journal.
func (p *Plan) interrupted() error {
	if _, err := p.tree.lstat(journal); err != nil {
		return nil
	}
	return fault.New(fault.Busy, "cannot split the tree: another split of it is under way, or was interrupted")
}

// lock makes the journal, if it is missing, and takes its lock.
func (t tree) lock() (*os.File, error) {
	if err := os.Mkdir(t.disk(journal), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot split the tree: %w", err)
	}
	f, err := os.Open(t.disk(journal))
	if err != nil {
		return nil, fmt.Errorf("cannot split the tree: %w", err)
	}
	if mine, err := linux.TryLock(f); err != nil || !mine {
		f.Close()
		if err == nil {
			err = fault.New(fault.Busy, "cannot split the tree: another split of it is under way")
		}
		return nil, err
	}
	return f, nil
}

// Run carries the plan out and returns what each image is. After an error
// the tree and the directory of the images are as they were.
func (p *Plan) Run(ctx context.Context, o Options) (sums []image.Summary, err error) {
	if o.step == nil {
		o.step = func(string, string) error { return nil }
	}
	if o.Subtype != image.OS && o.Subtype != image.App {
		return nil, fault.New(fault.Usage, "cannot split the tree: subtype %d is neither os nor app", o.Subtype)
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, fmt.Errorf("cannot split the tree: %w", err)
	}
	if err := p.interrupted(); err != nil {
		return nil, err
	}
	rec, err := p.record(out)
	if err != nil {
		return nil, err
	}
	lock, err := p.tree.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	defer func() {
		if err != nil && !errors.Is(err, errKilled) {
			sums = nil
			if undo := p.tree.undo(); undo != nil {
				err = fmt.Errorf("%w; and it could not be undone: %w", err, undo)
			}
		}
	}()
	if err := p.tree.write(rec); err != nil {
		return nil, err
	}
	if sums, err = p.build(ctx, out, o); err != nil {
		return nil, err
	}
	if err := p.move(ctx, o); err != nil {
		return nil, err
	}
	for _, part := range p.Cryptexes {
		if err := o.step("name", part.Name); err != nil {
			return nil, err
		}
		if err := linux.RenameNew(unfinished(out, part.Name), finished(out, part.Name)); err != nil {
			return nil, err
		}
	}
	if err := linux.SyncDir(out); err != nil {
		return nil, err
	}
	if err := o.step("commit", ""); err != nil {
		return nil, err
	}
	if err := os.Rename(p.tree.disk(journal+"/old"), p.tree.disk(journal+"/done")); err != nil {
		return nil, fmt.Errorf("cannot complete the split: %w", err)
	}
	if err := linux.SyncDir(p.tree.disk(journal)); err != nil {
		return nil, err
	}
	if err := o.step("clean", ""); err != nil {
		return nil, err
	}
	if err := p.tree.clean(); err != nil {
		return nil, fmt.Errorf("cannot clean up after the split: %w", err)
	}
	return sums, nil
}

// clean removes the journal of a complete split, its record first: an undo
// that finds neither record nor old has nothing to put back.
func (t tree) clean() error {
	if err := os.Remove(t.disk(journal + "/record.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(t.disk(journal))
}

func finished(out, name string) string   { return filepath.Join(out, name+".cryptex") }
func unfinished(out, name string) string { return filepath.Join(out, "."+name+".cryptex.part") }

// record says what a run will make, and checks that it can: nothing is in the
// way, and there is space.
func (p *Plan) record(out string) (record, error) {
	var rec record
	need := int64(0)
	for _, part := range p.Cryptexes {
		if _, err := os.Lstat(finished(out, part.Name)); err == nil {
			return rec, fault.New(fault.Failed, "cannot write %s: it exists", finished(out, part.Name))
		}
		rec.Moves = append(rec.Moves, part.Moves...)
		rec.Made = append(rec.Made, unfinished(out, part.Name), finished(out, part.Name))
		need += part.Bytes
	}
	exists := out
	for _, dir := range append(p.mountPoints(), out) {
		// Everything that will be made, the innermost first.
		for ; !isDir(dir); dir = filepath.Dir(dir) {
			rec.Made = append(rec.Made, dir)
		}
		exists = dir
	}
	if space, err := linux.Free(exists); err != nil {
		return rec, err
	} else if space.Available < need {
		return rec, fault.New(fault.Failed, "cannot write the images: the file system of %s has %d bytes free, they need %d", exists, space.Available, need)
	}
	return rec, nil
}

func (p *Plan) mountPoints() []string {
	var dirs []string
	for _, part := range p.Cryptexes {
		dirs = append(dirs, p.tree.disk(path.Join(Mounts, part.Name)))
	}
	return dirs
}

// write makes the journal's record durable, then the place for what is moved
// aside.
func (t tree) write(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	f, err := os.Create(t.disk(journal + "/record.new"))
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(t.disk(journal+"/record.new"), t.disk(journal+"/record.json"))
	}
	if err == nil {
		err = os.Mkdir(t.disk(journal+"/old"), 0o700)
	}
	if err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return linux.SyncDir(t.disk(journal))
}

// build writes every image under an unfinished name.
func (p *Plan) build(ctx context.Context, out string, o Options) ([]image.Summary, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("cannot write the images: %w", err)
	}
	var total, before int64
	for _, part := range p.Cryptexes {
		total += part.Bytes
	}
	var sums []image.Summary
	for _, part := range p.Cryptexes {
		if err := o.step("build", part.Name); err != nil {
			return nil, err
		}
		if o.Clamp > 0 {
			part.root.ClampTimes(o.Clamp)
		}
		opts := image.Options{Name: part.Name, Subtype: o.Subtype}
		if o.Progress != nil {
			opts.Progress = func(done, of int64) {
				o.Progress(before+int64(float64(part.Bytes)*float64(done)/float64(of)), total)
			}
		}
		f, err := os.OpenFile(unfinished(out, part.Name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("cannot write the images: %w", err)
		}
		sum, err := image.BuildTree(ctx, f, part.root, opts)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		sums = append(sums, sum)
		before += part.Bytes
	}
	return sums, nil
}

// move makes the mount points, moves everything aside and leaves the links.
func (p *Plan) move(ctx context.Context, o Options) error {
	for _, dir := range p.mountPoints() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make the mount point: %w", err)
		}
	}
	for _, part := range p.Cryptexes {
		for _, file := range part.Moves {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := o.step("aside", file); err != nil {
				return err
			}
			aside := p.tree.disk(path.Join(journal, "old", file))
			if err := os.MkdirAll(filepath.Dir(aside), 0o700); err != nil {
				return fmt.Errorf("cannot move /%s aside: %w", file, err)
			}
			if err := os.Rename(p.tree.disk(file), aside); err != nil {
				return fmt.Errorf("cannot move /%s aside: %w", file, err)
			}
			if err := o.step("link", file); err != nil {
				return err
			}
			if err := os.Symlink("/"+path.Join(Mounts, part.Name, file), p.tree.disk(file)); err != nil {
				return fmt.Errorf("cannot leave a link at /%s: %w", file, err)
			}
		}
	}
	return nil
}

// undo brings the tree back to what it was before the run whose journal is
// there, or cleans up if that run was complete. It may be interrupted and
// called again. The caller holds the lock.
func (t tree) undo() error {
	fail := func(err error) error { return fmt.Errorf("cannot undo the split of %s: %w", t.root, err) }
	if _, err := t.lstat(journal + "/done"); err == nil {
		if err := t.clean(); err != nil {
			return fail(err)
		}
		return nil
	}
	var rec record
	b, err := os.ReadFile(t.disk(journal + "/record.json"))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	for _, file := range rec.Moves {
		aside := path.Join(journal, "old", file)
		if _, err := t.lstat(aside); errors.Is(err, fs.ErrNotExist) {
			continue // not moved yet, or already back
		} else if err != nil {
			return fail(err)
		}
		if info, err := t.lstat(file); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if err := os.Remove(t.disk(file)); err != nil {
				return fail(err)
			}
		}
		if err := os.Rename(t.disk(aside), t.disk(file)); err != nil {
			return fail(err)
		}
	}
	for _, made := range rec.Made {
		// A folder in which something else has appeared since stays.
		if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) && !isDir(made) {
			return fail(err)
		}
	}
	if err := os.RemoveAll(t.disk(journal)); err != nil {
		return fail(err)
	}
	return nil
}

func isDir(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.IsDir()
}
