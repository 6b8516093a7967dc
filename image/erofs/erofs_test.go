package erofs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

// memory is a file in memory that grows as it is written.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func file(content string) *erofs.Node {
	return &erofs.Node{
		Mode: erofs.ModeRegular | 0o644, Size: int64(len(content)), Mtime: 1000,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}
}

func link(target string) *erofs.Node {
	return &erofs.Node{Mode: erofs.ModeSymlink | 0o777, Target: target}
}

func dir(children ...erofs.Child) *erofs.Node {
	return &erofs.Node{Mode: erofs.ModeDirectory | 0o755, Children: children}
}

func in(name string, n *erofs.Node) erofs.Child { return erofs.Child{Name: name, Node: n} }

// corners is a tree of everything that is special.
func corners() *erofs.Node {
	root := dir()
	add := func(name string, n *erofs.Node) { root.Children = append(root.Children, in(name, n)) }
	for _, size := range []int{0, 1, 31, 32, 33, 2047, 2048, 2049, 4031, 4032, 4064, 4095, 4096, 4097, 8191, 8192, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
		add(fmt.Sprintf("size%d", size), file(strings.Repeat("0123456789abcdef", size/16+1)[:size]))
	}
	for _, n := range []int{1, 2048, 2049, 4064, 4095} {
		add(fmt.Sprintf("link%d", n), link(strings.Repeat("t", n)))
	}
	for _, n := range []int{0, 1, 60, 120, 128, 129, 300, 5000} {
		d := dir()
		for i := range n {
			d.Children = append(d.Children, in(fmt.Sprintf("name-%d", i), file(fmt.Sprint(i))))
		}
		add(fmt.Sprintf("dir%d", n), d)
	}
	long := dir()
	for i := range 40 {
		long.Children = append(long.Children, in(fmt.Sprintf("%s%02d", strings.Repeat("ü", 126), i), file("x")))
	}
	add("long", long)
	// "-" and "+" sort before ".", and "\xff" is no UTF-8.
	add("odd", dir(in("+", file("a")), in("-", file("b")), in("...", file("c")), in("\xff\n", file("d")), in(" ", link("/"))))
	deep := file("deep")
	for range 240 {
		deep = dir(in("0123456789abcde", deep))
	}
	add("d", deep)
	for name, change := range map[string]func(*erofs.Node){
		"uid":    func(n *erofs.Node) { n.UID, n.GID = 0xffff, 0xffff },
		"biguid": func(n *erofs.Node) { n.UID, n.GID = 0x10000, 0xfffffffe },
		"setuid": func(n *erofs.Node) { n.Mode |= 0o6111 },
		"nomode": func(n *erofs.Node) { n.Mode = erofs.ModeRegular },
		"old":    func(n *erofs.Node) { n.Mtime = 1 },
		"future": func(n *erofs.Node) { n.Mtime = 1 << 33 },
		"cap": func(n *erofs.Node) {
			n.Xattrs = xattr("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		},
		"trusted": func(n *erofs.Node) { n.Xattrs = xattr("trusted.t", "") },
		"user":    func(n *erofs.Node) { n.Xattrs = append(xattr("user.b", "2"), xattr("user.a", "1")...) },
		"xattrs": func(n *erofs.Node) {
			for i := range 100 {
				n.Xattrs = append(n.Xattrs, erofs.Xattr{Name: fmt.Sprintf("user.%d", i), Value: bytes.Repeat([]byte{byte(i)}, 5*i)})
			}
		},
		"hugexattr": func(n *erofs.Node) { n.Xattrs = xattr("user.huge", strings.Repeat("h", 60000)) },
	} {
		n := file("content of " + name)
		change(n)
		add(name, n)
	}
	sticky := dir()
	sticky.Mode |= 0o3022
	sticky.Xattrs = xattr("user.dir", "yes")
	add("sticky", sticky)
	hard := file("three names")
	add("hard1", hard)
	add("hard2", dir(in("hard2", hard), in("hard3", hard)))
	return root
}

func xattr(name, value string) []erofs.Xattr {
	return []erofs.Xattr{{Name: name, Value: []byte(value)}}
}

func write(t testing.TB, root *erofs.Node) []byte {
	t.Helper()
	var m memory
	size, err := erofs.Write(context.Background(), &m, root, erofs.Options{Label: "test", UUID: [16]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(m.b)) != size {
		t.Fatalf("%d bytes were written, not %d", len(m.b), size)
	}
	return m.b
}

func open(t testing.TB, b []byte) *erofs.Image {
	t.Helper()
	i, err := erofs.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// listing is a tree as text, one line a path, to be compared.
func listing(t testing.TB, i *erofs.Image) []string {
	t.Helper()
	var lines []string
	err := i.Walk(func(path string, n *erofs.Inode) error {
		line := fmt.Sprintf("%q ino %d mode %o %d:%d links %d", path, n.NID, n.Mode, n.UID, n.GID, n.Links)
		xattrs, err := i.Xattrs(n)
		if err != nil {
			return err
		}
		for _, x := range xattrs {
			line += fmt.Sprintf(" %s=%x", x.Name, x.Value)
		}
		if n.IsSymlink() {
			target, err := i.Target(n)
			if err != nil {
				return err
			}
			line += " to " + target
		}
		if n.IsRegular() {
			content, err := io.ReadAll(i.Content(n))
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" at %d: %d %.40q", n.Mtime, n.Size, content)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// mounted is the same text, from the kernel.
func mounted(t testing.TB, top string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		if rel == "." {
			rel = ""
		}
		st, err := stat(path)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%q ino %d mode %o %d:%d links %d", rel, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink)
		names, values, err := linux.Xattrs(path)
		if err != nil {
			return err
		}
		order := func(name string) int { // the order of name spaces on disk
			return slices.IndexFunc([]string{"user.", "system.", "trusted.", "security."}, func(p string) bool { return strings.HasPrefix(name, p) })
		}
		index := make([]int, len(names))
		for i := range index {
			index[i] = i
		}
		slices.SortStableFunc(index, func(a, b int) int { return order(names[a]) - order(names[b]) })
		for _, i := range index {
			line += fmt.Sprintf(" %s=%x", names[i], values[i])
		}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + target
		case e.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" at %d: %d %.40q", st.Mtim.Sec, st.Size, content)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestTheKernelReadsWhatWeRead(t *testing.T) {
	b := write(t, corners())
	top := namespace.Dir(t)
	name := filepath.Join(top, "image")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("fsck.erofs", "-d9", name).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors found") {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
	if out, err := exec.Command("dump.erofs", name).CombinedOutput(); err != nil || !strings.Contains(string(out), "01000000-0000-0000-0000-000000000000") {
		t.Errorf("dump.erofs: %v\n%s", err, out)
	}
	if out, err := exec.Command("blkid", "-o", "value", "-s", "LABEL", name).CombinedOutput(); err != nil || string(out) != "test\n" {
		t.Errorf("blkid: %v, label %q", err, out)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := linux.MountErofs(f, linux.Options{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	at := filepath.Join(top, "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Place(at); err != nil {
		t.Fatal(err)
	}
	ours, theirs := listing(t, open(t, b)), mounted(t, at)
	if len(ours) < 5900 || len(ours) != len(theirs) {
		t.Fatalf("we read %d paths, the kernel %d", len(ours), len(theirs))
	}
	for i := range ours {
		if ours[i] != theirs[i] {
			t.Errorf("we read   %.300s\nthe kernel %.300s", ours[i], theirs[i])
		}
	}
}

func TestGoReadsIt(t *testing.T) {
	tree := dir(
		in("usr", dir(in("bin", dir(in("sh", file("#!")), in("dash", file("d")))), in("empty", dir()))),
		in("file", file(strings.Repeat("x", 10000))),
	)
	fsys := open(t, write(t, tree)).FS()
	if err := fstest.TestFS(fsys, "usr/bin/sh", "usr/bin/dash", "file", "usr/empty"); err != nil {
		t.Error(err)
	}
	linked := open(t, write(t, dir(in("a", link("b")), in("b", file("b"))))).FS()
	if target, err := linked.ReadLink("a"); target != "b" || err != nil {
		t.Errorf("got %q, %v", target, err)
	}
	for _, name := range []string{"a", "a/b", "b/c", "none", "../b", "/b"} {
		if _, err := linked.Open(name); err == nil {
			t.Errorf("%s opens", name)
		}
	}
}

// shuffle puts all children of a tree into another order.
func shuffle(n *erofs.Node) {
	rand.Shuffle(len(n.Children), func(i, j int) { n.Children[i], n.Children[j] = n.Children[j], n.Children[i] })
	rand.Shuffle(len(n.Xattrs), func(i, j int) { n.Xattrs[i], n.Xattrs[j] = n.Xattrs[j], n.Xattrs[i] })
	for _, c := range n.Children {
		shuffle(c.Node)
	}
}

func TestTheSameTreeGivesTheSameBytes(t *testing.T) {
	want := write(t, corners())
	for range 3 {
		root := corners()
		shuffle(root)
		if !bytes.Equal(want, write(t, root)) {
			t.Error("other bytes")
		}
	}
}

func TestASmallChangeMovesNothing(t *testing.T) {
	tree := func(content string, mtime int64) []byte {
		root := dir()
		for i := range 100 {
			n := file(strings.Repeat(fmt.Sprint(i), 3000))
			if i == 50 {
				n = file(content)
			}
			n.Mtime = mtime
			root.Children = append(root.Children, in(fmt.Sprintf("%03d", i), n))
		}
		return write(t, root)
	}
	old := tree(strings.Repeat("a", 5000), 1000)
	// A longer content in the same blocks, and a new time of all files, as a
	// package's new version brings it: content, size and one time change.
	changed := 0
	for i, b := range tree(strings.Repeat("a", 5001), 2000) {
		if old[i] != b {
			changed++
		}
	}
	if changed > 1+1+2 {
		t.Errorf("%d bytes changed", changed)
	}
}

func TestWriteRefuses(t *testing.T) {
	loop := dir()
	loop.Children = []erofs.Child{in("loop", loop)}
	twice := dir()
	mode := func(m uint32) *erofs.Node { n := file(""); n.Mode = m; return n }
	with := func(x ...erofs.Xattr) *erofs.Node { n := file(""); n.Xattrs = x; return n }
	sized := func(size int64) *erofs.Node { n := file("content"); n.Size = size; return n }
	many := dir()
	for i := range erofs.MaxInodes + 1 {
		many.Children = append(many.Children, in(fmt.Sprint(i), twice))
	}
	deep := file("")
	for range 300 {
		deep = dir(in("0123456789abcdef", deep))
	}
	for name, root := range map[string]*erofs.Node{
		"root is a file":  file(""),
		"loop":            loop,
		"two places":      dir(in("a", twice), in("b", twice)),
		"two names":       dir(in("a", file("")), in("a", file(""))),
		"no name":         dir(in("", file(""))),
		"dot":             dir(in(".", file(""))),
		"dots":            dir(in("..", file(""))),
		"slash":           dir(in("a/b", file(""))),
		"zero":            dir(in("a\x00b", file(""))),
		"long name":       dir(in(strings.Repeat("n", 256), file(""))),
		"deep":            dir(in("d", deep)),
		"many":            many,
		"device":          dir(in("dev", mode(0o020644))),
		"socket":          dir(in("sock", mode(0o140644))),
		"pipe":            dir(in("pipe", mode(0o010644))),
		"mode":            dir(in("mode", mode(erofs.ModeRegular|1<<20))),
		"empty link":      dir(in("link", link(""))),
		"long link":       dir(in("link", link(strings.Repeat("l", 4096)))),
		"link with zero":  dir(in("link", link("a\x00"))),
		"shrunk inline":   dir(in("f", sized(100))),
		"grown inline":    dir(in("f", sized(3))),
		"shrunk":          dir(in("f", sized(5000))),
		"negative":        dir(in("f", sized(-1))),
		"too large":       dir(in("f", sized(1<<40))),
		"overflow":        dir(in("f", sized(1<<62)), in("g", sized(1<<62)), in("h", sized(1<<62))),
		"xattr space":     dir(in("f", with(erofs.Xattr{Name: "btrfs.compression"}))),
		"xattr bare":      dir(in("f", with(erofs.Xattr{Name: "user."}))),
		"xattr long acl":  dir(in("f", with(erofs.Xattr{Name: "system.posix_acl_accessible"}))),
		"xattr twice":     dir(in("f", with(erofs.Xattr{Name: "user.a"}, erofs.Xattr{Name: "user.a"}))),
		"xattr value":     dir(in("f", with(erofs.Xattr{Name: "user.a", Value: make([]byte, 1<<16)}))),
		"xattrs together": dir(in("f", with(erofs.Xattr{Name: "user.a", Value: make([]byte, 40000)}, erofs.Xattr{Name: "user.b", Value: make([]byte, 40000)}))),
	} {
		if _, err := erofs.Write(context.Background(), &memory{}, root, erofs.Options{}); err == nil {
			t.Errorf("%s: written", name)
		} else if !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: the error reads %q", name, err)
		}
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := erofs.Write(ctx, &memory{}, dir(in("f", file("x"))), erofs.Options{}); err == nil {
		t.Error("no error")
	}
}

func TestManyHardLinks(t *testing.T) {
	// More names than the 16 bits of a compact inode can count.
	hard, root := file("one"), dir()
	for i := range 66_000 {
		root.Children = append(root.Children, in(fmt.Sprint(i), hard))
	}
	i := open(t, write(t, root))
	names := 0
	err := i.Walk(func(_ string, n *erofs.Inode) error {
		if n.IsRegular() {
			if names++; n.Links != 66_000 {
				t.Fatalf("%d links", n.Links)
			}
		}
		return nil
	})
	if err != nil || names != 66_000 || i.Inodes() != 2 {
		t.Errorf("%d names, %d inodes, %v", names, i.Inodes(), err)
	}
}

// sparse is a file of zeros that ends with a mark.
type sparse struct{ left int64 }

const mark = "the end"

func (s *sparse) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.left))
	clear(p[:n])
	for i := max(0, s.left-int64(len(mark))); i < min(s.left, int64(n)); i++ {
		p[i] = mark[int64(len(mark))-s.left+i]
	}
	s.left -= int64(n)
	return n, nil
}

func (s *sparse) Close() error { return nil }

func TestSizesAround32Bits(t *testing.T) {
	root := dir()
	sizes := []int64{1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1<<32 + 1}
	for i, size := range sizes {
		root.Children = append(root.Children, in(fmt.Sprint(i), &erofs.Node{
			Mode: erofs.ModeRegular | 0o644, Size: size,
			Open: func() (io.ReadCloser, error) { return &sparse{size}, nil },
		}))
	}
	top := namespace.Dir(t)
	f, err := os.Create(filepath.Join(top, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := erofs.Write(context.Background(), f, root, erofs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := erofs.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	m, err := linux.MountErofs(f, linux.Options{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	at := filepath.Join(top, "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Place(at); err != nil {
		t.Fatal(err)
	}
	if err := i.Walk(func(string, *erofs.Inode) error { return nil }); err != nil {
		t.Error(err)
	}
	for k, size := range sizes {
		n, err := i.Lookup(fmt.Sprint(k))
		if err != nil || n.Size != size {
			t.Fatalf("%d: got %v, %v", size, n, err)
		}
		kernel, err := os.Open(filepath.Join(at, fmt.Sprint(k)))
		if err != nil {
			t.Fatal(err)
		}
		defer kernel.Close()
		for name, r := range map[string]io.ReaderAt{"we read": i.Content(n), "the kernel reads": kernel} {
			end := make([]byte, len(mark)+1)
			if got, err := r.ReadAt(end, size-int64(len(mark))); got != len(mark) || err != io.EOF || string(end[:got]) != mark {
				t.Errorf("%d: %s %q, %v at the end", size, name, end[:got], err)
			}
		}
	}
}
