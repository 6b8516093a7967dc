package image

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/sealant-os/sealant/image/erofs"
)

// Build makes an image of the tree below a directory: modes, owners, symbolic
// links, hard links, extended attributes and capabilities, access control
// lists, and the times of files in whole seconds. It refuses, by name, what an
// image can't hold: devices, sockets, named pipes. Two builds of one tree with
// one set of options give the same bytes.
//
// The file is emptied first; after an error its content is undefined.
func Build(ctx context.Context, f File, dir string, o Options) (Summary, error) {
	root, err := Scan(dir)
	if err != nil {
		return Summary{}, err
	}
	return BuildTree(ctx, f, root, o)
}

// BuildTree is Build from a tree that is already known.
func BuildTree(ctx context.Context, f File, root *erofs.Node, o Options) (Summary, error) {
	o, err := o.check()
	if err != nil {
		return Summary{}, err
	}
	fail := func(err error) (Summary, error) {
		return Summary{}, fmt.Errorf("cannot build cryptex %s: %w", o.Name, err)
	}
	if err := f.Truncate(0); err != nil {
		return fail(err)
	}
	// Half of the work is copying, half is hashing.
	report := o.Progress
	o.Progress = func(done, total int64) { report(done, 2*total) }
	size, err := erofs.Write(ctx, f, root, erofs.Options{UUID: uuid(o.Name), Label: o.Name, Progress: o.Progress})
	if err != nil {
		return fail(err)
	}
	o.Progress = func(done, total int64) { report(total+done, 2*total) }
	return FinishContext(ctx, f, size, o)
}

// uuid is the UUID of a cryptex's file system (version 8), derived from the
// name: all images of a cryptex share it, so it costs nothing in a patch.
func uuid(name string) [16]byte {
	sum := sha256.Sum256([]byte("sealant erofs uuid 1\x00" + name))
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}
