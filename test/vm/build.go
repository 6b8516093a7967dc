package vm

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// recipe is all that goes into the machine: a change of any byte makes a new
// one.
//
//go:embed recipe build.go
var recipe embed.FS

// rootSize is the size of a machine's root disk, in bytes. It is sparse.
const rootSize = 1536 << 20

// unusedFor is how long an image that nothing uses stays in the cache.
const unusedFor = 14 * 24 * time.Hour

// Image is a machine that can be booted: the folder in the cache that holds
// its tree, its root disk, its kernel and its initrd.
type Image struct {
	dir string
}

// Tree is the machine's file system as a folder. It is read-only for tests:
// Derive makes another.
func (m *Image) Tree() string { return filepath.Join(m.dir, "root") }

// Kernel is the machine's kernel, a file.
func (m *Image) Kernel() string { return filepath.Join(m.dir, "vmlinuz") }

// Initrd is the machine's initrd, a file.
func (m *Image) Initrd() string { return filepath.Join(m.dir, "initrd") }

// Release is the kernel's release, as uname -r says it.
func (m *Image) Release() string {
	found, _ := filepath.Glob(filepath.Join(m.Tree(), "usr/lib/modules/*"))
	if len(found) != 1 {
		return ""
	}
	return filepath.Base(found[0])
}

func (m *Image) rootDisk() string { return filepath.Join(m.dir, "root.ext4") }

// Cache is the folder that all machines live in: $SEALANT_VM_CACHE, else
// sealant-vm in the user's cache folder.
func Cache() string {
	if dir := os.Getenv("SEALANT_VM_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = "/var/cache"
	}
	return filepath.Join(dir, "sealant-vm")
}

// Build returns the standard machine: Debian trixie with its cloud kernel,
// systemd, udev, D-Bus and polkit, and what recipe/packages lists. The first
// call on a machine builds it, in about a minute.
func Build(t testing.TB) *Image {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(recipe, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := recipe.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return image(t, hex.EncodeToString(h.Sum(nil))[:16], func(tree string) error {
		return errors.Join(debian(tree, lines("recipe/packages")), open(tree))
	})
}

// Derive returns a machine made from this one by change, which gets a copy of
// its tree to alter (with chroot, if it likes). The key stands for all that
// change depends on: the same key of the same machine is built once.
func (m *Image) Derive(t testing.TB, key string, change func(tree string) error) *Image {
	t.Helper()
	return Make(t, filepath.Base(m.dir)+"\x00"+key, func(tree string) error {
		if out, err := exec.Command("cp", "-a", "--reflink=auto", m.Tree(), tree).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot copy %s: %w: %s", m.Tree(), err, out)
		}
		return change(tree)
	})
}

// Make returns a machine whose tree make makes: a system with systemd, a kernel
// in /boot, busybox, kmod, iproute2 and util-linux. What runs the tests' scripts
// is put into it. The key stands for all that make depends on: the same key is
// built once.
func Make(t testing.TB, key string, make func(tree string) error) *Image {
	t.Helper()
	return image(t, named("machine", key), make)
}

// Debian returns the folder of a Debian trixie tree with these packages, for
// programs that are newer there than here. It is no machine. It is made once.
func Debian(t testing.TB, packages ...string) string {
	t.Helper()
	return filepath.Join(cached(t, named("debian", strings.Join(packages, "\x00")), func(dir string) error {
		return debian(filepath.Join(dir, "root"), packages)
	}), "root")
}

// named is the name in the cache of what is made of a key.
func named(kind, key string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + key))
	return hex.EncodeToString(sum[:])[:16]
}

// image returns the machine of that name from the cache; it is made there of
// the tree that make makes when it is new.
func image(t testing.TB, name string, make func(tree string) error) *Image {
	t.Helper()
	need(t, "mmdebstrap", "qemu-system-x86_64", "mke2fs", "debugfs", "xz")
	return &Image{cached(t, name, func(dir string) error {
		m := &Image{dir}
		for _, step := range []func(string) error{make, furnish, func(string) error { return m.finish() }} {
			if err := step(m.Tree()); err != nil {
				return err
			}
		}
		return nil
	})}
}

// cached returns the folder of that name in the cache; make fills it when it is
// new. Others that want the same wait; those that want something else don't.
func cached(t testing.TB, name string, make func(dir string) error) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("building a machine needs root")
	}
	cache := Cache()
	must(t, os.MkdirAll(cache, 0o755))
	defer lock(t, filepath.Join(cache, name+".lock"))()
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(filepath.Join(dir, "built")); err == nil {
		_ = os.Chtimes(dir, time.Now(), time.Now())
		return dir
	}
	prune(cache)
	began := time.Now()
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	must(t, make(dir))
	must(t, os.WriteFile(filepath.Join(dir, "built"), nil, 0o644))
	t.Logf("built %s in %.0f s", dir, time.Since(began).Seconds())
	return dir
}

