package linux

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways to read a process's maps find the same files.
func TestMapsByQuery(t *testing.T) {
	p, err := OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	any := func(Device) bool { return true }
	var byQuery, byText MapReader
	byText.text = true
	list, err := byQuery.Mapped(p, any)
	if err != nil {
		t.Fatal(err)
	}
	if byQuery.text {
		if AtLeast("6.11") {
			t.Fatal("this kernel should answer PROCMAP_QUERY")
		}
		t.Skip("this kernel is older than PROCMAP_QUERY (6.11)")
	}
	want, err := byText.Mapped(p, any)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) == 0 || !slices.Equal(list, want) {
		t.Errorf("by query\n%+v\nby text\n%+v", list, want)
	}
	for _, m := range list {
		if m.Path == "" || m.Inode == 0 {
			t.Errorf("%+v", m)
		}
		fd, err := unix.Openat(p.dir, "map_files/"+m.window, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Errorf("%s: %v", m.window, err)
			continue
		}
		unix.Close(fd)
	}
}
