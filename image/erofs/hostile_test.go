package erofs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/fault"
)

func stat(path string) (st syscall.Stat_t, err error) {
	err = syscall.Lstat(path, &st)
	return st, err
}

// readAll reads everything that can be read of an image.
func readAll(b []byte) error {
	i, err := erofs.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	paths := 0
	return i.Walk(func(path string, n *erofs.Inode) error {
		if paths++; paths > len(b) {
			return errors.New("more paths than bytes")
		}
		if _, err := i.Xattrs(n); err != nil {
			return err
		}
		if n.IsSymlink() {
			_, err := i.Target(n)
			return err
		}
		if n.IsRegular() {
			_, err := io.Copy(io.Discard, i.Content(n))
			return err
		}
		_, err := i.Lookup(path)
		return err
	})
}

// small is a small image with everything in it, and where its metadata starts.
func small(t testing.TB) ([]byte, int) {
	hard := file("hard")
	special := file("special")
	special.UID, special.Xattrs = 70000, append(xattr("user.a", "one"), xattr("security.capability", "cap")...)
	names := dir()
	for i := range 200 {
		names.Children = append(names.Children, in(string([]byte{'a' + byte(i/26), 'a' + byte(i%26)}), hard))
	}
	b := write(t, dir(in("d", dir(in("x", hard), in("l", link("../f")))), in("f", file(string(make([]byte, 5000)))), in("s", special), in("n", names)))
	return b, int(binary.LittleEndian.Uint32(b[1024+40:])) * erofs.BlockSize
}

func TestHostileImages(t *testing.T) {
	whole, meta := small(t)
	if err := readAll(whole); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	rootAt := meta + 32 // the root's inode, its entries inline behind it
	entry := func(b []byte, k int) []byte { return b[rootAt+32+12*k:] }
	for name, change := range map[string]func([]byte) []byte{
		"nothing":           func(b []byte) []byte { return nil },
		"one block":         func(b []byte) []byte { return b[:4096] },
		"cut":               func(b []byte) []byte { return b[:len(b)-4096] },
		"cut in a block":    func(b []byte) []byte { return b[:len(b)-1] },
		"too long":          func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
		"magic":             func(b []byte) []byte { b[1024]++; return b },
		"block size":        func(b []byte) []byte { b[1024+12] = 9; return b },
		"incompatible":      func(b []byte) []byte { b[1024+80] = 1; return b },
		"checksum":          func(b []byte) []byte { b[1024+8] |= 1; return b },
		"boot block":        func(b []byte) []byte { b[0] = 1; return b },
		"after superblock":  func(b []byte) []byte { b[1024+128] = 1; return b },
		"meta at 0":         func(b []byte) []byte { le.PutUint32(b[1024+40:], 0); return b },
		"meta beyond":       func(b []byte) []byte { le.PutUint32(b[1024+40:], 1<<31); return b },
		"root 0":            func(b []byte) []byte { le.PutUint16(b[1024+14:], 0); return b },
		"root beyond":       func(b []byte) []byte { le.PutUint16(b[1024+14:], 0xffff); return b },
		"inodes":            func(b []byte) []byte { le.PutUint64(b[1024+16:], 1<<63); return b },
		"more inodes":       func(b []byte) []byte { b[1024+16]++; return b },
		"fewer inodes":      func(b []byte) []byte { b[1024+16]--; return b },
		"time":              func(b []byte) []byte { b[1024+31] = 0xff; return b },
		"root compressed":   func(b []byte) []byte { b[rootAt] = 1 << 1; return b },
		"root chunked":      func(b []byte) []byte { b[rootAt] = 4 << 1; return b },
		"root form":         func(b []byte) []byte { b[rootAt+1] = 0x80; return b },
		"root is a file":    func(b []byte) []byte { b[rootAt+5] = 0x81; return b },
		"root is a device":  func(b []byte) []byte { b[rootAt+5] = 0x61; return b },
		"root links":        func(b []byte) []byte { b[rootAt+6]++; return b },
		"root size 0":       func(b []byte) []byte { le.PutUint32(b[rootAt+8:], 0); return b },
		"root size":         func(b []byte) []byte { le.PutUint32(b[rootAt+8:], 0xffffffff); return b },
		"root size inline":  func(b []byte) []byte { le.PutUint32(b[rootAt+8:], 2049); return b },
		"root reserved":     func(b []byte) []byte { b[rootAt+12] = 1; return b },
		"root inode number": func(b []byte) []byte { b[rootAt+20] = 1; return b },
		"root block":        func(b []byte) []byte { b[rootAt+16] = 1; return b },
		"root xattrs":       func(b []byte) []byte { le.PutUint16(b[rootAt+2:], 0xffff); return b },
		"plain root": func(b []byte) []byte { // its content at the superblock
			b[rootAt] = 0
			return b
		},
		"plain root in the metadata": func(b []byte) []byte {
			b[rootAt] = 0
			le.PutUint32(b[rootAt+16:], uint32(meta/4096))
			return b
		},
		"entry points to the root": func(b []byte) []byte { le.PutUint64(entry(b, 2), 1); return b },
		"entry points to itself": func(b []byte) []byte {
			child := meta + int(le.Uint64(entry(b, 2)))*32
			copy(b[child+32+12:], entry(b, 2)[:8]) // ".." of d
			le.PutUint64(b[child+32+24:], le.Uint64(entry(b, 2)))
			return b
		},
		"entry 0":           func(b []byte) []byte { le.PutUint64(entry(b, 2), 0); return b },
		"entry beyond":      func(b []byte) []byte { le.PutUint64(entry(b, 2), 1<<40); return b },
		"entry overflows":   func(b []byte) []byte { le.PutUint64(entry(b, 2), 1<<59); return b },
		"entry in between":  func(b []byte) []byte { le.PutUint64(entry(b, 2), le.Uint64(entry(b, 2))+1); return b },
		"entry type":        func(b []byte) []byte { entry(b, 2)[10] = 1; return b },
		"entry reserved":    func(b []byte) []byte { entry(b, 2)[11] = 1; return b },
		"first name":        func(b []byte) []byte { le.PutUint16(entry(b, 0)[8:], 0); return b },
		"first name beyond": func(b []byte) []byte { le.PutUint16(entry(b, 0)[8:], 12*300); return b },
		"name back":         func(b []byte) []byte { le.PutUint16(entry(b, 3)[8:], 1); return b },
		"two files, one content": func(b []byte) []byte {
			f, s := meta+int(le.Uint64(entry(b, 3)))*32, meta+int(le.Uint64(entry(b, 5)))*32
			b[s] = 1 // plain
			copy(b[s+16:s+20], b[f+16:f+20])
			return b
		},
	} {
		b := change(bytes.Clone(whole))
		if err := readAll(b); fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFlippedBits(t *testing.T) {
	whole, meta := small(t)
	for range 20_000 {
		b := bytes.Clone(whole)
		for range 1 + rand.IntN(3) {
			at := rand.IntN(len(b) - meta + 128)
			if at < 128 {
				at += 1024
			} else {
				at += meta - 128
			}
			b[at] ^= 1 << rand.IntN(8)
		}
		if err := readAll(b); err != nil && fault.KindOf(err) != fault.Seal {
			t.Fatalf("got %v", err)
		}
	}
}

func FuzzImage(f *testing.F) {
	whole, _ := small(f)
	f.Add(whole)
	f.Add(write(f, dir()))
	f.Add(write(f, dir(in("a", link("b")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := readAll(b); err != nil && fault.KindOf(err) != fault.Seal {
			t.Errorf("got %v", err)
		}
	})
}
