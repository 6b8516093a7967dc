//go:build slow

package elfref_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSecondMore is TestSecond with more files.
func TestSecondMore(t *testing.T) { second(t, 40_000) }

// TestSecondImages compares what is found in images of real libraries, some of them
// for AArch64.
func TestSecondImages(t *testing.T) {
	cmd := exec.Command("../../../test/corpus/fetch", "libs")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot fetch the corpus: %v", err)
	}
	machines := map[bool]bool{}
	for line := range strings.Lines(string(out)) {
		for _, path := range strings.Fields(line)[1:] {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, path, data)
			for _, f := range find(data) {
				machines[f.arm] = true
			}
		}
	}
	if len(machines) != 2 {
		t.Errorf("the images have programs for %d machines", len(machines))
	}
}

// TestSecondMovable compares Go programs that can be loaded anywhere, more
// thoroughly.
func TestSecondMovable(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		data := goProgram(t, arch, "pie")
		compare(t, arch, data)
		damaged(t, arch, data, 100)
	}
}

// TestSecondCrowd is about how many elements are looked at.
func TestSecondCrowd(t *testing.T) {
	head := make([]byte, 512)
	copy(head, "\x7fELF\x02\x01")
	le.PutUint16(head[0x12:], 62)
	le.PutUint64(head[0x20:], 64)
	le.PutUint64(head[0x28:], 128)
	for at, v := range map[int]uint16{0x36: 56, 0x38: 1, 0x3a: 64, 0x3c: 1} {
		le.PutUint16(head[at:], v)
	}
	data := []byte(strings.Repeat(string(head), 65536+10))
	if n := len(find(data)); n != 65536 {
		t.Errorf("%d elements", n)
	}
	compare(t, "a crowd", data)
}
