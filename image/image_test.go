package image_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

// memory is an image.File in memory.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, off) }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Truncate(size int64) error {
	m.b = append(m.b[:min(len(m.b), int(size))], make([]byte, max(0, int(size)-len(m.b)))...)
	return nil
}

func shell(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// realTree is a tree on disk with everything that an image keeps.
func realTree(t testing.TB) string {
	t.Helper()
	dir := namespace.Dir(t)
	shell(t, dir, `
		mkdir -p usr/bin usr/lib/deep/er etc empty
		cp /bin/true usr/bin/true && cp /bin/ping usr/bin/ping 2>/dev/null || cp /bin/true usr/bin/ping
		setcap cap_net_raw=ep usr/bin/ping
		chmod 4755 usr/bin/true && chmod 3777 empty && chmod 000 etc
		cp "$(readlink -f /lib*/ld-linux-*.so.*)" usr/lib/ld.so && chmod 644 usr/lib/ld.so
		head -c 300000 /dev/urandom >usr/lib/random
		head -c 5000 /dev/zero >usr/lib/zeros
		truncate -s 3M usr/lib/sparse && printf x >>usr/lib/sparse
		printf '#!/bin/sh\n' >usr/bin/script && chmod 755 usr/bin/script
		printf plain >usr/lib/deep/er/plain && : >usr/lib/void
		ln -s ../lib/random usr/bin/random && ln -s /no/where usr/lib/dangling
		ln usr/lib/random usr/lib/deep/again && ln usr/bin/script usr/bin/script2
		chown 1000:2000 usr/lib/random && chown -h 70000:80000 usr/bin/random && chown 5:6 empty
		setfattr -n user.note -v hello usr/lib/random && setfattr -n user.dir -v d usr && setfattr -n trusted.t -v 0x00ff usr/lib/void
		setfattr -h -n trusted.link -v l usr/lib/dangling
		setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff020004006400000004000400ffffffff10000600ffffffff20000400ffffffff usr/lib/zeros
		touch -h -d @1700000000.5 usr/lib/* && touch -d @100 usr/bin/true
	`)
	return dir
}

func build(t testing.TB, dir string, o image.Options) (*memory, image.Summary) {
	t.Helper()
	var m memory
	if o.Name == "" {
		o.Name, o.Subtype = "web", image.App
	}
	s, err := image.Build(context.Background(), &m, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return &m, s
}

func open(t testing.TB, m *memory) *image.Cryptex {
	t.Helper()
	c, err := image.Open(m, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// found is what lstat, readlink, and the like say about a path.
type found struct {
	Mode, UID, GID, Links uint32
	Size, Mtime           int64
	Target, Content       string
	Xattrs                map[string]string
	FirstName             string // of a file with several names
}

// look reads a tree on disk. Directories and links have no time and no size of
// their own in an image.
func look(t testing.TB, top string) map[string]found {
	t.Helper()
	all, names := map[string]found{}, map[uint64]string{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		f := found{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Links: uint32(st.Nlink)}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.Size, f.Mtime, f.Content = st.Size, st.Mtim.Sec, string(content)
			if st.Nlink > 1 {
				if names[st.Ino] == "" {
					names[st.Ino] = rel
				}
				f.FirstName = names[st.Ino]
			}
		case syscall.S_IFLNK:
			if f.Target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		keys, values, err := linux.Xattrs(path)
		if err != nil {
			return err
		}
		f.Xattrs = map[string]string{}
		for i, k := range keys {
			f.Xattrs[k] = string(values[i])
		}
		all[rel] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// mount mounts an image file and returns where.
func mount(t testing.TB, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := linux.MountErofs(f, linux.Options{Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	at := filepath.Join(namespace.Dir(t), "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Place(at); err != nil {
		t.Fatal(err)
	}
	return at
}

func onDisk(t testing.TB, m *memory) string {
	t.Helper()
	name := filepath.Join(namespace.Dir(t), "web.cryptex")
	if err := os.WriteFile(name, m.b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTheKernelMountsTheWholeFileAndKeepsEverything(t *testing.T) {
	dir := realTree(t)
	m, sum := build(t, dir, image.Options{})
	name := onDisk(t, m)
	if diff := cmp.Diff(look(t, dir), look(t, mount(t, name))); diff != "" {
		t.Errorf("the tree (-) is not what is mounted (+):\n%s", diff)
	}
	shell(t, "/", "fsck.erofs "+name)
	shell(t, "/", fmt.Sprintf("veritysetup verify %s %s %s --hash-offset %d", name, name, sum.Seal, sum.DataSize))
	shell(t, "/", fmt.Sprintf("veritysetup dump %s --hash-offset %d | grep -q 'Data blocks:.*%d'", name, sum.DataSize, sum.Seal.DataBlocks))
	if sum.Size != int64(len(m.b)) || sum.Digest != image.Digest(sha512.Sum384(m.b)) || sum.Files != 11 {
		t.Errorf("got %+v", sum)
	}
}

func TestOpenSaysWhatBuildSaid(t *testing.T) {
	m, sum := build(t, realTree(t), image.Options{})
	c := open(t, m)
	if c.Name != sum.Name || c.Subtype != sum.Subtype || c.Size != sum.Size || c.DataSize != sum.DataSize || c.Seal != sum.Seal || c.TrustCacheDigest != sum.TrustCache {
		t.Errorf("got %+v, want %+v", c, sum)
	}
	if d, err := c.VerifyDigest(context.Background(), nil); err != nil || d != sum.Digest {
		t.Errorf("got %s, %v", d, err)
	}
	if d, err := c.Digest(); err != nil || d != sum.Digest {
		t.Errorf("got %s, %v", d, err)
	}
	fsys, err := c.FS()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := fs.ReadFile(fsys, "usr/lib/deep/er/plain"); string(b) != "plain" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	// Its tree offset is dm-verity's hash start: the root is the hash of the
	// block there.
	s, err := seal.ParseSuperblock(m.b[c.DataSize : c.DataSize+4096])
	if err != nil || s.Salt != c.Seal.Salt || c.TreeOffset() != c.DataSize+4096 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestTheTrustCacheListsWhatMayExecute(t *testing.T) {
	dir := realTree(t)
	m, sum := build(t, dir, image.Options{})
	cache, err := open(t, m).TrustCache()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]trustcache.Kind{
		"usr/bin/ping": trustcache.Executable, "usr/bin/script": trustcache.Script, "usr/bin/script2": trustcache.Script,
		"usr/bin/true": trustcache.Executable, "usr/lib/ld.so": trustcache.Library,
	}
	if len(cache.Entries) != len(want) || sum.Executables != len(want) {
		t.Errorf("got %+v", cache.Entries)
	}
	for _, e := range cache.Entries {
		if e.Kind != want[e.Path] {
			t.Errorf("%s is a %s", e.Path, e.Kind)
		}
		digest := strings.Fields(shell(t, dir, "fsverity digest --compact "+e.Path))[0]
		if got := fmt.Sprintf("%x", e.Digest); got != digest {
			t.Errorf("%s: got %s, fsverity says %s", e.Path, got, digest)
		}
	}
}

func TestTwoBuildsGiveTheSameBytes(t *testing.T) {
	dir := realTree(t)
	m, _ := build(t, dir, image.Options{})
	// The same tree, made in another order, elsewhere, with other times of its
	// directories and other inode numbers.
	copied := namespace.Dir(t)
	shell(t, dir, `find . -depth | tac | sort -R | tar --no-recursion --xattrs --xattrs-include='*' --acls -cf - -T - | tar --xattrs --xattrs-include='*' --acls -C `+copied+` -xpf -`)
	again, _ := build(t, copied+"/", image.Options{})
	if !bytes.Equal(m.b, again.b) {
		t.Errorf("other bytes: %v", cmp.Diff(look(t, dir), look(t, copied)))
	}
	salted, _ := build(t, dir, image.Options{Name: "web", Subtype: image.App, Salt: [32]byte{1}})
	if c := open(t, salted); !bytes.Equal(salted.b[:c.DataSize], m.b[:c.DataSize]) || c.Seal.Root == open(t, m).Seal.Root {
		t.Error("the salt changes the data, or does not change the root")
	}
}

func TestFinishMakesTheSameImageOfTheSameData(t *testing.T) {
	m, sum := build(t, realTree(t), image.Options{})
	c := open(t, m)
	for name, tail := range map[string][]byte{"nothing": nil, "a short tail": []byte("junk"), "a long tail": make([]byte, 1<<20), "the old tail": m.b[c.DataSize:]} {
		f := memory{slices.Concat(m.b[:c.DataSize], tail)}
		got, err := image.Finish(&f, c.DataSize, c.Options())
		if err != nil || got != sum || !bytes.Equal(f.b, m.b) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestFinishWhileTheDataIsWritten(t *testing.T) {
	m, sum := build(t, realTree(t), image.Options{})
	c := open(t, m)
	f, err := os.CreateTemp(t.TempDir(), "image")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var written atomic.Int64
	stop := errors.New("stop")
	var refuse atomic.Bool
	ready := func(to int64) error {
		for written.Load() < to {
			if refuse.Load() {
				return stop
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	wait, err := image.FinishWhile(t.Context(), f, c.DataSize, c.Options(), ready)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < c.DataSize; at = written.Load() {
		n := min(c.DataSize-at, 70_000)
		if _, err := f.WriteAt(m.b[at:at+n], at); err != nil {
			t.Fatal(err)
		}
		written.Add(n)
	}
	got, err := wait()
	if err != nil || got != sum {
		t.Errorf("got %+v, %v", got, err)
	}
	if b, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(b, m.b) {
		t.Errorf("it differs from what Finish makes: %v", err)
	}
	// Whoever writes may give up.
	written.Store(0)
	refuse.Store(true)
	if wait, err = image.FinishWhile(t.Context(), f, c.DataSize, c.Options(), ready); err != nil {
		t.Fatal(err)
	}
	if _, err := wait(); !errors.Is(err, stop) {
		t.Errorf("given up: %v", err)
	}
}

func TestFinishRefuses(t *testing.T) {
	m, _ := build(t, realTree(t), image.Options{})
	c := open(t, m)
	good := c.Options()
	for name, try := range map[string]func() error{
		"no name":      func() error { _, err := image.Finish(m, c.DataSize, image.Options{Subtype: image.OS}); return err },
		"no subtype":   func() error { _, err := image.Finish(m, c.DataSize, image.Options{Name: "web"}); return err },
		"no data":      func() error { _, err := image.Finish(m, 0, good); return err },
		"half a block": func() error { _, err := image.Finish(m, 100, good); return err },
		"negative":     func() error { _, err := image.Finish(m, -4096, good); return err },
		"too large":    func() error { _, err := image.Finish(m, 1<<50, good); return err },
		"zeros":        func() error { _, err := image.Finish(&memory{make([]byte, 8192)}, 8192, good); return err },
		"cut data": func() error {
			_, err := image.Finish(&memory{bytes.Clone(m.b)}, c.DataSize-4096, good)
			return err
		},
		"ended": func() error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err := image.FinishContext(ctx, &memory{bytes.Clone(m.b)}, c.DataSize, good)
			return err
		},
	} {
		if err := try(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestBuildRefusesByName(t *testing.T) {
	dir := namespace.Dir(t)
	shell(t, dir, `mkdir a; mkfifo a/pipe; mknod a/null c 1 3; mknod a/disk b 7 0`)
	sock, err := net.Listen("unix", dir+"/a/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	_, err = image.Build(context.Background(), &memory{}, dir, image.Options{Name: "web", Subtype: image.OS})
	for _, want := range []string{"named pipe /a/pipe", "device /a/null", "device /a/disk", "socket /a/sock", "cannot keep"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for _, missing := range []string{dir + "/none", dir + "/a/pipe", ""} {
		if _, err := image.Build(context.Background(), &memory{}, missing, image.Options{Name: "web", Subtype: image.OS}); err == nil {
			t.Errorf("%q is built", missing)
		}
	}
}

func TestAFileThatChangesWhileItIsReadIsRefused(t *testing.T) {
	dir := namespace.Dir(t)
	shell(t, dir, "head -c 10000 /dev/zero >log")
	root, err := image.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "printf more >>log")
	_, err = image.BuildTree(context.Background(), &memory{}, root, image.Options{Name: "web", Subtype: image.OS})
	if err == nil || !strings.Contains(err.Error(), "/log") {
		t.Errorf("got %v", err)
	}
}

func TestVerifyRefusesAnyFlippedBit(t *testing.T) {
	m, sum := build(t, realTree(t), image.Options{})
	c := open(t, m)
	try := func(at int, bit byte) {
		t.Helper()
		m.b[at] ^= bit
		defer func() { m.b[at] ^= bit }()
		damaged, err := image.Open(m, int64(len(m.b)))
		if err == nil {
			err = damaged.Verify(context.Background(), nil)
		}
		if fault.KindOf(err) != fault.Seal {
			t.Errorf("byte %d of %d, bit %#x: got %v", at, len(m.b), bit, err)
		}
		// The frame is everything but the data.
		if damaged != nil {
			if err := damaged.VerifyFrame(); (err == nil) != (int64(at) < c.DataSize) || err != nil && fault.KindOf(err) != fault.Seal {
				t.Errorf("byte %d of %d, frame of %d: got %v", at, len(m.b), c.DataSize, err)
			}
		}
	}
	// In each part: its first and last byte, and a few at random.
	edges := []int64{0, c.DataSize, c.TreeOffset(), c.TrustCacheOffset(), c.TrustCacheOffset() + c.TrustCacheSize, sum.Size - 4096, sum.Size - 32, sum.Size}
	for i := range edges[1:] {
		from, to := int(edges[i]), int(edges[i+1])
		try(from, 1)
		try(to-1, 0x80)
		for range 20 {
			try(from+rand.IntN(to-from), 1<<rand.IntN(8))
		}
	}
	// Every bit of the footer.
	for at := int(sum.Size) - 4096; at < int(sum.Size); at++ {
		m.b[at] ^= 1 << (at % 8)
		if _, err := image.Open(m, sum.Size); fault.KindOf(err) != fault.Seal {
			t.Errorf("byte %d of the footer: got %v", at-int(sum.Size)+4096, err)
		}
		m.b[at] ^= 1 << (at % 8)
	}
	if err := c.Verify(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestTruncatedImagesAreRefused(t *testing.T) {
	m, _ := build(t, realTree(t), image.Options{})
	for range 200 {
		n := rand.Int64N(int64(len(m.b)))
		if _, err := image.Open(m, n); fault.KindOf(err) != fault.Seal {
			t.Errorf("%d of %d bytes: got %v", n, len(m.b), err)
		}
	}
	for _, n := range []int64{-1, 0, 1, 4095, 4096, int64(len(m.b)) - 4096, int64(len(m.b)) - 1, int64(len(m.b)) + 1, int64(len(m.b)) + 4096, 1 << 62} {
		if _, err := image.Open(m, n); err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(m.b))
		}
	}
	// A file that ends before its size: the footer is there, the data is not.
	c := open(t, m)
	hole := &memory{bytes.Clone(m.b)}
	clear(hole.b[:c.DataSize])
	if err := open(t, hole).Verify(context.Background(), nil); fault.KindOf(err) != fault.Seal {
		t.Errorf("an image of zeros: got %v", err)
	}
}

func TestVerifyRefusesATrustCacheThatLies(t *testing.T) {
	// An image whose seal and footer are right, but whose trust cache lists a
	// digest, path or kind that is not the file's: only a walk can tell.
	m, _ := build(t, realTree(t), image.Options{})
	cache, err := open(t, m).TrustCache()
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(*trustcache.Cache){
		"digest":  func(c *trustcache.Cache) { c.Entries[0].Digest[0] ^= 1 },
		"kind":    func(c *trustcache.Cache) { c.Entries[0].Kind = trustcache.Library },
		"missing": func(c *trustcache.Cache) { c.Entries = c.Entries[1:] },
		"more": func(c *trustcache.Cache) {
			c.Entries = append(c.Entries, trustcache.Entry{Path: "zzz", Kind: trustcache.Other})
		},
	} {
		lying := trustcache.Cache{Entries: slices.Clone(cache.Entries)}
		lie(&lying)
		encoded, err := lying.Encode()
		if err != nil {
			t.Fatal(err)
		}
		forged := image.WithTrustCache(m.b, encoded)
		c, err := image.Open(bytes.NewReader(forged), int64(len(forged)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(context.Background(), nil); fault.KindOf(err) != fault.Seal || !strings.Contains(err.Error(), "trust cache") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	m, _ := build(t, realTree(t), image.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	err := open(t, m).Verify(ctx, func(done, total int64) { cancel() })
	if err == nil {
		err = open(t, m).Verify(ctx, nil)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// failing is a file that fails at its n-th operation.
type failing struct {
	mu sync.Mutex
	memory
	left int
}

var errDisk = errors.New("no space left on device")

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left < 0 {
		return 0, errDisk
	}
	return f.memory.WriteAt(p, off)
}

func (f *failing) Truncate(size int64) error {
	if f.left--; f.left < 0 {
		return errDisk
	}
	return f.memory.Truncate(size)
}

func TestADiskThatFillsUpIsSaidSo(t *testing.T) {
	dir := realTree(t)
	for n := 0; ; n++ {
		f := &failing{left: n}
		_, err := image.Build(context.Background(), f, dir, image.Options{Name: "web", Subtype: image.OS})
		if err == nil {
			if n < 8 {
				t.Errorf("only %d operations", n)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Errorf("after %d operations: got %v", n, err)
		}
	}
}

func TestProgressCountsUpToItsTotal(t *testing.T) {
	var last, total int64
	o := image.Options{Name: "web", Subtype: image.OS, Progress: func(d, n int64) {
		if d < last || d > n || total != 0 && n != total {
			t.Errorf("%d of %d after %d of %d", d, n, last, total)
		}
		last, total = d, n
	}}
	build(t, realTree(t), o)
	if last != total || total == 0 {
		t.Errorf("it ends at %d of %d", last, total)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"web": true, "a": true, "os-2": true, strings.Repeat("n", 31): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a/b": false, "ü": false, strings.Repeat("n", 32): false,
	} {
		if err := image.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for text, ok := range map[string]bool{strings.Repeat("0f", 48): true, strings.Repeat("0F", 48): false, "": false, strings.Repeat("0", 95): false, strings.Repeat("g", 96): false} {
		if d, err := image.ParseDigest(text); (err == nil) != ok || ok && d.String() != text {
			t.Errorf("%q: got %s, %v", text, d, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	root := &erofs.Node{Mode: erofs.ModeDirectory | 0o755, Children: []erofs.Child{{Name: "f", Node: &erofs.Node{
		Mode: erofs.ModeRegular | 0o755, Size: 3, Mtime: 1,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("#!a")), nil },
	}}}}
	var m memory
	if _, err := image.BuildTree(context.Background(), &m, root, image.Options{Name: "web", Subtype: image.OS}); err != nil {
		f.Fatal(err)
	}
	f.Add(m.b, m.b[len(m.b)-4096:])
	// The footer's own hash stops random changes early: make it right, so that
	// the fuzzer reaches what lies behind.
	f.Fuzz(func(t *testing.T, head, footer []byte) {
		b := slices.Concat(head, image.Rehash(footer))
		c, err := image.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if err := c.Verify(context.Background(), nil); err == nil {
			again := memory{bytes.Clone(b)}
			if _, err := image.Finish(&again, c.DataSize, c.Options()); err != nil || !bytes.Equal(again.b, b) {
				t.Errorf("an image is accepted that Finish does not make: %v", err)
			}
		}
	})
}
