package enforce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
)

// TestMain also lets this binary stand in for an app.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "as-app" {
		os.Exit(app(os.Args[2:]))
	}
	namespace.Main(m)
}

// app marks itself as its pins say and becomes the program.
func app(args []string) int {
	g, err := open(args[0])
	if err == nil {
		var self linux.Pidfd
		if self, err = linux.OpenPidfd(os.Getpid()); err == nil {
			err = g.Mark(self)
		}
	}
	if err == nil {
		// From another thread than the first, as a launch does it.
		err = linux.Isolated(func() error { return syscall.Exec(args[1], args[1:], os.Environ()) })
	}
	fmt.Println(err)
	if errors.Is(err, syscall.EACCES) {
		return 126
	}
	return 1
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// guard loads the programs, off, apart from those that the machine may have.
func guard(t testing.TB) *Guard {
	t.Helper()
	dir := fmt.Sprintf("%s/sealant-test-%d", bpffs, time.Now().UnixNano())
	g, err := load(t.Context(), dir)
	var lacks *fault.Unsupported
	if errors.As(err, &lacks) && (lacks.Kernel == "" || !linux.AtLeast(lacks.Kernel)) {
		t.Skipf("runs in test/vm/enforce: %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		must(t, g.SetMode(Off))
		g.Close()
		must(t, unload(dir))
	})
	return g
}

// cryptex is an image with two of every kind of program, of which the trust cache
// lists the first only, mounted at dir.
type cryptex struct {
	dir  string
	root *os.File
	list *List
}

func build(t testing.TB, name string) *cryptex {
	t.Helper()
	read := func(paths ...string) []byte {
		for _, p := range paths {
			if data, err := os.ReadFile(p); err == nil {
				return data
			}
		}
		t.Fatalf("none of %q is there", paths)
		return nil
	}
	program := read("/usr/bin/true")
	libraries, err := filepath.Glob("/usr/lib/*/libc.so.6")
	if err != nil || len(libraries) == 0 {
		t.Fatal("no libc")
	}
	files := []struct {
		name   string
		mode   uint32
		data   []byte
		listed bool
	}{
		{"data.bin", 0o644, program, false},
		{"listed", 0o755, program, true},
		{"listed.so", 0o644, read(libraries[0]), true},
		{"sh", 0o755, read("/bin/dash", "/bin/sh"), true},
		{"script", 0o755, []byte("#!/bin/sh\nexit 0\n"), true},
		{"script-unlisted", 0o755, []byte("#!/bin/sh\nexit 0\n"), false},
		{"unlisted", 0o755, append(bytes.Clone(program), 'x'), false},
		{"unlisted.so", 0o755, read(libraries[0]), false},
	}
	root := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
	var cache trustcache.Cache
	for _, f := range files {
		root.Children = append(root.Children, erofs.Child{Name: f.name, Node: &erofs.Node{
			Mode: erofs.ModeRegular | f.mode, Size: int64(len(f.data)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil },
		}})
		if f.listed {
			cache.Entries = append(cache.Entries, trustcache.Entry{Path: f.name, Kind: trustcache.Executable})
		}
	}
	file, err := os.Create(filepath.Join(t.TempDir(), name))
	must(t, err)
	defer file.Close()
	size, err := erofs.Write(t.Context(), file, root, erofs.Options{})
	must(t, err)
	must(t, file.Truncate(size))
	tree, err := erofs.Open(file, size)
	must(t, err)
	c := &cryptex{dir: namespace.Dir(t)}
	c.list, err = Learn(name, image.Digest{byte(len(name))}, tree, &cache)
	must(t, err)
	m, err := linux.MountErofs(file, linux.Options{Source: "test-" + name})
	must(t, err)
	defer m.Close()
	c.root, err = m.Open()
	must(t, err)
	t.Cleanup(func() { c.root.Close() })
	must(t, m.Place(c.dir))
	return c
}

func (c *cryptex) path(name string) string { return filepath.Join(c.dir, name) }

// loader is the dynamic linker of this machine's programs.
func loader(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/lib64/ld-linux-*.so.2", "/lib/ld-linux-*.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("no dynamic linker")
	return ""
}

// run executes something and says whether that was permitted.
func run(t testing.TB, args ...string) bool {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	switch {
	case err == nil:
		return true
	case errors.Is(err, syscall.EACCES), strings.Contains(string(out), "failed to map segment"), strings.Contains(string(out), "ermission denied"):
		return false
	}
	t.Fatalf("%q: %v %s", args, err, out)
	return false
}

// mapped maps a file executable, at once or in two steps.
func mapped(t testing.TB, path string, steps int) bool {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	prot := syscall.PROT_READ
	if steps == 1 {
		prot |= syscall.PROT_EXEC
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, prot, syscall.MAP_PRIVATE)
	if err == nil {
		defer syscall.Munmap(b)
		if steps == 2 {
			err = syscall.Mprotect(b, syscall.PROT_READ|syscall.PROT_EXEC)
		}
	}
	if err != nil && !errors.Is(err, syscall.EACCES) {
		t.Fatal(err)
	}
	return err == nil
}

// ways is what the kernel says to every way of executing what is in a cryptex.
func (c *cryptex) ways(t testing.TB) string {
	t.Helper()
	var said []string
	say := func(what string, ok bool) {
		if !ok {
			said = append(said, what)
		}
	}
	for _, name := range []string{"listed", "unlisted", "script", "script-unlisted"} {
		say("exec "+name, run(t, c.path(name)))
	}
	for _, name := range []string{"listed", "unlisted", "data.bin"} {
		say("ld.so "+name, run(t, loader(t), c.path(name)))
	}
	for _, name := range []string{"listed.so", "unlisted.so", "data.bin"} {
		say("mmap "+name, mapped(t, c.path(name), 1))
		say("mprotect "+name, mapped(t, c.path(name), 2))
	}
	return strings.Join(said, ", ")
}

const refusals = "exec unlisted, exec script-unlisted, ld.so unlisted, ld.so data.bin, " +
	"mmap unlisted.so, mprotect unlisted.so, mmap data.bin, mprotect data.bin"

func TestOnlyTheListedExecutes(t *testing.T) {
	g := guard(t)
	c := build(t, "web")
	want := func(when, refused string) {
		t.Helper()
		if got := c.ways(t); got != refused {
			t.Errorf("%s refused: %s\nwant: %s", when, got, refused)
		}
	}
	must(t, g.SetMode(Enforce))
	want("before it was admitted", "")
	must(t, g.Admit(c.root, c.list))
	must(t, g.Admit(c.root, c.list))
	want("enforcing", refusals)
	must(t, g.SetMode(Audit))
	before, err := g.Counts()
	must(t, err)
	want("auditing", "")
	must(t, g.SetMode(Off))
	want("off", "")
	after, err := g.Counts()
	must(t, err)
	if before.Refused == 0 || after.Refused != before.Refused || after.Audited-before.Audited < 8 {
		t.Errorf("counts %+v, then %+v", before, after)
	}
	// What an interpreter reads is not executed: stated in spec/enforcement.md.
	must(t, g.SetMode(Enforce))
	if !run(t, "/bin/sh", c.path("script-unlisted")) {
		t.Error("a file that a shell was told to read is refused")
	}
	// Anonymous memory goes on to be executable.
	b, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	must(t, err)
	must(t, syscall.Munmap(b))
}

// Another mount of the same cryptex is guarded too; another file system that
// comes after it, with the same device number perhaps, is not.
func TestTheGuardGoesWithTheFileSystem(t *testing.T) {
	g := guard(t)
	must(t, g.SetMode(Enforce))
	for range 3 {
		c := build(t, "web")
		must(t, g.Admit(c.root, c.list))
		m, err := linux.Clone(c.dir)
		must(t, err)
		second := namespace.Dir(t)
		must(t, m.Place(second))
		m.Close()
		if run(t, filepath.Join(second, "unlisted")) || !run(t, filepath.Join(second, "listed")) {
			t.Error("a second mount is not guarded alike")
		}
		device, err := linux.DeviceAt(c.dir)
		must(t, err)
		c.root.Close()
		must(t, linux.Unmount(second))
		must(t, linux.Unmount(c.dir))
		next := build(t, "os")
		now, err := linux.DeviceAt(next.dir)
		must(t, err)
		t.Logf("device %s, then %s", device, now)
		if guarded, err := g.Guarded(next.root); guarded || err != nil {
			t.Errorf("a new file system is guarded by the list of one that is gone: %v", err)
		}
		if got := next.ways(t); got != "" {
			t.Errorf("it refuses %s", got)
		}
	}
	tables, err := g.Tables()
	must(t, err)
	if len(tables) != 1 || tables[0].Name != "web" || tables[0].Entries != 4 {
		t.Errorf("%+v", tables)
	}
	must(t, g.Collect(func(image.Digest) bool { return false }))
	if tables, err = g.Tables(); err != nil || len(tables) != 0 {
		t.Errorf("%+v %v", tables, err)
	}
}

// Without its table a guarded cryptex executes nothing.
func TestNoTableListsNothing(t *testing.T) {
	g := guard(t)
	c := build(t, "web")
	must(t, g.Admit(c.root, c.list))
	must(t, g.Collect(func(image.Digest) bool { return false }))
	must(t, g.SetMode(Enforce))
	if run(t, c.path("listed")) {
		t.Error("executed")
	}
	must(t, g.Admit(c.root, c.list))
	if !run(t, c.path("listed")) {
		t.Error("refused after it was admitted again")
	}
}

// What the kernel is asked to hold is bounded; the longest list fits.
func TestTooMany(t *testing.T) {
	g := guard(t)
	long := &List{Name: "long", Inodes: make([]uint64, maxList)}
	for i := range long.Inodes {
		long.Inodes[i] = uint64(i)
	}
	began := time.Now()
	must(t, g.publish(long.number(), long))
	t.Logf("a list of %d files took %s", maxList, time.Since(began))
	long.Inodes = append(long.Inodes, maxList)
	if err := g.publish(long.number(), long); err == nil {
		t.Error("a list that is too long")
	}
	var err error
	for i := 1; err == nil && i < maxTables+10; i++ {
		l := &List{Name: "short", Inodes: []uint64{uint64(i)}}
		if err = g.publish(l.number(), l); err != nil && i != maxTables {
			t.Errorf("refused after %d lists: %v", i, err)
		}
	}
	if err == nil || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	must(t, g.Collect(func(d image.Digest) bool { return false }))
	must(t, g.publish(1, &List{Name: "short"}))
}

// Who opens the programs anew, as a restarted agent does, finds them in force.
func TestItOutlivesTheProcess(t *testing.T) {
	g := guard(t)
	c := build(t, "web")
	must(t, g.Admit(c.root, c.list))
	must(t, g.SetMode(Enforce))
	again, err := load(t.Context(), g.dir)
	must(t, err)
	if mode, err := again.Mode(); mode != Enforce || err != nil {
		t.Error(mode, err)
	}
	g.Close()
	if got := c.ways(t); got != refusals {
		t.Errorf("refused: %s", got)
	}
	// Programs of another revision are replaced without a gap, and the tables stay.
	s, err := again.settings()
	must(t, err)
	s.Revision = 0
	must(t, again.config.Put(uint32(0), s))
	again.Close()
	renewed, err := load(t.Context(), g.dir)
	must(t, err)
	if got := c.ways(t); got != refusals {
		t.Errorf("renewed, refused: %s", got)
	}
	if guarded, err := renewed.Guarded(c.root); !guarded || err != nil {
		t.Error(guarded, err)
	}
	g.maps = renewed.maps
}

func TestEvents(t *testing.T) {
	g := guard(t)
	c := build(t, "web")
	must(t, g.Admit(c.root, c.list))
	must(t, g.SetMode(Enforce))
	events, err := g.Events()
	must(t, err)
	defer events.Close()
	for range 50 {
		run(t, c.path("unlisted"))
	}
	mapped(t, c.path("unlisted.so"), 1)
	must(t, g.SetMode(Audit))
	run(t, c.path("unlisted"))
	device, inode, err := linux.FileAt(c.path("unlisted"))
	must(t, err)
	var lines []string
	for range 3 {
		e, err := events.Read()
		must(t, err)
		lines = append(lines, fmt.Sprint(e.How, " ", e.Reason, " ", e.Refused, " ", e.Table.Name, " ", e.Name, " ", e.UID))
		if e.Name == "unlisted" && (e.Device != device || e.Inode != inode || e.PID == 0 || e.Command == "") {
			t.Errorf("%+v, want %s inode %d", e, device, inode)
		}
	}
	want := []string{"exec unlisted true web unlisted 0", "mmap unlisted true web unlisted.so 0", "exec unlisted false web unlisted 0"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\nwant %q", lines, want)
	}
	n, err := g.Counts()
	must(t, err)
	if n.Refused < 51 || n.Audited == 0 || n.Lost != 0 {
		t.Errorf("%+v: each is counted, one of many alike is told", n)
	}
}