// prune takes out of the cache what nothing has used for long, and what was
// begun and never finished. What somebody makes now is locked, and stays.
func prune(cache string) {
	entries, _ := os.ReadDir(cache)
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !entry.IsDir() {
			continue
		}
		dir := filepath.Join(cache, entry.Name())
		_, unbuilt := os.Stat(filepath.Join(dir, "built"))
		if time.Since(info.ModTime()) < unusedFor && unbuilt == nil {
			continue
		}
		held, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			continue
		}
		if syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(dir)
		}
		held.Close()
	}
}

// debian makes a Debian tree with these packages.
func debian(tree string, packages []string) error {
	mirror := "http://deb.debian.org/debian"
	if sources, err := os.ReadFile("/etc/apt/sources.list.d/debian.sources"); err == nil {
		for line := range strings.Lines(string(sources)) {
			if uri, ok := strings.CutPrefix(line, "URIs:"); ok {
				mirror = strings.Fields(uri)[0]
				break
			}
		}
	}
	run := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include="+strings.Join(packages, ","), "trixie", tree, "deb "+mirror+" trixie main")
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a Debian tree: %w\n%s", err, out)
	}
	return nil
}

// open lets root log in without a password.
func open(tree string) error {
	if out, err := exec.Command("chroot", tree, "passwd", "-dq", "root").CombinedOutput(); err != nil {
		return fmt.Errorf("cannot open root's account: %w: %s", err, out)
	}
	return nil
}

// furnish makes a tree a machine of tests: its agent runs their scripts, and
// units that cost time are masked.
func furnish(tree string) error {
	units := filepath.Join(tree, "etc/systemd/system")
	wants := filepath.Join(units, "multi-user.target.wants/sealant-vm.service")
	if err := os.MkdirAll(filepath.Dir(wants), 0o755); err != nil {
		return err
	}
	links := map[string]string{wants: "../sealant-vm.service"}
	for _, unit := range lines("recipe/masked") {
		links[filepath.Join(units, unit)] = "/dev/null"
	}
	for path, to := range links {
		if err := os.Symlink(to, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, f := range []struct {
		path, from string
		mode       fs.FileMode
	}{
		{"usr/lib/sealant-vm/agent", "recipe/agent", 0o755},
		{"etc/systemd/system/sealant-vm.service", "recipe/agent.service", 0o644},
	} {
		data, err := recipe.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(f.path)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tree, f.path), data, f.mode); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{"etc/machine-id": "", "etc/hostname": "device\n", "etc/fstab": ""} {
		if err := os.WriteFile(filepath.Join(tree, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// finish makes the root disk, the kernel and the initrd from the tree.
func (m *Image) finish() error {
	kernels, _ := filepath.Glob(filepath.Join(m.Tree(), "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return fmt.Errorf("%d kernels in %s", len(kernels), m.Tree())
	}
	kernel, err := os.ReadFile(kernels[0])
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.Kernel(), kernel, 0o644); err != nil {
		return err
	}
	init, err := recipe.ReadFile("recipe/init")
	if err != nil {
		return err
	}
	initrd, err := m.NewInitrd([]string{"virtio_blk", "ext4"}, map[string][]byte{"init": init})
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.Initrd(), initrd, 0o644); err != nil {
		return err
	}
	return ext4(m.rootDisk(), m.Tree(), rootSize)
}

// ext4 makes a sparse file that holds an ext4 file system with the content of
// a folder; none: an empty one.
func ext4(path, tree string, size int64) error {
	_ = os.Remove(path)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(size), f.Close())
	if err != nil {
		return err
	}
	args := []string{"-q", "-F", "-t", "ext4", "-b", "4096", "-E", "lazy_itable_init=1"}
	if tree != "" {
		args = append(args, "-d", tree)
	}
	if out, err := exec.Command("mke2fs", append(args, path)...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make the disk %s: %w: %s", path, err, out)
	}
	return nil
}

// lines reads one of the recipe's lists.
func lines(name string) []string {
	data, err := recipe.ReadFile(name)
	if err != nil {
		panic(err)
	}
	var all []string
	for line := range bytes.Lines(data) {
		if text := strings.TrimSpace(string(line)); text != "" && text[0] != '#' {
			all = append(all, text)
		}
	}
	return all
}

// need ends a test whose tools are missing. They are Debian packages that
// test/packages lists, so this is a fault of the setup and no reason to skip.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: run test/need $(cat test/packages)", tool)
		}
	}
}

// lock takes a lock file and waits for it; the result lets it go.
func lock(t testing.TB, path string) func() {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
