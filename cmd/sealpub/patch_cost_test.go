package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image/patch"
)

// libraryMemory is what a patch of libraries may take, in bytes.
const libraryMemory = 64 << 20

// libraries are two versions of a folder of libraries, as one file: real code,
// some of it changed.
func libraries(t *testing.T) (old, data []byte) {
	t.Helper()
	for _, pattern := range []string{"libcrypto.so.3", "libc.so.6", "libstdc++.so.6", "libm.so.6"} {
		found, err := filepath.Glob("/lib/*-linux-gnu/" + pattern)
		if err != nil || len(found) == 0 {
			continue
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, b...)
		old = append(old, make([]byte, -len(old)&4095)...)
	}
	if len(old) < 1<<20 {
		t.Fatal("this machine has no libraries")
	}
	r := rand.New(rand.NewPCG(1, 2))
	data = bytes.Clone(old)
	for range 300 {
		at := r.IntN(len(data) - 64)
		for i := range r.IntN(48) {
			data[at+i] += byte(r.IntN(40))
		}
	}
	return old, data
}

// within runs a command in a memory cgroup of so many bytes.
func within(t *testing.T, limit int, name string, args ...string) ([]byte, error) {
	t.Helper()
	dir := "/sys/fs/cgroup/memory"
	file, value := "memory.limit_in_bytes", fmt.Sprint(limit)
	if _, err := os.Stat(dir); err != nil {
		dir, file = "/sys/fs/cgroup", "memory.max"
		_ = os.WriteFile(dir+"/cgroup.subtree_control", []byte("+memory"), 0)
	}
	dir, err := os.MkdirTemp(dir, "sealant-test-")
	if err != nil {
		t.Fatalf("this test makes a cgroup and needs root: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{"-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, dir, name}, args...)...)
	return cmd.CombinedOutput()
}

// TestApplyKeepsToItsMemory applies a patch of libraries where the kernel gives
// a process no more than 64 MiB, and holds its peak to what the patch declares.
func TestApplyKeepsToItsMemory(t *testing.T) {
	old, data := libraries(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, b := range map[string][]byte{"old": old, "new": data} {
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("sealpub", "-q", "patch", "make", at("old"), at("new"), "-o", at("patch")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("sealpub", "--json", "patch", "inspect", at("patch")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Memory int64 }
	if err := json.Unmarshal(out, &header); err != nil {
		t.Fatal(err)
	}
	if header.Memory > libraryMemory {
		t.Errorf("the patch of libraries declares %d bytes of memory", header.Memory)
	}
	if out, err := within(t, libraryMemory, "sealpub", "patch", "apply", at("old"), at("patch"), "-o", at("result")); err != nil {
		t.Fatalf("in a cgroup of %d bytes: %v: %s", libraryMemory, err, out)
	}
	if got, err := os.ReadFile(at("result")); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the result differs: %v", err)
	}
	peak := peakOf(t, "sealpub", "patch", "apply", "--force", at("old"), at("patch"), at("result"))
	if peak > header.Memory {
		t.Errorf("applying took %d bytes at its peak, the patch declares %d", peak, header.Memory)
	}
	// A smaller allowance is refused before anything is written.
	out, err = exec.Command("sealpub", "patch", "apply", "--memory", "20", at("old"), at("patch"), "-o", at("none")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "MiB of memory") {
		t.Errorf("--memory 20: %v: %s", err, out)
	}
	if _, err := os.Stat(at("none")); err == nil {
		t.Error("a refused patch left a file")
	}
}

// peakOf is the most memory that a command took, in bytes. GNU time starts it,
// from a process that has taken little itself: what a process took before it
// starts a program counts as the program's.
func peakOf(t *testing.T, command ...string) int64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), "peak")
	if out, err := exec.Command("/usr/bin/time", append([]string{"-q", "-o", file, "-f", "%M"}, command...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	peak, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return peak << 10
}

// TestMakeKeepsToItsMemory makes patches within amounts of memory that are enough
// for all it can do, and for long matches only.
func TestMakeKeepsToItsMemory(t *testing.T) {
	old, data := libraries(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, b := range map[string][]byte{"old": old, "new": data} {
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	thoroughly, roughly := patch.Need(int64(len(old)), int64(len(data)))
	for _, memory := range []int64{thoroughly + 1<<20, roughly + 1<<20} {
		peak := peakOf(t, "sealpub", "-q", "patch", "make", "--memory", fmt.Sprint(memory), at("old"), at("new"), "-o", at("patch"))
		if peak > memory {
			t.Errorf("making took %d MiB, %d were allowed", peak>>20, memory>>20)
		}
		if out, err := exec.Command("sealpub", "patch", "apply", "--force", at("old"), at("patch"), at("result")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := os.ReadFile(at("result")); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("the result differs: %v", err)
		}
	}
}
