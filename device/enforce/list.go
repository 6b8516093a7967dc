package enforce

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
)

// List is what may execute from one image.
type List struct {
	Name   string       // of the cryptex
	Image  image.Digest // the digest of the whole image
	Root   uint64       // the inode of its root folder
	Inodes []uint64     // sorted, each once
}

// Learn turns a trust cache into inode numbers. The tree is that of the verified
// image; reading it must give the bytes that the seal names. Every listed path
// must be a regular file of it: a list that is about something else is refused.
// A file with several names may execute under each of them if one is listed.
func Learn(name string, digest image.Digest, tree *erofs.Image, cache *trustcache.Cache) (*List, error) {
	l := &List{Name: name, Image: digest}
	if len(cache.Entries) > maxList {
		return nil, fault.New(fault.Failed, "cannot enforce the trust cache of %s: it lists %d files, at most %d can be held", name, len(cache.Entries), maxList)
	}
	listed := make(map[string]bool, len(cache.Entries))
	for _, e := range cache.Entries {
		listed[e.Path] = true
	}
	err := tree.Walk(func(path string, n *erofs.Inode) error {
		if path == "" {
			l.Root = n.NID
		}
		if !listed[path] {
			return nil
		}
		if !n.IsRegular() {
			return fault.New(fault.Seal, "cannot enforce the trust cache of %s: it lists %q, which is no file", name, path)
		}
		delete(listed, path)
		l.Inodes = append(l.Inodes, n.NID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for path := range listed {
		return nil, fault.New(fault.Seal, "cannot enforce the trust cache of %s: it lists %q, which the image doesn't have", name, path)
	}
	slices.Sort(l.Inodes)
	l.Inodes = slices.Compact(l.Inodes)
	return l, nil
}

// number is the table's number: the same for the same list, so that an image that
// is mounted twice has one table, and never 0.
func (l *List) number() uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "sealant table 1\x00%s\x00%s\x00", l.Name, l.Image)
	b := make([]byte, 0, 8*len(l.Inodes))
	for _, n := range l.Inodes {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	h.Write(b)
	return binary.LittleEndian.Uint64(h.Sum(nil)) | 1
}

// Admit makes the file system whose root folder is open as root execute nothing
// but what is listed, from the moment it returns. It is called before the file
// system has a place that anybody could execute from. Calling it again changes
// nothing.
func (g *Guard) Admit(root *os.File, l *List) error {
	fi, err := root.Stat()
	if err != nil {
		return fmt.Errorf("cannot look at the mounted %s: %w", l.Name, err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !fi.IsDir() || !ok || st.Ino != l.Root {
		return fault.New(fault.Failed, "cannot enforce the trust cache of %s: what is mounted is not the image", l.Name)
	}
	number := l.number()
	if err := g.publish(number, l); err != nil {
		return err
	}
	if err := g.cryptexes.Put(int32(root.Fd()), number); err != nil {
		return fmt.Errorf("cannot enforce the trust cache of %s: %w", l.Name, err)
	}
	return nil
}

// publish gives a list a table, whole and frozen before the programs see it.
func (g *Guard) publish(number uint64, l *List) error {
	var known description
	switch err := g.about.Lookup(number, &known); {
	case err == nil:
		var id uint32
		if g.tables.Lookup(number, &id) == nil {
			return nil
		}
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("cannot read the kernel's tables: %w", err)
	}
	held, err := g.Tables()
	if err != nil {
		return err
	}
	total := len(l.Inodes)
	for _, t := range held {
		total += t.Entries
	}
	if len(l.Inodes) > maxList || total > MaxListed || len(held) >= maxTables {
		return fault.New(fault.Failed, "cannot enforce the trust cache of %s: the kernel would hold %d lists with %d files, at most %d with %d are allowed",
			l.Name, len(held)+1, total, maxTables, MaxListed).Hint("apps that run on old content hold its lists: sealant ps")
	}
	table, err := ebpf.NewMap(list(len(l.Inodes)))
	if err != nil {
		return fmt.Errorf("cannot make a table for %s: %w", l.Name, err)
	}
	defer table.Close()
	for n := range slices.Chunk(l.Inodes, 4096) {
		if _, err := table.BatchUpdate(n, make([]uint8, len(n)), nil); err != nil {
			return fmt.Errorf("cannot fill the table of %s: %w", l.Name, err)
		}
	}
	if err := table.Freeze(); err != nil {
		return fmt.Errorf("cannot freeze the table of %s: %w", l.Name, err)
	}
	about := description{Entries: uint64(len(l.Inodes)), Since: uint64(time.Now().Unix()), Image: l.Image}
	copy(about.Name[:len(about.Name)-1], l.Name)
	if err := g.about.Put(number, about); err != nil {
		return fmt.Errorf("cannot describe the table of %s: %w", l.Name, err)
	}
	if err := g.tables.Put(number, table); err != nil {
		return fmt.Errorf("cannot publish the table of %s: %w", l.Name, err)
	}
	return nil
}

// AdmitNothing makes the file system whose root folder is open as root execute
// nothing at all.
func (g *Guard) AdmitNothing(root *os.File, name string) error {
	if err := g.cryptexes.Put(int32(root.Fd()), uint64(0)); err != nil {
		return fmt.Errorf("cannot stop %s from executing: %w", name, err)
	}
	return nil
}

// Table is one list that the kernel holds.
type Table struct {
	Number  uint64       `json:"-"`
	Name    string       `json:"cryptex"`
	Image   image.Digest `json:"image"`
	Entries int          `json:"files"`
	Since   time.Time    `json:"since"`
}

// Tables lists what the kernel holds, by name, the oldest first.
func (g *Guard) Tables() ([]Table, error) {
	var (
		tables []Table
		number uint64
		d      description
	)
	entries := g.about.Iterate()
	for entries.Next(&number, &d) {
		name, _, _ := bytes.Cut(d.Name[:], []byte{0})
		tables = append(tables, Table{number, string(name), d.Image, int(d.Entries), time.Unix(int64(d.Since), 0).UTC()})
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("cannot list the kernel's tables: %w", err)
	}
	slices.SortFunc(tables, func(a, b Table) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since), cmp.Compare(a.Number, b.Number))
	})
	return tables, nil
}

// Guarded reports whether the file system whose root folder is open as root is
// one of a cryptex that was admitted, and has its list.
func (g *Guard) Guarded(root *os.File) (bool, error) {
	var number uint64
	err := g.cryptexes.Lookup(int32(root.Fd()), &number)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err == nil {
		var id uint32
		err = g.tables.Lookup(number, &id)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("cannot ask the kernel whether %s is guarded: %w", root.Name(), err)
	}
	return true, nil
}

// Collect lets go of the lists of images that nobody uses. A list that is taken
// away by mistake makes its image execute nothing, never anything.
func (g *Guard) Collect(used func(image.Digest) bool) error {
	tables, err := g.Tables()
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tables {
		if used(t.Image) {
			continue
		}
		for _, m := range []*ebpf.Map{g.tables, g.about} {
			if err := m.Delete(t.Number); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, fmt.Errorf("cannot let go of the list of %s: %w", t.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
