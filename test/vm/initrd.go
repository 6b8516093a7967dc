package vm

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// NewInitrd makes an initrd for the machine's kernel: busybox as /bin/busybox
// and /bin/sh, the named kernel modules and all that they need (as
// /modules/NAME.ko, with /modules/order in the order of loading), and the given
// files, path to content. What starts with "#!" or is an ELF file is
// executable. A file called "init" is what the kernel starts; the standard one
// (recipe/init) loads the modules, mounts the root disk at /sysroot, runs
// /before-root when there is one, and switches.
func (m *Image) NewInitrd(modules []string, files map[string][]byte) ([]byte, error) {
	all := map[string][]byte{}
	for name, data := range files {
		all[name] = data
	}
	busybox, err := os.ReadFile(filepath.Join(m.Tree(), "usr/bin/busybox"))
	if err != nil {
		return nil, err
	}
	all["bin/busybox"] = busybox
	if all["init"] == nil {
		if all["init"], err = recipe.ReadFile("recipe/init"); err != nil {
			return nil, err
		}
	}
	order, err := m.modules(modules)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range order {
		name := strings.TrimSuffix(path.Base(file), ".xz")
		data, err := exec.Command("xz", "-dc", filepath.Join(m.Tree(), "usr/lib/modules", m.Release(), file)).Output()
		if err != nil {
			return nil, fmt.Errorf("cannot unpack the kernel module %s: %w", file, err)
		}
		all["modules/"+name] = data
		names = append(names, name)
	}
	all["modules/order"] = []byte(strings.Join(names, "\n") + "\n")

	var out bytes.Buffer
	pack := gzip.NewWriter(&out)
	var archive cpio
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "sysroot"} {
		archive.folder(dir)
	}
	archive.link("bin/sh", "busybox")
	paths := make([]string, 0, len(all))
	for name := range all {
		paths = append(paths, name)
	}
	sort.Strings(paths)
	for _, name := range paths {
		data, mode := all[name], 0o644
		if bytes.HasPrefix(data, []byte("#!")) || bytes.HasPrefix(data, []byte("\x7fELF")) {
			mode = 0o755
		}
		archive.file(name, data, mode)
	}
	archive.end()
	if _, err := pack.Write(archive.out.Bytes()); err != nil {
		return nil, err
	}
	if err := pack.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// modules finds the files of kernel modules and of what they need, each after
// what it needs. What is built into the kernel is left out.
func (m *Image) modules(names []string) ([]string, error) {
	base := filepath.Join(m.Tree(), "usr/lib/modules", m.Release())
	dep, err := os.ReadFile(filepath.Join(base, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(base, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	plain := func(file string) string {
		name, _, _ := strings.Cut(path.Base(file), ".ko")
		return strings.ReplaceAll(name, "-", "_")
	}
	needs, file := map[string][]string{}, map[string]string{}
	for line := range strings.Lines(string(dep)) {
		of, rest, _ := strings.Cut(line, ":")
		file[plain(of)] = of
		needs[plain(of)] = strings.Fields(rest)
	}
	for line := range strings.Lines(string(builtin)) {
		if name := plain(strings.TrimSpace(line)); file[name] == "" {
			file[name] = "-"
		}
	}
	var order []string
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		switch {
		case done[name] || file[name] == "-":
			return nil
		case file[name] == "":
			return fmt.Errorf("the kernel has no module %s", name)
		}
		done[name] = true
		for _, need := range needs[name] {
			if err := visit(plain(need)); err != nil {
				return err
			}
		}
		order = append(order, file[name])
		return nil
	}
	for _, name := range names {
		if err := visit(strings.ReplaceAll(name, "-", "_")); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// cpio writes an archive of the form "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	out  bytes.Buffer
	made map[string]bool
	next int
}

func (c *cpio) entry(name string, mode int, data []byte) {
	c.next++
	fmt.Fprintf(&c.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.next, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.pad()
	c.out.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.out.Len()%4 != 0 {
		c.out.WriteByte(0)
	}
}

func (c *cpio) folder(name string) {
	if name == "." || c.made[name] {
		return
	}
	if c.made == nil {
		c.made = map[string]bool{}
	}
	c.folder(path.Dir(name))
	c.made[name] = true
	c.entry(name, 0o040755, nil)
}

func (c *cpio) file(name string, data []byte, mode int) {
	c.folder(path.Dir(name))
	c.entry(name, 0o100000|mode, data)
}

func (c *cpio) link(name, to string) {
	c.folder(path.Dir(name))
	c.entry(name, 0o120777, []byte(to))
}

func (c *cpio) end() { c.entry("TRAILER!!!", 0, nil) }
