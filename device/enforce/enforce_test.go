package enforce

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/layout"
	"github.com/sealant-os/sealant/internal/linux"
)

func TestModes(t *testing.T) {
	for _, m := range []Mode{Off, Audit, Enforce} {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%s: %v %v", m, got, err)
		}
	}
	for _, s := range []string{"", "Enforce", "on", "strict"} {
		if _, err := ParseMode(s); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// On a kernel that can't, whoever loads is told what lacks, and nothing is left.
func TestLackingIsSaid(t *testing.T) {
	dir := bpffs + "/sealant-test-lacking"
	g, err := load(t.Context(), dir)
	if err == nil {
		g.Close()
		must(t, unload(dir))
		t.Log("this kernel has it all: kernel_test.go")
	} else {
		var lacks *fault.Unsupported
		if !errors.As(err, &lacks) || !strings.Contains(err.Error(), "BPF") || !strings.Contains(err.Error(), "lsm=") {
			t.Fatalf("%v", err)
		}
		if lacks.Kernel != "" && linux.AtLeast(lacks.Kernel) {
			t.Errorf("it names Linux %s, and this one is newer", lacks.Kernel)
		}
		t.Log(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
	if _, err := open(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	must(t, unload(dir))
}

// The programs are within what the kernel takes, on every kernel's layout, and
// every jump has a target.
func TestProgramsAreWhole(t *testing.T) {
	k, err := layout.Running()
	if layout.Missing(err) {
		t.Skip("this kernel doesn't describe its types")
	}
	must(t, err)
	at, err := fieldsOf(k)
	must(t, err)
	m := maps{}
	any, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	defer any.Close()
	for _, s := range m.specs() {
		*s.to = any // of no use but its number
	}
	for _, h := range hooks {
		for _, names := range []bool{true, false} {
			code := m.program(h, at, names)
			labels := map[string]bool{}
			for _, in := range code {
				if s := in.Symbol(); s != "" {
					if labels[s] {
						t.Errorf("%s: two places are called %s", h.name, s)
					}
					labels[s] = true
				}
			}
			for _, in := range code {
				if to := in.Reference(); to != "" && !labels[to] {
					t.Errorf("%s jumps to %s, which is nowhere", h.name, to)
				}
			}
			if last := code[len(code)-1]; last.OpCode != asm.Return().OpCode || len(code) > 1000 {
				t.Errorf("%s: %d instructions, the last %v", h.name, len(code), last)
			}
		}
	}
	if -slotSince > 512 {
		t.Errorf("the stack has %d bytes, the kernel gives 512", -slotSince)
	}
}

// tree is an image with the given files; what they contain is their name.
func tree(t testing.TB, names ...string) *erofs.Image {
	t.Helper()
	root := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
	for _, name := range names {
		n := &erofs.Node{Mode: erofs.ModeRegular | 0o755, Size: int64(len(name)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(name)), nil }}
		if strings.HasSuffix(name, "@") {
			n = &erofs.Node{Mode: erofs.ModeSymlink | 0o777, Target: "a"}
		}
		root.Children = append(root.Children, erofs.Child{Name: name, Node: n})
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	size, err := erofs.Write(t.Context(), f, root, erofs.Options{})
	must(t, err)
	must(t, f.Truncate(size))
	i, err := erofs.Open(f, size)
	must(t, err)
	return i
}

func cacheOf(paths ...string) *trustcache.Cache {
	c := &trustcache.Cache{}
	for _, p := range paths {
		c.Entries = append(c.Entries, trustcache.Entry{Path: p, Kind: trustcache.Other})
	}
	return c
}

func TestLearn(t *testing.T) {
	i := tree(t, "a", "b", "c", "l@")
	l, err := Learn("web", image.Digest{1}, i, cacheOf("a", "c"))
	must(t, err)
	want := map[uint64]bool{}
	must(t, i.Walk(func(path string, n *erofs.Inode) error {
		if path == "a" || path == "c" {
			want[n.NID] = true
		}
		if path == "" && n.NID != l.Root {
			t.Errorf("root %d, want %d", l.Root, n.NID)
		}
		return nil
	}))
	if len(l.Inodes) != 2 || !want[l.Inodes[0]] || !want[l.Inodes[1]] || l.Inodes[0] >= l.Inodes[1] {
		t.Errorf("%v, want %v", l.Inodes, want)
	}
	for name, c := range map[string]*trustcache.Cache{
		"a file that isn't there": cacheOf("a", "x"), "a link": cacheOf("l@"), "the root": cacheOf(""),
	} {
		if _, err := Learn("web", image.Digest{}, i, c); fault.KindOf(err) != fault.Seal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := Learn("web", image.Digest{}, i, cacheOf()); err != nil || len(l.Inodes) != 0 {
		t.Errorf("an empty list: %+v %v", l, err)
	}
	if _, err := Learn("web", image.Digest{}, i, &trustcache.Cache{Entries: make([]trustcache.Entry, maxList+1)}); err == nil {
		t.Error("too long a list")
	}
	// The number stands for all of the list.
	numbers := map[uint64]bool{0: true}
	for _, l := range []List{{}, {Name: "a"}, {Image: image.Digest{1}}, {Inodes: []uint64{1}}, {Inodes: []uint64{1, 2}}, {Inodes: []uint64{2}}} {
		if n := l.number(); numbers[n] || n != l.number() {
			t.Errorf("%+v: %d", l, n)
		} else {
			numbers[n] = true
		}
	}
}

// FuzzDecode: whatever is in the ring, it is an event or it is left out.
func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, eventSize))
	f.Add([]byte{})
	whole := bytes.Repeat([]byte{0xff}, eventSize)
	binary.NativeEndian.PutUint32(whole[eventWhat:], uint32(Exec)|uint32(Unlisted)<<8|uint32(Enforce)<<16)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, _, ok := decode(b)
		if ok != (len(b) == eventSize) {
			t.Fatal(ok)
		}
		if text := e.String(); ok && (text == "" || len(e.Name) > 4*nameSize || strings.ContainsRune(e.Name, 0)) {
			t.Errorf("%+v %q", e, text)
		}
	})
}
