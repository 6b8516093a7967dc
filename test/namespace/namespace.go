// Package namespace runs the tests of a package in a mount namespace of their
// own, where they may mount what they like and leave nothing behind.
package namespace

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// marker says to a test binary that it is already inside.
const marker = "SEALANT_TEST_NAMESPACE"

// Main is for a package's TestMain. It runs the tests in a private mount
// namespace whose mounts are shared below it, as systemd makes them at boot.
// Without root nothing is run, and one line says so: a test that is skipped
// for want of root proves nothing.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "cannot run these tests: they mount images in a private namespace and need root (sudo make test)")
		os.Exit(1)
	}
	if os.Getenv(marker) == "" {
		os.Exit(again())
	}
	for _, flags := range []uintptr{syscall.MS_REC | syscall.MS_PRIVATE, syscall.MS_REC | syscall.MS_SHARED} {
		if err := syscall.Mount("", "/", "", flags, ""); err != nil {
			fmt.Fprintln(os.Stderr, "cannot set up the test's mount namespace:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// again starts this test binary a second time, inside.
func again() int {
	// The child dies with the thread that started it, so that thread must stay.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "cannot run the tests in a namespace:", err)
	return 1
}

// Dir is a new folder in which a test may mount; whatever is still mounted in
// it when the test ends is taken away first.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sealant-test-")
	if err != nil {
		t.Fatal(err)
	}
	// Other users' processes take part in some tests.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for {
			list := mountsBelow(t, dir)
			if len(list) == 0 {
				break
			}
			slices.Reverse(list)
			for _, path := range list {
				if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
					t.Fatalf("cannot clean up %s: %v", path, err)
				}
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func mountsBelow(t testing.TB, dir string) (list []string) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); strings.HasPrefix(fields[4]+"/", dir+"/") {
			list = append(list, fields[4])
		}
	}
	return list
}

// Count tells what a test must not leave behind.
type Count struct{ Mounts, Loops, Files int }

// Counted counts the mounts of this namespace, the loop devices in use on the
// machine that hold a file below dir, and this process's open descriptors.
func Counted(t testing.TB, dir string) Count {
	t.Helper()
	c := Count{Mounts: len(mountsBelow(t, ""))}
	names, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		back, err := os.ReadFile("/sys/block/" + name.Name() + "/loop/backing_file")
		if err == nil && strings.HasPrefix(string(back), dir) {
			c.Loops++
		}
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	c.Files = len(files)
	return c
}

// Settled counts until the count is as wanted, and returns the last one: the
// kernel takes down a loop device, and what stands on it, a moment after its
// last use.
func Settled(t testing.TB, dir string, want Count) (c Count) {
	t.Helper()
	for range 400 {
		if c = Counted(t, dir); c == want {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	return c
}
