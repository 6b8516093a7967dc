//go:build slow

package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/test/namespace"
)

// TestCycles installs and removes an improvement 300 times, with every restart:
// mounts, loop devices, descriptors, memory and the files of the state stay as
// they were (lesson 27). SEALANT_CYCLES is another number, for machines that
// are slow.
func TestCycles(t *testing.T) {
	cycles := 300
	if n, err := strconv.Atoi(os.Getenv("SEALANT_CYCLES")); err == nil {
		cycles = n
	}
	v := newVendor(t)
	// A device that asks for tickets as fast as this one is refused elsewhere.
	v.node = v.world.Start(filepath.Join(v.dir, "server.db"), func(c *server.Config) { c.Burst = 2 * cycles })
	m := v.enrolled("")
	v.release(1, 100)
	if _, err := m.install(""); err != nil {
		t.Fatal(err)
	}
	cycle := func() {
		t.Helper()
		v.world.Pass(time.Since(v.world.Now())) // the server's clock doesn't go by itself
		if m.boot(); m.level("web") != 1 {
			t.Fatalf("web is at level %d", m.level("web"))
		}
		if _, err := m.open().Remove(t.Context(), device.RemoveOptions{}, user, m.log); err != nil {
			t.Fatal(err)
		}
		if m.boot(); m.level("web") != 0 {
			t.Fatalf("web is at level %d", m.level("web"))
		}
		if _, err := m.open().Reapply(t.Context(), device.ReapplyOptions{}, user, m.log); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	cycle()
	// Connections to the server stay open for half a minute: they are no leak.
	before, files := namespace.Counted(t, m.root), m.files()
	before.Files = m.descriptors()
	memory := heap()
	for range cycles {
		cycle()
	}
	var after namespace.Count
	for range 200 { // the kernel takes devices down a moment after their last use
		after = namespace.Counted(t, m.root)
		if after.Files = m.descriptors(); after == before {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%d cycles: %+v and %d files before, %+v and %d files after; heap %d KiB before, %d after",
		cycles, before, files, after, m.files(), memory>>10, heap()>>10)
	if grown := heap() - memory; grown > 4<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	if after != before || m.files() != files {
		t.Error("something leaks")
	}
}

// heap is what this process, device and server both, holds in memory, in bytes.
func heap() int64 {
	for range 3 { // what is freed by finalizers, too
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// descriptors counts what this process has open, without sockets.
func (m *machine) descriptors() (n int) {
	list, err := os.ReadDir("/proc/self/fd")
	m.v.must(err)
	for _, fd := range list {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// files counts the files of the device's state.
func (m *machine) files() (n int) {
	m.v.must(filepath.WalkDir(filepath.Join(m.root, "var/lib/sealant"), func(_ string, _ os.DirEntry, err error) error {
		n++
		return err
	}))
	return n
}
