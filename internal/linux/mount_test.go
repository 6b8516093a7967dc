package linux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

// imageFile makes an EROFS image with one file, "version", and a copy of
// /bin/true as "run".
func imageFile(t testing.TB, dir, name, version string) *os.File {
	t.Helper()
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	w := erofs.Create(f)
	err = w.CopyFrom(fstest.MapFS{
		"version": {Data: []byte(version), Mode: 0o644},
		"run":     {Data: program, Mode: 0o755},
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func readVersion(t testing.TB, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// mountsFiles is the first kernel that mounts image files without a loop device.
const mountsFiles = "6.12"

func ways(t *testing.T, f func(t *testing.T, loop bool)) {
	t.Run("file", func(t *testing.T) { f(t, false) })
	t.Run("loop", func(t *testing.T) { f(t, true) })
}

func mountPoint(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMountErofs(t *testing.T) {
	ways(t, func(t *testing.T, loop bool) {
		dir := namespace.Dir(t)
		image := imageFile(t, dir, "image", "one")
		m, err := MountErofs(image, Options{Source: "sealant:web:abc", NoSuid: true, Loop: loop})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		at := mountPoint(t, dir, "at")
		if err := m.Place(at); err != nil {
			t.Fatal(err)
		}
		if got := readVersion(t, at); got != "one" {
			t.Errorf("version %q", got)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(at, &st); err != nil {
			t.Fatal(err)
		}
		const want = unix.ST_RDONLY | unix.ST_NODEV | unix.ST_NOSUID
		if st.Flags&want != want {
			t.Errorf("mount flags %#x lack read-only, nodev or nosuid", st.Flags)
		}
		list, err := OwnMounts(func(m *MountPoint) bool { return m.Path == at })
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		dev, err := m.Device()
		if err != nil {
			t.Fatal(err)
		}
		if got := list[0]; got.Source != "sealant:web:abc" || got.Type != "erofs" || got.Device != dev {
			t.Errorf("mountinfo says %+v, device %v", got, dev)
		}
		if !loop && AtLeast(mountsFiles) && dev.Major != 0 {
			t.Errorf("device %v on Linux %s: a loop device was taken where none is needed", dev, Release())
		}
		if again, err := ParseDevice(dev.String()); err != nil || again != dev {
			t.Errorf("device %v reads back as %v, %v", dev, again, err)
		}
	})
}

// Lesson 8: what is mounted is the open file, whatever its name means by then.
func TestMountsTheOpenFile(t *testing.T) {
	ways(t, func(t *testing.T, loop bool) {
		dir := namespace.Dir(t)
		image := imageFile(t, dir, "image", "verified")
		imageFile(t, dir, "evil", "swapped")
		if err := os.Rename(filepath.Join(dir, "evil"), filepath.Join(dir, "image")); err != nil {
			t.Fatal(err)
		}
		m, err := MountErofs(image, Options{Source: "x", Loop: loop})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		at := mountPoint(t, dir, "at")
		if err := m.Place(at); err != nil {
			t.Fatal(err)
		}
		if got := readVersion(t, at); got != "verified" {
			t.Errorf("mounted %q", got)
		}
	})
}

func TestMountRefusesWhatIsNoErofs(t *testing.T) {
	ways(t, func(t *testing.T, loop bool) {
		dir := namespace.Dir(t)
		path := filepath.Join(dir, "noise")
		if err := os.WriteFile(path, bytes.Repeat([]byte("noise..."), 4096), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before := namespace.Counted(t, dir)
		if m, err := MountErofs(f, Options{Source: "x", Loop: loop}); err == nil {
			m.Close()
			t.Fatal("mounted")
		}
		if after := namespace.Settled(t, dir, before); after != before {
			t.Errorf("left behind: %+v, before %+v", after, before)
		}
		for _, source := range []string{"", "a/b", "..", strings.Repeat("x", 300)} {
			if m, err := MountErofs(imageFile(t, dir, "good", "1"), Options{Source: source, Loop: loop}); err == nil {
				m.Close()
				t.Errorf("source %q was accepted", source)
			}
		}
	})
}

// Lesson 2: a loop of open and exec sees content at every moment.
func TestSwitchLeavesNoGap(t *testing.T) {
	dir := namespace.Dir(t)
	images := []*os.File{imageFile(t, dir, "a", "A"), imageFile(t, dir, "b", "B")}
	at := mountPoint(t, dir, "at")
	attach(t, images[0], at, false)

	var wg sync.WaitGroup
	var stop atomic.Bool
	seen := map[string]int{}
	wg.Go(func() {
		for !stop.Load() {
			data, err := os.ReadFile(filepath.Join(at, "version"))
			if err != nil {
				t.Errorf("open during a switch: %v", err)
				return
			}
			seen[string(data)]++
		}
	})
	wg.Go(func() {
		for !stop.Load() {
			if err := exec.Command(filepath.Join(at, "run")).Run(); err != nil {
				t.Errorf("exec during a switch: %v", err)
				return
			}
		}
	})
	before := namespace.Counted(t, dir).Mounts
	for i := range cycles(300) {
		attach(t, images[(i+1)%2], at, false)
	}
	stop.Store(true)
	wg.Wait()
	if seen["A"] == 0 || seen["B"] == 0 || len(seen) != 2 {
		t.Errorf("seen %v", seen)
	}
	if after := namespace.Counted(t, dir).Mounts; AtLeast("6.5") && after != before {
		t.Errorf("%d mounts after the switches, %d before", after, before)
	}
}

func attach(t testing.TB, image *os.File, at string, loop bool) {
	t.Helper()
	m, err := MountErofs(image, Options{Source: "x", Loop: loop})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Switch(at); err != nil {
		t.Fatal(err)
	}
}

// Lesson 27: cycles leak neither mounts nor loop devices nor descriptors.
func TestCyclesLeakNothing(t *testing.T) {
	ways(t, func(t *testing.T, loop bool) {
		dir := namespace.Dir(t)
		image := imageFile(t, dir, "image", "one")
		at := mountPoint(t, dir, "at")
		attach(t, image, at, loop)
		if err := Unmount(at); err != nil {
			t.Fatal(err)
		}
		before := namespace.Count{Loops: 0, Mounts: namespace.Counted(t, dir).Mounts, Files: namespace.Counted(t, dir).Files}
		for range cycles(100) {
			attach(t, image, at, loop)
			attach(t, image, at, loop)
			if err := Unmount(at); err != nil {
				t.Fatal(err)
			}
		}
		if after := namespace.Settled(t, dir, before); after != before {
			t.Errorf("after the cycles %+v, before %+v", after, before)
		}
	})
}

func TestUnmountOfNothing(t *testing.T) {
	dir := namespace.Dir(t)
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if err := Unmount(path); err != nil {
			t.Error(err)
		}
	}
}

func TestCloneIsTheSameFileSystem(t *testing.T) {
	dir := namespace.Dir(t)
	at, second := mountPoint(t, dir, "at"), mountPoint(t, dir, "second")
	attach(t, imageFile(t, dir, "image", "one"), at, false)
	c, err := Clone(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Private(); err != nil {
		t.Fatal(err)
	}
	if err := c.Switch(second); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(at); err != nil {
		t.Fatal(err)
	}
	if got := readVersion(t, second); got != "one" {
		t.Errorf("version %q", got)
	}
}

// An app's namespace follows what is mounted outside later, gives nothing
// back, and keeps its own content through a switch outside.
func TestPrivateMounts(t *testing.T) {
	dir := namespace.Dir(t)
	place := mountPoint(t, dir, "place")
	at, stick := mountPoint(t, place, "at"), mountPoint(t, dir, "stick")
	inner := mountPoint(t, dir, "inner")
	a, b, c := imageFile(t, dir, "a", "A"), imageFile(t, dir, "b", "B"), imageFile(t, dir, "c", "C")
	attach(t, a, at, false)
	err := Isolated(func() error {
		if err := PrivateMounts(); err != nil {
			return err
		}
		tree, err := CloneTree(place)
		if err != nil {
			return err
		}
		defer tree.Close()
		if err := errors.Join(tree.Private(), tree.Switch(place)); err != nil {
			return err
		}
		attach(t, b, at, false)
		attach(t, c, inner, false)
		if got := readVersion(t, at); got != "B" {
			t.Errorf("inside: %q", got)
		}
		var outside sync.WaitGroup
		outside.Go(func() {
			if got := readVersion(t, at); got != "A" {
				t.Errorf("outside: %q", got)
			}
			if _, err := os.Stat(filepath.Join(inner, "version")); err == nil {
				t.Error("a mount inside is seen outside")
			}
			attach(t, c, at, false)
			attach(t, a, stick, false)
		})
		outside.Wait()
		if got := readVersion(t, at); got != "B" {
			t.Errorf("inside after a switch outside: %q", got)
		}
		if got := readVersion(t, stick); got != "A" {
			t.Errorf("a later mount outside reads %q inside", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := readVersion(t, at); got != "C" {
		t.Errorf("outside in the end: %q", got)
	}
}

// Opened namespaces stay what they were, whatever the process does next.
func TestEnterWhatWasOpened(t *testing.T) {
	dir := namespace.Dir(t)
	at := mountPoint(t, dir, "at")
	cmd := exec.Command("/bin/sh", "-c", `read x; exec unshare -m --propagation private sh -c 'mount -t tmpfs t "$0" && touch "$0/later" && echo ready && read y' "$0"`, at)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	p, err := OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sees := func(namespaces []*os.File) (later bool) {
		t.Helper()
		err := Isolated(func() error {
			defer func() {
				for _, f := range namespaces {
					f.Close()
				}
			}()
			if len(namespaces) != NamespaceFiles {
				t.Errorf("%d namespaces", len(namespaces))
			}
			if err := Enter(namespaces); err != nil {
				return err
			}
			_, err := os.Stat(filepath.Join(at, "later"))
			later = err == nil
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return later
	}
	before, err := p.OpenNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	after, err := p.OpenNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	if sees(before) || !sees(after) {
		t.Error("the namespaces are confused")
	}
}

// The first thread can't be thrown away, so it must never be taken.
func TestIsolatedSparesTheFirstThread(t *testing.T) {
	before, _, err := OwnMountNamespace()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range cycles(200) {
		wg.Go(func() {
			err := Isolated(func() error {
				if unix.Gettid() == os.Getpid() {
					t.Error("the first thread was taken")
				}
				return PrivateMounts()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil || st.Ino != before {
		t.Errorf("the program is in namespace %d, was in %d, %v", st.Ino, before, err)
	}
}

func TestLacking(t *testing.T) {
	var u *fault.Unsupported
	err := fmt.Errorf("cannot: %w", lacking(unix.ENOSYS, "something", "9.9"))
	if !errors.As(err, &u) || u.Kernel != "9.9" {
		t.Error(err)
	}
	if err := lacking(unix.EPERM, "something", "9.9"); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

func BenchmarkMountErofs(b *testing.B) {
	dir := namespace.Dir(b)
	image := imageFile(b, dir, "image", "one")
	for b.Loop() {
		m, err := MountErofs(image, Options{Source: "x"})
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}

// cycles is how often something is repeated: less with -short, for machines
// that are slow.
func cycles(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}
